//! The time from a push to the hands of a worker that waits.

use std::time::Duration;

use gangline_worker::protocol::QueueName;
use tokio::time::Instant;

use super::http::{Address, Worker, call, push};
use super::wire::{Wire, lost};
use crate::error::Error;

/// How long a lease call is held at most.
const HOLD_MS: u64 = 10_000;

/// Time for a lease call to arrive and to be held, before the push.
const SETTLE_IN: Duration = Duration::from_millis(5);

/// Pushes an item at a time to a worker whose lease call is held; returns how long each took from
/// before the push to the answer of the lease.
pub(super) async fn measure(
    address: &Address,
    queue: &QueueName,
    pushes: u64,
    payload_bytes: usize,
) -> Result<Vec<Duration>, Error> {
    let push = push(address, queue, 1, payload_bytes);
    let mut producer = Wire::open(address.host()).await?;
    let mut worker = Worker::start(address, queue, 0).await?;
    // Makes the queue, and the session.
    call(&mut producer, &push).await?;
    let items = worker.lease(1, HOLD_MS).await?;
    worker.settle(&items).await?;
    let mut times = Vec::new();
    for _ in 0..pushes {
        let held = tokio::spawn(async move {
            let items = worker.lease(1, HOLD_MS).await?;
            let leased = Instant::now();
            worker.settle(&items).await?;
            Ok::<_, Error>((worker, leased))
        });
        tokio::time::sleep(SETTLE_IN).await;
        let started = Instant::now();
        call(&mut producer, &push).await?;
        let (back, leased) = held.await.map_err(lost)??;
        worker = back;
        times.push(leased.saturating_duration_since(started));
    }
    Ok(times)
}
