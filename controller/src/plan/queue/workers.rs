//! The sessions of a Job's Pods: which are idle, which belong to the dead.

use std::collections::HashMap;
use std::sync::Arc;

use gangline_protocol::{WorkerName, WorkerView};
use jiff::Timestamp;

use super::annotations::QueueSpec;
use super::failures::has_given_back;
use super::verdict::time_left;
use super::{GonePod, QueueAction};
use crate::api::Pod;
use crate::plan::tally::Tally;

/// Returns the uid of the Pod that a worker is named after.
#[must_use]
pub fn pod_uid(worker: &WorkerName) -> Option<&str> {
    let (uid, _container) = worker.as_str().split_once('.')?;
    Some(uid)
}

/// Returns the names of a Pod's workers, one for each container.
pub fn of_pod(pod: &Pod) -> impl Iterator<Item = WorkerName> {
    let names = pod.spec.containers.iter();
    names.filter_map(|container| format!("{}.{}", pod.uid(), container.name).parse().ok())
}

/// Returns how many items each Pod holds that has a session.
#[must_use]
pub fn holdings(workers: &[WorkerView]) -> HashMap<&str, u64> {
    let mut holdings = HashMap::new();
    for worker in workers {
        if let Some(uid) = pod_uid(&worker.worker) {
            *holdings.entry(uid).or_default() += u64::from(worker.holds);
        }
    }
    holdings
}

/// Returns the sessions to end because their Pod is dead.
///
/// A Pod that is merely on its way out still works: its sessions are its own.
#[must_use]
pub fn revocations(tally: &Tally, gone: &[GonePod], workers: &[WorkerView]) -> Vec<QueueAction> {
    let mut counted: HashMap<&str, bool> = HashMap::new();
    for pod in tally.pods.iter().filter(|pod| is_dead(pod)) {
        counted.insert(pod.uid(), !is_not_its_fault(pod));
    }
    for pod in gone {
        counted.entry(&pod.uid).or_insert(pod.counted);
    }
    workers
        .iter()
        .filter_map(|view| {
            let counted = *counted.get(pod_uid(&view.worker)?)?;
            Some(QueueAction::Revoke {
                worker: view.worker.clone(),
                counted,
            })
        })
        .collect()
}

/// Tells whether no container of the Pod runs any more, or will again.
#[must_use]
pub fn is_dead(pod: &Pod) -> bool {
    let statuses = &pod.status.container_statuses;
    let all_ended = !statuses.is_empty()
        && statuses.len() == pod.spec.containers.len()
        && statuses
            .iter()
            .all(|status| status.state.terminated.is_some());
    // Without a deletion, a container that ended may be about to be restarted in place.
    pod.is_terminal() || (pod.is_deleting() && all_ended)
}

/// Tells whether the Pod was told to go, or was lost: its items have done nothing wrong.
#[must_use]
pub fn is_not_its_fault(pod: &Pod) -> bool {
    pod.is_deleting() || pod.is_disrupted() || has_given_back(pod)
}

/// Returns active Pods that have held nothing for long, the longest first; at most `spare`.
#[must_use]
pub fn idle(
    tally: &Tally,
    spec: &QueueSpec,
    workers: &[WorkerView],
    spare: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    // A Pod is as idle as the session that was busy last.
    let mut idle_since: HashMap<&str, Option<u64>> = HashMap::new();
    for view in workers {
        let Some(uid) = pod_uid(&view.worker) else {
            continue;
        };
        let since = view
            .idle_since
            .filter(|_| view.holds == 0)
            .map(|time| time.0);
        idle_since
            .entry(uid)
            .and_modify(|so_far| *so_far = so_far.zip(since).map(|(a, b)| a.max(b)))
            .or_insert(since);
    }
    let mut idle: Vec<(u64, &Arc<Pod>)> = tally
        .active
        .iter()
        .filter_map(|pod| {
            let since_ms = (*idle_since.get(pod.uid())?)?;
            let since = Timestamp::from_millisecond(i64::try_from(since_ms).ok()?).ok()?;
            time_left(spec.idle, since, now)
                .is_none()
                .then_some((since_ms, pod))
        })
        .collect();
    idle.sort_by_key(|(since_ms, _)| *since_ms);
    idle.into_iter()
        .take(spare)
        .map(|(_, pod)| Arc::clone(pod))
        .collect()
}
