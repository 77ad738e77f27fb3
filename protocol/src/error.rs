//! Errors on the wire: RFC 9457 problem documents with a stable code.

use serde::{Deserialize, Serialize};

/// What went wrong, for programs. The list is closed; each code has a paragraph in
/// `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body is no JSON, or not of the expected form.
    InvalidBody,
    /// A value is out of its bounds.
    OutOfBounds,
    /// A name in the path or the query does not parse.
    InvalidParameter,
    /// The content type is not one that the call takes.
    UnsupportedMediaType,
    /// The body is larger than the bound.
    BodyTooLarge,
    /// There is no such queue.
    QueueNotFound,
    /// There is no such item.
    ItemNotFound,
    /// There is no such session or worker.
    WorkerNotFound,
    /// There is no such token.
    TokenNotFound,
    /// There is no such path.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The queue is sealed and takes no items from outside.
    QueueSealed,
    /// The queue is over.
    QueueOver,
    /// The `Idempotency-Key` was used with another body.
    IdempotencyMismatch,
    /// The stream ended early, or had another number of lines than announced.
    IncompleteStream,
    /// Lease requests of a session must be numbered 1, 2, …
    LeaseNumberOutOfOrder,
    /// No token, or an unknown one.
    Unauthenticated,
    /// The token does not allow this.
    Forbidden,
    /// Too many queues.
    TooManyQueues,
    /// Too many tokens.
    TooManyTokens,
    /// The namespace sends more requests than it may.
    TooManyRequests,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The service is near its memory or disk limit, or its store is away.
    Unavailable,
    /// The service failed; the log has the cause.
    Internal,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 24] = [
        Self::InvalidBody,
        Self::OutOfBounds,
        Self::InvalidParameter,
        Self::UnsupportedMediaType,
        Self::BodyTooLarge,
        Self::QueueNotFound,
        Self::ItemNotFound,
        Self::WorkerNotFound,
        Self::TokenNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::QueueSealed,
        Self::QueueOver,
        Self::IdempotencyMismatch,
        Self::IncompleteStream,
        Self::LeaseNumberOutOfOrder,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::TooManyQueues,
        Self::TooManyTokens,
        Self::TooManyRequests,
        Self::RequestTimeout,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Returns the code as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidBody => "invalid_body",
            Self::OutOfBounds => "out_of_bounds",
            Self::InvalidParameter => "invalid_parameter",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::BodyTooLarge => "body_too_large",
            Self::QueueNotFound => "queue_not_found",
            Self::ItemNotFound => "item_not_found",
            Self::WorkerNotFound => "worker_not_found",
            Self::TokenNotFound => "token_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::QueueSealed => "queue_sealed",
            Self::QueueOver => "queue_over",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::IncompleteStream => "incomplete_stream",
            Self::LeaseNumberOutOfOrder => "lease_number_out_of_order",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::TooManyQueues => "too_many_queues",
            Self::TooManyTokens => "too_many_tokens",
            Self::TooManyRequests => "too_many_requests",
            Self::RequestTimeout => "request_timeout",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// Body of every error reply (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ErrorCode,
    /// A sentence for a person: what, on which object, and the bound broken.
    pub detail: String,
    /// Path of the field at fault, as in `items[3].priority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The certificate, where the reason is that the queue is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Box<crate::Certificate>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_they_are_serialized() {
        for (place, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place, "ALL has every code once, in order");
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
