//! What goes on beside a running container: its hooks and probes, and how it is told to end.

use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::{LifecycleHandler, Probe};
use tokio::sync::watch;

use super::container::{Own, spec};
use super::exec::exec;
use super::pod::{Stop, grace};
use super::probe::{self, Tally, Timing};
use super::status::State;

/// What a program gets at least after a preStop hook that has used up the grace period (Kubernetes: the same).
const GRACE_SECONDS_MIN: i64 = 2;
/// How long a hook may take that nothing else bounds.
const HOOK_MAX: Duration = Duration::from_secs(3600);

/// Tells how many seconds the program has to end, whenever it is to; the preStop hook has run before that.
pub(super) fn farewells<'a>(
    own: &'a Own<'a>,
    stop: watch::Receiver<Option<Stop>>,
) -> BoxStream<'a, i64> {
    stream::unfold((stop, None), move |(mut stop, asked)| async move {
        let is_news = |stop: &Option<Stop>| {
            let grace = stop.as_ref().map(|stop| stop.grace);
            grace.is_some() && grace != asked
        };
        let wanted = stop.wait_for(is_news).await.ok()?.clone()?;
        let mut seconds = wanted.grace;
        if asked.is_none() {
            let is_sooner =
                |stop: &Option<Stop>| stop.as_ref().is_some_and(|stop| stop.grace < wanted.grace);
            tokio::select! {
                left = pre_stop(own, seconds) => seconds = left,
                sooner = stop.wait_for(is_sooner) => seconds = sooner.ok()?.as_ref()?.grace,
            }
        }
        let said = stop.borrow().as_ref().map(|stop| stop.grace);
        Some((seconds, (stop, said)))
    })
    .boxed()
}

/// Runs the preStop hook, if there is one; returns what is left of the seconds.
async fn pre_stop(own: &Own<'_>, seconds: i64) -> i64 {
    let lifecycle = own.container.lifecycle.as_ref();
    let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
        return seconds;
    };
    let Some(allowed) = u64::try_from(seconds).ok().filter(|allowed| *allowed > 0) else {
        return seconds;
    };
    let begun = tokio::time::Instant::now();
    if let Err(why) = handle(own, hook, Duration::from_secs(allowed)).await {
        own.life
            .warn("FailedPreStopHook", &format!("PreStopHook failed: {why}"));
    }
    let used = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_sub(used).max(GRACE_SECONDS_MIN)
}

async fn handle(own: &Own<'_>, hook: &LifecycleHandler, allowed: Duration) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(allowed)).await;
    }
    match hook.exec.as_ref().and_then(|exec| exec.command.clone()) {
        Some(command) => command_in(own, command, allowed).await,
        None => Ok(()),
    }
}

async fn command_in(own: &Own<'_>, argv: Vec<String>, allowed: Duration) -> Result<(), String> {
    let mut spec = spec(own.life, own.container)
        .await
        .map_err(|(_, why)| why)?;
    spec.argv = argv;
    exec(&own.life.node.config.supervisor, spec, allowed).await
}

/// Whether there is anything to do beside the container before it counts as started and ready.
fn is_watched(own: &Own<'_>, is_new: bool) -> bool {
    let container = own.container;
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|all| all.post_start.as_ref());
    let probes = [
        &container.startup_probe,
        &container.liveness_probe,
        &container.readiness_probe,
    ];
    (is_new && hook.is_some()) || probes.into_iter().any(Option::is_some)
}

/// Looks after the container and shows how it is; ends when the program must, with the seconds it has for that. `is_new` says that
/// it has just been started.
pub(super) async fn look_after(own: &Own<'_>, since: jiff::Timestamp, is_new: bool) -> i64 {
    let show = |started, ready| {
        own.show(State::Running {
            since,
            started,
            ready,
        });
    };
    if !is_watched(own, is_new) {
        show(true, true);
        return std::future::pending().await;
    }
    show(false, false);
    let (reason, why, seconds) = watch_over(own, is_new, show).await;
    own.life.warn(reason, &why);
    pre_stop(own, seconds).await
}

/// The postStart hook, then the startup probe, then the two others; ends with the reason to end the program.
async fn watch_over(
    own: &Own<'_>,
    is_new: bool,
    show: impl Fn(bool, bool) + Copy,
) -> (&'static str, String, i64) {
    let container = own.container;
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|all| all.post_start.as_ref());
    let seconds = grace(&own.life.pod);
    if let Some(hook) = hook.filter(|_| is_new)
        && let Err(why) = handle(own, hook, HOOK_MAX).await
    {
        return (
            "FailedPostStartHook",
            format!("PostStartHook failed: {why}"),
            seconds,
        );
    }
    let fatal = |what: &str, probe: &Probe, why: String| {
        let text = format!("{what} probe failed: {why}");
        let seconds = probe.termination_grace_period_seconds.unwrap_or(seconds);
        ("Unhealthy", text, seconds)
    };
    if let Some(startup) = &container.startup_probe
        && let Err(why) = answers(own, startup, Some).await
    {
        return fatal("Startup", startup, why);
    }
    show(true, container.readiness_probe.is_none());
    let readiness = async {
        let Some(probe) = &container.readiness_probe else {
            return std::future::pending::<Infallible>().await;
        };
        let mut ready = false;
        let take = |answer: Result<(), String>| {
            if ready != answer.is_ok() {
                ready = answer.is_ok();
                show(true, ready);
                if let Err(why) = answer {
                    let text = format!("Readiness probe failed: {why}");
                    own.life.warn("Unhealthy", &text);
                }
            }
            None
        };
        answers(own, probe, take).await
    };
    let liveness = async {
        match &container.liveness_probe {
            None => std::future::pending().await,
            Some(probe) => fatal("Liveness", probe, answers(own, probe, Result::err).await),
        }
    };
    tokio::select! {
        never = readiness => match never {},
        condemned = liveness => condemned,
    }
}

/// Asks on and on; `take` gets the answers that count, and may end it.
async fn answers<T>(
    own: &Own<'_>,
    probe: &Probe,
    mut take: impl FnMut(Result<(), String>) -> Option<T>,
) -> T {
    let timing = Timing::of(probe);
    let mut tally = Tally::default();
    tokio::time::sleep(timing.delay).await;
    loop {
        let answer = ask(own, probe, timing.timeout).await;
        if tally.note(answer.is_ok(), timing).is_some()
            && let Some(end) = take(answer)
        {
            return end;
        }
        tokio::time::sleep(timing.period).await;
    }
}

async fn ask(own: &Own<'_>, probe: &Probe, allowed: Duration) -> Result<(), String> {
    let container = own.container;
    if let Some(command) = probe.exec.as_ref().and_then(|exec| exec.command.clone()) {
        return command_in(own, command, allowed).await;
    }
    let asked = async {
        if let Some(get) = &probe.http_get {
            return probe::http(container, get).await;
        }
        if let Some(socket) = &probe.tcp_socket {
            let port = probe::port(container, &socket.port)?;
            return probe::tcp(socket.host.as_deref(), port).await.map(drop);
        }
        Ok(())
    };
    let answer = tokio::time::timeout(allowed, asked).await;
    answer.unwrap_or_else(|_| Err(format!("timed out after {allowed:?}")))
}
