//! The only map from what went wrong to a status, a code and a sentence.

use axum::response::{IntoResponse, Response};
use gangline_protocol::item::OutOfBounds;
use gangline_protocol::{ErrorCode, InvalidId, Problem};
use http::{HeaderValue, Method, StatusCode, Uri, header};

use crate::queue::Refusal;
use crate::store::StoreError;

/// Seconds after which a client may come again when the service is busy or away.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error reply.
#[derive(Debug)]
pub(crate) struct Failure(Box<Problem>);

impl Failure {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem {
            status: status_of(code).as_u16(),
            code,
            detail: detail.into(),
            field: None,
            certificate: None,
        }))
    }

    pub(crate) fn at(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Says in which line of a stream it went wrong, and what became of the lines before.
    pub(crate) fn in_line(mut self, line: u64, progress: &str) -> Self {
        self.0.detail = format!("line {line}: {}; {progress}", self.0.detail);
        self
    }

    pub(crate) fn out_of_bounds(path: &str, bound: OutOfBounds) -> Self {
        let field = format!("{path}{}", bound.field);
        Self::new(ErrorCode::OutOfBounds, format!("{path}{bound}")).at(field)
    }

    /// A bound on something that is no plain number of the body.
    pub(crate) fn bound(field: &str, got: impl std::fmt::Display, bound: &str) -> Self {
        Self::new(
            ErrorCode::OutOfBounds,
            format!("{field} must be {bound}, got {got}"),
        )
        .at(field)
    }

    pub(crate) fn parameter(name: &str, detail: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidParameter, format!("{name}: {detail}")).at(name)
    }

    pub(crate) fn id(name: &str, error: &InvalidId) -> Self {
        Self::parameter(name, error)
    }

    pub(crate) fn no_such_path(uri: &Uri) -> Self {
        Self::new(
            ErrorCode::NotFound,
            format!("there is nothing at {}", uri.path()),
        )
    }

    pub(crate) fn method_not_allowed(method: &Method, uri: &Uri) -> Self {
        let detail = format!("{} does not take {method}", uri.path());
        Self::new(ErrorCode::MethodNotAllowed, detail)
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidBody
        | ErrorCode::InvalidParameter
        | ErrorCode::OutOfBounds
        | ErrorCode::IncompleteStream => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::QueueNotFound
        | ErrorCode::ItemNotFound
        | ErrorCode::WorkerNotFound
        | ErrorCode::TokenNotFound
        | ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::QueueSealed | ErrorCode::QueueOver | ErrorCode::LeaseNumberOutOfOrder => {
            StatusCode::CONFLICT
        }
        ErrorCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::TooManyQueues | ErrorCode::TooManyTokens | ErrorCode::TooManyRequests => {
            StatusCode::TOO_MANY_REQUESTS
        }
        ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::QueueNotFound(_) => Self::new(ErrorCode::QueueNotFound, detail),
            Refusal::ItemNotFound(..) => Self::new(ErrorCode::ItemNotFound, detail),
            Refusal::Sealed(_) => Self::new(ErrorCode::QueueSealed, detail),
            Refusal::Over(certificate) => {
                let mut failure = Self::new(ErrorCode::QueueOver, detail);
                failure.0.certificate = Some(certificate);
                failure
            }
            Refusal::IdempotencyMismatch { .. } => {
                Self::new(ErrorCode::IdempotencyMismatch, detail)
            }
            // The other request goes on; this one may come again and find its lines taken.
            Refusal::StreamConflict { .. } => Self::new(ErrorCode::Unavailable, detail),
            Refusal::LeaseNumberOutOfOrder { .. } => {
                Self::new(ErrorCode::LeaseNumberOutOfOrder, detail).at("lease.number")
            }
            Refusal::OutOfBounds(bound) => Self::out_of_bounds("", bound),
            Refusal::TooManyQueues(_) => Self::new(ErrorCode::TooManyQueues, detail),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::NamespaceFull { .. } => {
                Self::new(ErrorCode::TooManyQueues, error.to_string())
            }
            StoreError::Unavailable(_) | StoreError::Busy(_) => {
                Self::new(ErrorCode::Unavailable, error.to_string())
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = StatusCode::from_u16(problem.status).expect("it was made of a status");
        let body = serde_json::to_vec(&problem).expect("problems can be written");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"gangline\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_come_again_is_told_when() {
        for code in ErrorCode::ALL {
            let response = Failure::new(code, "").into_response();
            let is_told = response.headers().contains_key(header::RETRY_AFTER);
            let may_come = matches!(response.status().as_u16(), 429 | 503);
            assert_eq!(is_told, may_come, "{code:?}");
        }
    }
}
