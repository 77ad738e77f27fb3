//! Pods: their defaults, the one node that they all go to, and what of them may change.

mod validate;

use serde_json::{Value, json};

use super::write::time;
use crate::node::NODE_NAME;
use crate::objects::{field, items_mut};

pub(super) use validate::{validate_create, validate_spec, validate_update};

fn default(value: &mut Value, key: &str, fallback: impl Into<Value>) {
    if value[key].is_null() {
        value[key] = fallback.into();
    }
}

/// Completes the spec of a Pod or of a template.
pub(super) fn default_spec(spec: &mut Value) {
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", "default-scheduler");
    for list in ["initContainers", "containers"] {
        items_mut(spec, list).for_each(default_container);
    }
    for volume in items_mut(spec, "volumes") {
        for source in ["configMap", "secret", "downwardAPI", "projected"] {
            if let Some(source) = volume.get_mut(source) {
                default(source, "defaultMode", 0o644);
            }
        }
        default_fields(&mut volume["downwardAPI"]);
        for source in items_mut(&mut volume["projected"], "sources") {
            default_fields(&mut source["downwardAPI"]);
        }
        // A volume that says nothing else is an empty directory.
        if volume.as_object().is_some_and(|fields| fields.len() == 1) {
            volume["emptyDir"] = json!({});
        }
    }
}

/// Fields of the Pod that become files.
fn default_fields(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(field) = item.get_mut("fieldRef") {
            default(field, "apiVersion", "v1");
        }
    }
}

fn default_probe(probe: &mut Value) {
    let numbers = [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ];
    for (key, fallback) in numbers {
        // Zero is as good as nothing.
        if probe[key].as_i64().unwrap_or(0) == 0 {
            probe[key] = fallback.into();
        }
    }
    default_get(probe);
}

/// What asks over HTTP.
fn default_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        default(get, "path", "/");
        default(get, "scheme", "HTTP");
    }
}

fn default_container(container: &mut Value) {
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    let pull = match container["image"].as_str().and_then(tag) {
        None | Some("latest") => "Always",
        Some(_) => "IfNotPresent",
    };
    default(container, "imagePullPolicy", pull);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        container.get_mut(probe).map(default_probe);
    }
    for hook in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        container.pointer_mut(hook).map(default_get);
    }
    for port in items_mut(container, "ports") {
        default(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(source) = variable.pointer_mut("/valueFrom/fieldRef") {
            default(source, "apiVersion", "v1");
        }
    }
    // What is limited and not asked for is asked for as far as it is limited.
    if let Some(limits) = container["resources"]["limits"].as_object().cloned() {
        for (name, limit) in limits {
            default(&mut container["resources"]["requests"], &name, limit);
        }
    }
}

/// The tag or digest of an image.
fn tag(image: &str) -> Option<&str> {
    let last = image.rsplit('/').next()?;
    if let Some((_, digest)) = last.split_once('@') {
        return Some(digest);
    }
    last.split_once(':').map(|(_, tag)| tag)
}

pub(super) fn prepare_create(pod: &mut Value) {
    pod["metadata"]["generation"] = 1.into();
    default_spec(&mut pod["spec"]);
    default(&mut pod["spec"], "enableServiceLinks", true);
    default(&mut pod["spec"], "serviceAccountName", "default");
    pod["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
    schedule(pod);
}

pub(super) fn prepare_update(pod: &mut Value) {
    default_spec(&mut pod["spec"]);
    schedule(pod);
}

/// Sends a Pod to the node, unless a gate keeps it back.
fn schedule(pod: &mut Value) {
    if !field(pod, "spec.nodeName").is_empty() {
        return;
    }
    let is_gated = pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    let condition = if is_gated {
        json!({
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastTransitionTime": time(),
        })
    } else {
        pod["spec"]["nodeName"] = NODE_NAME.into();
        json!({ "type": "PodScheduled", "status": "True", "lastTransitionTime": time() })
    };
    let conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let others = conditions
        .into_iter()
        .filter(|other| other["type"] != "PodScheduled");
    let others: Vec<Value> = others.chain([condition]).collect();
    pod["status"]["conditions"] = others.into();
}
