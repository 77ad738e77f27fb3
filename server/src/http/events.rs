//! Server-sent events: the status of a queue, or of all, whenever it has changed.
//!
//! A client that comes again shows what it was told last (`Last-Event-ID`), and gets what has
//! changed since, as far as this process can tell.

mod journal;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use gangline_protocol::{QueueName, QueueStatus};
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::App;
use super::access::Caller;
use super::params::Params;
use super::problem::Failure;
use super::routes::Need;
use journal::{About, EventId, News};

pub(super) use journal::Journal;

/// The header with the id of the last event that a client has got.
const LAST_EVENT_ID: &str = "last-event-id";

/// Says that what the client was told before is not to be built on: all queues come anew.
const RESET: &[u8] = b"event: reset\ndata: {}\n\n";

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
    about: About,
    steps: Interval,
    /// What the client was told last, here or before it came again.
    told: Option<EventId>,
    /// The client has come again, and has heard nothing yet.
    is_back: bool,
    shown_at: Instant,
}

pub(super) async fn events(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
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
    // Whatever it says, it is no reason to refuse: clients would show it again for ever.
    let shown = headers.get(LAST_EVENT_ID);
    let told = shown.and_then(|id| EventId::parse(id.to_str().ok()?));
    let watcher = Watcher {
        app,
        about: About {
            scope: caller.scope().clone(),
            queue: params.queue,
        },
        steps,
        told,
        is_back: shown.is_some(),
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
            // Who comes again and has missed nothing hears so, too.
            let is_due = self.shown_at.elapsed() >= KEEP_ALIVE || self.is_back;
            let event = match event {
                Some(event) => event,
                None if is_due => b": nothing new\n\n".to_vec(),
                None => continue,
            };
            self.is_back = false;
            self.shown_at = Instant::now();
            return Some(event.into());
        }
    }

    /// Returns what is new: all of it when the client knows nothing, and later only what has
    /// changed.
    fn event(&mut self, now: &BTreeMap<QueueName, Vec<u8>>) -> Option<Vec<u8>> {
        let (id, news) = self.app.journal.note(&self.about, now, self.told);
        self.told = Some(id);
        let id = format!("\nid: {id}\n\n").into_bytes();
        let Some(News { changed, gone }) = news else {
            let reset: &[u8] = if self.is_back { RESET } else { b"" };
            let all = list(now.values());
            return Some([reset, b"event: queues\ndata: ", &all, &id].concat());
        };
        if changed.is_empty() && gone.is_empty() {
            return None;
        }
        let changed = list(changed.iter().filter_map(|queue| now.get(queue)));
        let gone = serde_json::to_vec(&gone).expect("names can be written");
        let head: &[u8] = b"event: changed\ndata: {\"changed\":";
        Some([head, &changed, b",\"gone\":", &gone, b"}", &id].concat())
    }

    async fn look(&self) -> Result<Vec<QueueStatus>, Failure> {
        let Some(queue) = &self.about.queue else {
            return self.app.all(&self.about.scope).await;
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
