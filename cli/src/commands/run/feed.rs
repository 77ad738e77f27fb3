//! Pushes the items while workers work already.

use std::time::Duration;

use gangline_worker::Client;
use gangline_worker::protocol::limits::PUSH_ITEMS_MAX;
use gangline_worker::protocol::{ErrorCode, NewItem, QueueName};

use crate::commands::input::InputArgs;
use crate::error::Error;

/// Most bytes of payloads in a push of several items.
const PUSH_BYTES: usize = 4 << 20;

/// How often, and how far apart, a push is sent again that got no answer.
const TRIES: usize = 10;
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Returns when all items are pushed.
pub(super) async fn feed(client: Client, queue: QueueName, input: InputArgs) -> Result<(), Error> {
    let (items, mut read) = tokio::sync::mpsc::channel(PUSH_ITEMS_MAX);
    let reading = tokio::task::spawn_blocking(move || -> Result<(), Error> {
        for item in input.open()? {
            // Nobody to send to means that the push has failed, which says why.
            if items.blocking_send(item?).is_err() {
                break;
            }
        }
        Ok(())
    });
    // A push takes what has been read meanwhile: a slow input is pushed line by line, a fast one
    // in large batches.
    let mut batch = Vec::new();
    while read.recv_many(&mut batch, PUSH_ITEMS_MAX).await > 0 {
        while !batch.is_empty() {
            let rest = batch.split_off(fitting(&batch));
            if !push(&client, &queue, batch).await? {
                return Ok(());
            }
            batch = rest;
        }
    }
    reading.await.map_err(Error::disk)?
}

/// Pushes items; tells whether the queue goes on, which the first success of a search ends while
/// items still come.
async fn push(client: &Client, queue: &QueueName, items: Vec<NewItem>) -> Result<bool, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match client.push(queue, &items, None, false).await {
            Ok(_) => return Ok(true),
            Err(error) if error.code() == Some(ErrorCode::QueueOver) => return Ok(false),
            // Every item has a key, so that the same push again adds nothing.
            Err(error) if error.is_retryable() && tries < TRIES => {
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns how many items, at least one, fit into a push.
fn fitting(items: &[NewItem]) -> usize {
    let mut bytes = 0;
    let fit = items.iter().take_while(|item| {
        bytes += item.payload.get().len();
        bytes <= PUSH_BYTES
    });
    fit.count().max(1)
}
