//! How what a worker or a producer says reaches its queue.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use gangline_protocol::{ExchangeReply, ExchangeRequest, NewItem, PushReply, QueueName};

use crate::client::Client;
use crate::error::ClientError;

/// The answer to a call, as soon as there is one.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ClientError>>;

/// What carries the calls of [`Worker`](crate::Worker) and [`Producer`](crate::Producer): HTTP
/// ([`Client`]), memory ([`testing::MemoryQueue`](crate::testing::MemoryQueue)), or anything else
/// that keeps to the rules of the queue API. One call is one try; those who call try again.
pub trait Transport: std::fmt::Debug + Send + Sync + 'static {
    /// Says what a worker says: settles, heartbeat and lease in one call. It may be held for as
    /// long as [`hold_of`] returns.
    fn exchange<'a>(
        &'a self,
        queue: &'a QueueName,
        request: &'a ExchangeRequest,
    ) -> Answer<'a, ExchangeReply>;

    /// Pushes items. The same items under the same `idempotency_key` are taken once.
    fn push<'a>(
        &'a self,
        queue: &'a QueueName,
        items: &'a [NewItem],
        idempotency_key: Option<&'a str>,
    ) -> Answer<'a, PushReply>;

    /// Says that no more items come from outside.
    fn seal<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, ()>;

    /// Returns the same transport for use on another runtime: heartbeats have one of their own.
    ///
    /// # Errors
    ///
    /// When it cannot be had twice.
    fn separate(&self) -> Result<Arc<dyn Transport>, ClientError>;

    /// Names what is at the other end, as in `the queue service at http://127.0.0.1:4264`.
    fn peer(&self) -> String;
}

/// Returns how long the answer to an exchange may be held.
#[must_use]
pub fn hold_of(request: &ExchangeRequest) -> Duration {
    let lease_ms = request.lease.map_or(0, |lease| lease.wait_ms);
    let beat_ms = request.heartbeat.map_or(0, |beat| beat.hold_ms);
    Duration::from_millis(lease_ms.max(beat_ms))
}

impl Transport for Client {
    fn exchange<'a>(
        &'a self,
        queue: &'a QueueName,
        request: &'a ExchangeRequest,
    ) -> Answer<'a, ExchangeReply> {
        Box::pin(self.exchange(queue, request))
    }

    fn push<'a>(
        &'a self,
        queue: &'a QueueName,
        items: &'a [NewItem],
        idempotency_key: Option<&'a str>,
    ) -> Answer<'a, PushReply> {
        Box::pin(self.push(queue, items, idempotency_key, false))
    }

    fn seal<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, ()> {
        Box::pin(async { self.seal(queue).await.map(|_| ()) })
    }

    fn separate(&self) -> Result<Arc<dyn Transport>, ClientError> {
        Ok(Arc::new(Self::separate(self)?))
    }

    fn peer(&self) -> String {
        format!("the queue service at {}", self.url())
    }
}
