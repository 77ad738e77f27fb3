//! A Job's size as other scalable things have it: its replicas are the Pods that run at once.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::error::{ApiError, Cause, Result};
use super::json_reply;
use super::target::{Parameters, Target};
use super::write;
use crate::objects::resource::Resource;
use crate::objects::{Object, Store, text};

fn of(job: &Value) -> Value {
    let metadata = &job["metadata"];
    let labels = job["spec"]["selector"]["matchLabels"].as_object();
    let labels = labels.into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": job["spec"]["parallelism"].as_i64().unwrap_or(0) },
        "status": {
            "replicas": job["status"]["active"].as_i64().unwrap_or(0),
            "selector": labels.collect::<Vec<_>>().join(","),
        },
    })
}

fn reply(job: &Object) -> Response {
    json_reply(StatusCode::OK, Body::from(of(&job.value()).to_string()))
}

pub(super) fn get(store: &Store, target: &Target, name: &str) -> Result<Response> {
    let job = store.get(Resource::Jobs, target.namespace(), name);
    let job = job.ok_or_else(|| ApiError::not_found(Resource::Jobs, name))?;
    Ok(reply(&job))
}

/// Changes the size as `change` says.
pub(super) fn update(
    api: &Api,
    target: &Target,
    name: &str,
    parameters: &Parameters,
    change: impl Fn(Value) -> Result<Value>,
) -> Result<Response> {
    let resize = |job: &Value| {
        let scale = change(of(job))?;
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if !(0..=i64::from(i32::MAX)).contains(&replicas) {
            let why = "must be greater than or equal to 0";
            let cause = Cause::invalid("spec.replicas", &json!(replicas), why);
            return Err(ApiError::invalid(Resource::Jobs, name, &[cause]));
        }
        let mut job = job.clone();
        job["spec"]["parallelism"] = replicas.into();
        job["metadata"]["resourceVersion"] = text(&scale, "resourceVersion").into();
        Ok(job)
    };
    let (job, _) = write::update(api, target, name, parameters, resize)?;
    Ok(reply(&job))
}
