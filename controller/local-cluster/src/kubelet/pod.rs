//! One Pod: starts its containers, follows its end, and tells the API. It must not touch other Pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus,
    Pod, PodCondition, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::supervisor::{Exit, Identity, Spec, write_durably};
use super::{Config, PodApi};

/// How often the end of a supervisor that is not this process's child is looked for.
const POLL: Duration = Duration::from_millis(20);
/// Kubernetes' own bounds of the restart back-off.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// The number of the newest run of a container.
pub(super) fn newest_run(dir: &Path) -> Option<i32> {
    fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .max()
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Why the containers are being stopped.
struct Stop {
    grace: i64,
    reason: Option<&'static str>,
}

/// Follows a Pod to its end.
pub(super) async fn run(
    config: Arc<Config>,
    api: Arc<dyn PodApi>,
    mut pods: watch::Receiver<Option<Pod>>,
) {
    let Some(pod) = pods.borrow().clone() else {
        return;
    };
    // A Pod may be on its way out when it is first seen.
    pods.mark_changed();
    let phase = pod
        .status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("Pending");
    if !matches!(phase, "Succeeded" | "Failed") {
        let (stop, stopped) = watch::channel(None);
        let (report, mut reports) = watch::channel(());
        let start = pod
            .status
            .as_ref()
            .and_then(|s| s.start_time.as_ref())
            .map_or_else(Timestamp::now, |t| t.0);
        let spec = pod.spec.clone().unwrap_or_default();
        let deadline = spec.active_deadline_seconds.map(|seconds| {
            let left = start
                .as_second()
                .saturating_add(seconds)
                .saturating_sub(Timestamp::now().as_second());
            Duration::from_secs(u64::try_from(left).unwrap_or(0))
        });
        let work =
            join_all(spec.containers.iter().map(|container| {
                follow(&config, &pod, container, stopped.clone(), report.clone())
            }));
        let expired = async {
            match deadline {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(work, expired);
        let mut late = false;
        loop {
            tokio::select! {
                _ = &mut work => break,
                () = &mut expired, if !late => {
                    late = true;
                    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
                    stop.send_replace(Some(Arc::new(Stop { grace, reason: Some("DeadlineExceeded") })));
                }
                Ok(()) = reports.changed() => tell(&config, &*api, &pod, start, None).await,
                Ok(()) = pods.changed() => {
                    let grace = match &*pods.borrow_and_update() {
                        None => Some(0),
                        Some(pod) if pod.metadata.deletion_timestamp.is_some() =>
                            Some(pod.metadata.deletion_grace_period_seconds.unwrap_or(30)),
                        Some(_) => None,
                    };
                    if let Some(grace) = grace {
                        stop.send_replace(Some(Arc::new(Stop { grace, reason: None })));
                    }
                }
            }
        }
        let reason = stop.borrow().as_ref().and_then(|stop| stop.reason);
        tell(&config, &*api, &pod, start, Some(reason)).await;
    }
    let deleting = |pod: &Option<Pod>| {
        pod.as_ref()
            .is_none_or(|p| p.metadata.deletion_timestamp.is_some())
    };
    // No sender means that the kubelet shuts down: state and object are the next one's.
    let gone = match pods.wait_for(deleting).await {
        Ok(seen) => seen.is_none(),
        Err(_) => return,
    };
    if gone || api.remove(&pod).await.is_ok() {
        let _ = fs::remove_dir_all(
            config
                .root
                .join(pod.metadata.uid.as_deref().unwrap_or_default()),
        );
    }
}

/// Runs one container until its restart policy says that it is over.
async fn follow(
    config: &Config,
    pod: &Pod,
    container: &Container,
    mut stop: watch::Receiver<Option<Arc<Stop>>>,
    report: watch::Sender<()>,
) {
    let policy = pod
        .spec
        .as_ref()
        .and_then(|s| s.restart_policy.as_deref())
        .unwrap_or("Always");
    let dir = config
        .root
        .join(pod.metadata.uid.as_deref().unwrap_or_default())
        .join(&container.name);
    let mut run = newest_run(&dir).unwrap_or(0);
    let mut pause = BACK_OFF.0;
    loop {
        let exit = run_once(
            config,
            pod,
            container,
            &dir.join(run.to_string()),
            &mut stop,
            &report,
        )
        .await;
        report.send_replace(());
        let again = policy == "Always" || (policy == "OnFailure" && exit.code != 0);
        if !again || stop.borrow().is_some() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(Option::is_some) => return,
        }
        pause = (pause * 2).min(BACK_OFF.1);
        run += 1;
    }
}

/// Starts a run, or finds its supervisor again, and waits for its end.
async fn run_once(
    config: &Config,
    pod: &Pod,
    container: &Container,
    dir: &Path,
    stop: &mut watch::Receiver<Option<Arc<Stop>>>,
    report: &watch::Sender<()>,
) -> Exit {
    let begun = Timestamp::now();
    let made_up = |code, reason: &str, message: String| Exit {
        code,
        reason: Some(reason.to_owned()),
        message: Some(message),
        started: begun,
        finished: Timestamp::now(),
    };
    let exit_file = dir.join("exit.json");
    let mut child = None;
    if !dir.join("supervisor.json").exists() && !exit_file.exists() {
        match start(config, pod, container, dir) {
            Ok(started) => child = Some(started),
            Err(error) => {
                let exit = made_up(128, "StartError", error.to_string());
                let _ = fs::create_dir_all(dir).and_then(|()| write_durably(&exit_file, &exit));
                return exit;
            }
        }
    }
    report.send_replace(());
    let mut asked = false;
    loop {
        let over = match &mut child {
            Some(child) => tokio::select! {
                _ = child.wait() => true,
                _ = stop.wait_for(Option::is_some), if !asked => false,
            },
            None => {
                let alive = read::<Identity>(&dir.join("supervisor.json"))
                    .is_some_and(|known| known.alive());
                if alive {
                    tokio::select! {
                        () = tokio::time::sleep(POLL) => {}
                        _ = stop.wait_for(Option::is_some), if !asked => {}
                    }
                }
                !alive
            }
        };
        if over {
            return read(&exit_file).unwrap_or_else(|| {
                if let Some(program) =
                    read::<Identity>(&dir.join("program.json")).filter(Identity::alive)
                {
                    let _ = killpg(Pid::from_raw(program.pid), Signal::SIGKILL);
                }
                let exit = made_up(
                    137,
                    "ContainerStatusUnknown",
                    "the supervisor of the container was killed".to_owned(),
                );
                let _ = write_durably(&exit_file, &exit);
                exit
            });
        }
        let wanted = stop.borrow().clone();
        if let (Some(wanted), false) = (wanted, asked) {
            // The identity is written once the supervisor can take the signal.
            match read::<Identity>(&dir.join("supervisor.json")) {
                Some(known) if known.alive() => {
                    asked = true;
                    let _ = fs::write(dir.join("grace"), wanted.grace.to_string());
                    let _ = kill(Pid::from_raw(known.pid), Signal::SIGTERM);
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }
}

fn start(
    config: &Config,
    pod: &Pod,
    container: &Container,
    dir: &Path,
) -> io::Result<tokio::process::Child> {
    if pod.spec.as_ref().is_some_and(|spec| {
        spec.init_containers
            .as_ref()
            .is_some_and(|init| !init.is_empty())
    }) {
        return Err(io::Error::other(
            "init containers are not supported by the local cluster",
        ));
    }
    let argv: Vec<String> = container
        .command
        .iter()
        .chain(&container.args)
        .flatten()
        .cloned()
        .collect();
    if container.command.as_ref().is_none_or(Vec::is_empty) {
        return Err(io::Error::other(format!(
            "container {:?} has no command: images are not pulled here, so its command must be in the Pod",
            container.name
        )));
    }
    if container
        .volume_mounts
        .as_ref()
        .is_some_and(|mounts| !mounts.is_empty())
        || container.env_from.is_some()
    {
        return Err(io::Error::other(
            "volume mounts and envFrom are not supported by the local cluster",
        ));
    }
    let mut env = Vec::new();
    for var in container.env.iter().flatten() {
        if var.value_from.is_some() {
            return Err(io::Error::other(format!(
                "env {:?}: valueFrom is not supported by the local cluster",
                var.name
            )));
        }
        env.push((var.name.clone(), var.value.clone().unwrap_or_default()));
    }
    let cwd = container.working_dir.as_ref().map(PathBuf::from);
    fs::create_dir_all(dir)?;
    write_durably(
        &dir.join("spec.json"),
        &Spec {
            argv,
            env,
            cwd,
            inherit: config.inherit,
            log_max: config.log_max,
        },
    )?;
    let program = config
        .supervisor
        .first()
        .ok_or(io::ErrorKind::InvalidInput)?;
    tokio::process::Command::new(program)
        .args(config.supervisor.iter().skip(1))
        .arg(dir)
        .process_group(0)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
}

/// Writes the Pod's status; `end` is given once all containers are over, with the reason if the Pod was stopped for one.
async fn tell(
    config: &Config,
    api: &dyn PodApi,
    pod: &Pod,
    start: Timestamp,
    end: Option<Option<&'static str>>,
) {
    let root = config
        .root
        .join(pod.metadata.uid.as_deref().unwrap_or_default());
    let containers = pod
        .spec
        .as_ref()
        .map(|s| s.containers.as_slice())
        .unwrap_or_default();
    let statuses: Vec<_> = containers
        .iter()
        .map(|container| container_status(container, &root))
        .collect();
    let clean = statuses.iter().all(|status| {
        status
            .state
            .as_ref()
            .and_then(|s| s.terminated.as_ref())
            .is_some_and(|ended| ended.exit_code == 0)
    });
    let reason = end.flatten();
    let phase = match end {
        None => "Running",
        Some(None) if clean => "Succeeded",
        Some(_) => "Failed",
    };
    let all_ready = end.is_none() && statuses.iter().all(|status| status.ready);
    let condition = |kind: &str, yes: bool| PodCondition {
        type_: kind.to_owned(),
        status: if yes { "True" } else { "False" }.to_owned(),
        ..PodCondition::default()
    };
    let status = PodStatus {
        phase: Some(phase.to_owned()),
        reason: reason.map(str::to_owned),
        start_time: Some(Time(start)),
        pod_ip: Some("127.0.0.1".to_owned()),
        conditions: Some(vec![
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", all_ready),
            condition("Ready", all_ready),
        ]),
        container_statuses: Some(statuses),
        ..PodStatus::default()
    };
    if let Err(error) = api.patch_status(pod, status).await {
        tracing::warn!(%error, pod = pod.metadata.name, "the Pod's status was not written");
    }
}

fn container_status(container: &Container, root: &Path) -> ContainerStatus {
    let dir = root.join(&container.name);
    let run = newest_run(&dir).unwrap_or(0);
    let ended =
        |run: i32| read::<Exit>(&dir.join(run.to_string()).join("exit.json")).map(terminated);
    let exit = ended(run);
    let running = exit.is_none();
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        restart_count: run,
        ready: running,
        started: Some(running),
        state: Some(ContainerState {
            running: running.then(ContainerStateRunning::default),
            terminated: exit,
            ..ContainerState::default()
        }),
        last_state: (run > 0).then(|| ContainerState {
            terminated: ended(run - 1),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

fn terminated(exit: Exit) -> ContainerStateTerminated {
    let usual = if exit.code == 0 { "Completed" } else { "Error" };
    ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(exit.reason.unwrap_or_else(|| usual.to_owned())),
        message: exit.message,
        started_at: Some(Time(exit.started)),
        finished_at: Some(Time(exit.finished)),
        ..ContainerStateTerminated::default()
    }
}
