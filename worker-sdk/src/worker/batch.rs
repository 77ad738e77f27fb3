//! Items that are handed out many at once: a handler of one item waits for its place in a batch.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use gangline_protocol::Json;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::handling::panic_text;
use super::{CONCURRENCY_MAX, Config, Handler, Outcome, as_json};
use crate::item::{HandlerError, Item};

/// The longest that a batch may wait to be full: an hour.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

/// An item, and where its outcome is waited for.
struct Waiting {
    item: Item<Json>,
    answer: oneshot::Sender<Outcome>,
}

/// Runs a batch and answers each of its items.
type RunBatch = Arc<dyn Fn(Vec<Waiting>) -> BoxFuture<'static, ()> + Send + Sync>;

/// How large batches are, how long they wait, and how many there are at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batches {
    items_max: usize,
    max_wait: Duration,
    at_once: usize,
}

impl Batches {
    /// Checks them, and has the worker hold as many items as run at a time.
    pub(super) fn of(config: &mut Config, max: usize, max_wait: Duration) -> Result<Self, String> {
        let at_once = config.concurrency;
        let most = CONCURRENCY_MAX / at_once;
        if !(1..=most).contains(&max) {
            return Err(format!(
                "a batch must have 1 to {most} items ({CONCURRENCY_MAX} over all batches at a \
                 time), got {max}"
            ));
        }
        if max_wait > MAX_WAIT {
            return Err(format!(
                "a batch may wait at most {MAX_WAIT:?}, got {max_wait:?}"
            ));
        }
        config.concurrency = max * at_once;
        Ok(Self {
            items_max: max,
            max_wait,
            at_once,
        })
    }
}

/// Returns the handler of single items that has batches handled by `handler`.
pub(super) fn handler_of<T, R, E, F, H>(batches: Batches, handler: H) -> Handler
where
    T: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    E: Into<HandlerError> + 'static,
    F: Future<Output = Vec<Result<R, E>>> + Send + 'static,
    H: Fn(Vec<Item<T>>) -> F + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let run: RunBatch = Arc::new(move |waiting| run(handler.clone(), waiting).boxed());
    let (send, waiting) = mpsc::unbounded_channel();
    // It ends when the worker drops the handler, and with it the sender.
    tokio::spawn(collect(waiting, batches, run));
    Arc::new(move |item| {
        let (answer, outcome) = oneshot::channel();
        let sent = send.send(Waiting { item, answer });
        Box::pin(async move {
            sent.map_err(|_| "the batches have ended")?;
            outcome.await.map_err(|_| "the batch was ended")?
        })
    })
}

/// Fills one batch after the other. A batch whose time has come but that finds no hand free goes
/// on being filled.
async fn collect(mut waiting: mpsc::UnboundedReceiver<Waiting>, batches: Batches, run: RunBatch) {
    let hands = Arc::new(Semaphore::new(batches.at_once));
    while let Some(first) = waiting.recv().await {
        let mut batch = vec![first];
        let until = Instant::now() + batches.max_wait;
        while batch.len() < batches.items_max
            && let Ok(Some(next)) = timeout_at(until, waiting.recv()).await
        {
            batch.push(next);
        }
        let hand = loop {
            tokio::select! {
                hand = hands.clone().acquire_owned() => break hand,
                Some(next) = waiting.recv(), if batch.len() < batches.items_max => batch.push(next),
            }
        };
        let running = run(batch);
        tokio::spawn(async move {
            running.await;
            drop(hand);
        });
    }
}

async fn run<T, R, E, F, H>(handler: Arc<H>, waiting: Vec<Waiting>)
where
    T: DeserializeOwned,
    R: Serialize,
    E: Into<HandlerError>,
    F: Future<Output = Vec<Result<R, E>>> + Send,
    H: Fn(Vec<Item<T>>) -> F + Send + Sync,
{
    let (mut items, mut answers) = (Vec::new(), Vec::new());
    for Waiting { item, answer } in waiting {
        let parsed = if item.is_cancelled() {
            Err("cancelled before its batch began".into())
        } else {
            item.parse()
        };
        match parsed {
            Ok(item) => {
                items.push(item);
                answers.push(answer);
            }
            // Nobody to tell means that nobody waits any more; so below.
            Err(error) => drop(answer.send(Err(error))),
        }
    }
    if items.is_empty() {
        return;
    }
    let work = AssertUnwindSafe(async { handler(items).await }).catch_unwind();
    let error = match work.await {
        Ok(results) if results.len() == answers.len() => {
            for (answer, result) in answers.into_iter().zip(results) {
                drop(answer.send(as_json(result)));
            }
            return;
        }
        Ok(results) => format!(
            "the batch handler must return one result an item: {} items, {} results",
            answers.len(),
            results.len()
        ),
        Err(panic) => panic_text(&*panic),
    };
    for answer in answers {
        drop(answer.send(Err(error.clone().into())));
    }
}
