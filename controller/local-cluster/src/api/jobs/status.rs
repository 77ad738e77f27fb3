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

/// Judges a change of a status.
pub(super) fn change(before: &Job, new: &Job) -> Vec<Cause> {
    let none = (JobStatus::default(), JobSpec::default());
    let old_status = before.status.as_ref().unwrap_or(&none.0);
    let status = new.status.as_ref().unwrap_or(&none.0);
    let spec = new.spec.as_ref().unwrap_or(&none.1);
    let mut causes = Vec::new();
    causes.extend(counters(status));
    causes.extend(uids(status));
    causes.extend(conditions(old_status, status));
    causes.extend(times(old_status, status, spec));
    causes.extend(finished(old_status, status, spec));
    causes.extend(index_lists(old_status, status, spec));
    causes.extend(history(old_status, status, spec));
    causes
}

fn counters(status: &JobStatus) -> Vec<Cause> {
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
    if status
        .ready
        .is_some_and(|ready| ready > status.active.unwrap_or(0))
    {
        causes.push(invalid(
            "status.ready",
            &json!(status.ready),
            "cannot set more ready pods than active",
        ));
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

fn conditions(old: &JobStatus, new: &JobStatus) -> Vec<Cause> {
    if old.conditions == new.conditions {
        return Vec::new();
    }
    let is = |type_: &str| is_true(new, type_);
    let (complete, failed) = (is("Complete"), is("Failed"));
    let (success, failure) = (is("SuccessCriteriaMet"), is("FailureTarget"));
    let rules = [
        (
            complete && !success,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (
            failed && !failure,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            complete && failed,
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            complete && failure,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            success && failed,
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ),
        (
            success && failure,
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
    ];
    let value = json!(new.conditions);
    let broken = rules.into_iter().filter(|(is_broken, _)| *is_broken);
    broken
        .map(|(_, why)| invalid(CONDITIONS, &value, why))
        .collect()
}

fn times(old: &JobStatus, new: &JobStatus, spec: &JobSpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (started, completed) = (&new.start_time, &new.completion_time);
    let flips = is_true(old, "Suspended") && !is_true(new, "Suspended");
    if old.start_time.is_some()
        && old.start_time != *started
        && spec.suspend != Some(true)
        && !flips
    {
        let why = "startTime cannot be removed or changed for an unsuspended Job";
        causes.push(Cause::required("status.startTime", why));
    }
    let field = "status.completionTime";
    let value = json!(completed);
    if old.completion_time != *completed || old.conditions != new.conditions {
        match (completed, is_true(new, "Complete")) {
            (Some(_), false) => {
                let why = "cannot set completionTime when there is no Complete=True condition";
                causes.push(invalid(field, &value, why));
            }
            (None, true) => {
                causes.push(Cause::required(
                    field,
                    "completionTime is required for Complete jobs",
                ));
            }
            _ => {}
        }
        if let (Some(started), Some(completed)) = (started, completed)
            && completed.0 < started.0
        {
            causes.push(invalid(
                field,
                &value,
                "completionTime cannot be set before startTime",
            ));
        }
    }
    if old.completion_time.is_some() && old.completion_time != *completed {
        causes.push(invalid(field, &value, "field is immutable"));
    }
    causes
}

fn finished(old: &JobStatus, new: &JobStatus, spec: &JobSpec) -> Vec<Cause> {
    if !is_finished(new) {
        return Vec::new();
    }
    let mut causes = Vec::new();
    let becomes = !is_finished(old);
    let changed = |is_changed: bool| is_changed || becomes;
    if changed(old.active != new.active) && new.active.unwrap_or(0) > 0 {
        let why = "active>0 is invalid for finished job";
        causes.push(invalid("status.active", &json!(new.active), why));
    }
    if changed(old.terminating != new.terminating) && new.terminating.unwrap_or(0) > 0 {
        let why = "terminating>0 is invalid for finished job";
        causes.push(invalid("status.terminating", &json!(new.terminating), why));
    }
    let (succeeded, failed) = uncounted(new);
    let is_counted = succeeded.is_empty() && failed.is_empty();
    if changed(old.uncounted_terminated_pods != new.uncounted_terminated_pods) && !is_counted {
        let field = "status.uncountedTerminatedPods";
        let why = "uncountedTerminatedPods needs to be empty for finished job";
        causes.push(invalid(field, &json!(new.uncounted_terminated_pods), why));
    }
    let may_lack = spec.suspend == Some(true) && spec.completions == Some(0);
    if changed(old.start_time != new.start_time) && new.start_time.is_none() && !may_lack {
        causes.push(Cause::required(
            "status.startTime",
            "startTime is required for finished job",
        ));
    }
    causes
}

fn index_lists(old: &JobStatus, new: &JobStatus, spec: &JobSpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    let is_indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let completions = spec.completions.unwrap_or(0);
    let mut judged =
        |field: &str, text: &Option<String>, is_changed: bool, allowed: bool, why: &str| {
            let text = text.as_deref()?;
            if is_changed && !text.is_empty() && !allowed {
                causes.push(invalid(field, &json!(text), why));
            }
            let parsed = indexes::parse(text, completions);
            if let (Err(error), true) = (&parsed, is_changed && allowed) {
                causes.push(invalid(
                    field,
                    &json!(text),
                    &format!("error parsing: {error}"),
                ));
            }
            parsed.ok()
        };
    let completed_changed = old.completed_indexes != new.completed_indexes;
    let failed_changed = old.failed_indexes != new.failed_indexes;
    let completed = judged(
        "status.completedIndexes",
        &new.completed_indexes,
        completed_changed,
        is_indexed,
        "cannot set non-empty completedIndexes when non-indexed completion mode",
    );
    let failed = judged(
        "status.failedIndexes",
        &new.failed_indexes,
        failed_changed,
        spec.backoff_limit_per_index.is_some(),
        "cannot set non-empty failedIndexes when backoffLimitPerIndex is not used",
    );
    if let (Some(completed), Some(failed)) = (completed, failed)
        && (completed_changed || failed_changed)
        && indexes::overlap(&completed, &failed)
    {
        let why = "failedIndexes and completedIndexes overlap";
        causes.push(invalid(
            "status.failedIndexes",
            &json!(new.failed_indexes),
            why,
        ));
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
