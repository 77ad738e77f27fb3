//! The queue service, as the driver needs it.

mod http;
mod token;

pub use http::HttpQueueService;

use std::time::Duration;

use gangline_protocol::{
    JobReport, Json, QueueName, QueueStatus, StopOutcome, WorkerName, WorkerView,
};

use crate::api::Job;

/// How long the token of a Job's workers holds, unless it is registered again: longer than any
/// controller is away, so that it outlives a Job by so much only if nobody was there to revoke it.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a queue is filled with.
#[derive(Debug, Clone)]
pub enum Fill {
    /// The whole numbers from the first to the last, as payloads.
    Range {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// These payloads.
    Payloads(Vec<Json>),
}

/// Why the queue service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Nobody knows whether it was done.
    #[error("the queue service does not answer: {0}")]
    Unavailable(String),
    /// It was refused.
    #[error("the queue service refuses: {0}")]
    Refused(String),
}

type Answer<T> = Result<T, ServiceError>;

/// The queue service. Every call may be repeated.
pub trait QueueService: Send + Sync + 'static {
    /// Returns the queue's status, nothing when there is no such queue.
    fn status(&self, queue: &QueueName)
    -> impl Future<Output = Answer<Option<QueueStatus>>> + Send;

    /// Returns the queue's open sessions.
    fn workers(&self, queue: &QueueName) -> impl Future<Output = Answer<Vec<WorkerView>>> + Send;

    /// Makes the queue unless it is there.
    fn create(&self, queue: &QueueName) -> impl Future<Output = Answer<()>> + Send;

    /// Pushes `items` and seals the queue; `once` is the same for each repeat.
    fn fill(
        &self,
        queue: &QueueName,
        items: Fill,
        once: &str,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// Has no more leases given.
    fn pause(&self, queue: &QueueName) -> impl Future<Output = Answer<()>> + Send;

    /// Ends the queue.
    fn stop(
        &self,
        queue: &QueueName,
        outcome: StopOutcome,
        reason: &str,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// Ends the session of a worker that is dead.
    fn revoke(
        &self,
        queue: &QueueName,
        worker: &WorkerName,
        counted: bool,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// Tells whether a worker ever had a session, if the service still knows.
    fn had_session(
        &self,
        queue: &QueueName,
        worker: &WorkerName,
    ) -> impl Future<Output = Answer<Option<bool>>> + Send;

    /// Makes the token of a Job's workers known for a while from now on, and returns it;
    /// nothing when they need none.
    fn register_token(
        &self,
        _queue: &QueueName,
        _job: &Job,
    ) -> impl Future<Output = Answer<Option<String>>> + Send {
        async { Ok(None) }
    }

    /// Says how the Job of a queue is, for whoever looks at the queue.
    fn report(
        &self,
        _queue: &QueueName,
        _report: &JobReport,
    ) -> impl Future<Output = Answer<()>> + Send {
        async { Ok(()) }
    }

    /// Has the token of a Job's workers refused from now on.
    fn revoke_token(
        &self,
        _queue: &QueueName,
        _job_uid: &str,
    ) -> impl Future<Output = Answer<()>> + Send {
        async { Ok(()) }
    }
}

/// Stands where there is no queue service: Jobs with queues wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoService;

impl NoService {
    fn absent<T>() -> Answer<T> {
        Err(ServiceError::Unavailable("none is configured".into()))
    }
}

impl QueueService for NoService {
    async fn status(&self, _: &QueueName) -> Answer<Option<QueueStatus>> {
        Self::absent()
    }

    async fn workers(&self, _: &QueueName) -> Answer<Vec<WorkerView>> {
        Self::absent()
    }

    async fn create(&self, _: &QueueName) -> Answer<()> {
        Self::absent()
    }

    async fn fill(&self, _: &QueueName, _: Fill, _: &str) -> Answer<()> {
        Self::absent()
    }

    async fn pause(&self, _: &QueueName) -> Answer<()> {
        Self::absent()
    }

    async fn stop(&self, _: &QueueName, _: StopOutcome, _: &str) -> Answer<()> {
        Self::absent()
    }

    async fn revoke(&self, _: &QueueName, _: &WorkerName, _: bool) -> Answer<()> {
        Self::absent()
    }

    async fn had_session(&self, _: &QueueName, _: &WorkerName) -> Answer<Option<bool>> {
        Self::absent()
    }
}
