//! Pushes the items while workers work already; the end of the input seals.

use gangline_worker::protocol::limits::PUSH_ITEMS_MAX;
use gangline_worker::protocol::{ErrorCode, QueueName};
use gangline_worker::{Client, ClientError};

use crate::commands::input::InputArgs;
use crate::error::Error;

/// Bytes after which a push takes no more items.
const PUSH_BYTES: usize = 4 << 20;

pub(super) async fn feed(client: Client, queue: QueueName, input: InputArgs) -> Result<(), Error> {
    let (batches, mut read) = tokio::sync::mpsc::channel(4);
    let reading = tokio::task::spawn_blocking(move || -> Result<(), Error> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for item in input.open()? {
            let item = item?;
            bytes += item.payload.get().len();
            batch.push(item);
            if batch.len() >= PUSH_ITEMS_MAX || bytes >= PUSH_BYTES {
                bytes = 0;
                if batches.blocking_send(std::mem::take(&mut batch)).is_err() {
                    return Ok(());
                }
            }
        }
        // Nobody to send to means that the push has failed, which says why.
        let _ = batches.blocking_send(batch);
        Ok(())
    });
    while let Some(batch) = read.recv().await {
        // Every item has a key, so that the same push again adds nothing.
        match client.push(&queue, batch, None, false).await {
            Ok(_) => {}
            // The first success of a search ends the queue while items still come.
            Err(error) if error.code() == Some(ErrorCode::QueueOver) => return Ok(()),
            Err(error) => return Err(error.into()),
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
