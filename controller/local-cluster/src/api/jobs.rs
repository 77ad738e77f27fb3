//! Jobs, as the API keeps them: defaults, generated labels and selector, and what may be written.

mod indexes;
mod status;
mod update;
mod validate;

use k8s_openapi::api::batch::v1::Job;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Cause;
use super::pods;
use crate::objects::{items_mut, text};

use validate::LabelNames;
pub(super) use validate::warnings;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The same labels as they were called before; both are still given.
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

fn absent(value: &Value, key: &str) -> bool {
    value.get(key).is_none_or(Value::is_null)
}

/// Gives what its user left out.
pub(super) fn default(job: &mut Value) {
    let spec = &mut job["spec"];
    if absent(spec, "parallelism") {
        if absent(spec, "completions") {
            spec["completions"] = 1.into();
        }
        spec["parallelism"] = 1.into();
    }
    let limit = if absent(spec, "backoffLimitPerIndex") {
        6
    } else {
        i32::MAX
    };
    let replacement = match spec.get("podFailurePolicy") {
        Some(Value::Object(_)) => "Failed",
        _ => "TerminatingOrFailed",
    };
    let defaults = [
        ("backoffLimit", json!(limit)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!(replacement)),
    ];
    for (key, fallback) in defaults {
        if absent(spec, key) {
            spec[key] = fallback;
        }
    }
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            for pattern in items_mut(rule, "onPodConditions") {
                if pattern["status"].as_str().unwrap_or_default().is_empty() {
                    pattern["status"] = "True".into();
                }
            }
        }
    }
    let template = &mut spec["template"]["spec"];
    if !template.is_object() {
        *template = json!({});
    }
    pods::default_spec(template);
    default_labels(job);
}

/// A Job without labels has those of its template.
fn default_labels(job: &mut Value) {
    let is_empty = |labels: &Value| labels.as_object().is_none_or(serde_json::Map::is_empty);
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    if is_empty(&job["metadata"]["labels"]) && !is_empty(labels) {
        job["metadata"]["labels"] = labels.clone();
    }
}

/// Completes a new Job, which has its uid already.
pub(super) fn prepare_create(job: &mut Value) {
    default(job);
    job["status"] = json!({});
    job["metadata"]["generation"] = 1.into();
    generate_selector(job);
    default_labels(job);
}

fn generate_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (text(job, "uid").to_owned(), text(job, "name").to_owned());
    let labels = &mut job["spec"]["template"]["metadata"]["labels"];
    let generated = [
        (OLD_JOB_NAME, &name),
        (JOB_NAME, &name),
        (OLD_CONTROLLER_UID, &uid),
        (CONTROLLER_UID, &uid),
    ];
    for (key, value) in generated {
        if absent(labels, key) {
            labels[key] = value.as_str().into();
        }
    }
    let selected = &mut job["spec"]["selector"]["matchLabels"];
    if absent(selected, CONTROLLER_UID) {
        selected[CONTROLLER_UID] = uid.into();
    }
}

/// Reads a Job that was decoded before.
fn typed(job: &Value) -> Result<Job, Vec<Cause>> {
    let why = "is not understood";
    Job::deserialize(job).map_err(|_| vec![Cause::invalid("spec", &job["spec"], why)])
}

/// Judges a new Job.
pub(super) fn validate_create(job: &Value) -> Vec<Cause> {
    validate_whole(job, LabelNames::OldAndNew)
}

fn validate_whole(job: &Value, names: LabelNames) -> Vec<Cause> {
    match typed(job) {
        Ok(typed) => validate::job(&typed, job, names),
        Err(causes) => causes,
    }
}

/// Judges a change of a Job.
pub(super) fn validate_update(before: &Value, new: &Value) -> Vec<Cause> {
    let labels = &before["spec"]["template"]["metadata"]["labels"];
    let names = if absent(labels, JOB_NAME) {
        LabelNames::Old
    } else {
        LabelNames::OldAndNew
    };
    let mut causes = validate_whole(new, names);
    causes.extend(update::changes(before, new, update::open(before)));
    causes
}

/// Judges a change of a Job's status.
pub(super) fn validate_status(before: &Value, new: &Value) -> Vec<Cause> {
    match (typed(before), typed(new)) {
        (Ok(before), Ok(new)) => status::change(&before, &new),
        (Err(causes), _) | (_, Err(causes)) => causes,
    }
}

#[cfg(test)]
mod vectors;
