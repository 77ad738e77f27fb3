//! The description of the API, made of the table of routes and the schemas beside this file.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::routes::{Gives, Need, ROUTES, Route, Takes};

/// Bodies and their parts; `schemas_are_those_of_the_types` holds them to the wire types.
const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// Path parameters, and the schemas of their values.
const IN_PATH: [(&str, &str); 3] = [
    ("queue", "QueueName"),
    ("id", "PathId"),
    ("name", "WorkerName"),
];

/// Returns the description (OpenAPI 3.1), the same that is checked in as `docs/openapi.json`.
fn description() -> Value {
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("it is checked by a test");
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gangline queue service",
            "version": "1",
            "description": "A work queue for parallel workers. Errors are RFC 9457 problem \
                documents with a stable code. Clients must ignore fields that they do not know; \
                requests with such fields are refused.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = IN_PATH
        .iter()
        .filter(|(name, _)| route.path.contains(&format!("{{{name}}}")))
        .map(|(name, schema)| {
            // The id of a token is no number.
            let schema = match route.need {
                Need::Grant => "TokenId",
                _ => schema,
            };
            json!({"name": name, "in": "path", "required": true, "schema": refer(schema)})
        })
        .collect();
    parameters.extend(route.query.iter().map(|(name, schema, meaning)| {
        let schema: Value = serde_json::from_str(schema).expect("it is checked by a test");
        json!({"name": name, "in": "query", "description": meaning, "schema": schema})
    }));
    if let Gives::Text("text/event-stream") = route.gives {
        parameters.push(json!({
            "name": "Last-Event-ID", "in": "header",
            "description": "The `id` of the last event that the client has got: it gets what has \
                changed since, or `reset` and all queues when the service cannot tell",
            "schema": {"type": "string"},
        }));
    }
    let body = match route.takes {
        Takes::Nothing => None,
        Takes::Json(schema) => Some((true, json_body(schema))),
        Takes::JsonOrNothing(schema) => Some((false, json_body(schema))),
        Takes::Items => {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header",
                "description": "Makes the push repeatable for 24 hours",
                "schema": {"type": "string", "minLength": 1, "maxLength": 256,
                    "pattern": "^[!-~]([ -~]*[!-~])?$"},
            }));
            parameters.push(json!({
                "name": "traceparent", "in": "header",
                "description": "W3C trace context. When it is sampled, and the body is JSON, items \
                    that have none of their own get it, and their workers with them",
                "schema": {"type": "string"},
            }));
            let item_or_batch = json!({"oneOf": [refer("NewItem"), refer("PushRequest")]});
            let lines = json!({"type": "string", "description": "one NewItem a line"});
            let content = json!({
                "application/json": {"schema": item_or_batch},
                "application/x-ndjson": {"schema": lines},
            });
            Some((true, content))
        }
    };
    let good = match route.gives {
        Gives::Json(schema) => json_body(schema),
        Gives::Text(kind) => json!({kind: {"schema": {}}}),
    };
    let problem = json!({"application/problem+json": {"schema": refer("Problem")}});
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": parameters,
        "responses": {
            "200": {"description": "It is so", "content": good},
            "default": {"description": "It is not; nothing has changed", "content": problem},
        },
    });
    if let Some((required, content)) = body {
        operation["requestBody"] = json!({"required": required, "content": content});
    }
    if route.need == Need::Open {
        operation["security"] = json!([]);
    } else {
        let roles = format!("Needs one of the roles: {}.", route.need.roles());
        operation["description"] = roles.into();
    }
    operation
}

fn refer(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn json_body(schema: &str) -> Value {
    json!({"application/json": {"schema": refer(schema)}})
}

/// A name for generated clients, as in `post_queues_queue_seal`.
fn operation_id(route: &Route) -> String {
    let words = route
        .path
        .split(|letter: char| !letter.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty() && *word != "v1");
    let mut id = route.method.to_ascii_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    id
}

pub(super) async fn openapi() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(text);
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], TEXT.as_str()).into_response()
}

fn text() -> String {
    let mut text = serde_json::to_string_pretty(&description()).expect("it is JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
