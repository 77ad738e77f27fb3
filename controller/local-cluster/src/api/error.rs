//! Refusals, in the form that clients of Kubernetes know: a `Status` with a reason and details.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::objects::resource::Resource;

/// Why a request is refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Value,
}

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Cause {
    fn new(reason: &'static str, field: impl Into<String>, message: String) -> Self {
        Self {
            reason,
            field: field.into(),
            message,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value}: {why}"),
        )
    }

    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let message = match why {
            "" => "Required value".into(),
            why => format!("Required value: {why}"),
        };
        Self::new("FieldValueRequired", field, message)
    }

    pub(crate) fn not_supported(field: impl Into<String>, value: &str, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        let message = format!(
            "Unsupported value: {value:?}: supported values: {}",
            known.join(", ")
        );
        Self::new("FieldValueNotSupported", field, message)
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {value}"),
        )
    }

    pub(crate) fn not_found(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Not found: {value}");
        Self::new("FieldValueNotFound", field, message)
    }

    pub(crate) fn too_long(field: impl Into<String>, bytes_max: usize) -> Self {
        let message = format!("Too long: may not be more than {bytes_max} bytes");
        Self::new("FieldValueTooLong", field, message)
    }

    pub(crate) fn too_many(field: impl Into<String>, count: usize, count_max: usize) -> Self {
        let message = format!("Too many: {count}: must have at most {count_max} items");
        Self::new("FieldValueTooMany", field, message)
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: String, details: Value) -> Self {
        Self {
            code,
            reason,
            message,
            details,
        }
    }

    pub(crate) fn not_found(resource: Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            message,
            about(resource, name),
        )
    }

    /// Nothing is served at this path.
    pub(crate) fn no_such_path() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::new(StatusCode::NOT_FOUND, "NotFound", message, json!({}))
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            message,
            json!({}),
        )
    }

    /// What would happen within a container.
    pub(crate) fn not_within(wanted: &str) -> Self {
        let message = format!(
            "{wanted} is not served here: a container is a process of this machine, so that its files, ports and /proc are at hand"
        );
        Self::not_here(message)
    }

    /// A Pod with somebody at its keyboard.
    pub(crate) fn not_typed_into() -> Self {
        Self::not_here(
            "run -i is not served here: nothing can be typed into a container; leave out -i and -t, and read what it writes with kubectl logs -f"
                .to_owned(),
        )
    }

    fn not_here(message: String) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            message,
            json!({}),
        )
    }

    pub(crate) fn already_exists(resource: Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            message,
            about(resource, name),
        )
    }

    pub(crate) fn conflict(resource: Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            resource.qualified()
        );
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            message,
            about(resource, name),
        )
    }

    /// The version that the client wrote on is not the newest.
    pub(crate) fn has_changed(resource: Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// Other managers have applied other values; each is told with its manager.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let told = conflicts
            .iter()
            .map(|(manager, field)| format!("conflict with {manager:?}: {field}"));
        let told = told.collect::<Vec<_>>().join("\n");
        let count = conflicts.len();
        let plural = if count == 1 { "" } else { "s" };
        let message = format!("Apply failed with {count} conflict{plural}: {told}");
        let causes = conflicts.iter().map(|(manager, field)| {
            json!({
                "reason": "FieldManagerConflict", "field": field,
                "message": format!("conflict with {manager:?}"),
            })
        });
        let details = json!({ "causes": causes.collect::<Vec<_>>() });
        Self::new(StatusCode::CONFLICT, "Conflict", message, details)
    }

    pub(crate) fn invalid(resource: Resource, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind = match resource.group() {
            "" => resource.kind().to_owned(),
            group => format!("{}.{group}", resource.kind()),
        };
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| {
                json!({ "reason": cause.reason, "message": cause.message, "field": cause.field })
            })
            .collect();
        let mut details = json!({ "name": name, "kind": resource.kind(), "causes": causes });
        if !resource.group().is_empty() {
            details["group"] = resource.group().into();
        }
        let message = format!("{kind} {name:?} is invalid: {list}");
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            message,
            details,
        )
    }

    /// A patch cannot be applied to the object as it is.
    pub(crate) fn unprocessable(message: String) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            message,
            json!({}),
        )
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            message.into(),
            Value::Null,
        )
    }

    pub(crate) fn internal(why: &str) -> Self {
        let message = format!("Internal error occurred: {why}");
        let code = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(code, "InternalError", message, Value::Null)
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    pub(crate) fn expired(message: String) -> Self {
        Self::new(StatusCode::GONE, "Expired", message, Value::Null)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "Unauthorized".into(),
            Value::Null,
        )
    }

    pub(crate) fn namespace_terminating(resource: Resource, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let message = format!("{} {name:?} is forbidden: {why}", resource.qualified());
        let mut details = about(resource, name);
        let text = format!("namespace {namespace} is being terminated");
        details["causes"] = json!([
            { "reason": "NamespaceTerminating", "message": text, "field": "metadata.namespace" },
        ]);
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message, details)
    }

    pub(crate) fn forbidden(resource: Resource, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", resource.qualified());
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            message,
            about(resource, name),
        )
    }

    pub(crate) fn unsupported_media_type(known: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            known.join(", ")
        );
        let code = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(code, "UnsupportedMediaType", message, json!({}))
    }

    pub(crate) fn too_large(bytes_max: usize) -> Self {
        let message = format!("Request entity too large: limit is {bytes_max}");
        let code = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(code, "RequestEntityTooLarge", message, json!({}))
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code == StatusCode::NOT_FOUND
    }

    pub(crate) fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

fn about(resource: Resource, name: &str) -> Value {
    let mut details = json!({ "name": name, "kind": resource.plural() });
    if !resource.group().is_empty() {
        details["group"] = resource.group().into();
    }
    details
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code, axum::Json(self.to_status())).into_response()
    }
}
