//! The status of a Pod from what is known of its containers. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::environment::HOST_IP;
use super::run::Exit;

/// The condition of a Pod that others ended, or the end of its node.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Waiting {
        reason: &'static str,
        message: Option<String>,
    },
    Running {
        since: Timestamp,
        /// Its postStart hook has run and its startup probe was answered.
        started: bool,
        /// Its readiness probe is answered.
        ready: bool,
    },
    Ended(Exit),
}

/// A container as its Pod's status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) state: State,
    /// How the run before this one ended.
    pub(super) last: Option<Exit>,
    pub(super) restarts: u32,
}

/// Why a Pod ended, if not simply because its containers have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct End {
    pub(super) reason: Option<&'static str>,
    pub(super) message: Option<String>,
    /// The reason of the condition which says that the Pod was disrupted, if it was.
    pub(super) disruption: Option<&'static str>,
}

/// All containers of a Pod, in the order of its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) init: Vec<View>,
    pub(super) main: Vec<View>,
    /// Set once no container runs or will run.
    pub(super) end: Option<End>,
}

impl Snapshot {
    pub(super) fn new(pod: &Pod) -> Self {
        let (init, main) = containers(pod);
        let reason = if init.is_empty() {
            "ContainerCreating"
        } else {
            "PodInitializing"
        };
        let waiting = |_: &Container| View {
            state: State::Waiting {
                reason,
                message: None,
            },
            last: None,
            restarts: 0,
        };
        Self {
            init: init.iter().map(waiting).collect(),
            main: main.iter().map(waiting).collect(),
            end: None,
        }
    }
}

/// Init containers and containers.
pub(super) fn containers(pod: &Pod) -> (&[Container], &[Container]) {
    pod.spec.as_ref().map_or((&[], &[]), |spec| {
        let init = spec.init_containers.as_deref().unwrap_or_default();
        (init, spec.containers.as_slice())
    })
}

/// An init container that keeps running beside the others.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The status; `before` is the one that was written last, so that what has not changed keeps its times.
pub(super) fn status(
    pod: &Pod,
    snapshot: &Snapshot,
    start: Timestamp,
    before: &PodStatus,
    now: Timestamp,
) -> PodStatus {
    let (init, main) = containers(pod);
    let init: Vec<_> = init.iter().zip(&snapshot.init).collect();
    let main: Vec<_> = main.iter().zip(&snapshot.main).collect();
    let phase = phase(&init, &main, snapshot.end.as_ref());
    let end = snapshot.end.clone().unwrap_or_default();
    let mut conditions = conditions(pod, &init, &main, phase, before, now);
    if let Some(reason) = end.disruption {
        conditions.retain(|condition| condition.type_ != DISRUPTION_TARGET);
        conditions.push(PodCondition {
            type_: DISRUPTION_TARGET.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: end.message.clone(),
            last_transition_time: Some(time(now)),
            ..PodCondition::default()
        });
    }
    let statuses = |all: &[(&Container, &View)], ready: fn(&Container, &View) -> bool| {
        let status = |(container, view): &(&Container, &View)| {
            container_status(pod, container, view, ready(container, view))
        };
        Some(all.iter().map(status).collect::<Vec<_>>()).filter(|list| !list.is_empty())
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: end.reason.map(str::to_owned),
        message: end.message,
        start_time: Some(time(start)),
        host_ip: Some(HOST_IP.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: HOST_IP.to_owned(),
        }]),
        pod_ip: Some(HOST_IP.to_owned()),
        pod_ips: Some(vec![PodIP {
            ip: HOST_IP.to_owned(),
        }]),
        qos_class: Some(qos_class(pod).to_owned()),
        conditions: Some(conditions),
        init_container_statuses: statuses(&init, |container, view| {
            is_initialized(container, view) && (is_ready(view) || !is_sidecar(container))
        }),
        container_statuses: statuses(&main, |_, view| is_ready(view)),
        ..PodStatus::default()
    }
}

fn is_ready(view: &View) -> bool {
    matches!(view.state, State::Running { ready: true, .. })
}

/// Whether it runs, and has started by what its Pod says of that.
pub(super) fn is_started(view: &View) -> bool {
    matches!(view.state, State::Running { started: true, .. })
}

fn has_begun(view: &View) -> bool {
    !matches!(view.state, State::Waiting { .. }) || view.last.is_some()
}

/// Whether the containers after this init container may start.
pub(super) fn is_initialized(container: &Container, view: &View) -> bool {
    match &view.state {
        State::Running { started, .. } => *started && is_sidecar(container),
        State::Ended(exit) => exit.code == 0 && !is_sidecar(container),
        State::Waiting { .. } => false,
    }
}

fn phase(
    init: &[(&Container, &View)],
    main: &[(&Container, &View)],
    end: Option<&End>,
) -> &'static str {
    let clean = |view: &View| matches!(&view.state, State::Ended(exit) if exit.code == 0);
    if let Some(end) = end {
        let good = end.reason.is_none() && main.iter().all(|(_, view)| clean(view));
        return if good { "Succeeded" } else { "Failed" };
    }
    // A sidecar that is being restarted does not undo the initialization.
    let initialized = |(container, view): &(&Container, &View)| {
        is_initialized(container, view) || (is_sidecar(container) && view.last.is_some())
    };
    if init.iter().all(initialized) && main.iter().all(|(_, view)| has_begun(view)) {
        "Running"
    } else {
        "Pending"
    }
}

fn conditions(
    pod: &Pod,
    init: &[(&Container, &View)],
    main: &[(&Container, &View)],
    phase: &str,
    before: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let earlier = before.conditions.as_deref().unwrap_or_default();
    let make = |kind: &str, why_not: Option<(&str, Option<String>)>| {
        let status = if why_not.is_none() { "True" } else { "False" };
        let same = earlier
            .iter()
            .find(|old| old.type_ == kind && old.status == status);
        let (reason, message) = why_not.unzip();
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            message: message.flatten(),
            last_transition_time: same
                .and_then(|old| old.last_transition_time.clone())
                .or_else(|| Some(time(now))),
            ..PodCondition::default()
        }
    };
    let names = |what: &str, list: Vec<&str>| {
        format!("containers with {what} status: [{}]", list.join(" "))
    };
    // What a sidecar does later changes nothing about it.
    let initialized = main.iter().any(|(_, view)| has_begun(view));
    let incomplete: Vec<&str> = init
        .iter()
        .filter(|(container, view)| !initialized && !is_initialized(container, view))
        .map(|(container, _)| container.name.as_str())
        .collect();
    let unready: Vec<&str> = main
        .iter()
        .filter(|(_, view)| !is_ready(view))
        .chain(
            init.iter()
                .filter(|(c, view)| is_sidecar(c) && !is_ready(view)),
        )
        .map(|(container, _)| container.name.as_str())
        .collect();
    let not_ready = match phase {
        "Succeeded" => Some(("PodCompleted", None)),
        "Failed" => Some(("PodFailed", None)),
        _ if unready.is_empty() => None,
        _ => Some(("ContainersNotReady", Some(names("unready", unready)))),
    };
    let not_initialized = (phase != "Succeeded" && !incomplete.is_empty()).then(|| {
        (
            "ContainersNotInitialized",
            Some(names("incomplete", incomplete)),
        )
    });
    let mut all = vec![
        make("PodReadyToStartContainers", None),
        make("Initialized", not_initialized),
        make("Ready", not_ready.clone()),
        make("ContainersReady", not_ready),
        make("PodScheduled", None),
    ];
    // Conditions of others, DisruptionTarget for one, are not the kubelet's to drop.
    let theirs = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    for condition in theirs.into_iter().flatten() {
        if all.iter().all(|ours| ours.type_ != condition.type_) {
            all.push(condition.clone());
        }
    }
    all
}

fn container_status(pod: &Pod, container: &Container, view: &View, ready: bool) -> ContainerStatus {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let id = |run: u32| format!("gangline://{uid}/{}/{run}", container.name);
    let ended = |exit: &Exit, run: u32| ContainerState {
        terminated: Some(terminated(exit, id(run))),
        ..ContainerState::default()
    };
    let state = match &view.state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some((*reason).to_owned()),
                message: message.clone(),
            }),
            ..ContainerState::default()
        },
        State::Running { since, .. } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(time(*since)),
            }),
            ..ContainerState::default()
        },
        State::Ended(exit) => ended(exit, view.restarts),
    };
    let has_run = state.waiting.is_none();
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        container_id: has_run.then(|| id(view.restarts)),
        restart_count: i32::try_from(view.restarts).unwrap_or(i32::MAX),
        ready,
        started: Some(is_started(view)),
        state: Some(state),
        last_state: view
            .last
            .as_ref()
            .map(|exit| ended(exit, view.restarts.saturating_sub(1))),
        ..ContainerStatus::default()
    }
}

fn terminated(exit: &Exit, id: String) -> ContainerStateTerminated {
    let usual = if exit.code == 0 { "Completed" } else { "Error" };
    ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(exit.reason.clone().unwrap_or_else(|| usual.to_owned())),
        message: exit.message.clone(),
        started_at: Some(time(exit.started)),
        finished_at: Some(time(exit.finished)),
        container_id: Some(id),
        ..ContainerStateTerminated::default()
    }
}

/// Kubernetes' times have whole seconds; cut here, they compare equal to what comes back.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn qos_class(pod: &Pod) -> &'static str {
    let (init, main) = containers(pod);
    let lists = |container: &Container| {
        let resources = container.resources.clone().unwrap_or_default();
        let limits = resources.limits.unwrap_or_default();
        let mut requests = limits.clone();
        requests.extend(resources.requests.unwrap_or_default());
        (limits, requests)
    };
    let all: Vec<_> = init.iter().chain(main).map(lists).collect();
    if all
        .iter()
        .all(|(limits, requests)| limits.is_empty() && requests.is_empty())
    {
        return "BestEffort";
    }
    let guaranteed = all.iter().all(|(limits, requests)| {
        ["cpu", "memory"]
            .iter()
            .all(|name| limits.contains_key(*name))
            && limits == requests
    });
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
