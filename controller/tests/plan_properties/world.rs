//! One Job, its Pods, and what is known to be true about them.

mod check;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use gangline_controller::api::names::{BUILT_IN_CONTROLLER, QUEUE_UID, TRACKING_FINALIZER};
use gangline_controller::api::{CompletionMode, Job, JobStatus, Pod, PodPhase, Time};
use gangline_controller::plan::account::Outcome;
use gangline_controller::plan::conditions;
use gangline_controller::plan::queue::{Forgiven, WorkerSettings};
use gangline_controller::plan::tally::{completions, has_valid_index};
use gangline_controller::plan::{
    BackoffRecord, FinalizerFirst, GonePod, Observed, Plan, QueueAction, QueueView, RetryDelay,
    Scope, account, plan,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::queue::Queue;
use super::status_rules;

/// When the controller is stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// Not at all.
    Never,
    /// After so many writes: the next one does not happen, and all that it remembers is lost.
    After(usize),
}

/// The controller was stopped.
struct Stopped;

/// One Job and its Pods, as the API stores them.
#[derive(Debug)]
pub(crate) struct World {
    job: Job,
    pods: Vec<Pod>,
    now: Timestamp,
    backoff: BackoffRecord,
    pods_made: u64,
    writes_left: usize,
    /// Pods that lost their finalizer after they had succeeded, or failed.
    succeeded: i32,
    failed: i32,
    succeeded_indexes: BTreeSet<u32>,
    /// The queue that the Job names, if it does.
    pub(crate) queue: Option<Queue>,
    forgiven: Forgiven,
    gone: Vec<GonePod>,
}

impl World {
    /// A Job that names a queue.
    pub(crate) fn with_queue(spec: &Value, annotations: &Value) -> Self {
        let mut world = Self::new(spec);
        let annotations = serde_json::from_value(annotations.clone()).unwrap();
        world.job.metadata.annotations = Some(annotations);
        world.queue = Some(Queue::new(world.now));
        world
    }

    pub(crate) fn new(spec: &Value) -> Self {
        let mut job = json!({
            "metadata": { "name": "j", "namespace": "default", "uid": "job" },
            "spec": {
                "selector": { "matchLabels": { "app": "j" } },
                "template": {
                    "metadata": { "labels": { "app": "j" } },
                    "spec": { "restartPolicy": "Never", "containers": [{ "name": "main" }] },
                },
            },
        });
        for (key, value) in spec.as_object().unwrap() {
            // It stands in the template, but which Job it is depends on it.
            if key == "restartPolicy" {
                job["spec"]["template"]["spec"][key] = value.clone();
            } else {
                job["spec"][key] = value.clone();
            }
        }
        Self {
            job: serde_json::from_value(job).unwrap(),
            pods: Vec::new(),
            now: "2026-01-01T12:00:00Z".parse().unwrap(),
            backoff: BackoffRecord::default(),
            pods_made: 0,
            writes_left: usize::MAX,
            succeeded: 0,
            failed: 0,
            succeeded_indexes: BTreeSet::new(),
            queue: None,
            forgiven: Forgiven::default(),
            gone: Vec::new(),
        }
    }

    /// A running Pod says something to its queue.
    pub(crate) fn work(&mut self, pod: usize, act: impl FnOnce(&mut Queue, &str, Timestamp)) {
        let is_running = |pod: &&Pod| pod.status.phase == Some(PodPhase::Running);
        if let (Some(queue), Some(pod)) = (&mut self.queue, self.pods.get(pod).filter(is_running)) {
            act(queue, pod.uid(), self.now);
        }
    }

    /// Something happens to the queue from outside.
    pub(crate) fn on_queue(&mut self, act: impl FnOnce(&mut Queue, Timestamp)) {
        if let Some(queue) = &mut self.queue {
            act(queue, self.now);
        }
    }

    /// An elastic Indexed Job gets another size; others stay as they are.
    pub(crate) fn scale(&mut self, size: i32) {
        let spec = &mut self.job.spec;
        let is_elastic = self.job.status.conditions.is_empty()
            && spec.success_policy.is_none()
            && spec.completions.is_some()
            && spec.completions == spec.parallelism;
        if is_elastic && spec.completion_mode == Some(CompletionMode::Indexed) {
            (spec.completions, spec.parallelism) = (Some(size), Some(size));
        }
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub(crate) fn suspend(&mut self, suspend: bool) {
        self.job.spec.suspend = Some(suspend);
    }

    /// A Job that was elastic is looked at first: the successes of one that is not elastic must not
    /// become fewer, so an API server refuses what would follow from a smaller size and another
    /// parallelism at once.
    pub(crate) fn set_parallelism(&mut self, parallelism: i32) {
        let spec = &self.job.spec;
        if spec.parallelism == Some(parallelism) {
            return;
        }
        if self.job.is_indexed() && spec.completions == spec.parallelism {
            self.sync(Stop::Never);
        }
        self.job.spec.parallelism = Some(parallelism);
    }

    pub(crate) fn start(&mut self, pod: usize) {
        if let Some(pod) = self.pods.get_mut(pod)
            && pod.status.phase == Some(PodPhase::Pending)
        {
            pod.status.phase = Some(PodPhase::Running);
        }
    }

    pub(crate) fn exit(&mut self, pod: usize, code: i32) {
        let now = self.now;
        if let Some(pod) = self.pods.get_mut(pod).filter(|pod| pod.is_active()) {
            end(pod, code, now);
        }
    }

    pub(crate) fn restart(&mut self, pod: usize) {
        let is_running = |pod: &&mut Pod| pod.status.phase == Some(PodPhase::Running);
        if let Some(pod) = self.pods.get_mut(pod).filter(is_running) {
            let before = pod.status.container_statuses.first();
            let restarts = before.map_or(0, |container| container.restart_count) + 1;
            let container = json!({ "name": "main", "restartCount": restarts });
            pod.status.container_statuses = vec![serde_json::from_value(container).unwrap()];
        }
    }

    pub(crate) fn delete(&mut self, pod: usize) {
        if let Some(uid) = self.pods.get(pod).map(|pod| pod.uid().to_owned()) {
            self.mark_deleted(&uid);
        }
    }

    pub(crate) fn reap(&mut self, pod: usize, code: i32) {
        let now = self.now;
        if let Some(pod) = self.pods.get_mut(pod).filter(|pod| pod.is_terminating()) {
            end(pod, code, now);
        }
        self.collect();
    }

    /// Looks at the Job once.
    pub(crate) fn sync(&mut self, stop: Stop) {
        self.writes_left = match stop {
            Stop::Never => usize::MAX,
            Stop::After(writes) => writes,
        };
        let observed = self.observe();
        if self.carry_out(&observed).is_err() {
            self.backoff = BackoffRecord::default();
            self.forgiven = Forgiven::default();
            self.gone.clear();
        }
        self.collect();
    }

    fn observe(&self) -> Observed {
        Observed {
            job: Arc::new(self.job.clone()),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            scope: Scope {
                managed_by: BUILT_IN_CONTROLLER,
                unmanaged: true,
            },
            may_adopt: true,
            expectations_met: true,
            removals_in_flight: HashSet::new(),
            backoff: self.backoff,
            retry_delay: RetryDelay::default(),
            queue: self
                .queue
                .as_ref()
                .map_or(QueueView::Unread, |queue| queue.view(&self.pods)),
            gone: self.gone.clone(),
            forgiven: self.forgiven,
            workers: WorkerSettings::default(),
            seed: self.pods_made,
        }
    }

    fn write(&mut self) -> Result<(), Stopped> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(Stopped)?;
        Ok(())
    }

    fn carry_out(&mut self, observed: &Observed) -> Result<(), Stopped> {
        let plan = plan(observed, self.now);
        self.check_plan(&plan);
        for action in &plan.queue_actions {
            self.write()?;
            if let QueueAction::Latch(uid) = action {
                let annotations = self.job.metadata.annotations.get_or_insert_default();
                annotations.insert(QUEUE_UID.into(), uid.to_string());
            }
            let now = self.now;
            self.on_queue(|queue, _| queue.carry_out(action, now));
        }
        let observed = &Observed {
            job: Arc::new(self.job.clone()),
            ..observed.clone()
        };
        let mut outcome = Outcome::default();
        for deletion in &plan.delete {
            let uid = deletion.pod.uid();
            if deletion.finalizer == FinalizerFirst::Remove {
                self.write()?;
                self.untrack(uid);
            }
            self.write()?;
            self.mark_deleted(uid);
            outcome.deleted.insert(uid.to_owned());
        }
        for new in plan.create.iter().flatten() {
            self.write()?;
            self.make(&new.manifest);
            outcome.created += 1;
        }
        let Some(accounting) = account(observed, &plan, &outcome, self.now) else {
            return Ok(());
        };
        if let Some(status) = &accounting.first {
            self.write()?;
            self.write_status(status);
        }
        self.backoff = accounting.backoff.unwrap_or(self.backoff);
        let mut removed = HashSet::new();
        for pod in &accounting.remove_finalizers {
            self.write()?;
            self.note_counted(pod, &plan);
            self.untrack(pod.uid());
            removed.insert(pod.uid().to_owned());
        }
        if let Some(status) = &accounting.conclude(&removed).second {
            self.write()?;
            self.write_status(status);
        }
        self.forgiven = plan.basis.forgiven;
        Ok(())
    }

    /// Keeps the books that the status is held against.
    fn note_counted(&mut self, pod: &Pod, plan: &Plan) {
        let is_tracked = self
            .pods
            .iter()
            .any(|known| known.uid() == pod.uid() && known.is_tracked());
        if !is_tracked {
            return;
        }
        let has_failed = self.has_failed(pod);
        let fails_all = plan.end.as_ref().is_some_and(|end| !end.verdict.success);
        let is_ignored = self.is_ignored(pod);
        let listed = self
            .job
            .status
            .uncounted_terminated_pods
            .clone()
            .unwrap_or_default();
        let is_listed = listed.failed.iter().any(|uid| uid == pod.uid());
        if !is_listed && !has_valid_index(&self.job, pod) {
            return;
        }
        if pod.has_succeeded() && !is_listed {
            self.succeeded += 1;
            self.succeeded_indexes.extend(pod.completion_index());
        } else if is_listed || ((has_failed || fails_all) && !is_ignored) {
            self.failed += 1;
        }
    }

    fn make(&mut self, manifest: &Value) {
        let mut pod: Pod = serde_json::from_value(manifest.clone()).unwrap();
        self.pods_made += 1;
        pod.metadata.uid = Some(format!("pod-{}", self.pods_made));
        pod.metadata.creation_timestamp = Some(Time(self.now));
        pod.status.phase = Some(PodPhase::Pending);
        assert!(
            self.pods
                .iter()
                .all(|other| other.name() != pod.name() || other.is_terminal()),
            "a name is used twice"
        );
        self.pods.push(pod);
    }

    fn untrack(&mut self, uid: &str) {
        for pod in self.pods.iter_mut().filter(|pod| pod.uid() == uid) {
            let finalizers = pod.metadata.finalizers.get_or_insert_default();
            finalizers.retain(|name| name != TRACKING_FINALIZER);
        }
    }

    fn mark_deleted(&mut self, uid: &str) {
        let now = self.now;
        for pod in self.pods.iter_mut().filter(|pod| pod.uid() == uid) {
            let is_pending = pod.status.phase == Some(PodPhase::Pending);
            pod.metadata.deletion_timestamp.get_or_insert(Time(now));
            // Nothing runs, so nobody is waited for.
            if is_pending && pod.is_tracked() {
                pod.status.phase = Some(PodPhase::Failed);
            }
        }
        self.collect();
    }

    /// Objects of deleted Pods go when nothing runs and nothing holds them.
    fn collect(&mut self) {
        let gone = &mut self.gone;
        self.pods.retain(|pod| {
            let is_held = pod.is_tracked();
            let runs = pod.status.phase == Some(PodPhase::Running);
            let stays = !pod.is_deleting() || is_held || runs;
            if !stays {
                gone.push(GonePod {
                    uid: pod.uid().to_owned(),
                    counted: false,
                });
            }
            stays
        });
    }

    fn write_status(&mut self, status: &JobStatus) {
        let is_ended = conditions::finished(&self.job.status.conditions).is_some();
        assert!(!is_ended, "a finished Job is written again");
        let mut new = self.job.clone();
        new.status = status.clone();
        let refused = status_rules::refused(&self.job, &new);
        assert!(
            refused.is_empty(),
            "the API refuses {refused:?}: {status:#?}"
        );
        self.job.status = status.clone();
        // What lies beyond the size of an elastic Job is forgotten, and would be done anew.
        if self.job.is_indexed() {
            let completions = completions(&self.job);
            self.succeeded_indexes.retain(|index| *index < completions);
        }
    }

    /// From here on everything goes well, and the Job has to end.
    pub(crate) fn run_to_its_end(&mut self) {
        self.suspend(false);
        let parallelism = self.job.spec.parallelism.unwrap_or(1).max(1);
        self.set_parallelism(parallelism);
        for _ in 0..40 {
            self.sync(Stop::Never);
            self.check();
            if conditions::finished(&self.job.status.conditions).is_some() {
                assert!(
                    self.pods.iter().all(|pod| !pod.is_tracked()),
                    "a Pod is still held"
                );
                return;
            }
            self.work_on();
            let now = self.now;
            let may_leave = self.queue.as_ref().is_none_or(Queue::is_over)
                || conditions::announced(&self.job).is_some();
            for pod in self.pods.iter_mut().filter(|pod| !pod.is_terminal()) {
                if may_leave {
                    end(pod, 0, now);
                } else if pod.is_deleting() {
                    end(pod, 143, now);
                }
            }
            self.collect();
            // Longer than any delay.
            self.wait(700);
        }
        panic!("the Job never ends: {self:#?}");
    }

    /// The service is back, nothing more is pushed, and every Pod works.
    fn work_on(&mut self) {
        self.on_queue(|queue, now| {
            queue.go_away(false);
            queue.seal(now);
        });
        for pod in 0..self.pods.len() {
            self.start(pod);
            self.work(pod, Queue::lease);
            self.work(pod, |queue, pod, now| queue.settle(pod, true, now));
        }
    }

    /// Nothing happens outside, so soon nothing happens inside.
    pub(crate) fn comes_to_rest(&mut self) {
        for _ in 0..6 {
            let observed = self.observe();
            let plan = plan(&observed, self.now);
            let acts = !plan.delete.is_empty() || !plan.create.is_empty();
            let writes = account(&observed, &plan, &Outcome::default(), self.now).is_some_and(
                |accounting| accounting.first.is_some() || !accounting.remove_finalizers.is_empty(),
            );
            if !acts && !writes {
                return;
            }
            self.sync(Stop::Never);
            self.check();
        }
        panic!("the plan never comes to rest: {self:#?}");
    }
}

/// The containers of a Pod end with this exit code.
fn end(pod: &mut Pod, code: i32, now: Timestamp) {
    pod.status.phase = Some(if code == 0 {
        PodPhase::Succeeded
    } else {
        PodPhase::Failed
    });
    let terminated = json!({ "exitCode": code, "finishedAt": now });
    let container = json!({ "name": "main", "state": { "terminated": terminated } });
    pod.status.container_statuses = vec![serde_json::from_value(container).unwrap()];
}
