//! One run of a handler, and the settle that follows from it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use gangline_protocol::limits::{PAYLOAD_BYTES_MAX, SPAWN_ITEMS_MAX};
use gangline_protocol::{
    ItemId, Json, LeaseNumber, LeasedItem, NewItem, Settle, SettleOutcome, StopOutcome,
};
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Handler, Outcome};
use crate::item::{Context, HandlerError, Item, Said};

/// How long handlers may take to notice that their results are wanted no more.
pub(super) const CANCEL_TIME: Duration = Duration::from_secs(5);

/// A handler that has ended.
pub(super) struct Finished {
    pub(super) id: ItemId,
    attempt: u16,
    context: Context,
    /// How long it ran.
    pub(super) took: Duration,
    outcome: Result<Outcome, JoinError>,
}

/// Runs a handler on a task of its own, under its item's time limit.
pub(super) async fn run(handler: Handler, item: LeasedItem, context: Context) -> Finished {
    let (id, attempt) = (item.id, item.attempt);
    let limit = item.time_limit_ms.map(Duration::from_millis);
    let began = Instant::now();
    let for_handler = context.clone();
    let task = tokio::spawn(async move {
        let cancelled = for_handler.cancelled.clone();
        let work = guarded(handler, Item::of(item, for_handler));
        match limit {
            None => work.await,
            Some(limit) => with_limit(work, limit, &cancelled).await,
        }
    });
    let outcome = task.await;
    Finished {
        id,
        attempt,
        context,
        took: began.elapsed(),
        outcome,
    }
}

/// Returns the settle that gives an item back unworked.
pub(super) fn release(id: ItemId, lease: LeaseNumber) -> Settle {
    Settle {
        id,
        lease,
        outcome: SettleOutcome::Release,
        result: None,
        error: None,
        delay_ms: None,
        spawn: Vec::new(),
        stop: None,
    }
}

impl Finished {
    /// Returns the settle for what the handler made of its item. `attempts` is the worker's own
    /// bound on them; a worker that is `leaving` has cut its handlers short itself.
    pub(super) fn settle(self, lease: LeaseNumber, attempts: Option<u16>, leaving: bool) -> Settle {
        let Self {
            id,
            attempt,
            context,
            took: _,
            outcome,
        } = self;
        let mut settle = release(id, lease);
        let outcome =
            outcome.unwrap_or_else(|error| Err(format!("the handler was ended: {error}").into()));
        let said = context.take();
        match outcome.and_then(|result| bounded(result, &said)) {
            Ok(result) => {
                settle.outcome = SettleOutcome::Done;
                settle.result = Some(result);
                settle.spawn = said.spawn;
                settle.stop = said.stop;
            }
            // Cut short by us; that is no failure of the item.
            Err(_) if leaving && context.cancelled.is_cancelled() => {}
            Err(error) if error.released => {}
            Err(error) => {
                if error.permanent || attempts.is_some_and(|most| attempt >= most) {
                    settle.outcome = SettleOutcome::Dead;
                } else {
                    settle.outcome = SettleOutcome::Retry;
                    let delay = error.delay;
                    settle.delay_ms =
                        delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
                }
                settle.stop = error.stops.then_some(StopOutcome::Failure);
                settle.error = Some(error.text.into());
            }
        }
        settle
    }
}

/// A result that the service would refuse fails its own item, not the call that carries it.
fn bounded(result: Json, said: &Said) -> Outcome {
    let bytes = result.get().len();
    if bytes > PAYLOAD_BYTES_MAX {
        let text = format!("the result must be at most {PAYLOAD_BYTES_MAX} bytes, got {bytes}");
        return Err(HandlerError::permanent(text));
    }
    if said.spawn.len() > SPAWN_ITEMS_MAX {
        let count = said.spawn.len();
        let text = format!("at most {SPAWN_ITEMS_MAX} items may be spawned, got {count}");
        return Err(HandlerError::permanent(text));
    }
    match said.spawn.iter().find_map(NewItem::out_of_bounds) {
        Some(bound) => Err(HandlerError::permanent(format!("a spawned item: {bound}"))),
        None => Ok(result),
    }
}

/// Ends a handler at its item's time limit: first by its token, then for good.
async fn with_limit(
    work: impl Future<Output = Outcome>,
    limit: Duration,
    cancelled: &CancellationToken,
) -> Outcome {
    tokio::pin!(work);
    if let Ok(outcome) = tokio::time::timeout(limit, &mut work).await {
        return outcome;
    }
    cancelled.cancel();
    let text = format!("the time limit of {} ms is over", limit.as_millis());
    match tokio::time::timeout(CANCEL_TIME, &mut work).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) | Err(_) => Err(text.into()),
    }
}

/// Runs a handler; a panic is a failure like any other, and the worker lives on.
async fn guarded(handler: Handler, item: Item<Json>) -> Outcome {
    let caught = AssertUnwindSafe(async move { handler(item).await }).catch_unwind();
    let outcome = caught.await;
    outcome.unwrap_or_else(|panic| Err(panic_text(&*panic).into()))
}

/// Says that a handler has panicked, and with what.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "the handler panicked: {}",
        text.unwrap_or("without a message")
    )
}
