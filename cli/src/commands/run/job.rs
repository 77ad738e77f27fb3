//! The Job of a run: started, followed, told to go.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use gangline_controller::api::{ContainerStatus, Job, JobCondition, Pod, PodPhase};
use gangline_controller::plan::conditions;
use kube::api::{DeleteParams, ListParams};
use kube::core::Selector;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::log::Log;
use crate::error::{Error, Kind};
use crate::output;

/// What Pods may take to leave beyond their grace period.
const LEAVE_TIME: Duration = Duration::from_secs(1);
/// After how long it is said that Pods are waited for.
const SLOW_TIME: Duration = Duration::from_secs(1);
/// How long the rest of the logs may take once all Pods have ended.
const LOGS_TIME: Duration = Duration::from_secs(5);
/// Exit code of a worker whose queue was stopped with failure.
const QUEUE_STOPPED: i32 = 70;
/// Kubernetes' own default of `terminationGracePeriodSeconds`.
const GRACE_SECONDS_DEFAULT: u64 = 30;

/// The exit codes of the signals that come.
pub(super) type Interrupts = mpsc::UnboundedReceiver<u8>;

/// Where the Pods' own words go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logs {
    /// They are the result.
    Stdout,
    /// They are remarks: results are recorded in the queue.
    Stderr,
}

/// How a Job has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) success: bool,
    /// The condition's reason and message.
    pub(super) why: String,
}

/// A Job that goes on.
pub(super) struct Running {
    jobs: Api<Job>,
    pods: Api<Pod>,
    name: String,
    /// What its Pods are found by.
    selector: String,
    grace: Duration,
    ends: mpsc::Receiver<Ended>,
    job_watch: JoinHandle<()>,
    pod_watch: JoinHandle<()>,
    /// No Pod will come any more.
    complete: CancellationToken,
}

impl Running {
    /// Follows a Job that was just created.
    pub(super) fn follow(client: &Client, job: &Job, logs: Logs) -> Self {
        let (namespace, name) = (job.namespace(), job.name().to_owned());
        let jobs = Api::namespaced(client.clone(), namespace);
        let pods = Api::namespaced(client.clone(), namespace);
        let grace = job.spec.template["spec"]["terminationGracePeriodSeconds"].as_u64();
        let selector = selector(job);
        let (sender, ends) = mpsc::channel(1);
        let complete = CancellationToken::new();
        let watch = PodWatch {
            client: client.clone(),
            pods: pods.clone(),
            selector: selector.clone(),
            logs,
            has_one_pod: job.spec.parallelism == Some(1) && job.spec.completions == Some(1),
            followed: HashMap::new(),
            lost: HashSet::new(),
            followers: JoinSet::new(),
        };
        Self {
            job_watch: tokio::spawn(watch_job(jobs.clone(), name.clone(), sender)),
            pod_watch: tokio::spawn(watch.run(complete.clone())),
            jobs,
            pods,
            name,
            selector,
            grace: Duration::from_secs(grace.unwrap_or(GRACE_SECONDS_DEFAULT)),
            ends,
            complete,
        }
    }

    /// Waits until the Job is Complete or Failed: all its Pods have gone then.
    pub(super) async fn ended(&mut self) -> Result<Ended, Error> {
        let ended = self.ends.recv().await;
        ended.ok_or_else(|| Error::new(Kind::Failed, "the Job was deleted before it had ended"))
    }

    /// Waits until all that the Pods wrote is out; the Job must have ended.
    pub(super) async fn finish(self) {
        self.complete.cancel();
        if tokio::time::timeout(LOGS_TIME, self.pod_watch)
            .await
            .is_err()
        {
            output::note("gangline: the end of the logs is missing");
        }
        self.job_watch.abort();
    }

    /// Has the Pods told to go, and waits until they have; another interrupt ends them at once.
    pub(super) async fn end(mut self, interrupts: &mut Interrupts) {
        let gone = async {
            let after_its_pods = DeleteParams::foreground();
            if let Err(error) = self.jobs.delete(&self.name, &after_its_pods).await {
                tracing::warn!(%error, "the Job was not deleted");
            }
            while self.ends.recv().await.is_some() {}
        };
        let patience = self.grace + LEAVE_TIME;
        let slow = async {
            tokio::time::sleep(SLOW_TIME).await;
            output::note(format_args!(
                "gangline: waiting up to {} s for the Pods to leave; interrupt again to end them now",
                patience.as_secs()
            ));
            std::future::pending::<()>().await;
        };
        let have_left = tokio::select! {
            gone = tokio::time::timeout(patience, gone) => gone.is_ok(),
            _ = interrupts.recv() => false,
            () = slow => false,
        };
        if !have_left {
            let now = DeleteParams::default().grace_period(0);
            let selector = ListParams::default().labels(&self.selector);
            if let Err(error) = self.pods.delete_collection(&now, &selector).await {
                output::note(format_args!("gangline: cannot end the workers: {error}"));
            }
            let gone = async { while self.ends.recv().await.is_some() {} };
            // What is left then ends with this process.
            let _ = tokio::time::timeout(LEAVE_TIME, gone).await;
        }
        self.pod_watch.abort();
        self.job_watch.abort();
    }
}

/// The Job's own selector: with `manualSelector` its Pods have no label of its name.
pub(crate) fn selector(job: &Job) -> String {
    let own = job.spec.selector.clone().map(Selector::try_from);
    own.and_then(Result::ok).map_or_else(
        || format!("batch.kubernetes.io/job-name={}", job.name()),
        |selector| selector.to_string(),
    )
}

/// Tells how the Job ends; hangs up when it is deleted.
async fn watch_job(jobs: Api<Job>, name: String, ends: mpsc::Sender<Ended>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(jobs, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) => {
                if let Some(condition) = conditions::finished(&job.status.conditions)
                    && ends.send(ended(condition)).await.is_err()
                {
                    return;
                }
            }
            Ok(watcher::Event::Delete(_)) => return,
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::warn!(%error, "the watch of the Job is interrupted"),
        }
    }
}

fn ended(condition: &JobCondition) -> Ended {
    Ended {
        success: condition.type_ == conditions::COMPLETE,
        why: [&*condition.reason, &*condition.message]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": "),
    }
}

/// Shows what the Pods of a Job write, and says which of them were lost.
struct PodWatch {
    client: Client,
    pods: Api<Pod>,
    selector: String,
    logs: Logs,
    /// Its log is nobody else's to be told from.
    has_one_pod: bool,
    /// By the Pod's uid and the container's name.
    followed: HashMap<(String, String), Followed>,
    lost: HashSet<String>,
    followers: JoinSet<()>,
}

/// A container whose logs are shown.
struct Followed {
    /// How many of its starts.
    shown: i32,
    /// Who shows the next ones, while there may be some.
    starts: Option<mpsc::UnboundedSender<i32>>,
    /// All is shown.
    ended: CancellationToken,
}

impl PodWatch {
    async fn run(mut self, complete: CancellationToken) {
        let config = watcher::Config::default().labels(&self.selector);
        let mut events = watcher(self.pods.clone(), config).default_backoff().boxed();
        loop {
            tokio::select! {
                () = complete.cancelled() => break,
                Some(_) = self.followers.join_next() => {}
                Some(event) = events.next() => match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                        self.see(&pod);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "the watch of the Pods is interrupted"),
                },
            }
        }
        // The watch may lag behind the end of the Job.
        match self
            .pods
            .list(&ListParams::default().labels(&self.selector))
            .await
        {
            Ok(pods) => pods.items.iter().for_each(|pod| self.see(pod)),
            Err(error) => tracing::warn!(%error, "the Pods cannot be listed"),
        }
        // No start comes after these.
        self.followed.clear();
        while self.followers.join_next().await.is_some() {}
    }

    /// Shows what all containers of a Pod write: that of its one main container as it is, or in whole lines where there
    /// are several Pods; else each line with the container's name before it.
    fn show_starts(&mut self, pod: &Pod) {
        let sidecars: Vec<&str> = pod.sidecars().collect();
        for container in &pod.status.init_container_statuses {
            let is_done = !sidecars.contains(&&*container.name)
                && exit_code(container).is_some_and(|code| code == 0);
            self.show_container(pod, container, true, is_done);
        }
        let is_one_of_many = pod.spec.containers.len() > 1;
        for container in &pod.status.container_statuses {
            self.show_container(pod, container, is_one_of_many, false);
        }
    }

    /// A container that is run again has a log of its own. What one writes comes after what those
    /// wrote that had ended before it began.
    fn show_container(
        &mut self,
        pod: &Pod,
        container: &ContainerStatus,
        is_named: bool,
        is_done: bool,
    ) {
        let has_begun =
            container.state.waiting.is_none() || container.last_state.terminated.is_some();
        let key = (pod.uid().to_owned(), container.name.clone());
        if !has_begun && !self.followed.contains_key(&key) {
            return;
        }
        if !self.followed.contains_key(&key) {
            let followed = self.follow(pod.name(), &container.name, is_named);
            self.followed.insert(key.clone(), followed);
        }
        let Some(followed) = self.followed.get_mut(&key) else {
            return;
        };
        let Some(starts) = &followed.starts else {
            return;
        };
        while followed.shown <= container.restart_count {
            // It is there as long as its sender.
            let _ = starts.send(followed.shown);
            followed.shown += 1;
        }
        if is_done || pod.is_terminal() {
            followed.starts = None;
        }
    }

    fn follow(&mut self, pod: &str, container: &str, is_named: bool) -> Followed {
        let over =
            |followed: &&Followed| followed.starts.is_none() && !followed.ended.is_cancelled();
        let before: Vec<CancellationToken> = self
            .followed
            .values()
            .filter(over)
            .map(|followed| followed.ended.clone())
            .collect();
        let ended = CancellationToken::new();
        let (sender, starts) = mpsc::unbounded_channel();
        let log = Log {
            client: self.client.clone(),
            pods: self.pods.clone(),
            pod: pod.to_owned(),
            container: container.to_owned(),
            is_named,
            is_alone: self.has_one_pod,
            logs: self.logs,
        };
        let guard = ended.clone().drop_guard();
        self.followers.spawn(async move {
            let _guard = guard;
            for earlier in before {
                earlier.cancelled().await;
            }
            log.show_all(starts).await;
        });
        Followed {
            shown: 0,
            starts: Some(sender),
            ended,
        }
    }

    fn see(&mut self, pod: &Pod) {
        self.show_starts(pod);
        let is_lost = pod.status.phase == Some(PodPhase::Failed) && !pod.is_deleting();
        if self.logs == Logs::Stderr && is_lost && self.lost.insert(pod.uid().to_owned()) {
            let code = pod.status.container_statuses.iter().find_map(exit_code);
            // The queue was stopped, and the worker says so.
            if code == Some(QUEUE_STOPPED) {
                return;
            }
            let how = code.map_or_else(String::new, |code| format!(" (exit code {code})"));
            output::note(format_args!(
                "gangline: worker {} was lost{how}",
                pod.name()
            ));
        }
    }
}

fn exit_code(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.terminated.as_ref()?.exit_code)
}
