//! One Pod: runs its containers in order, ends them, and tells the API. It must not touch other Pods.

use std::fs;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Node;
use super::container::{Policy, follow};
use super::refuse;
use super::run::Exit;
use super::status::{End, Snapshot, State, View, containers, is_sidecar, is_started, status};

/// How long after a failed write of a status the next one comes.
const WRITE_RETRY: Duration = Duration::from_secs(1);
/// Kubernetes' default.
const GRACE_SECONDS: i64 = 30;

/// What sidecars get at least when the containers before them have used up the Pod's grace period.
const LATE_GRACE_SECONDS_MIN: i64 = 2;

/// Why and how fast the containers are to end.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub(super) grace: i64,
    /// Since when the grace period runs.
    at: Instant,
    end: End,
}

impl Stop {
    fn new(grace: i64, end: End) -> Self {
        Self {
            grace,
            at: Instant::now(),
            end,
        }
    }

    /// How many seconds are left, for containers that are told later than others.
    fn left(&self) -> i64 {
        left(self.grace, self.at.elapsed())
    }
}

fn left(grace: i64, passed: Duration) -> i64 {
    let passed = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    let least = grace.min(LATE_GRACE_SECONDS_MIN);
    grace.saturating_sub(passed).max(least)
}

/// Which container of the Pod.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Init(usize),
    Main(usize),
}

/// A Pod while its containers run.
pub(super) struct Life {
    pub(super) node: Arc<Node>,
    pub(super) pod: Pod,
    start: Timestamp,
    views: watch::Sender<Snapshot>,
}

impl Life {
    fn new(node: Arc<Node>, pod: Pod) -> Self {
        let status = pod.status.as_ref();
        let start = status.and_then(|status| status.start_time.as_ref());
        Self {
            start: start.map_or_else(Timestamp::now, |time| time.0),
            views: watch::Sender::new(Snapshot::new(&pod)),
            node,
            pod,
        }
    }

    pub(super) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// As the kubelet of Kubernetes names a Pod in its messages.
    pub(super) fn full_name(&self) -> String {
        let name = self.pod.metadata.name.as_deref().unwrap_or_default();
        format!("{name}_{}({})", self.namespace(), self.uid())
    }

    pub(super) fn container(&self, place: Place) -> Option<&Container> {
        let (init, main) = containers(&self.pod);
        match place {
            Place::Init(index) => init.get(index),
            Place::Main(index) => main.get(index),
        }
    }

    pub(super) fn show(&self, place: Place, state: State, last: Option<Exit>, restarts: u32) {
        let view = View {
            state,
            last,
            restarts,
        };
        self.views.send_if_modified(|all| {
            let slot = match place {
                Place::Init(index) => all.init.get_mut(index),
                Place::Main(index) => all.main.get_mut(index),
            };
            slot.is_some_and(|slot| std::mem::replace(slot, view.clone()) != view)
        });
    }

    /// Tells whoever is responsible for the Pod of what went wrong beside its containers.
    pub(super) fn warn(&self, reason: &str, message: &str) {
        self.node.api.warn(&self.pod, reason, message);
    }

    fn finish(&self, end: End) {
        self.views.send_modify(|all| all.end = Some(end));
    }

    /// Ends a Pod that cannot run here before it has begun.
    fn refuse(&self, message: &str) {
        self.views.send_modify(|all| {
            for view in all.init.iter_mut().chain(&mut all.main) {
                let exit = Exit::without_program(128, "StartError", message.to_owned());
                view.state = State::Ended(exit);
            }
            all.end = Some(End {
                reason: Some("StartError"),
                message: Some(message.to_owned()),
            });
        });
    }

    /// Writes the Pod's status whenever it changes, and ends with the last one.
    async fn report(
        &self,
        mut views: watch::Receiver<Snapshot>,
        pods: &watch::Receiver<Option<Pod>>,
    ) {
        let mut written = self.pod.status.clone().unwrap_or_default();
        while views.changed().await.is_ok() {
            loop {
                let snapshot = views.borrow_and_update().clone();
                let status = {
                    let newest = pods.borrow();
                    let pod = newest.as_ref().unwrap_or(&self.pod);
                    status(pod, &snapshot, self.start, &written, Timestamp::now())
                };
                if status == written || self.write(&status).await {
                    written = status;
                    if snapshot.end.is_some() {
                        return;
                    }
                    break;
                }
                tokio::time::sleep(WRITE_RETRY).await;
            }
        }
    }

    /// Whether the status is written, or there is no object left to write it to.
    async fn write(&self, status: &PodStatus) -> bool {
        match self.node.api.patch_status(&self.pod, status.clone()).await {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(%error, pod.name = self.pod.metadata.name, "the Pod's status was not written");
                false
            }
        }
    }
}

/// Follows a Pod until its object is gone.
pub(super) async fn run(node: Arc<Node>, mut pods: watch::Receiver<Option<Pod>>) {
    let Some(pod) = pods.borrow().clone() else {
        return;
    };
    // A Pod may be on its way out when it is first seen.
    pods.mark_changed();
    let life = Arc::new(Life::new(node, pod));
    let phase = life
        .pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Succeeded" | "Failed")) {
        Box::pin(live(&life, &mut pods)).await;
    }
    let deleting = |pod: &Option<Pod>| {
        pod.as_ref()
            .is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
    };
    // No sender means that the kubelet shuts down: state and object are the next one's.
    let gone = match pods.wait_for(deleting).await {
        Ok(seen) => seen.is_none(),
        Err(_) => return,
    };
    if gone || life.node.api.remove(&life.pod).await.is_ok() {
        let _ = fs::remove_dir_all(life.node.config.root.join(life.uid()));
    }
}

/// Runs the Pod to its end and sees to it that the API knows.
async fn live(life: &Arc<Life>, pods: &mut watch::Receiver<Option<Pod>>) {
    let newest = pods.clone();
    let stop = watch::Sender::new(None);
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
    let (mut worked, mut late) = (false, false);
    loop {
        tokio::select! {
            () = &mut report => return,
            () = &mut work, if !worked => worked = true,
            () = &mut expired, if !late => {
                late = true;
                end(&stop, grace(&life.pod), End {
                    reason: Some("DeadlineExceeded"),
                    message: Some("Pod was active on the node longer than the specified deadline".to_owned()),
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

/// How many seconds the Pod's containers have to end.
pub(super) fn grace(pod: &Pod) -> i64 {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.termination_grace_period_seconds)
        .unwrap_or(GRACE_SECONDS)
}

/// Has the containers stopped. A second call can only make it faster, and the first one's reason stays.
fn end(stop: &watch::Sender<Option<Stop>>, grace: i64, end: End) {
    stop.send_if_modified(|stop| match stop {
        Some(stop) => {
            let sooner = grace < stop.grace;
            if sooner {
                (stop.grace, stop.at) = (grace, Instant::now());
            }
            sooner
        }
        None => {
            *stop = Some(Stop::new(grace, end));
            true
        }
    });
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
    let runs = |all: &Snapshot| all.init.get(index).is_some_and(|view| is_started(view));
    tokio::select! {
        up = views.wait_for(runs) => up.is_ok(),
        _ = stopped.wait_for(Option::is_some) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_get_what_is_left_of_the_grace_period() {
        for (grace, passed, wanted) in
            [(30, 0, 30), (30, 12, 18), (30, 40, 2), (1, 1, 1), (0, 0, 0)]
        {
            assert_eq!(left(grace, Duration::from_secs(passed)), wanted);
        }
    }
}
