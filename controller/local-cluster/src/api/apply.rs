//! Server-side apply: a manager says all that it wants of an object, and what it no longer says goes.
//!
//! Only managers that apply are remembered. Who writes otherwise takes nothing away from them, and
//! meets no conflict.

mod fields;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::decode::{Validation, decode};
use super::error::{ApiError, Cause, Result};
use super::object_reply;
use super::target::{Parameters, Part, Target, is_on};
use super::write::{self, time};
use crate::objects::text;
use fields::Tree;

pub(super) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// What belongs to the server, or says which object it is.
const NOT_OWNED: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "selfLink",
    "managedFields",
];

struct Manager<'a> {
    name: &'a str,
    part: Part,
    api_version: String,
}

pub(super) fn apply(
    api: &Api,
    target: &Target,
    name: &str,
    parameters: &Parameters,
    applied: &Value,
) -> Result<Response> {
    let resource = target.resource;
    if parameters.field_manager.is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid(resource, name, &[cause]));
    }
    if !text(applied, "managedFields").is_empty() || applied["metadata"]["managedFields"].is_array()
    {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let given = text(applied, "name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let validation = Validation::parse(&parameters.field_validation)?;
    // Only to judge it: what is typed has fields that nobody has said.
    decode(resource, applied, validation)?;
    let mut applied = applied.clone();
    drop_nulls(&mut applied);
    let manager = Manager {
        name: &parameters.field_manager,
        part: target.part,
        api_version: resource.api_version(),
    };
    let wanted = fields::of(&owned(&applied, target.part));
    let is_there = api.store.get(resource, target.namespace(), name).is_some();
    if !is_there && target.part == Part::Main {
        applied["metadata"]["name"] = name.into();
        let managed = json!([manager.entry(&wanted)]);
        return write::create_applied(api, target, parameters, &applied, managed);
    }
    let (object, warnings) = write::update(api, target, name, parameters, |before| {
        merged(
            before,
            &applied,
            &manager,
            &wanted,
            is_on(&parameters.force),
        )
    })?;
    Ok(object_reply(StatusCode::OK, &object, &warnings))
}

impl Manager<'_> {
    fn entry(&self, wanted: &Tree) -> Value {
        let mut entry = json!({
            "manager": self.name, "operation": "Apply", "apiVersion": self.api_version,
            "time": time(), "fieldsType": "FieldsV1", "fieldsV1": wanted,
        });
        if self.part == Part::Status {
            entry["subresource"] = "status".into();
        }
        entry
    }

    fn is(&self, entry: &Value) -> bool {
        let is_status = entry["subresource"] == "status";
        entry["manager"] == self.name
            && entry["operation"] == "Apply"
            && is_status == (self.part == Part::Status)
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// What of an applied object its manager comes to own.
fn owned(applied: &Value, part: Part) -> Value {
    let mut owned = applied.clone();
    if let Some(object) = owned.as_object_mut() {
        object.remove("apiVersion");
        object.remove("kind");
        match part {
            Part::Status => object.retain(|key, _| key == "status"),
            Part::Main | Part::Log | Part::Scale | Part::Eviction => {
                object.remove("status");
            }
        }
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.retain(|key, _| !NOT_OWNED.contains(&key.as_str()));
            if metadata.is_empty() {
                object.remove("metadata");
            }
        }
    }
    owned
}

fn tree(entry: &Value) -> Tree {
    entry["fieldsV1"].as_object().cloned().unwrap_or_default()
}

fn merged(
    before: &Value,
    applied: &Value,
    manager: &Manager<'_>,
    wanted: &Tree,
    force: bool,
) -> Result<Value> {
    let entries = before["metadata"]["managedFields"].as_array();
    let entries = entries.map(Vec::as_slice).unwrap_or_default();
    let own = entries.iter().find(|entry| manager.is(entry));
    let applied_fields = owned(applied, manager.part);
    let (mut kept, mut conflicts) = (Vec::new(), Vec::new());
    let mut others = Tree::new();
    for entry in entries.iter().filter(|entry| !manager.is(entry)) {
        let mut theirs = tree(entry);
        let (lost, paths) = fields::conflicts(wanted, &theirs, before, &applied_fields);
        let who = entry["manager"].as_str().unwrap_or_default();
        conflicts.extend(paths.into_iter().map(|path| (who.to_owned(), path)));
        theirs = fields::minus(&theirs, &lost);
        fields::add(&mut others, &theirs);
        if !theirs.is_empty() {
            let mut entry = entry.clone();
            entry["fieldsV1"] = Value::Object(theirs);
            kept.push(entry);
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(ApiError::apply_conflict(&conflicts));
    }
    let mut object = before.clone();
    if let Some(own) = own {
        let given_up = fields::minus(&fields::minus(&tree(own), wanted), &others);
        fields::remove(&mut object, &given_up);
    }
    fields::overlay(&mut object, &applied_fields);
    let version = text(applied, "resourceVersion");
    if !version.is_empty() {
        object["metadata"]["resourceVersion"] = version.into();
    }
    let is_same = own.is_some_and(|own| tree(own) == *wanted);
    kept.push(match own {
        Some(own) if is_same => own.clone(),
        _ => manager.entry(wanted),
    });
    if is_same && kept.len() == entries.len() && entries.iter().all(|entry| kept.contains(entry)) {
        kept = entries.to_vec();
    }
    object["metadata"]["managedFields"] = kept.into();
    Ok(object)
}
