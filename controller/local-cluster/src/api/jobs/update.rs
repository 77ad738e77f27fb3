//! What of a Job may change.

use serde_json::Value;

use super::super::error::Cause;
use crate::objects::items_mut;

const IMMUTABLE: &str = "field is immutable";

/// What of the template may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// Labels, annotations, and where Pods may run.
    pub(super) placement: bool,
    /// What containers ask for.
    pub(super) resources: bool,
}

/// Judges the difference of two Jobs.
pub(super) fn changes(before: &Value, new: &Value, open: Open) -> Vec<Cause> {
    let (old_spec, new_spec) = (&before["spec"], &new["spec"]);
    let mut causes = Vec::new();
    causes.extend(completions(old_spec, new_spec));
    for key in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        if old_spec[key] != new_spec[key] {
            let field = format!("spec.{key}");
            causes.push(Cause::invalid(field, &new_spec[key], IMMUTABLE));
        }
    }
    causes.extend(template(&old_spec["template"], &new_spec["template"], open));
    causes
}

/// An Indexed Job may grow and shrink; that it has completions at all is asked for elsewhere.
fn completions(old: &Value, new: &Value) -> Option<Cause> {
    let (before, after) = (&old["completions"], &new["completions"]);
    if before == after {
        return None;
    }
    let why = if new["completionMode"] != "Indexed" {
        IMMUTABLE
    } else if !after.is_null() && after != &new["parallelism"] {
        "can only be modified in tandem with parallelism"
    } else {
        return None;
    };
    Some(Cause::invalid("spec.completions", after, why))
}

/// The template of a suspended Job that has no Pods is open to some changes.
pub(super) fn open(job: &Value) -> Open {
    let status = &job["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let is_suspended = conditions
        .into_iter()
        .any(|condition| condition["type"] == "Suspended" && condition["status"] == "True");
    let is_open = job["spec"]["suspend"] == true
        && status["active"].as_i64().unwrap_or(0) == 0
        && (status["startTime"].is_null() || is_suspended);
    Open {
        placement: is_open,
        resources: is_open,
    }
}

fn template(old: &Value, new: &Value, open: Open) -> Option<Cause> {
    let field = if !open.placement && old["metadata"] != new["metadata"] {
        "spec.template"
    } else if rigid(&old["spec"], open) == rigid(&new["spec"], open) {
        return None;
    } else if open.resources {
        "spec.template.spec"
    } else {
        "spec.template"
    };
    // The template itself would make the message unreadable.
    Some(Cause::invalid(field, &"the template".into(), IMMUTABLE))
}

/// The part of a template's spec that may not change.
fn rigid(spec: &Value, open: Open) -> Value {
    let mut spec = spec.clone();
    let Some(fields) = spec.as_object_mut() else {
        return spec;
    };
    if open.placement {
        for key in ["nodeSelector", "tolerations", "schedulingGates"] {
            fields.remove(key);
        }
        if let Some(Value::Object(affinity)) = fields.get_mut("affinity") {
            affinity.remove("nodeAffinity");
            if affinity.is_empty() {
                fields.remove("affinity");
            }
        }
    }
    if open.resources {
        for list in ["initContainers", "containers"] {
            for container in items_mut(&mut spec, list) {
                if let Some(fields) = container.as_object_mut() {
                    fields.remove("resources");
                }
            }
        }
    }
    spec
}
