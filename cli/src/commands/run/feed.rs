//! Pushes the items while workers work already.

use std::time::Duration;

use gangline_worker::protocol::limits::PUSH_ITEMS_MAX;
use gangline_worker::protocol::{ErrorCode, QueueName};
use gangline_worker::{Client, Producer, ProducerSettings, producer::ProducerError};

use crate::commands::input::InputArgs;
use crate::error::{Error, Kind};

/// Returns when all items are pushed. Every item has a key, so that a push that got no answer, or
/// a run that is resumed, adds nothing twice.
pub(super) async fn feed(client: Client, queue: QueueName, input: InputArgs) -> Result<(), Error> {
    // A push takes what has been read meanwhile: a slow input is pushed line by line, a fast one
    // in large batches.
    let settings = ProducerSettings {
        linger: Duration::ZERO,
        ..ProducerSettings::default()
    };
    let producer = Producer::start(client, queue, settings).map_err(Error::usage)?;
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
    while let Some(item) = read.recv().await {
        if !goes_on(producer.push(item).await)? {
            return Ok(());
        }
    }
    if goes_on(producer.close().await)? {
        reading.await.map_err(Error::disk)??;
    }
    Ok(())
}

/// Tells whether the queue takes more: the first success of a search ends it while items still
/// come.
fn goes_on<T>(pushed: Result<T, ProducerError>) -> Result<bool, Error> {
    match pushed {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(ErrorCode::QueueOver) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl From<ProducerError> for Error {
    fn from(error: ProducerError) -> Self {
        match error.client_error() {
            Some(call) => Self::from_call(call, &error),
            None => Self::new(Kind::Failed, error),
        }
    }
}
