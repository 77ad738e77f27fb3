//! How the controller is set up.

use std::time::Duration;

use super::leader::Candidate;
use crate::api::names::GANGLINE_CONTROLLER;
use crate::plan::queue::Wrapper;
use crate::plan::{RetryDelay, Scope};

/// How the controller is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only namespace that is looked at; all when absent.
    pub namespace: Option<String>,
    /// Whether Jobs without `spec.managedBy` are this controller's too.
    pub unmanaged: bool,
    /// How long the events of a Job's Pods are collected before the Job is looked at.
    pub pod_event_batch: Duration,
    /// How often the queue of a live Job is looked at.
    pub queue_poll: Duration,
    /// How long a Job waits after its first failed sync; doubles with each further one.
    pub retry_base: Duration,
    /// The longest of these waits.
    pub retry_cap: Duration,
    /// How long failed Pods keep new ones of their Job back.
    pub pod_retry_delay: RetryDelay,
    /// The election to win before anything is done; without it this controller is the only one.
    pub candidate: Option<Candidate>,
    /// How long a call of the Kubernetes API may take; then nobody knows what became of it.
    pub call_timeout: Duration,
    /// How often the progress of a queue is written into its Job, at most.
    pub progress_interval: Duration,
    /// How many Jobs are looked at at a time.
    pub concurrency: usize,
    /// Where workers find the queue service.
    pub queue_url: String,
    /// What runs commands that know nothing of queues.
    pub wrapper: Wrapper,
}

impl Settings {
    /// Returns the settings for a cluster that has a Job controller of its own.
    #[must_use]
    pub fn cluster(queue_url: impl Into<String>, wrapper: Wrapper) -> Self {
        Self {
            namespace: None,
            unmanaged: false,
            pod_event_batch: Duration::from_secs(1),
            queue_poll: Duration::from_secs(1),
            retry_base: Duration::from_secs(1),
            retry_cap: Duration::from_secs(60),
            pod_retry_delay: RetryDelay::default(),
            candidate: None,
            call_timeout: Duration::from_secs(30),
            progress_interval: Duration::from_secs(5),
            concurrency: 5,
            queue_url: queue_url.into(),
            wrapper,
        }
    }

    /// Returns the settings for one machine, where nobody else runs Jobs.
    #[must_use]
    pub fn local(queue_url: impl Into<String>, wrapper: Wrapper) -> Self {
        Self {
            unmanaged: true,
            pod_event_batch: Duration::ZERO,
            queue_poll: Duration::from_millis(250),
            retry_base: Duration::from_millis(100),
            ..Self::cluster(queue_url, wrapper)
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope {
            managed_by: GANGLINE_CONTROLLER,
            unmanaged: self.unmanaged,
        }
    }
}
