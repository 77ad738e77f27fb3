//! One Pod: runs its containers in order and ends them. It must not touch other Pods.

mod life;
mod stop;

use std::fs;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Node;
use super::container::{Policy, follow};
use super::refuse;
use super::status::{End, Snapshot, containers, is_sidecar, is_started};
pub(super) use life::{Life, Place};
use stop::{GRACE_SECONDS, end};
pub(super) use stop::{Stop, grace};

/// Follows a Pod until its object is gone.
pub(super) async fn run(node: Arc<Node>, mut pods: watch::Receiver<Option<Arc<Pod>>>) {
    let Some(pod) = pods.borrow().clone() else {
        return;
    };
    // A Pod may be on its way out when it is first seen.
    pods.mark_changed();
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Succeeded" | "Failed")) {
        let life = Arc::new(Life::new(Arc::clone(&node), Arc::clone(&pod)));
        Box::pin(live(&life, &mut pods)).await;
    }
    let deleting = |pod: &Option<Arc<Pod>>| {
        pod.as_ref()
            .is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
    };
    // No sender means that the kubelet shuts down: state and object are the next one's.
    let gone = match pods.wait_for(deleting).await {
        Ok(seen) => seen.is_none(),
        Err(_) => return,
    };
    if gone || node.api.remove(&pod).await.is_ok() {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let _ = fs::remove_dir_all(node.config.root.join(uid));
    }
}

/// Runs the Pod to its end and sees to it that the API knows.
async fn live(life: &Arc<Life>, pods: &mut watch::Receiver<Option<Arc<Pod>>>) {
    let newest = pods.clone();
    let stop = watch::Sender::new(None);
    if life.was_cut_off() {
        // Kubernetes' own words for it.
        end(
            &stop,
            0,
            End {
                reason: Some("Terminated"),
                message: Some(
                    "Pod was terminated in response to imminent node shutdown.".to_owned(),
                ),
                disruption: Some("TerminationByKubelet"),
            },
        );
    }
    // Subscribed before anything happens, so that nothing is missed.
    let mut report = pin!(life.report(life.views.subscribe(), &newest));
    let mut work = pin!(async {
        match refuse::check(&life.pod, &life.node.config) {
            Ok(()) => {
                work(life, &stop).await;
                let end = stop.borrow().as_ref().map(|stop: &Stop| stop.end.clone());
                life.finish(end.unwrap_or_default());
            }
            Err(refusal) => life.refuse(&refusal.to_string()),
        }
    });
    let mut expired = pin!(expire(life));
    let mut crowded = pin!(crowd(life));
    let (mut worked, mut late, mut too_many) = (false, false, false);
    loop {
        tokio::select! {
            () = &mut report => return,
            () = &mut work, if !worked => worked = true,
            () = &mut expired, if !late => {
                late = true;
                end(&stop, grace(&life.pod), End {
                    reason: Some("DeadlineExceeded"),
                    message: Some("Pod was active on the node longer than the specified deadline".to_owned()),
                    disruption: None,
                });
            }
            count = &mut crowded, if !too_many => {
                too_many = true;
                let max = life.node.config.processes_max;
                end(&stop, 0, End {
                    reason: Some("TooManyProcesses"),
                    message: Some(format!("Pod had {count} processes, and may have {max}")),
                    disruption: None,
                });
            }
            Ok(()) = pods.changed() => match &*pods.borrow_and_update() {
                None => end(&stop, 0, End::default()),
                Some(pod) if pod.metadata.deletion_timestamp.is_some() => {
                    let grace = pod.metadata.deletion_grace_period_seconds;
                    end(&stop, grace.unwrap_or(GRACE_SECONDS), End::default());
                }
                Some(_) => {}
            },
        }
    }
}

/// Ends when the Pod has been active for as long as it may.
async fn expire(life: &Life) {
    let allowed = life
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.active_deadline_seconds);
    let Some(seconds) = allowed.and_then(|seconds| u64::try_from(seconds).ok()) else {
        return std::future::pending().await;
    };
    let passed = Timestamp::now().duration_since(life.start);
    let passed = Duration::try_from(passed).unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(passed)).await;
}

/// Ends when the Pod has more processes than it may have, and says how many.
async fn crowd(life: &Life) -> usize {
    let mut families = life.node.families.subscribe();
    loop {
        if families.changed().await.is_err() {
            return std::future::pending().await;
        }
        let now = Arc::clone(&families.borrow_and_update());
        let count = now.descendants(life.supervisors());
        if count > life.node.config.processes_max {
            return count;
        }
    }
}

/// Runs init containers one by one, then all containers beside each other; sidecars live until these are over.
async fn work(life: &Arc<Life>, stop: &watch::Sender<Option<Stop>>) {
    let sidecar_stop = watch::Sender::new(None);
    let mut sidecars = JoinSet::new();
    let policy = match life
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
    {
        Some("Never") => Policy::Never,
        Some("OnFailure") => Policy::OnFailure,
        _ => Policy::Always,
    };
    let (init, main) = containers(&life.pod);
    let mut initialized = true;
    for (index, container) in init.iter().enumerate() {
        let place = Place::Init(index);
        initialized = if is_sidecar(container) {
            let (sidecar, its_stop) = (Arc::clone(life), sidecar_stop.subscribe());
            sidecars.spawn(async move { follow(&sidecar, place, Policy::Always, its_stop).await });
            is_up(life, index, stop).await
        } else {
            let policy = match policy {
                Policy::Never => Policy::Never,
                Policy::Always | Policy::OnFailure => Policy::OnFailure,
            };
            let exit = follow(life, place, policy, stop.subscribe()).await;
            exit.is_some_and(|exit| exit.code == 0)
        };
        if !initialized || stop.borrow().is_some() {
            initialized = false;
            break;
        }
    }
    if initialized {
        let all =
            (0..main.len()).map(|index| follow(life, Place::Main(index), policy, stop.subscribe()));
        join_all(all).await;
    }
    let mut stopped = stop.subscribe();
    loop {
        // What is left to them shrinks when the Pod is to end sooner.
        let left = match &*stopped.borrow_and_update() {
            None => grace(&life.pod),
            Some(stop) => stop.left(),
        };
        end(&sidecar_stop, left, End::default());
        tokio::select! {
            ended = sidecars.join_next() => if ended.is_none() { return },
            Ok(()) = stopped.changed() => {}
        }
    }
}

/// Waits until a sidecar has started; `false` when the Pod is stopped before.
async fn is_up(life: &Life, index: usize, stop: &watch::Sender<Option<Stop>>) -> bool {
    let (mut views, mut stopped) = (life.views.subscribe(), stop.subscribe());
    let runs = |all: &Snapshot| all.init.get(index).is_some_and(is_started);
    tokio::select! {
        up = views.wait_for(runs) => up.is_ok(),
        _ = stopped.wait_for(Option::is_some) => false,
    }
}
