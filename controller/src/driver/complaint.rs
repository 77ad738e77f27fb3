//! What the Kubernetes API has against a call, for people, and how long it wants to be left alone.

use std::time::Duration;

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Complaint {
    pub(crate) why: String,
    /// The shortest time after which it may be tried again.
    pub(crate) retry_after: Duration,
}

/// Nobody knows what became of a call.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs_f64())]
pub(crate) struct NoAnswer(pub(crate) Duration);

impl From<&kube::Error> for Complaint {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let why = match (status.message.as_str(), status.reason.as_str()) {
                    ("", "") => format!("the API answers {}", status.code),
                    ("", reason) => reason.to_owned(),
                    (message, _) => message.to_owned(),
                };
                let seconds = status
                    .details
                    .as_ref()
                    .map_or(0, |details| details.retry_after_seconds);
                Self {
                    why,
                    retry_after: Duration::from_secs(seconds.into()),
                }
            }
            kube::Error::Service(source) => Self {
                why: format!("the Kubernetes API cannot be reached: {source}"),
                retry_after: Duration::ZERO,
            },
            other => Self {
                why: other.to_string(),
                retry_after: Duration::ZERO,
            },
        }
    }
}
