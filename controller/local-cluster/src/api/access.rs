//! Reviews of one's own access: whoever shows the token may do everything.

use axum::Json;
use http::StatusCode;
use serde_json::{Value, json};

pub(super) async fn review(Json(mut review): Json<Value>) -> (StatusCode, Json<Value>) {
    let mut reply = json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
        "status": { "allowed": true },
    });
    reply["spec"] = review["spec"].take();
    (StatusCode::CREATED, Json(reply))
}
