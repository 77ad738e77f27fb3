//! Server-sent events: the status of a queue, or of all, whenever it has changed.

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

/// How often a change is looked for.
const STEP: Duration = Duration::from_millis(250);

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
    shown: Vec<u8>,
    shown_at: Instant,
}

pub(super) async fn events(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<EventParams>,
) -> Result<Response, Failure> {
    caller.check(Need::LookAround, params.queue.as_ref())?;
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        app,
        queue: params.queue,
        caller,
        steps,
        shown: Vec::new(),
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
            let data = serde_json::to_vec(&queues).expect("a status can be written");
            let event = if data != self.shown {
                self.shown.clone_from(&data);
                [b"event: queues\ndata: ", data.as_slice(), b"\n\n"].concat()
            } else if self.shown_at.elapsed() >= KEEP_ALIVE {
                b": nothing new\n\n".to_vec()
            } else {
                continue;
            };
            self.shown_at = Instant::now();
            return Some(event.into());
        }
    }

    async fn look(&self) -> Result<Vec<QueueStatus>, Failure> {
        let Some(queue) = &self.queue else {
            return self.app.all(self.caller.scope()).await;
        };
        // A queue that does not exist yet is waited for.
        match self.app.service.status(queue).await {
            Ok(mut status) => {
                self.app.rates.complete(&mut status);
                Ok(vec![status])
            }
            Err(crate::store::StoreError::Refused(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}
