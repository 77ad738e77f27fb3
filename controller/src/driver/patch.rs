//! The patches that the driver sends: each holds only against the state that it was made on.

use serde_json::{Map, Value, json};

use crate::api::names::TRACKING_FINALIZER;
use crate::api::{Job, JobStatus, Pod};
use crate::plan::claim;

/// Returns the merge patch that makes `new` of `old`: what is absent in `new` is taken out.
pub(crate) fn difference(old: &Value, new: &Value) -> Map<String, Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Map::new();
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) if before.is_object() && value.is_object() => {
                patch.insert(key.clone(), Value::Object(difference(before, value)));
            }
            Some(_) | None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch
}

/// Returns the patch that writes `status`; nothing when it is written already.
pub(crate) fn status(job: &Job, status: &JobStatus) -> Option<Value> {
    let patch = difference(&json!(job.status), &json!(status));
    (!patch.is_empty()).then(|| {
        json!({
            "metadata": { "resourceVersion": job.metadata.resource_version },
            "status": patch,
        })
    })
}

/// Returns the patch that makes `pod` the Job's own.
pub(crate) fn adoption(job: &Job, pod: &Pod) -> Value {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.push(claim::owner_reference(job));
    let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    if !pod.is_tracked() {
        finalizers.push(TRACKING_FINALIZER.into());
    }
    metadata(pod, json!(owners), json!(finalizers))
}

/// Returns the patch that ends the Job's ownership of `pod`.
pub(crate) fn release(job: &Job, pod: &Pod) -> Value {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| owner.uid != job.uid());
    metadata(pod, json!(owners), json!(without_tracking(pod)))
}

fn metadata(pod: &Pod, owners: Value, finalizers: Value) -> Value {
    json!({ "metadata": {
        "uid": pod.uid(),
        "resourceVersion": pod.metadata.resource_version,
        "ownerReferences": owners,
        "finalizers": finalizers,
    } })
}

/// Returns the JSON patch that takes the tracking finalizer off `pod`.
///
/// It holds whatever else has changed, as long as the finalizer stands where it stood.
pub(crate) fn untrack(pod: &Pod) -> Option<Value> {
    let position = pod
        .metadata
        .finalizers
        .iter()
        .flatten()
        .position(|name| name == TRACKING_FINALIZER)?;
    let path = format!("/metadata/finalizers/{position}");
    Some(json!([
        { "op": "test", "path": "/metadata/uid", "value": pod.uid() },
        { "op": "test", "path": path, "value": TRACKING_FINALIZER },
        { "op": "remove", "path": path },
    ]))
}

fn without_tracking(pod: &Pod) -> Vec<&String> {
    pod.metadata
        .finalizers
        .iter()
        .flatten()
        .filter(|name| *name != TRACKING_FINALIZER)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_takes_out_what_is_absent_and_leaves_what_is_equal() {
        let old = json!({ "a": 1, "b": { "x": [1], "y": 2 }, "c": "same" });
        let new = json!({ "b": { "y": 3 }, "c": "same", "d": {} });
        let patch = json!({ "a": null, "b": { "x": null, "y": 3 }, "d": {} });
        assert_eq!(Value::Object(difference(&old, &new)), patch);
    }

    #[test]
    fn a_pod_loses_the_finalizer_that_tracks_it_and_no_other() {
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u".into());
        assert_eq!(untrack(&pod), None);
        pod.metadata.finalizers = Some(vec!["mine".into(), TRACKING_FINALIZER.into()]);
        let patch = untrack(&pod).unwrap();
        assert_eq!(
            patch[2],
            json!({ "op": "remove", "path": "/metadata/finalizers/1" })
        );
    }
}
