//! Which of several active Pods a Job can spare first.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use crate::api::{Pod, PodPhase};

/// Compares two active Pods: the lesser is deleted first.
///
/// The Pod that has come least far is spared first, then the one that keeps restarting, then the
/// youngest. `controller.kubernetes.io/pod-deletion-cost` does not apply to Jobs.
#[must_use]
pub fn compare(a: &Pod, b: &Pod) -> Ordering {
    key(a).cmp(&key(b))
}

/// Sorts Pods so that the first is deleted first.
pub fn sort(pods: &mut [Arc<Pod>]) {
    pods.sort_by(|a, b| compare(a, b));
}

fn key(pod: &Pod) -> impl Ord {
    let phase = match pod.status.phase {
        Some(PodPhase::Pending) => 0,
        None | Some(PodPhase::Unknown(_)) => 1,
        Some(PodPhase::Running | PodPhase::Succeeded | PodPhase::Failed) => 2,
    };
    let ready_since = pod
        .condition("Ready")
        .filter(|_| pod.is_ready())
        .and_then(|ready| ready.last_transition_time.as_ref());
    let created = pod.metadata.creation_timestamp.as_ref();
    (
        pod.spec.node_name.is_some(),
        phase,
        pod.is_ready(),
        // An unknown time comes before every known one, a late one before an early one.
        ready_since.map(|time| Reverse(time.0)),
        Reverse(max_restarts(pod, Kind::Regular)),
        Reverse(max_restarts(pod, Kind::Sidecar)),
        created.map(|time| Reverse(time.0)),
    )
}

#[derive(Clone, Copy)]
enum Kind {
    Regular,
    Sidecar,
}

fn max_restarts(pod: &Pod, kind: Kind) -> i32 {
    let status = &pod.status;
    let restarts = match kind {
        Kind::Regular => status
            .container_statuses
            .iter()
            .map(|container| container.restart_count)
            .max(),
        Kind::Sidecar => {
            let sidecars: Vec<&str> = pod.sidecars().collect();
            status
                .init_container_statuses
                .iter()
                .filter(|container| sidecars.contains(&container.name.as_str()))
                .map(|container| container.restart_count)
                .max()
        }
    };
    restarts.unwrap_or(0)
}
