//! One container: its runs, one after the other, until its restart policy says that it is over.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::back_off::Pace;
use super::environment::{Configs, Environment, Sources, gather};
use super::identity::{Identity, descendants};
use super::logs::last_lines;
use super::pod::{Life, Place, Stop, grace};
use super::run::{Exit, Run, Runs};
use super::status::State;
use super::supervisor::Spec;
use super::supervisors::{Link, Start};
use super::{care, environment, families, images, quantity, volumes};

/// How often the end of a run of an earlier server is looked for: often at first, for those that end with that server.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
/// How often a container asks again for what its environment refers to.
const CONFIG_RETRY: Duration = Duration::from_secs(1);

/// Kubernetes' reason while a volume is awaited; what it waits for is an event there.
const CREATING: &str = "ContainerCreating";
/// Kubernetes' reason for an end that nobody saw.
const UNKNOWN: &str = "ContainerStatusUnknown";

/// When a container is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Always,
    OnFailure,
    Never,
}

impl Policy {
    fn again(self, exit: &Exit) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit.code != 0,
            Self::Never => false,
        }
    }
}

/// Follows a container to its end; returns how its last run ended, or nothing if it was stopped before it began.
pub(super) async fn follow(
    life: &Life,
    place: Place,
    policy: Policy,
    mut stop: watch::Receiver<Option<Stop>>,
) -> Option<Exit> {
    let mut own = Own::find(life, place)?;
    let mut pace = Pace::after(life.node.config.back_off, own.number);
    loop {
        let exit = own.run(&mut stop).await?;
        let exit = explain(own.container, &own.runs.get(own.number), exit);
        own.show(State::Ended(exit.clone()));
        if let (Some("StartError"), Some(why)) = (exit.reason.as_deref(), &exit.message) {
            life.warn("Failed", &format!("Error: {why}"));
        }
        if !policy.again(&exit) || stop.borrow().is_some() {
            return Some(exit);
        }
        let wait = pace.next(exit.finished.duration_since(exit.started).unsigned_abs());
        let since = Timestamp::now().duration_since(exit.finished);
        let left = wait.saturating_sub(Duration::try_from(since).unwrap_or_default());
        if !left.is_zero() {
            let waiting = State::Waiting {
                reason: "CrashLoopBackOff",
                message: Some(format!(
                    "back-off {} restarting failed container={} pod={}",
                    humane(wait),
                    own.container.name,
                    life.full_name()
                )),
            };
            life.show(place, waiting, Some(exit.clone()), own.number);
            let name = &own.container.name;
            life.warn(
                "BackOff",
                &format!(
                    "Back-off restarting failed container {name} in pod {}",
                    life.full_name()
                ),
            );
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                _ = stop.wait_for(Option::is_some) => {
                    own.show(State::Ended(exit.clone()));
                    return Some(exit);
                }
            }
        }
        own.last = Some(exit);
        own.number += 1;
    }
}

/// `1m20s`, as Go prints a duration.
fn humane(wait: Duration) -> String {
    match (wait.as_secs() / 60, wait.as_secs() % 60) {
        (0, _) => format!("{}s", wait.as_secs_f64()),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// What a container has come to.
pub(super) struct Own<'a> {
    pub(super) life: &'a Life,
    place: Place,
    pub(super) container: &'a Container,
    runs: Runs,
    /// The present run, which is the number of restarts too.
    number: u32,
    last: Option<Exit>,
}

impl<'a> Own<'a> {
    /// Takes up where an earlier server has left off.
    fn find(life: &'a Life, place: Place) -> Option<Self> {
        let container = life.container(place)?;
        let runs = Runs::of(&life.node.config.root, life.uid(), &container.name);
        let number = match (runs.newest(), remembered(&life.pod, &container.name)) {
            (Some(number), _) => number,
            (None, None) => 0,
            (None, Some((number, exit))) => {
                let _ = runs.create(number).and_then(|run| run.record(&exit));
                number
            }
        };
        Some(Self {
            life,
            place,
            container,
            number,
            last: number
                .checked_sub(1)
                .and_then(|before| runs.get(before).exit()),
            runs,
        })
    }

    pub(super) fn show(&self, state: State) {
        self.life
            .show(self.place, state, self.last.clone(), self.number);
    }

    /// Starts the run, or finds its supervisor again, and waits for its end. Nothing if it is stopped before it begins.
    async fn run(&self, stop: &mut watch::Receiver<Option<Stop>>) -> Option<Exit> {
        let run = self.runs.get(self.number);
        if let Some(exit) = run.exit() {
            return Some(exit);
        }
        if run.supervisor().is_none() {
            let spec = self.prepare(stop).await?;
            let permit = tokio::select! {
                permit = self.life.node.supervisors.permit() => permit,
                _ = stop.wait_for(Option::is_some) => return None,
            };
            let started = match self.runs.create(self.number) {
                Ok(run) => self.life.node.supervisors.start(permit, &run, spec).await,
                Err(error) => Err(error),
            };
            match started {
                Ok(Start::Running(link, at)) => {
                    return Some(attend(self, &run, (link, at), stop.clone()).await);
                }
                Ok(Start::Ended(exit)) => return Some(exit),
                Ok(Start::Taken) => {}
                Err(error) => {
                    let exit = Exit::without_program(128, "StartError", error.to_string());
                    let _ = run.record(&exit);
                    return Some(exit);
                }
            }
        }
        Some(attend_found(self, &run, stop.clone()).await)
    }

    /// Resolves what the container is to run; waits for what is missing. Nothing if it is stopped meanwhile.
    async fn prepare(&self, stop: &mut watch::Receiver<Option<Stop>>) -> Option<Spec> {
        let mut told = None;
        loop {
            if stop.borrow().is_some() {
                return None;
            }
            match spec(self.life, self.container).await {
                Ok(spec) => return Some(spec),
                Err((reason, message)) => {
                    if reason == CREATING && told.as_ref() != Some(&message) {
                        self.life.warn("FailedMount", &message);
                        told = Some(message.clone());
                    }
                    self.show(State::Waiting {
                        reason,
                        message: Some(message),
                    });
                }
            }
            tokio::select! {
                () = tokio::time::sleep(CONFIG_RETRY) => {}
                _ = stop.wait_for(Option::is_some) => return None,
            }
        }
    }
}

/// The newest run of a container and its end as the Pod's status has them, for a kubelet whose own state is lost: what has
/// run is not taken for new.
fn remembered(pod: &Pod, container: &str) -> Option<(u32, Exit)> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    let known = all.find(|known| known.name == container)?;
    let at = |time: &Option<Time>| time.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let state = known.state.clone().unwrap_or_default();
    let last = known.last_state.clone().unwrap_or_default();
    let exit = match (state.terminated.or(last.terminated), state.running) {
        (_, Some(running)) => Exit {
            started: at(&running.started_at),
            ..Exit::without_program(
                137,
                UNKNOWN,
                "the state of the container was lost".to_owned(),
            )
        },
        (Some(ended), None) => Exit {
            code: ended.exit_code,
            reason: ended.reason,
            message: ended.message,
            started: at(&ended.started_at),
            finished: at(&ended.finished_at),
        },
        (None, None) => return None,
    };
    Some((u32::try_from(known.restart_count).ok()?, exit))
}

/// What a container is to run; an error is Kubernetes' reason and message for that it waits.
pub(super) async fn spec(
    life: &Life,
    container: &Container,
) -> Result<Spec, (&'static str, environment::Missing)> {
    let (config, api, pod) = (&life.node.config, &*life.node.api, &life.pod);
    let unresolved = |message| ("CreateContainerConfigError", message);
    let configs = gather(api, pod, container)
        .await
        .map_err(|error| unresolved(error.to_string()))?;
    volumes::prepare(pod, &config.root, &container.name, &configs)
        .map_err(|message| (CREATING, message))?;
    let env = environment(life, container, &configs)
        .await
        .map_err(unresolved)?;
    let argv = images::argv(container, &config.images).unwrap_or_default();
    Ok(Spec {
        argv: argv.iter().map(|word| env.expand(word)).collect(),
        mounts: volumes::mounts(pod, container, &config.root, &env).map_err(unresolved)?,
        stage: volumes::stage(&config.root, life.uid()),
        env: env.into_pairs(),
        cwd: container.working_dir.as_ref().map(Into::into),
        inherit: config.inherit,
        log_max: config.log_max,
        bound: config.bound,
        grace: grace(pod),
        processes_max: families::fenced(config.processes_max),
        memory_max: quantity::memory_max(container),
    })
}

async fn environment(
    life: &Life,
    container: &Container,
    configs: &Configs,
) -> Result<Environment, environment::Missing> {
    let (config, pod) = (&life.node.config, &life.pod);
    let spec = pod.spec.as_ref();
    let services = match spec.and_then(|spec| spec.enable_service_links) {
        Some(false) => Vec::new(),
        _ => {
            let services = life.node.api.services(life.namespace()).await;
            services.map_err(|error| error.to_string())?
        }
    };
    let image = container.image.as_deref();
    let image = image.and_then(|name| images::find(&config.images, name));
    let mut given = image.map(|image| image.env.clone()).unwrap_or_default();
    if !volumes::of(pod).is_empty() {
        let dir = volumes::directory(&config.root, life.uid());
        given.insert(volumes::VARIABLE.to_owned(), dir.display().to_string());
    }
    Environment::new(Sources {
        pod,
        container,
        image: given,
        services,
        configs,
    })
}

/// Waits for the end of a run of this server.
async fn attend(
    own: &Own<'_>,
    run: &Run,
    (mut link, since): (Link, Timestamp),
    stop: watch::Receiver<Option<Stop>>,
) -> Exit {
    let mut line = Vec::new();
    let _listing = own.life.node.programs.list(own.life.uid(), run);
    let mut farewells = care::farewells(own, stop);
    let mut condemned = pin!(care::look_after(own, since, true));
    let mut is_watched = true;
    loop {
        tokio::select! {
            exit = link.wait(&mut line) => return match exit {
                Some(exit) => {
                    own.life.node.supervisors.give_back(link);
                    exit
                }
                None => run.exit().unwrap_or_else(|| lost(run)),
            },
            Some(grace) = farewells.next() => {
                is_watched = false;
                link.stop(grace).await;
            }
            grace = &mut condemned, if is_watched => {
                is_watched = false;
                link.stop(grace).await;
            }
        }
    }
}

/// Waits for the end of a run that an earlier server has started.
async fn attend_found(own: &Own<'_>, run: &Run, stop: watch::Receiver<Option<Stop>>) -> Exit {
    let since = run.started().unwrap_or_else(Timestamp::now);
    let _listing = own.life.node.programs.list(own.life.uid(), run);
    if let Some(program) = run.program() {
        // A server that was killed may not have come to that.
        families::go_on(&program);
    }
    let mut farewells = care::farewells(own, stop);
    let mut condemned = pin!(care::look_after(own, since, false));
    let mut is_watched = true;
    let mut pause = POLL.0;
    loop {
        let known = run.supervisor().filter(Identity::alive);
        // In this order: the supervisor writes the end before it goes.
        if let Some(exit) = run.exit() {
            return exit;
        }
        let Some(known) = known else {
            return lost(run);
        };
        let told = tokio::select! {
            () = tokio::time::sleep(pause) => None,
            Some(grace) = farewells.next() => Some(grace),
            grace = &mut condemned, if is_watched => Some(grace),
        };
        pause = (pause * 2).min(POLL.1);
        if let Some(grace) = told {
            is_watched = false;
            pause = POLL.0;
            let _ = run.set_grace(grace);
            // This supervisor has no other run: its kubelet is gone.
            let _ = kill(Pid::from_raw(known.pid), Signal::SIGTERM);
        }
    }
}

/// The end of a run whose supervisor was killed: nobody knows the program's own, so it is made certain.
pub(super) fn lost(run: &Run) -> Exit {
    if let Some(program) = run.program().filter(Identity::alive) {
        let family = descendants(program.pid);
        let _ = killpg(Pid::from_raw(program.pid), Signal::SIGKILL);
        for pid in family {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let mut exit = Exit::without_program(
        137,
        UNKNOWN,
        "the supervisor of the container was killed".to_owned(),
    );
    exit.started = run.started().unwrap_or(exit.started);
    let _ = run.record(&exit);
    exit
}

/// Adds the end of the log to a failure, where the container wants that.
fn explain(container: &Container, run: &Run, mut exit: Exit) -> Exit {
    let wanted = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if wanted && exit.code != 0 && exit.message.is_none() {
        exit.message = last_lines(run);
    }
    exit
}
