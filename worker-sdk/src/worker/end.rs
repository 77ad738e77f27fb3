//! How a worker ends, and the exit code that tells it.

use std::process::ExitCode;

use gangline_protocol::{Certificate, StopOutcome};

use crate::error::ClientError;

/// How a worker has ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The queue is over.
    Over(Box<Certificate>),
    /// Told to go (SIGTERM) before the queue was over.
    Terminated,
    /// Interrupted (SIGINT) before the queue was over.
    Interrupted,
    /// The service did not answer for too long, and nothing undelivered was in hand.
    ServiceLost(String),
    /// The service refuses the credentials.
    CredentialsRefused(String),
    /// The worker was set up in a way that cannot work.
    Misconfigured(String),
}

impl End {
    /// Returns the exit code that tells it: 0 only when the whole job is done.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Over(certificate) => match certificate.outcome {
                StopOutcome::Success => 0,
                StopOutcome::Failure => 70,
            },
            Self::Terminated => 143,
            Self::Interrupted => 130,
            Self::ServiceLost(_) => 69,
            Self::CredentialsRefused(_) => 77,
            Self::Misconfigured(_) => 2,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Over(certificate) => {
                let Certificate { queue, outcome, .. } = &**certificate;
                let outcome = match outcome {
                    StopOutcome::Success => "success",
                    StopOutcome::Failure => "failure",
                };
                write!(f, "the queue {queue} is over, with {outcome}")
            }
            Self::Terminated => f.write_str("told to go before the queue was over"),
            Self::Interrupted => f.write_str("interrupted before the queue was over"),
            Self::ServiceLost(text)
            | Self::CredentialsRefused(text)
            | Self::Misconfigured(text) => f.write_str(text),
        }
    }
}

/// Says on stderr why a worker ends, where nothing else would.
#[expect(
    clippy::print_stderr,
    reason = "the exit code alone would leave its user guessing"
)]
pub(super) fn exit(end: End) -> ExitCode {
    if end.code() != 0 {
        eprintln!("worker: {end}");
    }
    end.into()
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        end.code().into()
    }
}

/// What ends a worker among the errors of its calls.
pub(super) fn end_of(error: &ClientError) -> Option<End> {
    match error {
        ClientError::Unavailable(_) => None,
        ClientError::Unauthorized(_) => Some(End::CredentialsRefused(error.to_string())),
        ClientError::Refused(_) | ClientError::Protocol(_) => {
            Some(End::Misconfigured(error.to_string()))
        }
    }
}
