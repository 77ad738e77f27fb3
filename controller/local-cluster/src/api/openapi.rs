//! The OpenAPI documents that clients ask for before they write, and when they explain fields.
//!
//! They name the kinds and their fields, and that the server judges fields itself. Nothing is said of
//! strategic merge patches, so that `kubectl apply` goes by the types it knows.

use std::collections::HashSet;
use std::sync::LazyLock;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{VERSION, json_reply};
use super::{has, tag};
use crate::objects::resource::Resource;

const GROUPS: [(&str, &str); 3] = [
    ("", "api/v1"),
    ("batch", "apis/batch/v1"),
    ("coordination.k8s.io", "apis/coordination.k8s.io/v1"),
];

/// The types and descriptions of Kubernetes; `openapi/README.md` says from where.
const SCHEMAS: &str = include_str!("openapi/schemas.json");
/// What the name of a schema follows where it is referred to.
const REFERENCE: &str = "#/components/schemas/";

/// The form in which `kubectl` asks for the older document.
const OLDER_BINARY: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// A document of one group, and what tells it from another.
struct Document {
    path: &'static str,
    text: Bytes,
    tag: String,
}

static DOCUMENTS: LazyLock<Vec<Document>> = LazyLock::new(|| {
    let all = schemas();
    let documents = GROUPS.iter().map(|(group, path)| {
        let text = Bytes::from(document(group, &all).to_string());
        Document {
            path,
            tag: tag(&text),
            text,
        }
    });
    documents.collect()
});

fn schemas() -> Map<String, Value> {
    serde_json::from_str(SCHEMAS).expect("a test reads the schemas")
}

/// Answers what a path of the documents asks for; nothing when it is no such path.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Option<Response> {
    if path == "/openapi/v2" {
        return Some(older(headers));
    }
    let rest = path.strip_prefix("/openapi/v3")?.trim_matches('/');
    if rest.is_empty() {
        let paths: Map<String, Value> = DOCUMENTS
            .iter()
            .map(|document| {
                let hash = document.tag.trim_matches('"');
                let url = format!("/openapi/v3/{}?hash={hash}", document.path);
                (
                    document.path.to_owned(),
                    json!({ "serverRelativeURL": url }),
                )
            })
            .collect();
        let index = json!({ "paths": paths });
        return Some(json_reply(StatusCode::OK, Body::from(index.to_string())));
    }
    let document = DOCUMENTS.iter().find(|document| document.path == rest)?;
    let mut response = if has(headers, &document.tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json_reply(StatusCode::OK, Body::from(document.text.clone()))
    };
    let headers = response.headers_mut();
    // The URL changes with the document.
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    if let Ok(tag) = document.tag.parse() {
        headers.insert(header::ETAG, tag);
    }
    Some(response)
}

/// The older document names no kind at all: clients look there for those that the newer ones do not have, and then find out
/// for themselves that there are none.
fn older(headers: &HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT);
    if accepted.is_some_and(|accepted| accepted.as_bytes().starts_with(OLDER_BINARY.as_bytes())) {
        // With a dot, as Kubernetes answers: the at sign makes no media type that Go could read.
        let media_type = [(header::CONTENT_TYPE, OLDER_BINARY.replace('@', "."))];
        // `swagger`, the first field of the message, is "2.0".
        return (StatusCode::OK, media_type, &b"\x0a\x032.0"[..]).into_response();
    }
    let info = json!({ "title": "Kubernetes", "version": VERSION });
    let document = json!({ "swagger": "2.0", "info": info, "paths": {}, "definitions": {} });
    json_reply(StatusCode::OK, Body::from(document.to_string()))
}

fn document(group: &str, all: &Map<String, Value>) -> Value {
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
        let name = format!("{}.v1.{}", group_name(group), resource.kind());
        add_with_parts(&name, all, &mut schemas);
        schemas[&name]["x-kubernetes-group-version-kind"] = json!([kind]);
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

/// Adds a schema to `found`, and all that it refers to.
fn add_with_parts(name: &str, all: &Map<String, Value>, found: &mut Map<String, Value>) {
    let mut wanted = vec![name.to_owned()];
    let mut seen = HashSet::new();
    while let Some(name) = wanted.pop() {
        if let Some(schema) = all.get(&name).filter(|_| seen.insert(name.clone())) {
            add_references(schema, &mut wanted);
            found.insert(name, schema.clone());
        }
    }
}

fn add_references(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                names.extend(reference.strip_prefix(REFERENCE).map(str::to_owned));
            }
            fields
                .values()
                .for_each(|field| add_references(field, names));
        }
        Value::Array(items) => items.iter().for_each(|item| add_references(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_all_that_it_is_made_of_has_a_schema() {
        let all = schemas();
        for resource in Resource::ALL {
            let name = format!("{}.v1.{}", group_name(resource.group()), resource.kind());
            assert!(all[&name]["properties"]["metadata"].is_object(), "{name}");
        }
        let mut names = Vec::new();
        all.values()
            .for_each(|schema| add_references(schema, &mut names));
        let missing: Vec<_> = names
            .iter()
            .filter(|name| !all.contains_key(*name))
            .collect();
        assert_eq!(missing, Vec::<&String>::new());
    }

    #[test]
    fn the_schemas_know_the_fields_that_can_be_decoded() {
        let job = document("batch", &schemas());
        let job = &job["components"]["schemas"]["io.k8s.api.batch.v1.Job"];
        assert_eq!(job["x-kubernetes-group-version-kind"][0]["kind"], "Job");
        let all = schemas();
        let mut compared = 0;
        for line in include_str!("messages.txt").lines() {
            let mut words = line.split(' ');
            let message = words.next().unwrap();
            let known = all
                .iter()
                .find(|(name, _)| name.rsplit('.').next() == Some(message));
            let Some(properties) = known.and_then(|(_, schema)| schema.get("properties")) else {
                continue;
            };
            for field in words.map(|word| word.split(':').next().unwrap()) {
                if field != "*" {
                    assert!(properties.get(field).is_some(), "{message}.{field}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 500, "{compared}");
    }
}
