//! What controllers say of their Jobs, for whoever looks. Nothing depends on it, so that it need
//! not outlive the service: a controller says it again.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gangline_protocol::QueueName;
use gangline_protocol::limits::JOB_REPORTS_MAX;

use crate::store::StoreError;

/// The future of an answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that keeps the last report of each queue's Job, as JSON.
pub trait JobStore: std::fmt::Debug + Send + Sync + 'static {
    /// Puts a report in the place of the one before.
    fn put<'a>(&'a self, queue: &'a QueueName, report: Bytes)
    -> Answer<'a, Result<(), StoreError>>;

    /// Returns the last report, if one is known.
    fn get<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Result<Option<Bytes>, StoreError>>;

    /// Forgets the report of a queue that is gone.
    fn forget<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, ()>;
}

/// Reports in memory, beside the embedded store.
#[derive(Debug, Default)]
pub struct JobsInMemory(Mutex<Reports>);

#[derive(Debug, Default)]
struct Reports {
    by_queue: HashMap<QueueName, Bytes>,
    /// In the order of their first report.
    order: VecDeque<QueueName>,
}

impl JobsInMemory {
    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reports {
    fn put(&mut self, queue: &QueueName, report: Bytes) {
        if self.by_queue.insert(queue.clone(), report).is_some() {
            return;
        }
        self.order.push_back(queue.clone());
        if self.order.len() > JOB_REPORTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_queue.remove(&oldest);
        }
    }

    fn forget(&mut self, queue: &QueueName) {
        if self.by_queue.remove(queue).is_some() {
            self.order.retain(|other| other != queue);
        }
    }
}

impl JobStore for JobsInMemory {
    fn put<'a>(
        &'a self,
        queue: &'a QueueName,
        report: Bytes,
    ) -> Answer<'a, Result<(), StoreError>> {
        self.reports().put(queue, report);
        Box::pin(std::future::ready(Ok(())))
    }

    fn get<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Result<Option<Bytes>, StoreError>> {
        let report = self.reports().by_queue.get(queue).cloned();
        Box::pin(std::future::ready(Ok(report)))
    }

    fn forget<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, ()> {
        self.reports().forget(queue);
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_newest_queues_have_their_reports_kept() {
        let jobs = JobsInMemory::default();
        let name = |number: usize| -> QueueName { format!("q{number}").parse().unwrap() };
        for number in 0..=JOB_REPORTS_MAX {
            jobs.put(&name(number), Bytes::from("{}")).await.unwrap();
            jobs.put(&name(number), Bytes::from("{\"last\":1}"))
                .await
                .unwrap();
        }
        assert_eq!(jobs.get(&name(0)).await.unwrap(), None);
        let last = jobs.get(&name(1)).await.unwrap();
        assert_eq!(last.as_deref(), Some(&b"{\"last\":1}"[..]));
        jobs.forget(&name(1)).await;
        assert_eq!(jobs.get(&name(1)).await.unwrap(), None);
        let reports = jobs.reports();
        assert_eq!(reports.order.len(), reports.by_queue.len());
    }
}
