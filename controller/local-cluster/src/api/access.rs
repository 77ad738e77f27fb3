//! Reviews of oneself: whoever shows the token is the one user there is, and may do everything.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{body, json_reply};
use crate::USER;

/// A question about oneself that is answered when it is created, and never stored.
pub(super) struct Review {
    pub(super) group: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    status: fn() -> Value,
}

/// All of them.
pub(super) static REVIEWS: [Review; 3] = [
    Review {
        group: "authentication.k8s.io",
        plural: "selfsubjectreviews",
        kind: "SelfSubjectReview",
        status: || json!({ "userInfo": { "username": USER, "groups": ["system:authenticated"] } }),
    },
    Review {
        group: "authorization.k8s.io",
        plural: "selfsubjectaccessreviews",
        kind: "SelfSubjectAccessReview",
        status: || json!({ "allowed": true }),
    },
    Review {
        group: "authorization.k8s.io",
        plural: "selfsubjectrulesreviews",
        kind: "SelfSubjectRulesReview",
        status: || {
            let all = ["*"];
            json!({
                "resourceRules": [{ "verbs": all, "apiGroups": all, "resources": all }],
                "nonResourceRules": [{ "verbs": all, "nonResourceURLs": all }],
                "incomplete": false,
            })
        },
    },
];

/// The reviews of one group.
pub(super) fn of_group(group: &str) -> impl Iterator<Item = &'static Review> {
    REVIEWS.iter().filter(move |review| review.group == group)
}

impl Review {
    /// The path that answers it.
    pub(super) fn path(&self) -> String {
        format!("/apis/{}/v1/{}", self.group, self.plural)
    }

    pub(super) fn answer(&self, headers: &HeaderMap, bytes: &Bytes) -> Response {
        match body::object(headers, bytes) {
            Ok(mut asked) => {
                let mut reply = json!({
                    "kind": self.kind, "apiVersion": format!("{}/v1", self.group),
                    "metadata": {}, "status": (self.status)(),
                });
                if !asked["spec"].is_null() {
                    reply["spec"] = asked["spec"].take();
                }
                json_reply(StatusCode::CREATED, Body::from(reply.to_string()))
            }
            Err(error) => error.into_response(),
        }
    }
}
