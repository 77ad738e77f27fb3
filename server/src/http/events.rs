//! Server-sent events: the status of a queue, or of all, whenever it has changed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use gangline_protocol::{QueueName, QueueStatus};
use http::{HeaderValue, header};
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::App;
use super::access::Caller;
use super::params::Params;
use super::problem::Failure;
use super::routes::Need;

/// How often a change of one queue is looked for: whatever happens meanwhile is one event.
const STEP: Duration = Duration::from_millis(250);

/// How often changes of all queues are looked for.
const STEP_ALL: Duration = Duration::from_millis(500);

/// After how long without a change something is sent all the same, so that proxies keep the
/// connection and both sides notice when it is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EventParams {
    /// Only this queue; all of them when absent.
    queue: Option<QueueName>,
}

struct Watcher {
    app: App,
    queue: Option<QueueName>,
    caller: Caller,
    steps: Interval,
    /// What was sent of each queue last; nothing before the first event.
    shown: Option<BTreeMap<QueueName, Vec<u8>>>,
    shown_at: Instant,
}

pub(super) async fn events(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<EventParams>,
) -> Result<Response, Failure> {
    caller.check(Need::LookAround, params.queue.as_ref())?;
    let step = if params.queue.is_some() {
        STEP
    } else {
        STEP_ALL
    };
    let mut steps = interval(step);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        app,
        queue: params.queue,
        caller,
        steps,
        shown: None,
        shown_at: Instant::now(),
    };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}

impl Watcher {
    /// Returns the next event, or nothing when the service is going away.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.steps.tick().await;
            let queues = self.look().await.ok()?;
            let now: BTreeMap<QueueName, Vec<u8>> = queues
                .into_iter()
                .map(|status| {
                    let json = serde_json::to_vec(&status).expect("a status can be written");
                    (status.queue, json)
                })
                .collect();
            let event = self.event(&now);
            self.shown = Some(now);
            let event = match event {
                Some(event) => event,
                None if self.shown_at.elapsed() >= KEEP_ALIVE => b": nothing new\n\n".to_vec(),
                None => continue,
            };
            self.shown_at = Instant::now();
            return Some(event.into());
        }
    }

    /// Returns what is new: all of it at first, and later only what has changed.
    fn event(&self, now: &BTreeMap<QueueName, Vec<u8>>) -> Option<Vec<u8>> {
        let Some(shown) = &self.shown else {
            let all = list(now.values());
            return Some([b"event: queues\ndata: ", all.as_slice(), b"\n\n"].concat());
        };
        let changed = now
            .iter()
            .filter(|(queue, json)| shown.get(*queue) != Some(*json));
        let changed = list(changed.map(|(_, json)| json));
        let gone: Vec<&QueueName> = shown
            .keys()
            .filter(|name| !now.contains_key(*name))
            .collect();
        if changed == b"[]" && gone.is_empty() {
            return None;
        }
        let gone = serde_json::to_vec(&gone).expect("names can be written");
        let head: &[u8] = b"event: changed\ndata: {\"changed\":";
        Some([head, &changed, b",\"gone\":", &gone, b"}\n\n"].concat())
    }

    async fn look(&self) -> Result<Vec<QueueStatus>, Failure> {
        let Some(queue) = &self.queue else {
            return self.app.all(self.caller.scope()).await;
        };
        // A queue that does not exist yet is waited for.
        match self.app.service.status(queue).await {
            Ok(mut status) => {
                self.app.complete(&mut status);
                Ok(vec![status])
            }
            Err(crate::store::StoreError::Refused(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes a list of what is JSON already.
fn list<'a>(values: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut text = b"[".to_vec();
    for (nth, value) in values.enumerate() {
        if nth > 0 {
            text.push(b',');
        }
        text.extend_from_slice(value);
    }
    text.push(b']');
    text
}
