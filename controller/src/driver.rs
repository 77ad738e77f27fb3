//! The driver: watches, syncs Job after Job, and decides nothing.
//!
//! Never two syncs of one Job at a time. What the watches say is news only if no reply said it
//! before; what a sync itself has written does not wake it again.

mod cache;
mod cluster;
mod complaint;
mod events;
mod leader;
mod memory;
mod orphans;
mod patch;
mod progress;
mod report;
mod resources;
mod schedule;
mod service;
mod settings;
mod sync;
mod tokens;
mod view;

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as WatchEvent, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use leader::Candidate;
pub use service::{Fill, HttpQueueService, NoService, QueueService, ServiceError};
pub use settings::Settings;

use crate::api::names::QUEUE;
use crate::api::{Job, Pod};
use crate::plan::queue::workers;
use cache::{Key, Owner, Source, Store};
use cluster::{Cluster, lock};
use events::Recorder;
use leader::Election;
use report::Reports;
use schedule::Schedule;
use sync::{SyncError, Syncer};

/// How long syncs that have begun may take to come to their end at shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// How long to wait before everything is listed again, since that is dear.
const LIST_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Runs Jobs on a Kubernetes API.
pub struct Controller<Q> {
    syncer: Arc<Syncer<Q>>,
    events: tokio::sync::mpsc::Receiver<k8s_openapi::api::core::v1::Event>,
}

impl<Q: QueueService> Controller<Q> {
    /// Returns a controller that has not begun.
    #[must_use]
    pub fn new(client: Client, service: Q, settings: Settings) -> Self {
        let (recorder, events) = Recorder::new();
        let syncer = Syncer {
            cluster: Cluster::new(client, settings.call_timeout),
            service,
            settings,
            recorder,
            memories: Mutex::default(),
            tokens: Mutex::default(),
            left: Mutex::default(),
            reports: Reports::default(),
        };
        Self {
            syncer: Arc::new(syncer),
            events,
        }
    }

    /// Runs until `shutdown`; syncs that have begun come to their end.
    ///
    /// # Errors
    ///
    /// When this controller led, and cannot be sure any more that nobody else does. What it knows
    /// is worth nothing then: it has to be made anew.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), LeadershipLost> {
        let Some(candidate) = self.syncer.settings.candidate.clone() else {
            self.drive(&shutdown).await;
            return Ok(());
        };
        let mut election = Election::new(&self.syncer.cluster.client, candidate);
        if !election.win(&shutdown).await {
            return Ok(());
        }
        let mut driving = Box::pin(self.drive(&shutdown));
        tokio::select! {
            () = &mut driving => {
                election.release().await;
                Ok(())
            }
            // Dropped as it stands: another one may write already.
            () = election.hold() => Err(LeadershipLost),
        }
    }

    async fn drive(self, shutdown: &CancellationToken) {
        let Self { syncer, events } = self;
        let client = syncer.cluster.client.clone();
        let namespace = syncer.settings.namespace.clone();
        let jobs = watch::<Job>(&client, namespace.as_deref());
        let pods = watch::<Pod>(&client, namespace.as_deref());
        let mut driver = Driver {
            syncer,
            schedule: Schedule::default(),
            running: HashSet::new(),
            syncs: JoinSet::new(),
            keys: HashMap::new(),
        };
        let mut sending = JoinSet::new();
        sending.spawn(events::send(client, events));
        driver.drive(jobs, pods, shutdown).await;
        drop(driver);
        // The last recorder is gone, so the sender ends with what is left to say.
        let _ = tokio::time::timeout(Duration::from_secs(2), sending.join_next()).await;
    }
}

impl Controller<HttpQueueService> {
    /// Runs as [`Controller::run`] does, compiled in this crate: a future is compiled by whoever
    /// polls it, else the binary would compile the whole driver once more.
    ///
    /// # Errors
    ///
    /// As [`Controller::run`].
    pub fn start(
        self,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, Result<(), LeadershipLost>> {
        Box::pin(self.run(shutdown))
    }
}

/// Another controller may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this controller does not lead any more")]
pub struct LeadershipLost;

type Watched<K> = Result<WatchEvent<K>, watcher::Error>;

/// Says what happens to all objects of a kind, without the fields that nobody reads.
fn watch<K>(client: &Client, namespace: Option<&str>) -> BoxStream<'static, Watched<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let begin = move || {
        watcher(api.clone(), watcher::Config::default())
            .default_backoff()
            .boxed()
    };
    stream::unfold((begin(), begin), async |(mut events, begin)| {
        let event = events.next().await?;
        if event.as_ref().is_err_and(is_too_old) {
            tokio::time::sleep(LIST_AGAIN_AFTER).await;
            events = begin();
        }
        Some((event, (events, begin)))
    })
    .map(|event| event.map(|event| event.modify(|object| object.meta_mut().managed_fields = None)))
    .boxed()
}

/// Tells whether a watch cannot begin where the last one ended.
///
/// The watcher begins anew by itself only if that is said in the stream, and not with its status.
fn is_too_old(error: &watcher::Error) -> bool {
    const GONE: u16 = 410;
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == GONE)
}

/// When to look again, or why a sync did not come to its end.
type Synced = Result<Option<Duration>, SyncError>;

struct Driver<Q> {
    syncer: Arc<Syncer<Q>>,
    schedule: Schedule,
    running: HashSet<Key>,
    syncs: JoinSet<Synced>,
    keys: HashMap<tokio::task::Id, Key>,
}

impl<Q: QueueService> Driver<Q> {
    async fn drive(
        &mut self,
        mut jobs: impl Stream<Item = Watched<Job>> + Unpin,
        mut pods: impl Stream<Item = Watched<Pod>> + Unpin,
        shutdown: &CancellationToken,
    ) {
        loop {
            self.start_due();
            let next = self.next_start();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = jobs.next() => self.on_job(event),
                Some(event) = pods.next() => self.on_pod(event),
                Some(ended) = self.syncs.join_next_with_id() => self.on_end(ended),
                () = sleep_until(next) => {}
            }
        }
        // A call that never ends must not keep the process.
        let _ = tokio::time::timeout(SHUTDOWN_MAX, async {
            while let Some(ended) = self.syncs.join_next_with_id().await {
                self.on_end(ended);
            }
        })
        .await;
    }

    /// Nothing is known until everything has been listed once.
    fn is_ready(&self) -> bool {
        lock(&self.syncer.cluster.jobs).is_complete()
            && lock(&self.syncer.cluster.pods).is_complete()
    }

    fn has_room(&self) -> bool {
        self.running.len() < self.syncer.settings.concurrency
    }

    fn next_start(&self) -> Option<Instant> {
        if self.has_room() && self.is_ready() {
            self.schedule.next(|key| !self.running.contains(key))
        } else {
            None
        }
    }

    fn start_due(&mut self) {
        if !self.is_ready() {
            return;
        }
        while self.has_room() {
            let running = &self.running;
            let now = Instant::now();
            let due = self.schedule.take_due(now, |key| !running.contains(key));
            let Some(key) = due else { return };
            self.running.insert(key.clone());
            let syncer = Arc::clone(&self.syncer);
            let task_key = key.clone();
            let task = self
                .syncs
                .spawn(async move { syncer.sync(&task_key).await });
            self.keys.insert(task.id(), key);
        }
    }

    fn on_end(&mut self, ended: Result<(tokio::task::Id, Synced), tokio::task::JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(error) => {
                tracing::error!(%error, "a sync panicked");
                (error.id(), None)
            }
        };
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        self.running.remove(&key);
        let delay = match result {
            Some(Ok(delay)) => delay,
            Some(Err(error)) => {
                // What the API asks for comes before what is usual.
                let delay = self.syncer.retry_delay(&key).max(error.retry_after());
                if self.syncer.is_overtaken(&key, &error) {
                    tracing::debug!(job.name = key.name, "{}", error.chain());
                } else {
                    log(&key, &error, delay);
                }
                self.syncer.say_stuck(&key, &error);
                Some(delay)
            }
            None => Some(self.syncer.settings.retry_cap),
        };
        if let Some(delay) = delay {
            self.schedule.at(key, Instant::now() + delay);
        }
    }

    fn on_job(&mut self, event: Watched<Job>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "the watch of Jobs is interrupted");
                return;
            }
        };
        let mut touched = Vec::new();
        {
            let mut jobs = lock(&self.syncer.cluster.jobs);
            match event {
                WatchEvent::Init => jobs.begin_list(),
                WatchEvent::InitDone => {
                    for job in jobs.end_list() {
                        self.syncer.forget(&job);
                        touched.push(Key::of(&*job));
                    }
                }
                WatchEvent::Apply(job) | WatchEvent::InitApply(job) => {
                    let before = jobs.get(&Key::of(&job)).cloned();
                    if let Some(before) = before.filter(|before| before.uid() != job.uid()) {
                        self.syncer.forget(&before);
                    }
                    touched.extend(apply_job(&mut jobs, job));
                }
                WatchEvent::Delete(job) => {
                    let key = Key::of(&job);
                    jobs.remove(&key, job.metadata.uid.as_ref(), Source::Watch);
                    self.syncer.forget(&job);
                    touched.push(key);
                }
            }
        }
        for key in touched {
            self.schedule.at(key, Instant::now());
        }
    }

    fn on_pod(&mut self, event: Watched<Pod>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "the watch of Pods is interrupted");
                return;
            }
        };
        match event {
            WatchEvent::Init => lock(&self.syncer.cluster.pods).begin_list(),
            WatchEvent::InitDone => {
                let gone = lock(&self.syncer.cluster.pods).end_list();
                for pod in gone {
                    self.syncer.note_gone(&pod);
                    self.touch(&pod, true);
                }
            }
            WatchEvent::Apply(pod) | WatchEvent::InitApply(pod) => {
                let pod = Arc::new(pod);
                if self.syncer.learn_pod(Arc::clone(&pod)) {
                    self.touch(&pod, workers::is_dead(&pod));
                }
            }
            WatchEvent::Delete(pod) => {
                let uid = pod.metadata.uid.as_ref();
                lock(&self.syncer.cluster.pods).remove(&Key::of(&pod), uid, Source::Watch);
                self.syncer.note_gone(&pod);
                self.touch(&pod, true);
            }
        }
    }

    fn has_queue(&self, key: &Key) -> bool {
        let jobs = lock(&self.syncer.cluster.jobs);
        jobs.get(key)
            .is_some_and(|job| job.annotation(QUEUE).is_some())
    }

    /// Has the Jobs looked at that a Pod belongs to, or could.
    fn touch(&mut self, pod: &Pod, is_dead: bool) {
        let due = Instant::now() + self.syncer.settings.pod_event_batch;
        match cache::owner(pod) {
            // What a dead worker held is to be leased again soon.
            Owner::Job(key) if is_dead && self.has_queue(&key) => {
                self.schedule.at(key, Instant::now());
            }
            Owner::Job(key) => self.schedule.at(key, due),
            Owner::None => {
                let wanted_by = cache::could_belong_to(&lock(&self.syncer.cluster.jobs), pod);
                if wanted_by.is_empty() && pod.is_tracked() {
                    self.schedule.at(Key::new(pod.namespace(), ""), due);
                }
                for key in wanted_by {
                    self.schedule.at(key, due);
                }
            }
            Owner::Other => {}
        }
    }
}

/// A Job of the same name and another uid is another Job, whatever is known of the first.
fn apply_job(jobs: &mut Store<Job>, job: Job) -> Option<Key> {
    let key = Key::of(&job);
    jobs.apply(Arc::new(job), Source::Watch).then_some(key)
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn log(key: &Key, error: &SyncError, delay: Duration) {
    tracing::warn!(
        job.namespace = key.namespace,
        job.name = key.name,
        retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        "a Job could not be synced: {}",
        error.chain()
    );
}
