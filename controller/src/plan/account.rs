//! What to write down about a Job, so that each finished Pod is counted exactly once.
//!
//! Two status writes with the removal of finalizers between them: the first says which Pods are
//! about to be counted, then their finalizers go, then they move into the counters. A stop between
//! any two of these leaves what the next sync needs to go on.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::conditions::{self, SUSPENDED, Verdict};
use super::indexes::Indexes;
use super::tally::{self, Tally, completions, counts_as_failed, is_new};
use super::{BackoffRecord, End, Event, Observed, Plan, failure_policy};
use crate::api::{
    ConditionStatus, Job, JobCondition, JobStatus, Pod, Time, Uid, UncountedTerminatedPods,
};

/// Most Pods that one sync counts.
pub const COUNTED_MAX: usize = 500;

/// What became of a plan's actions.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How many Pods were made, or count as made.
    pub created: usize,
    /// Pods that were deleted, or were gone already.
    pub deleted: HashSet<Uid>,
}

/// What to write down, in this order: the first status, no finalizer, all of them, the conclusion.
#[derive(Debug, Clone)]
pub struct Accounting {
    /// The status to write before any finalizer goes. When the write fails, nothing more is done.
    pub first: Option<JobStatus>,
    /// Pods that lose their finalizer then.
    pub remove_finalizers: Vec<Arc<Pod>>,
    /// The back-off record to keep from the first write on.
    pub backoff: Option<BackoffRecord>,
    /// What to say once the first write has succeeded.
    pub events: Vec<Event>,
    status: JobStatus,
    still_tracked: HashSet<Uid>,
    terminal: Option<Terminal>,
}

/// The end of a Job, as far as this sync may reach it.
#[derive(Debug, Clone)]
struct Terminal {
    verdict: Verdict,
    now: Timestamp,
    completions: Option<i32>,
    needs_start_time: bool,
}

/// What to write down when the finalizers are gone.
#[derive(Debug, Clone, Default)]
pub struct Conclusion {
    /// The status to write.
    pub second: Option<JobStatus>,
    /// The condition that ended the Job, if this sync did.
    pub finished: Option<JobCondition>,
    /// What to say once the second write has succeeded.
    pub events: Vec<Event>,
}

/// Decides what to write down after the actions of `plan` had `outcome`.
///
/// Returns nothing when the plan was to do nothing.
#[must_use]
pub fn account(
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<Accounting> {
    if plan.skip.is_some() {
        return None;
    }
    let job = &*observed.job;
    let tally = &plan.basis.tally;
    let deleted = outcome.deleted.len();
    let active = (tally.active.len() + outcome.created).saturating_sub(deleted);
    let was_ready = |pod: &&Arc<Pod>| pod.is_ready() && outcome.deleted.contains(pod.uid());
    let ready = tally.ready - tally.active.iter().filter(was_ready).count();

    let mut status = job.status.clone();
    let mut events = Vec::new();
    let mut changed = false;
    if status.start_time.is_none() && !job.is_suspended() {
        status.start_time = Some(Time(now));
    }
    let end = match &plan.end {
        Some(end) => reached(observed, end, tally, deleted),
        None if !plan.basis.has_queue && is_complete(job, tally, active) => Some(End::new(
            Verdict::success(
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            ),
            now,
        )),
        None => {
            if plan.basis.sized {
                changed |= note_suspension(job, &mut status, &mut events, now);
            }
            None
        }
    };
    let (active, ready, terminating) = (
        count(active),
        count(ready),
        count(tally.terminating + deleted),
    );
    changed |= status.active.unwrap_or(0) != active
        || status.ready != Some(ready)
        || status.terminating != Some(terminating);
    status.active = Some(active);
    status.ready = Some(ready);
    status.terminating = Some(terminating);

    let mut accounting = track(Tracking {
        job,
        tally,
        in_flight: &observed.removals_in_flight,
        end: end.as_ref(),
        status,
        changed,
        now,
    });
    if plan.basis.has_queue
        && let Some(terminal) = &mut accounting.terminal
    {
        // Peers of the first success are no surplus.
        terminal.completions = None;
    }
    accounting.backoff = accounting.first.is_some().then_some(plan.basis.backoff);
    accounting.events = events;
    Some(accounting)
}

/// Keeps an end only if every Pod that it is about was dealt with.
///
/// Otherwise there may be Pods that nobody has counted; the next sync finds the end again.
fn reached(observed: &Observed, end: &End, tally: &Tally, deleted: usize) -> Option<End> {
    let all_dealt_with = end.draining || deleted == tally.active.len();
    (all_dealt_with && observed.expectations_met).then(|| end.clone())
}

fn is_complete(job: &Job, tally: &Tally, active: usize) -> bool {
    let enough = match job.spec.completions {
        None => tally.succeeded > 0,
        Some(completions) => {
            i64::try_from(tally.succeeded).unwrap_or(i64::MAX) >= i64::from(completions)
        }
    };
    enough && active == 0
}

fn note_suspension(
    job: &Job,
    status: &mut JobStatus,
    events: &mut Vec<Event>,
    now: Timestamp,
) -> bool {
    let (state, reason, message, event) = if job.is_suspended() {
        let texts = ("JobSuspended", "Job suspended", "Suspended");
        (ConditionStatus::True, texts.0, texts.1, texts.2)
    } else {
        let texts = ("JobResumed", "Job resumed", "Resumed");
        (ConditionStatus::False, texts.0, texts.1, texts.2)
    };
    let condition = conditions::new(SUSPENDED, state, reason, message, now);
    let changed = conditions::upsert(&mut status.conditions, condition);
    if changed {
        // The deadline starts anew with each resumption.
        status.start_time = (!job.is_suspended()).then_some(Time(now));
        events.push(Event::normal(event, message));
    }
    changed
}

/// What tracking goes by.
#[derive(Debug)]
pub struct Tracking<'a> {
    /// The Job.
    pub job: &'a Job,
    /// Its Pods by class.
    pub tally: &'a Tally,
    /// Pods whose finalizer was removed already.
    pub in_flight: &'a HashSet<Uid>,
    /// How the Job ends, if it does.
    pub end: Option<&'a End>,
    /// The status to go on from.
    pub status: JobStatus,
    /// Whether that status has to be written anyway.
    pub changed: bool,
    /// The time.
    pub now: Timestamp,
}

/// Decides which Pods are counted, and as what.
#[must_use]
pub fn track(tracking: Tracking<'_>) -> Accounting {
    let Tracking {
        job,
        tally,
        in_flight,
        end,
        mut status,
        mut changed,
        now,
    } = tracking;
    let mut still_tracked: HashSet<Uid> = tally
        .pods
        .iter()
        .filter(|pod| is_new(pod, in_flight))
        .map(|pod| pod.uid().to_owned())
        .collect();
    changed |= count_removed(&mut status, &still_tracked);

    let found = find_countable(job, tally, in_flight, end, &mut status);
    changed |= found.listed;
    if job.is_indexed() {
        changed |= note_indexes(tally, &found.new_indexes, &mut status);
    }
    let terminal = end.map(|end| {
        if let Some(interim) = &end.interim {
            changed |= conditions::upsert(&mut status.conditions, interim.clone());
        }
        Terminal {
            verdict: end.verdict.clone(),
            now,
            completions: job.spec.completions,
            needs_start_time: status.start_time.is_none() && !is_empty_job(job),
        }
    });
    let may_end = !found.cut_short
        && tally.terminating == 0
        && status.terminating.unwrap_or(0) == 0
        && end.is_some_and(|end| !end.draining);
    status.uncounted_terminated_pods.get_or_insert_default();
    still_tracked.shrink_to_fit();
    Accounting {
        first: changed.then(|| status.clone()),
        remove_finalizers: found.countable,
        backoff: None,
        events: Vec::new(),
        status,
        still_tracked,
        terminal: terminal.filter(|_| may_end),
    }
}

/// A suspended Job of no completions ends without ever having started.
fn is_empty_job(job: &Job) -> bool {
    job.is_suspended() && job.spec.completions == Some(0)
}

#[derive(Default)]
struct Found {
    countable: Vec<Arc<Pod>>,
    new_indexes: Vec<u32>,
    listed: bool,
    cut_short: bool,
}

fn find_countable(
    job: &Job,
    tally: &Tally,
    in_flight: &HashSet<Uid>,
    end: Option<&End>,
    status: &mut JobStatus,
) -> Found {
    let earlier = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let listed_succeeded: HashSet<&str> = earlier.succeeded.iter().map(String::as_str).collect();
    let listed_failed: HashSet<&str> = earlier.failed.iter().map(String::as_str).collect();
    let list = status.uncounted_terminated_pods.get_or_insert_default();
    let ends_all = end.is_some_and(|end| !end.draining);
    let fails_all = end.is_some_and(|end| ends_all && !end.verdict.success);
    let mut found = Found::default();
    for pod in &tally.pods {
        if !is_new(pod, in_flight) {
            continue;
        }
        let has_failed = counts_as_failed(job, pod);
        let is_kept = || {
            let kept = pod
                .completion_index()
                .and_then(|index| tally.kept.get(&index));
            kept.is_some_and(|kept| kept.uid() == pod.uid())
        };
        let may_go =
            job.is_deleting() || ends_all || pod.has_succeeded() || (has_failed && !is_kept());
        if !may_go {
            continue;
        }
        found.countable.push(Arc::clone(pod));
        if pod.has_succeeded() && !listed_failed.contains(pod.uid()) {
            if job.is_indexed() {
                // The index itself says that it was counted, so no uid has to.
                found
                    .new_indexes
                    .extend(pod.completion_index().filter(|index| {
                        *index < completions(job) && !tally.completed_before.contains(*index)
                    }));
            } else if !listed_succeeded.contains(pod.uid()) {
                list.succeeded.push(pod.uid().to_owned());
                found.listed = true;
            }
        } else if (has_failed || fails_all)
            && !listed_failed.contains(pod.uid())
            && tally::has_valid_index(job, pod)
            && failure_policy::matched(job.spec.pod_failure_policy.as_ref(), pod).counts()
        {
            list.failed.push(pod.uid().to_owned());
            found.listed = true;
        }
        if list.len() + found.new_indexes.len() >= COUNTED_MAX {
            found.cut_short = true;
            break;
        }
    }
    found.listed |= !found.new_indexes.is_empty();
    found
}

fn note_indexes(tally: &Tally, new_indexes: &[u32], status: &mut JobStatus) -> bool {
    let completed = tally.completed_before.with(new_indexes.iter().copied());
    let text = completed.to_string();
    let failed = tally.failed_indexes.as_ref().map(Indexes::to_string);
    let changed = status.completed_indexes.as_deref().unwrap_or_default() != text
        || status.failed_indexes != failed;
    status.succeeded = Some(i32::try_from(completed.len()).unwrap_or(i32::MAX));
    status.completed_indexes = (!text.is_empty()).then_some(text);
    status.failed_indexes = failed;
    changed
}

/// Moves listed Pods whose finalizer is gone into the counters.
fn count_removed(status: &mut JobStatus, still_tracked: &HashSet<Uid>) -> bool {
    let Some(list) = &mut status.uncounted_terminated_pods else {
        return false;
    };
    let move_into = |uids: &mut Vec<Uid>, counter: &mut Option<i32>| {
        let before = uids.len();
        uids.retain(|uid| still_tracked.contains(uid));
        let moved = before - uids.len();
        if moved > 0 {
            *counter = Some(counter.unwrap_or(0).saturating_add(count(moved)));
        }
        moved > 0
    };
    let UncountedTerminatedPods { succeeded, failed } = list;
    let any_succeeded = move_into(succeeded, &mut status.succeeded);
    let any_failed = move_into(failed, &mut status.failed);
    any_succeeded || any_failed
}

impl Accounting {
    /// Decides what to write down once the finalizers of `removed` are gone.
    ///
    /// A Job ends only if all finalizers that were to go are gone.
    #[must_use]
    pub fn conclude(&self, removed: &HashSet<Uid>) -> Conclusion {
        let mut status = self.status.clone();
        let mut still_tracked = self.still_tracked.clone();
        still_tracked.retain(|uid| !removed.contains(uid));
        let mut changed = count_removed(&mut status, &still_tracked);
        let all_removed = self
            .remove_finalizers
            .iter()
            .all(|pod| removed.contains(pod.uid()));
        let nothing_listed = status
            .uncounted_terminated_pods
            .as_ref()
            .is_none_or(UncountedTerminatedPods::is_empty);
        let mut conclusion = Conclusion::default();
        if let Some(terminal) = &self.terminal
            && all_removed
            && nothing_listed
        {
            let condition = terminal.verdict.terminal(terminal.now);
            conditions::upsert(&mut status.conditions, condition.clone());
            if terminal.verdict.success {
                status.completion_time = Some(Time(terminal.now));
            }
            if terminal.needs_start_time {
                status.start_time = Some(Time(terminal.now));
            }
            conclusion.events = terminal.events(&status);
            conclusion.finished = Some(condition);
            changed = true;
        }
        conclusion.second = changed.then_some(status);
        conclusion
    }
}

impl Terminal {
    fn events(&self, status: &JobStatus) -> Vec<Event> {
        if !self.verdict.success {
            return vec![Event::warning(&self.verdict.reason, &self.verdict.message)];
        }
        let too_many = self
            .completions
            .is_some_and(|completions| status.succeeded.unwrap_or(0) > completions);
        let mut events = Vec::new();
        if too_many {
            events.push(Event::warning(
                "TooManySucceededPods",
                "Too many succeeded pods running after completion count reached",
            ));
        }
        events.push(Event::normal("Completed", "Job completed"));
        events
    }
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
