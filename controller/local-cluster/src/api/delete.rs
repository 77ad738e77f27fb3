//! Deletion: at once, after a Pod's grace period, or when all finalizers are gone.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::error::{ApiError, Result};
use super::target::{Parameters, Target, number};
use super::write::{is_over, settle, time};
use super::{json_reply, object_reply};
use crate::objects::resource::Resource;
use crate::objects::{Object, Store, WriteError, field, text};

/// The finalizer of an owner that goes after its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents stay.
pub(crate) const ORPHAN: &str = "orphan";

/// What becomes of an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    propagation: Option<Propagation>,
    grace_seconds: Option<i64>,
    uid: Option<String>,
    version: Option<String>,
    is_dry: bool,
    is_eviction: bool,
}

impl Options {
    pub(crate) fn parse(body: &Value, parameters: &Parameters) -> Result<Self> {
        let policy = match body["propagationPolicy"].as_str() {
            Some(policy) => policy,
            None => parameters.propagation_policy.as_str(),
        };
        let propagation = match (policy, body["orphanDependents"].as_bool()) {
            ("Background", _) | ("", Some(false)) => Some(Propagation::Background),
            ("Foreground", _) => Some(Propagation::Foreground),
            ("Orphan", _) | ("", Some(true)) => Some(Propagation::Orphan),
            ("", None) => None,
            (other, _) => {
                return Err(ApiError::bad_request(format!(
                    "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
                )));
            }
        };
        let grace = match body["gracePeriodSeconds"].as_i64() {
            Some(seconds) => Some(seconds),
            None => number("gracePeriodSeconds", &parameters.grace_period_seconds)?,
        };
        if grace.is_some_and(|seconds| seconds < 0) {
            return Err(ApiError::bad_request(
                "gracePeriodSeconds: must be greater than or equal to 0",
            ));
        }
        let preconditions = &body["preconditions"];
        Ok(Self {
            propagation,
            grace_seconds: grace,
            uid: preconditions["uid"].as_str().map(str::to_owned),
            version: preconditions["resourceVersion"].as_str().map(str::to_owned),
            is_dry: parameters.is_dry()
                || body["dryRun"]
                    .as_array()
                    .is_some_and(|list| !list.is_empty()),
            is_eviction: false,
        })
    }

    /// How the garbage collector deletes.
    pub(crate) fn own(propagation: Propagation, uid: &str) -> Self {
        Self {
            propagation: Some(propagation),
            uid: Some(uid.to_owned()),
            ..Self::default()
        }
    }

    fn check(&self, resource: Resource, object: &Object) -> Result<()> {
        let mismatch = |what: &str, wanted: &str, found: &str| {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            Err(ApiError::conflict(resource, object.name(), &why))
        };
        if let Some(uid) = &self.uid
            && uid != object.uid()
        {
            return mismatch("UID", uid, object.uid());
        }
        let found = object.version().to_string();
        if let Some(version) = &self.version
            && *version != found
        {
            return mismatch("ResourceVersion", version, &found);
        }
        Ok(())
    }
}

/// An object after its deletion was asked for.
pub(crate) enum Deleted {
    Gone(Arc<Object>),
    Going(Arc<Object>),
}

pub(super) fn delete(
    store: &Store,
    target: &Target,
    name: &str,
    options: &Options,
) -> Result<Response> {
    let resource = target.resource;
    let deleted = delete_object(store, (resource, target.namespace(), name), options)?;
    let warnings = match (resource, options.propagation) {
        (Resource::Jobs, None) => vec![
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning".to_owned(),
        ],
        _ => Vec::new(),
    };
    match deleted {
        Deleted::Going(object) => Ok(object_reply(StatusCode::OK, &object, &warnings)),
        // Pods are told as they were last, as Kubernetes does.
        Deleted::Gone(object) if resource == Resource::Pods => {
            Ok(object_reply(StatusCode::OK, &object, &warnings))
        }
        Deleted::Gone(object) => {
            let mut details =
                json!({ "name": name, "kind": resource.plural(), "uid": object.uid() });
            if !resource.group().is_empty() {
                details["group"] = resource.group().into();
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": details,
            });
            Ok(json_reply(StatusCode::OK, Body::from(status.to_string())))
        }
    }
}

/// Deletes a Pod as its options say, and writes into it why it goes: there are no budgets here that would keep it.
pub(super) fn evict(
    store: &Store,
    target: &Target,
    name: &str,
    parameters: &Parameters,
    eviction: &Value,
) -> Result<Response> {
    let options = Options {
        is_eviction: true,
        ..Options::parse(&eviction["deleteOptions"], parameters)?
    };
    delete_object(store, (target.resource, target.namespace(), name), &options)?;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(json_reply(
        StatusCode::CREATED,
        Body::from(status.to_string()),
    ))
}

pub(super) fn delete_collection(
    store: &Store,
    target: &Target,
    parameters: &Parameters,
    options: &Options,
) -> Result<Response> {
    if target.resource.is_namespaced() && target.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    let selector = target.selector(parameters)?;
    let (objects, version) = store.list(target.resource, target.namespace.as_deref());
    let selected = objects.iter().filter(|object| selector.matches(object));
    let mut items = Vec::new();
    for object in selected {
        let place = (target.resource, object.namespace(), object.name());
        match delete_object(store, place, options) {
            Ok(Deleted::Gone(object) | Deleted::Going(object)) => {
                items.push(Value::clone(&object.value()));
            }
            // Somebody else was faster.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let list = json!({
        "kind": format!("{}List", target.resource.kind()),
        "apiVersion": target.resource.api_version(),
        "metadata": { "resourceVersion": version.to_string() },
        "items": items,
    });
    Ok(json_reply(StatusCode::OK, Body::from(list.to_string())))
}

/// Deletes an object, or has it be deleted.
pub(crate) fn delete_object(
    store: &Store,
    place: (Resource, &str, &str),
    options: &Options,
) -> Result<Deleted> {
    let (resource, namespace, name) = place;
    loop {
        let before = store.get(resource, namespace, name);
        let before = before.ok_or_else(|| ApiError::not_found(resource, name))?;
        options.check(resource, &before)?;
        if resource == Resource::Namespaces && name == "default" {
            return Err(ApiError::forbidden(
                resource,
                name,
                "this namespace may not be deleted",
            ));
        }
        let mut value = Value::clone(&before.value());
        if options.is_eviction {
            condition_evicted(&mut value);
        }
        mark(resource, &mut value, options);
        if options.is_dry {
            return Ok(Deleted::Going(Arc::new(Object::new(
                value,
                before.version(),
            ))));
        }
        match settle(store, resource, &before, value) {
            Ok(object) => {
                let newest = store.get(resource, namespace, name);
                let is_there = newest.is_some_and(|newest| newest.uid() == object.uid());
                return Ok(if is_there {
                    Deleted::Going(object)
                } else {
                    Deleted::Gone(object)
                });
            }
            Err(WriteError::Changed | WriteError::Exists) => {}
            Err(error @ WriteError::Failed) => return Err(ApiError::internal(&error.to_string())),
        }
    }
}

/// Writes into a Pod what keeps Jobs from taking its end for a failure of its own.
fn condition_evicted(pod: &mut Value) {
    let conditions = pod["status"]["conditions"]
        .as_array_mut()
        .map(std::mem::take);
    let mut conditions = conditions.unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": time(),
    }));
    pod["status"]["conditions"] = conditions.into();
}

/// Writes into an object that it is to go, and what it waits for.
fn mark(resource: Resource, value: &mut Value, options: &Options) {
    let default = match resource {
        Resource::Jobs => Propagation::Orphan,
        _ => Propagation::Background,
    };
    let is_marked = !text(value, "deletionTimestamp").is_empty();
    let finalizer = match options.propagation {
        Some(propagation) => Some(propagation),
        // Who says nothing does not take back what was said before.
        None if is_marked => None,
        None => Some(default),
    };
    if let Some(propagation) = finalizer {
        let wanted = match propagation {
            Propagation::Background => None,
            Propagation::Foreground => Some(FOREGROUND),
            Propagation::Orphan => Some(ORPHAN),
        };
        set_propagation(value, wanted);
    }
    let grace = grace_seconds(resource, value, options);
    let metadata = &mut value["metadata"];
    let known = metadata["deletionGracePeriodSeconds"].as_i64();
    if is_marked && known.is_some_and(|known| known <= grace) {
        return;
    }
    let end = Timestamp::now().saturating_add(SignedDuration::from_secs(grace));
    let end = end.unwrap_or(Timestamp::MAX);
    metadata["deletionTimestamp"] = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    metadata["deletionGracePeriodSeconds"] = grace.into();
    if !is_marked && let Some(generation) = metadata["generation"].as_i64() {
        metadata["generation"] = (generation + 1).into();
    }
    if resource == Resource::Namespaces {
        value["status"]["phase"] = "Terminating".into();
    }
}

fn set_propagation(value: &mut Value, wanted: Option<&str>) {
    let list = value["metadata"]["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut list: Vec<Value> = list
        .into_iter()
        .filter(|item| item != FOREGROUND && item != ORPHAN)
        .collect();
    list.extend(wanted.map(Value::from));
    if list.is_empty() {
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("finalizers");
        }
    } else {
        value["metadata"]["finalizers"] = list.into();
    }
}

/// Only a Pod that runs has time to leave.
fn grace_seconds(resource: Resource, value: &Value, options: &Options) -> i64 {
    if resource != Resource::Pods || is_over(value) || field(value, "spec.nodeName").is_empty() {
        return 0;
    }
    let own = || {
        value["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(30)
    };
    options.grace_seconds.unwrap_or_else(own).max(0)
}
