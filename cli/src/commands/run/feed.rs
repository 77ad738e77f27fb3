//! Pushes the items while workers work already; the end of the input seals.

use gangline_worker::protocol::limits::PUSH_ITEMS_MAX;
use gangline_worker::protocol::{ErrorCode, NewItem, QueueName};
use gangline_worker::{Client, ClientError};

use crate::commands::input::InputArgs;
use crate::error::Error;

/// Most bytes of payloads in a push of several items.
const PUSH_BYTES: usize = 4 << 20;

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
            // Every item has a key, so that the same push again adds nothing.
            match client.push(&queue, batch, None, false).await {
                Ok(_) => {}
                // The first success of a search ends the queue while items still come.
                Err(error) if error.code() == Some(ErrorCode::QueueOver) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            batch = rest;
        }
    }
    reading.await.map_err(Error::disk)??;
    match client.seal(&queue).await {
        Err(error @ ClientError::Refused(_)) if error.code() != Some(ErrorCode::QueueOver) => {
            Err(error.into())
        }
        Err(ClientError::Refused(_)) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
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
