//! Create, replace and patch: each judged against the newest version, and carried out only on it.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::Api;
use super::decode::{Validation, decode};
use super::error::{ApiError, Cause, Result};
use super::object_reply;
use super::patch::Patch;
use super::strategy;
use super::target::{Parameters, Part, Target};
use crate::objects::resource::Resource;
use crate::objects::{Object, Store, WriteError, field, text};

/// How often a write without a version is tried against others who write too.
const TRIES_MAX: usize = 100;
/// What random ends of names are made of: no vowels, so that no words come out.
const SUFFIX_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// The longest name that an end is added to.
const GENERATE_NAME_BYTES_MAX: usize = 58;

/// What metadata the server alone gives.
const SERVER_METADATA: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// The time as Kubernetes writes it, in whole seconds.
pub(crate) fn time() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that makes ids"
)]
fn new_uid() -> Uuid {
    Uuid::new_v4()
}

fn suffix() -> String {
    let random = new_uid();
    let letters = random.as_bytes()[..5].iter();
    letters
        .map(|byte| char::from(SUFFIX_LETTERS[usize::from(*byte) % 27]))
        .collect()
}

pub(super) fn create(
    api: &Api,
    target: &Target,
    parameters: &Parameters,
    body: &Value,
) -> Result<Response> {
    create_applied(api, target, parameters, body, Value::Null)
}

/// Adds an object that was applied, with what is remembered of its manager.
pub(super) fn create_applied(
    api: &Api,
    target: &Target,
    parameters: &Parameters,
    body: &Value,
    managed_fields: Value,
) -> Result<Response> {
    let (store, resource) = (&api.store, target.resource);
    let validation = Validation::parse(&parameters.field_validation)?;
    let decoded = decode(resource, body, validation)?;
    let mut warnings = decoded.warnings;
    let namespace = target.namespace.as_deref();
    if resource.is_namespaced() && namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    let mut new = new_object(store, resource, namespace, decoded.value)?;
    refuse(resource, text(&new, "name"), &api.judged(resource, &new))?;
    if !managed_fields.is_null() {
        new["metadata"]["managedFields"] = managed_fields;
    }
    warnings.extend(strategy::warnings(resource, None, &new));
    if parameters.is_dry() {
        let object = Object::new(new, store.version());
        return Ok(object_reply(StatusCode::CREATED, &object, &warnings));
    }
    let object = store_new(store, resource, new)?;
    Ok(object_reply(StatusCode::CREATED, &object, &warnings))
}

/// Adds an object of the cluster's own.
pub(crate) fn create_own(
    store: &Store,
    resource: Resource,
    namespace: Option<&str>,
    value: &Value,
) -> Result<Arc<Object>> {
    let decoded = decode(resource, value, Validation::Strict)?;
    let new = new_object(store, resource, namespace, decoded.value)?;
    store_new(store, resource, new)
}

impl Api {
    /// What those who run the cluster have against an object.
    fn judged(&self, resource: Resource, object: &Value) -> Vec<Cause> {
        let judge = self.judge_job.filter(|_| resource == Resource::Jobs);
        let error = judge.and_then(|judge| judge(object));
        let cause = error.map(|error| Cause::invalid(error.field, &error.value, &error.why));
        cause.into_iter().collect()
    }

    /// Refuses a change that brings in what those who run the cluster do not want.
    fn judge_change(&self, resource: Resource, before: &Value, new: &Value) -> Result<()> {
        let causes = self.judged(resource, new);
        // What was wrong before keeps nobody from writing the rest.
        if causes.is_empty() || causes == self.judged(resource, before) {
            return Ok(());
        }
        refuse(resource, text(new, "name"), &causes)
    }
}

fn store_new(store: &Store, resource: Resource, new: Value) -> Result<Arc<Object>> {
    let name = text(&new, "name").to_owned();
    store.create(resource, new).map_err(|error| match error {
        WriteError::Failed => ApiError::internal(&error.to_string()),
        WriteError::Exists | WriteError::Changed => ApiError::already_exists(resource, &name),
    })
}

/// Completes and judges what is to be created.
fn new_object(
    store: &Store,
    resource: Resource,
    namespace: Option<&str>,
    mut new: Value,
) -> Result<Value> {
    if let Some(namespace) = namespace {
        let given = text(&new, "namespace");
        if !given.is_empty() && given != namespace {
            return Err(ApiError::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({given} and {namespace})"
            )));
        }
        new["metadata"]["namespace"] = namespace.into();
    }
    if !text(&new, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let metadata = &mut new["metadata"];
    if let Some(metadata) = metadata.as_object_mut() {
        metadata
            .retain(|key, _| !SERVER_METADATA.contains(&key.as_str()) && key != "managedFields");
    }
    metadata["uid"] = new_uid().to_string().into();
    metadata["creationTimestamp"] = time().into();
    let base = metadata["generateName"].as_str().unwrap_or_default();
    if metadata["name"].as_str().unwrap_or_default().is_empty() && !base.is_empty() {
        let end = base.floor_char_boundary(GENERATE_NAME_BYTES_MAX);
        metadata["name"] = format!("{}{}", &base[..end], suffix()).into();
    }
    let name = text(&new, "name").to_owned();
    if let Some(namespace) = namespace {
        check_namespace(store, resource, &name, namespace)?;
    }
    strategy::prepare_create(resource, &mut new);
    let mut causes = strategy::validate_metadata(resource, &new);
    causes.extend(strategy::validate_create(resource, &new));
    refuse(resource, &name, &causes)?;
    Ok(new)
}

fn check_namespace(store: &Store, resource: Resource, name: &str, namespace: &str) -> Result<()> {
    match store.get(Resource::Namespaces, "", namespace) {
        None => Err(ApiError::not_found(Resource::Namespaces, namespace)),
        Some(found) if found.is_being_deleted() => {
            Err(ApiError::namespace_terminating(resource, name, namespace))
        }
        Some(_) => Ok(()),
    }
}

fn refuse(resource: Resource, name: &str, causes: &[Cause]) -> Result<()> {
    match causes {
        [] => Ok(()),
        causes => Err(ApiError::invalid(resource, name, causes)),
    }
}

pub(super) fn replace(
    api: &Api,
    target: &Target,
    name: &str,
    parameters: &Parameters,
    body: &Value,
) -> Result<Response> {
    let given = text(body, "name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let (object, warnings) = update(api, target, name, parameters, |_| Ok(body.clone()))?;
    Ok(object_reply(StatusCode::OK, &object, &warnings))
}

pub(super) fn patch(
    api: &Api,
    target: &Target,
    name: &str,
    parameters: &Parameters,
    patch: &Patch,
) -> Result<Response> {
    let (object, warnings) = update(api, target, name, parameters, |before| {
        let mut value = before.clone();
        patch.apply(&mut value)?;
        Ok(value)
    })?;
    Ok(object_reply(StatusCode::OK, &object, &warnings))
}

/// Changes an object as `change` says, against the newest version of it; with what is to be said.
pub(super) fn update(
    api: &Api,
    target: &Target,
    name: &str,
    parameters: &Parameters,
    change: impl Fn(&Value) -> Result<Value>,
) -> Result<(Arc<Object>, Vec<String>)> {
    let validation = Validation::parse(&parameters.field_validation)?;
    let (store, resource) = (&api.store, target.resource);
    for _ in 0..TRIES_MAX {
        let before = store.get(resource, target.namespace(), name);
        let before = before.ok_or_else(|| ApiError::not_found(resource, name))?;
        let old = before.value();
        let mut decoded = decode(resource, &change(&old)?, validation)?;
        check_preconditions(resource, &before, &decoded.value)?;
        judge(resource, target.part, &old, &mut decoded.value)?;
        api.judge_change(resource, &old, &decoded.value)?;
        let mut warnings = decoded.warnings;
        warnings.extend(strategy::warnings(resource, Some(&old), &decoded.value));
        if parameters.is_dry() {
            let object = Object::new(decoded.value, before.version());
            return Ok((Arc::new(object), warnings));
        }
        match settle(store, resource, &before, decoded.value) {
            Ok(object) => return Ok((object, warnings)),
            // Whoever wrote on a version is told so in the next turn.
            Err(WriteError::Changed | WriteError::Exists) => {}
            Err(error @ WriteError::Failed) => return Err(ApiError::internal(&error.to_string())),
        }
    }
    Err(ApiError::has_changed(resource, name))
}

fn check_preconditions(resource: Resource, before: &Object, new: &Value) -> Result<()> {
    let version = text(new, "resourceVersion");
    if !matches!(version, "" | "0") && version != before.version().to_string() {
        return Err(ApiError::has_changed(resource, before.name()));
    }
    let uid = text(new, "uid");
    if !uid.is_empty() && uid != before.uid() {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            before.uid()
        );
        return Err(ApiError::conflict(resource, before.name(), &why));
    }
    Ok(())
}

/// Completes and judges an update.
fn judge(resource: Resource, part: Part, before: &Value, new: &mut Value) -> Result<()> {
    let name = text(before, "name");
    for key in ["namespace", "name"] {
        let given = text(new, key);
        if !given.is_empty() && given != text(before, key) {
            return Err(ApiError::bad_request(format!(
                "the {key} of the object ({given}) does not match the {key} on the URL ({})",
                text(before, key)
            )));
        }
    }
    for key in ["namespace", "name", "resourceVersion", "generateName"]
        .iter()
        .chain(&SERVER_METADATA)
    {
        match before["metadata"].get(*key) {
            Some(value) => new["metadata"][*key] = value.clone(),
            None => {
                if let Some(metadata) = new["metadata"].as_object_mut() {
                    metadata.remove(*key);
                }
            }
        }
    }
    // Whoever does not know of managers leaves them as they are.
    if new["metadata"]["managedFields"].is_null() && !before["metadata"]["managedFields"].is_null()
    {
        new["metadata"]["managedFields"] = before["metadata"]["managedFields"].clone();
    } else if let Some(metadata) = new["metadata"].as_object_mut() {
        metadata.retain(|_, field| !field.is_null());
    }
    strategy::prepare_update(resource, part, before, new);
    let mut causes = strategy::validate_metadata(resource, new);
    causes.extend(validate_finalizers(before, new));
    causes.extend(strategy::validate_update(resource, part, before, new));
    refuse(resource, name, &causes)
}

/// What is being deleted gets no more finalizers.
fn validate_finalizers(before: &Value, new: &Value) -> Option<Cause> {
    if text(before, "deletionTimestamp").is_empty() {
        return None;
    }
    let list = |value: &Value| {
        value["metadata"]["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let old = list(before);
    let added: Vec<Value> = list(new)
        .into_iter()
        .filter(|item| !old.contains(item))
        .collect();
    (!added.is_empty()).then(|| {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {}",
            Value::Array(added)
        );
        Cause::forbidden("metadata.finalizers", &why)
    })
}

/// Stores the newest form of an object, or takes the object out when nothing keeps it any more.
pub(crate) fn settle(
    store: &Store,
    resource: Resource,
    before: &Arc<Object>,
    value: Value,
) -> std::result::Result<Arc<Object>, WriteError> {
    let is_kept = text(&value, "deletionTimestamp").is_empty()
        || value["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
        || value["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            > 0
        || (resource == Resource::Namespaces && !value["spec"]["finalizers"].is_null());
    if is_kept {
        store.replace(resource, before, value)
    } else {
        store.remove(resource, before, value)
    }
}

/// Changes an object for the cluster itself, however often others change it too.
///
/// Nothing when it is gone, or another object than the one with `uid`, or when `change` does not want to.
pub(crate) fn change_own(
    store: &Store,
    place: (Resource, &str, &str),
    uid: &str,
    change: impl Fn(&mut Value) -> bool,
) -> Option<Arc<Object>> {
    let (resource, namespace, name) = place;
    loop {
        let before = store.get(resource, namespace, name)?;
        if before.uid() != uid {
            return None;
        }
        let mut value = Value::clone(&before.value());
        if !change(&mut value) {
            return None;
        }
        match settle(store, resource, &before, value) {
            Ok(object) => return Some(object),
            Err(WriteError::Changed | WriteError::Exists) => {}
            // It is logged where it is found.
            Err(WriteError::Failed) => return None,
        }
    }
}

/// Whether a Pod has come to its end.
pub(crate) fn is_over(pod: &Value) -> bool {
    matches!(field(pod, "status.phase"), "Succeeded" | "Failed")
}
