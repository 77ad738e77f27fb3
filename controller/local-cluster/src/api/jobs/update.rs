//! What of a Job may change.

use serde_json::Value;

use super::super::error::Cause;
use crate::objects::items_mut;

const IMMUTABLE: &str = "field is immutable";

/// Judges the difference of two Jobs.
pub(super) fn changes(before: &Value, new: &Value) -> Vec<Cause> {
    let (old_spec, new_spec) = (&before["spec"], &new["spec"]);
    let mut causes = Vec::new();
    let mut fixed = |key: &str| {
        if old_spec[key] != new_spec[key] {
            causes.push(Cause::invalid(
                format!("spec.{key}"),
                &new_spec[key],
                IMMUTABLE,
            ));
        }
    };
    let is_elastic = new_spec["completionMode"] == "Indexed"
        && !old_spec["completions"].is_null()
        && !new_spec["completions"].is_null();
    if !is_elastic {
        fixed("completions");
    }
    for key in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        fixed(key);
    }
    if is_elastic
        && old_spec["completions"] != new_spec["completions"]
        && new_spec["completions"] != new_spec["parallelism"]
    {
        let why = "can only be modified in tandem with parallelism";
        causes.push(Cause::invalid(
            "spec.completions",
            &new_spec["completions"],
            why,
        ));
    }
    causes.extend(template(before, new));
    causes
}

/// The template of a suspended Job that has no Pods is open to some changes.
fn is_open(job: &Value) -> bool {
    let status = &job["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let is_suspended = conditions
        .into_iter()
        .any(|condition| condition["type"] == "Suspended" && condition["status"] == "True");
    job["spec"]["suspend"] == true
        && status["active"].as_i64().unwrap_or(0) == 0
        && (status["startTime"].is_null() || is_suspended)
}

fn template(before: &Value, new: &Value) -> Option<Cause> {
    let (old, new) = (&before["spec"]["template"], &new["spec"]["template"]);
    if old == new {
        return None;
    }
    if !is_open(before) {
        // The template itself would make the message unreadable.
        let why = Value::from("the template");
        return Some(Cause::invalid("spec.template", &why, IMMUTABLE));
    }
    if rigid(&old["spec"]) == rigid(&new["spec"]) {
        return None;
    }
    let what = Value::from("the template's spec");
    Some(Cause::invalid("spec.template.spec", &what, IMMUTABLE))
}

/// The part of an open template that may not change.
fn rigid(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(fields) = spec.as_object_mut() else {
        return spec;
    };
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        fields.remove(key);
    }
    if let Some(Value::Object(affinity)) = fields.get_mut("affinity") {
        affinity.remove("nodeAffinity");
        if affinity.is_empty() {
            fields.remove("affinity");
        }
    }
    for list in ["initContainers", "containers"] {
        for container in items_mut(&mut spec, list) {
            if let Some(fields) = container.as_object_mut() {
                fields.remove("resources");
            }
        }
    }
    spec
}
