//! What a command is about: a queue, a Job or a Pod.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use gangline_worker::protocol::QueueName;

use crate::error::Error;

/// A queue, a Job or a Pod, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `images`, or `queue/images`.
    Queue(String),
    /// `job/resize`.
    Job(String),
    /// `pod/resize-x7k2p`.
    Pod(String),
}

impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.split_once('/') {
            Some(("job" | "jobs" | "job.batch" | "jobs.batch", name)) => Self::Job(name.into()),
            Some(("pod" | "pods" | "po", name)) => Self::Pod(name.into()),
            Some(("queue" | "queues" | "q", name)) => Self::Queue(name.into()),
            _ => Self::Queue(text.into()),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue/{name}"),
            Self::Job(name) => write!(f, "job/{name}"),
            Self::Pod(name) => write!(f, "pod/{name}"),
        }
    }
}

/// Reads the name of a queue.
pub(crate) fn queue(name: &str) -> Result<QueueName, Error> {
    name.parse().map_err(|error| {
        Error::usage(format!("{name:?} is no queue: {error}"))
            .hint("a queue is images or team-a.images; a Job is job/NAME, a Pod pod/NAME")
    })
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn what_has_no_kind_is_a_queue() {
        let target = |text: &str| text.parse::<Target>().unwrap().to_string();
        assert_eq!(target("images"), "queue/images");
        assert_eq!(target("queue/images"), "queue/images");
        assert_eq!(target("jobs/a"), "job/a");
        assert_eq!(target("po/a"), "pod/a");
        assert_eq!(target("deployment/a"), "queue/deployment/a");
    }
}
