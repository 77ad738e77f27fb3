//! Events on Jobs, sent in the background: no plan waits for what is only said.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as KubernetesEvent, EventSource, ObjectReference};
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::api::names::{JOB_API_VERSION, JOB_KIND};
use crate::api::{Job, ObjectMeta, Time};
use crate::plan::{Event, EventKind};

/// What the events of Jobs are said to come from.
const COMPONENT: &str = "job-controller";
/// Events that may wait to be sent; what comes beyond is dropped.
const WAITING_MAX: usize = 4_096;

/// Says events.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<KubernetesEvent>,
}

impl Recorder {
    /// Returns a recorder, and what it has to say for [`send`].
    pub(crate) fn new() -> (Self, mpsc::Receiver<KubernetesEvent>) {
        let (queue, events) = mpsc::channel(WAITING_MAX);
        (Self { queue }, events)
    }

    pub(crate) fn say(&self, job: &Arc<Job>, event: &Event, now: Timestamp) {
        if self
            .queue
            .try_send(kubernetes_event(job, event, now))
            .is_err()
        {
            tracing::warn!(
                job.name = job.name(),
                event.reason,
                "too many events: one is dropped"
            );
        }
    }

    /// Says events; states that last only when they are not in `said`.
    pub(crate) fn say_all(
        &self,
        job: &Arc<Job>,
        events: &[Event],
        said: &mut HashSet<String>,
        now: Timestamp,
    ) {
        let mut lasting = HashSet::new();
        for event in events {
            let is_new = match event.kind {
                EventKind::Normal | EventKind::Warning => true,
                EventKind::Waiting => {
                    lasting.insert(event.reason.clone());
                    !said.contains(&event.reason)
                }
            };
            if is_new {
                self.say(job, event, now);
            }
        }
        *said = lasting;
    }
}

/// Sends events until nobody has any more.
pub(crate) async fn send(client: Client, mut events: mpsc::Receiver<KubernetesEvent>) {
    while let Some(event) = events.recv().await {
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api = Api::<KubernetesEvent>::namespaced(client.clone(), &namespace);
        if let Err(error) = api.create(&kube::api::PostParams::default(), &event).await {
            let reason = event.reason.as_deref().unwrap_or_default();
            tracing::debug!(%error, event.reason = reason, "an event was not taken");
        }
    }
}

fn kubernetes_event(job: &Job, event: &Event, now: Timestamp) -> KubernetesEvent {
    let unique = RandomState::new().build_hasher().finish();
    KubernetesEvent {
        metadata: ObjectMeta {
            name: Some(format!("{}.{unique:016x}", job.name())),
            namespace: job.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(JOB_API_VERSION.into()),
            kind: Some(JOB_KIND.into()),
            name: job.metadata.name.clone(),
            namespace: job.metadata.namespace.clone(),
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
            field_path: None,
        },
        type_: Some(event.kind.as_str().into()),
        reason: Some(event.reason.clone()),
        message: Some(event.message.clone()),
        source: Some(EventSource {
            component: Some(COMPONENT.into()),
            host: None,
        }),
        reporting_component: Some(COMPONENT.into()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..KubernetesEvent::default()
    }
}
