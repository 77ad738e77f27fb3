//! What can go wrong with a call, as a caller can tell it apart.

use std::time::Duration;

use gangline_protocol::{ErrorCode, Problem};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

/// The longest wait that is taken from a `Retry-After`: an hour.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service refuses it; nothing has changed, but for the lines of a stream before the one
    /// that was refused.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The credentials are missing, unknown, or not enough.
    #[error("{}", .0.detail)]
    Unauthorized(Box<Problem>),
    /// The service cannot be reached, or is busy.
    #[error("the queue service does not answer: {0}")]
    Unavailable(Outage),
    /// What answered is no Gangline service, or one that speaks otherwise.
    #[error("the queue service gave an answer that is not understood: {0}")]
    Protocol(String),
}

/// A call that was not answered, this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// What is known of it.
    pub text: String,
    /// After what time the service wants to be asked again, if it says so (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// Whether the service may have got the call.
    pub arrived: bool,
}

impl std::fmt::Display for Outage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl ClientError {
    /// Tells whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Refused(_) | Self::Unauthorized(_) | Self::Protocol(_) => false,
        }
    }

    /// Tells whether the service may have done what the call was for, although there is no answer
    /// that says so.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            // Lines of a stream are taken as they come.
            Self::Refused(problem) => problem.code == ErrorCode::IncompleteStream,
            Self::Unauthorized(_) => false,
            Self::Unavailable(outage) => outage.arrived,
            Self::Protocol(_) => true,
        }
    }

    /// Returns after what time the service wants to be asked again, if it says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(outage) => outage.retry_after,
            Self::Refused(_) | Self::Unauthorized(_) | Self::Protocol(_) => None,
        }
    }

    /// Returns the code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(problem) | Self::Unauthorized(problem) => Some(problem.code),
            Self::Unavailable(_) | Self::Protocol(_) => None,
        }
    }

    /// Makes one of an error reply.
    fn of_reply(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let outage = |text: String, arrived| {
            Self::Unavailable(Outage {
                text,
                retry_after: retry_after(headers),
                arrived,
            })
        };
        // Refused before anything was looked at.
        let refused_early = status == StatusCode::TOO_MANY_REQUESTS;
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            // From something between here and the service.
            return if status.is_server_error() || refused_early {
                outage(format!("HTTP status {status}"), !refused_early)
            } else {
                Self::Protocol(format!("HTTP status {status}"))
            };
        };
        match problem.code {
            ErrorCode::Unauthenticated | ErrorCode::Forbidden => {
                Self::Unauthorized(Box::new(problem))
            }
            ErrorCode::Unavailable
            | ErrorCode::Internal
            | ErrorCode::TooManyRequests
            | ErrorCode::RequestTimeout => outage(problem.detail, !refused_early),
            _ => Self::Refused(Box::new(problem)),
        }
    }
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        if error.is_builder() {
            return Self::Protocol(text);
        }
        Self::Unavailable(Outage {
            text,
            retry_after: None,
            arrived: !error.is_connect(),
        })
    }
}

/// Returns the seconds that a reply names. The form with a date says the same by a clock that need
/// not be ours; it is left to the back-off.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    Some(Duration::from_secs(seconds.ok()?).min(RETRY_AFTER_MAX))
}

/// Turns error replies into errors.
pub(crate) async fn check(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let headers = response.headers().clone();
    let body = response.bytes().await?;
    Err(ClientError::of_reply(status, &headers, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, retry_after: Option<&str>, body: &str) -> ClientError {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(RETRY_AFTER, text.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        ClientError::of_reply(status, &headers, body.as_bytes())
    }

    fn problem(status: u16, code: &str) -> String {
        format!(r#"{{"status": {status}, "code": "{code}", "detail": "so it is"}}"#)
    }

    #[test]
    fn replies_say_whether_to_come_again_and_what_may_have_happened() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (status, header, body, retryable, effect, after) in [
            (
                503,
                Some("1"),
                problem(503, "unavailable"),
                true,
                true,
                seconds(1),
            ),
            (503, None, problem(503, "unavailable"), true, true, None),
            (
                429,
                Some("2"),
                problem(429, "too_many_requests"),
                true,
                false,
                seconds(2),
            ),
            (500, None, problem(500, "internal"), true, true, None),
            (408, None, problem(408, "request_timeout"), true, true, None),
            (409, None, problem(409, "queue_sealed"), false, false, None),
            (
                400,
                None,
                problem(400, "incomplete_stream"),
                false,
                true,
                None,
            ),
            (
                401,
                None,
                problem(401, "unauthenticated"),
                false,
                false,
                None,
            ),
            // Not by the service: a proxy's own replies.
            (502, Some("3"), "<html>".into(), true, true, seconds(3)),
            (429, Some("4"), String::new(), true, false, seconds(4)),
            (404, Some("4"), "<html>".into(), false, true, None),
            // What is no number of seconds, and what is too many of them.
            (
                503,
                Some("Sun, 06 Nov 1994 08:49:37 GMT"),
                String::new(),
                true,
                true,
                None,
            ),
            (503, Some("-1"), String::new(), true, true, None),
            (
                503,
                Some("99999999"),
                String::new(),
                true,
                true,
                seconds(3_600),
            ),
        ] {
            let error = of(status, header, &body);
            let told = (
                error.is_retryable(),
                error.may_have_taken_effect(),
                error.retry_after(),
            );
            assert_eq!(
                told,
                (retryable, effect, after),
                "{status} {header:?} {body}"
            );
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_never_made_took_no_effect() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        drop(taken);
        let client = crate::Client::new(&format!("http://{address}"), None).unwrap();
        let error = client.queues().await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(!error.may_have_taken_effect(), "{error}");
    }
}
