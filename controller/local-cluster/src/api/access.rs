//! Reviews of one's own access: whoever shows the token may do everything.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{body, json_reply};

pub(super) async fn review(headers: HeaderMap, bytes: Bytes) -> Response {
    match body::object(&headers, &bytes) {
        Ok(mut review) => {
            let reply = json!({
                "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
                "metadata": {}, "spec": review["spec"].take(), "status": { "allowed": true },
            });
            json_reply(StatusCode::CREATED, Body::from(reply.to_string()))
        }
        Err(error) => error.into_response(),
    }
}
