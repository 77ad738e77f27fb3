//! The OpenAPI documents that clients ask for before they write.
//!
//! They name the kinds and that the server judges fields itself. What a field means is not told, and
//! nothing is said of strategic merge patches, so that `kubectl apply` goes by the types it knows.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::json_reply;
use super::tag;
use crate::objects::resource::Resource;

const GROUPS: [(&str, &str); 3] = [
    ("", "api/v1"),
    ("batch", "apis/batch/v1"),
    ("coordination.k8s.io", "apis/coordination.k8s.io/v1"),
];

/// Answers what a path below `/openapi/v3` asks for; nothing when it is no such path.
pub(super) fn answer(path: &str) -> Option<Response> {
    let rest = path.strip_prefix("/openapi/v3")?.trim_matches('/');
    if rest.is_empty() {
        let paths: Map<String, Value> = GROUPS
            .iter()
            .map(|(group, path)| {
                let hash = tag(document(group).to_string().as_bytes());
                let hash = hash.trim_matches('"');
                let url = format!("/openapi/v3/{path}?hash={hash}");
                ((*path).to_owned(), json!({ "serverRelativeURL": url }))
            })
            .collect();
        let index = json!({ "paths": paths });
        return Some(json_reply(StatusCode::OK, Body::from(index.to_string())));
    }
    let (group, _) = GROUPS.iter().find(|(_, path)| *path == rest)?;
    let mut response = json_reply(StatusCode::OK, Body::from(document(group).to_string()));
    // The URL changes with the document.
    if let Ok(value) = "public, max-age=31536000, immutable".parse() {
        response.headers_mut().insert(header::CACHE_CONTROL, value);
    }
    Some(response.into_response())
}

fn document(group: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in Resource::ALL {
        if resource.group() != group {
            continue;
        }
        let kind = json!({ "group": group, "version": "v1", "kind": resource.kind() });
        let prefix = match group {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        let place = if resource.is_namespaced() {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let plural = resource.plural();
        let patch = json!({
            "parameters": [
                { "name": "fieldValidation", "in": "query", "schema": { "type": "string" } },
                { "name": "dryRun", "in": "query", "schema": { "type": "string" } },
            ],
            "requestBody": { "content": { "application/merge-patch+json": {} } },
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": kind,
            "responses": { "200": { "description": "OK" } },
        });
        paths.insert(
            format!("{prefix}{place}/{plural}/{{name}}"),
            json!({ "patch": patch }),
        );
        schemas.insert(
            format!("{}.v1.{}", group_name(group), resource.kind()),
            json!({
                "type": "object",
                "x-kubernetes-group-version-kind": [kind],
                "x-kubernetes-preserve-unknown-fields": true,
            }),
        );
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Gangline's local cluster", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths, "components": { "schemas": schemas },
    })
}

fn group_name(group: &str) -> String {
    let first = group.split('.').next().unwrap_or_default();
    let first = if first.is_empty() { "core" } else { first };
    format!("io.k8s.api.{first}")
}
