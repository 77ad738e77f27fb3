//! What of a Job's status may be written: no controller can make it contradict itself.

use std::collections::HashSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use serde_json::{Value, json};

use super::super::error::Cause;
use super::indexes;

const CONDITIONS: &str = "status.conditions";

fn invalid(field: &str, value: &Value, why: &str) -> Cause {
    Cause::invalid(field, value, why)
}

fn is_true(status: &JobStatus, type_: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
}

fn is_finished(status: &JobStatus) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

fn uncounted(status: &JobStatus) -> (&[String], &[String]) {
    let lists = status.uncounted_terminated_pods.as_ref();
    let succeeded = lists.and_then(|lists| lists.succeeded.as_deref());
    let failed = lists.and_then(|lists| lists.failed.as_deref());
    (succeeded.unwrap_or_default(), failed.unwrap_or_default())
}

/// What of a status differs from what it was. What did not change is not judged again: what was
/// wrong before, or became so by a change of the spec, does not stand in the way of the rest.
struct Changed {
    conditions: [bool; 4],
    finished: bool,
    active: bool,
    ready: bool,
    terminating: bool,
    uncounted: bool,
    started: bool,
    completed_at: bool,
    completed_indexes: bool,
    failed_indexes: bool,
}

const TERMINAL: [&str; 4] = ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"];

impl Changed {
    fn between(old: &JobStatus, new: &JobStatus) -> Self {
        let text = |indexes: &Option<String>| indexes.clone().unwrap_or_default();
        Self {
            conditions: TERMINAL.map(|type_| is_true(old, type_) != is_true(new, type_)),
            finished: is_finished(old) != is_finished(new),
            active: old.active.unwrap_or(0) != new.active.unwrap_or(0),
            ready: old.ready != new.ready,
            terminating: old.terminating != new.terminating,
            uncounted: uncounted(old) != uncounted(new),
            started: old.start_time != new.start_time,
            completed_at: old.completion_time != new.completion_time,
            completed_indexes: text(&old.completed_indexes) != text(&new.completed_indexes),
            failed_indexes: old.failed_indexes != new.failed_indexes,
        }
    }
}

/// Judges a change of a status.
pub(super) fn change(before: &Job, new: &Job) -> Vec<Cause> {
    let none = (JobStatus::default(), JobSpec::default());
    let old_status = before.status.as_ref().unwrap_or(&none.0);
    let status = new.status.as_ref().unwrap_or(&none.0);
    let spec = new.spec.as_ref().unwrap_or(&none.1);
    let changed = Changed::between(old_status, status);
    let mut causes = Vec::new();
    causes.extend(counters(status, &changed));
    causes.extend(uids(status));
    causes.extend(conditions(status, &changed));
    causes.extend(times(old_status, status, spec, &changed));
    causes.extend(finished(status, spec, &changed));
    causes.extend(index_lists(status, spec, &changed));
    causes.extend(exclusions(status));
    causes.extend(history(old_status, status, spec));
    causes
}

fn counters(status: &JobStatus, changed: &Changed) -> Vec<Cause> {
    let counters = [
        ("status.active", status.active),
        ("status.succeeded", status.succeeded),
        ("status.failed", status.failed),
        ("status.ready", status.ready),
        ("status.terminating", status.terminating),
    ];
    let negative = counters
        .into_iter()
        .filter(|(_, count)| count.is_some_and(|count| count < 0));
    let why = "must be greater than or equal to 0";
    let mut causes: Vec<Cause> = negative
        .map(|(field, count)| invalid(field, &json!(count), why))
        .collect();
    let is_above = status.ready.unwrap_or(0) > status.active.unwrap_or(0);
    if (changed.ready || changed.active) && is_above {
        let why = "cannot set more ready pods than active";
        causes.push(invalid("status.ready", &json!(status.ready), why));
    }
    causes
}

fn uids(status: &JobStatus) -> Vec<Cause> {
    let (succeeded, failed) = uncounted(status);
    let mut seen = HashSet::new();
    let mut causes = Vec::new();
    for (list, uids) in [("succeeded", succeeded), ("failed", failed)] {
        for (position, uid) in uids.iter().enumerate() {
            let field = format!("status.uncountedTerminatedPods.{list}[{position}]");
            if uid.is_empty() {
                causes.push(Cause::invalid(field, &json!(uid), "must not be empty"));
            } else if !seen.insert(uid) {
                causes.push(Cause::duplicate(field, &json!(uid)));
            }
        }
    }
    causes
}

fn conditions(new: &JobStatus, changed: &Changed) -> Vec<Cause> {
    let [complete, failed, success, failure] = TERMINAL.map(|type_| is_true(new, type_));
    let [completes, fails, succeeds, targets] = changed.conditions;
    let rules = [
        (
            complete && !success && (completes || succeeds),
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (
            failed && !failure && (fails || targets),
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            complete && failed && (completes || fails),
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            complete && failure && (completes || targets),
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
    ];
    let value = json!(new.conditions);
    let broken = rules.into_iter().filter(|(is_broken, _)| *is_broken);
    broken
        .map(|(_, why)| invalid(CONDITIONS, &value, why))
        .collect()
}

/// A Job whose success is settled cannot fail.
fn exclusions(new: &JobStatus) -> Vec<Cause> {
    let rules = [
        (
            "Failed",
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ),
        (
            "FailureTarget",
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
    ];
    let broken = rules
        .into_iter()
        .filter(|(type_, _)| is_true(new, "SuccessCriteriaMet") && is_true(new, type_));
    broken
        .map(|(_, why)| invalid(CONDITIONS, &json!(new.conditions), why))
        .collect()
}

fn times(old: &JobStatus, new: &JobStatus, spec: &JobSpec, changed: &Changed) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (started, completed) = (&new.start_time, &new.completion_time);
    let resumes = is_true(old, "Suspended") && !is_true(new, "Suspended");
    if changed.started && old.start_time.is_some() && spec.suspend != Some(true) && !resumes {
        let why = match started {
            Some(_) => "startTime cannot be modified for unsuspended job",
            None => "startTime cannot be removed for unsuspended job",
        };
        causes.push(invalid("status.startTime", &json!(started), why));
    }
    let field = "status.completionTime";
    let value = json!(completed);
    if changed.completed_at || changed.conditions[0] {
        match (completed, is_true(new, "Complete")) {
            (Some(_), false) => {
                let why = "cannot set completionTime when there is no Complete=True condition";
                causes.push(invalid(field, &value, why));
            }
            (None, true) => {
                let why = "completionTime is required for Complete jobs";
                causes.push(Cause::required(field, why));
            }
            _ => {}
        }
    }
    if let (Some(started), Some(completed)) = (started, completed)
        && (changed.started || changed.completed_at)
        && completed.0 < started.0
    {
        let why = "completionTime cannot be set before startTime";
        causes.push(invalid(field, &value, why));
    }
    if changed.completed_at && old.completion_time.is_some() && completed.is_some() {
        causes.push(invalid(field, &value, "field is immutable"));
    }
    causes
}

fn finished(new: &JobStatus, spec: &JobSpec, changed: &Changed) -> Vec<Cause> {
    if !is_finished(new) {
        return Vec::new();
    }
    let mut causes = Vec::new();
    if (changed.finished || changed.active) && new.active.unwrap_or(0) > 0 {
        let why = "active>0 is invalid for finished job";
        causes.push(invalid("status.active", &json!(new.active), why));
    }
    if (changed.finished || changed.terminating) && new.terminating.unwrap_or(0) > 0 {
        let why = "terminating>0 is invalid for finished job";
        causes.push(invalid("status.terminating", &json!(new.terminating), why));
    }
    let (succeeded, failed) = uncounted(new);
    let is_counted = succeeded.is_empty() && failed.is_empty();
    if (changed.finished || changed.uncounted) && !is_counted {
        let field = "status.uncountedTerminatedPods";
        let why = "uncountedTerminatedPods needs to be empty for finished job";
        causes.push(invalid(field, &json!(new.uncounted_terminated_pods), why));
    }
    let may_lack = spec.suspend == Some(true) && spec.completions == Some(0);
    if (changed.finished || changed.started) && new.start_time.is_none() && !may_lack {
        let why = "startTime is required for finished job";
        causes.push(Cause::required("status.startTime", why));
    }
    causes
}

fn index_lists(new: &JobStatus, spec: &JobSpec, changed: &Changed) -> Vec<Cause> {
    let mut causes = Vec::new();
    let is_indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let completed = new.completed_indexes.as_deref().unwrap_or_default();
    let failed = new.failed_indexes.as_deref().unwrap_or_default();
    let lists = [
        (
            "status.completedIndexes",
            completed,
            changed.completed_indexes,
            is_indexed,
            "cannot set non-empty completedIndexes when non-indexed completion mode",
        ),
        (
            "status.failedIndexes",
            failed,
            changed.failed_indexes,
            spec.backoff_limit_per_index.is_some(),
            "cannot set non-empty failedIndexes when backoffLimitPerIndex is not used",
        ),
    ];
    for (field, list, is_changed, is_allowed, why) in lists {
        if !is_changed {
            continue;
        }
        if !list.is_empty() && !is_allowed {
            causes.push(invalid(field, &json!(list), why));
        }
        let parsed = indexes::parse(list, spec.completions.unwrap_or(0));
        if let (Err(error), true) = (parsed, is_allowed) {
            let why = format!("error parsing: {error}");
            causes.push(invalid(field, &json!(list), &why));
        }
    }
    if (changed.completed_indexes || changed.failed_indexes)
        && indexes::overlap(&indexes::readable(completed), &indexes::readable(failed))
    {
        let why = "failedIndexes and completedIndexes overlap";
        causes.push(invalid("status.failedIndexes", &json!(failed), why));
    }
    causes
}

/// What is written once stays written.
fn history(old: &JobStatus, new: &JobStatus, spec: &JobSpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    let value = json!(new.conditions);
    for type_ in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
        if is_true(old, type_) && !is_true(new, type_) {
            causes.push(invalid(
                CONDITIONS,
                &value,
                &format!("cannot disable {type_}=True condition"),
            ));
        }
    }
    if is_true(old, "Complete")
        && !is_true(old, "SuccessCriteriaMet")
        && is_true(new, "SuccessCriteriaMet")
    {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=True";
        causes.push(invalid(CONDITIONS, &value, why));
    }
    let fell = |old: Option<i32>, new: Option<i32>| new.unwrap_or(0) < old.unwrap_or(0);
    if fell(old.failed, new.failed) {
        let why = "cannot decrease the failed counter";
        causes.push(invalid("status.failed", &json!(new.failed), why));
    }
    let is_elastic = spec.completion_mode.as_deref() == Some("Indexed")
        && spec.completions.is_some()
        && spec.completions == spec.parallelism;
    if !is_elastic && fell(old.succeeded, new.succeeded) {
        let why = "cannot decrease the succeeded counter";
        causes.push(invalid("status.succeeded", &json!(new.succeeded), why));
    }
    causes
}
