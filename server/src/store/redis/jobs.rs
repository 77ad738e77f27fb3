//! What controllers say of their Jobs, in a Redis, for all replicas.

use bytes::Bytes;
use gangline_protocol::QueueName;
use redis::Cmd;

use super::{Redis, keys};
use crate::jobs::{Answer, JobStore};
use crate::store::StoreError;

/// How long a report is kept that nobody repeats, in milliseconds: as long as a queue that is
/// over, unless its retention says otherwise.
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Reports beside the queues of a Redis store.
#[derive(Debug, Clone)]
pub struct RedisJobs(std::sync::Arc<super::Inner>);

impl Redis {
    /// Returns the place of what controllers say of their Jobs.
    #[must_use]
    pub fn jobs(&self) -> RedisJobs {
        RedisJobs(self.inner.clone())
    }
}

fn command(name: &str, queue: &QueueName) -> Cmd {
    let mut cmd = redis::cmd(name);
    cmd.arg(keys::job(queue));
    cmd
}

impl JobStore for RedisJobs {
    fn put<'a>(
        &'a self,
        queue: &'a QueueName,
        report: Bytes,
    ) -> Answer<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut cmd = command("SET", queue);
            cmd.arg(&report[..]).arg("PX").arg(KEPT_MS);
            self.0.send_plain(&cmd).await
        })
    }

    fn get<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move {
            let report: Option<Vec<u8>> = self.0.send_plain(&command("GET", queue)).await?;
            Ok(report.map(Bytes::from))
        })
    }

    fn forget<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, ()> {
        Box::pin(async move {
            // It goes by itself otherwise.
            let _: Result<(), StoreError> = self.0.send_plain(&command("DEL", queue)).await;
        })
    }
}
