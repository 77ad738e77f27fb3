//! A worker: takes items from one queue until the queue is over.

mod handling;
mod heartbeat;
mod pump;
mod signals;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use gangline_protocol::{Certificate, InvalidId, Json, QueueName, StopOutcome, WorkerName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::ClientError;
use crate::item::{HandlerError, Item, json};
use crate::transport::Transport;

/// Most handlers at a time: the leases that one session may hold.
const CONCURRENCY_MAX: usize = gangline_protocol::limits::SESSION_LEASES_MAX;

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
fn exit(end: End) -> ExitCode {
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

/// What a handler made of an item: JSON, or why not.
pub(crate) type Outcome = Result<Json, HandlerError>;

/// Any handler, with types erased.
pub(crate) type Handler =
    Arc<dyn Fn(Item<Json>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// Settings of a worker, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) queue: QueueName,
    pub(crate) name: WorkerName,
    pub(crate) concurrency: usize,
    pub(crate) grace: Duration,
    pub(crate) service_deadline: Duration,
    pub(crate) attempts: Option<u16>,
}

/// A worker that is being set up; `run` starts it.
#[derive(Debug, Clone)]
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    config: Result<Config, String>,
}

/// A worker whose handlers get a state, made by [`Worker::state`].
#[derive(Debug, Clone)]
#[must_use = "a worker does nothing until it is run"]
pub struct WorkerWith<S> {
    worker: Worker,
    state: S,
}

impl Worker {
    /// Sets a worker up by what its Pod, or `gangline run`, puts into the environment:
    /// `GANGLINE_URL`, `GANGLINE_QUEUE`, `GANGLINE_TOKEN`, `GANGLINE_WORKER` and
    /// `GANGLINE_GRACE_SECONDS`.
    ///
    /// What is wrong with them is said by `run`, which then ends with exit code 2.
    pub fn from_env() -> Self {
        Self {
            config: config_from_env(),
        }
    }

    /// Sets a worker up on a queue, which it reaches by a [`Client`] or another transport.
    pub fn new(transport: impl Transport, queue: QueueName) -> Self {
        Self {
            config: default_name().map(|name| Config::new(Arc::new(transport), queue, name)),
        }
    }
}

impl Config {
    fn new(transport: Arc<dyn Transport>, queue: QueueName, name: WorkerName) -> Self {
        Self {
            transport,
            queue,
            name,
            concurrency: 1,
            grace: Duration::from_secs(30),
            service_deadline: Duration::from_secs(120),
            attempts: None,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the SDK that reads the environment"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn config_from_env() -> Result<Config, String> {
    let wanted = |name: &str| variable(name).ok_or_else(|| format!("{name} is not set"));
    let url = wanted("GANGLINE_URL")?;
    let queue = wanted("GANGLINE_QUEUE")?;
    let queue = queue
        .parse()
        .map_err(|error| format!("GANGLINE_QUEUE: {error}"))?;
    let client = Client::new(&url, variable("GANGLINE_TOKEN"))
        .map_err(|error| format!("GANGLINE_URL: {error}"))?;
    let name = match variable("GANGLINE_WORKER") {
        Some(name) => name
            .parse()
            .map_err(|error: InvalidId| format!("GANGLINE_WORKER: {error}"))?,
        None => default_name()?,
    };
    let mut config = Config::new(Arc::new(client), queue, name);
    if let Some(seconds) = variable("GANGLINE_GRACE_SECONDS") {
        let seconds = seconds.parse().map_err(|_| {
            format!("GANGLINE_GRACE_SECONDS must be a whole number of seconds, got {seconds:?}")
        })?;
        config.grace = Duration::from_secs(seconds);
    }
    Ok(config)
}

/// The machine's name and the process, which a person can find again.
fn default_name() -> Result<WorkerName, String> {
    let host = nix::unistd::gethostname().map_err(|error| error.to_string())?;
    let host: String = host.to_string_lossy().chars().take(63).collect();
    let name = format!("{host}.{}", std::process::id());
    name.parse().map_err(|error: InvalidId| error.to_string())
}

impl Worker {
    /// Runs so many handlers at a time; 1 unless told otherwise.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        match &mut self.config {
            Ok(_) if !(1..=CONCURRENCY_MAX).contains(&handlers) => {
                let text = format!("concurrency must be 1 to {CONCURRENCY_MAX}, got {handlers}");
                self.config = Err(text);
            }
            Ok(config) => config.concurrency = handlers,
            Err(_) => {}
        }
        self
    }

    /// Names the worker; a later session of the same name ends an earlier one.
    pub fn name(mut self, name: WorkerName) -> Self {
        if let Ok(config) = &mut self.config {
            config.name = name;
        }
        self
    }

    /// How long the worker may take to leave when it is told to go.
    pub fn grace(mut self, grace: Duration) -> Self {
        if let Ok(config) = &mut self.config {
            config.grace = grace;
        }
        self
    }

    /// How long the service may be away before a worker with nothing in hand gives up.
    pub fn service_deadline(mut self, deadline: Duration) -> Self {
        if let Ok(config) = &mut self.config {
            config.service_deadline = deadline;
        }
        self
    }

    /// After how many of its own failures an item is dead, where that is fewer than the queue
    /// says. A lost worker counts on the queue's bound only.
    pub fn attempts(mut self, attempts: u16) -> Self {
        if let Ok(config) = &mut self.config {
            config.attempts = Some(attempts);
        }
        self
    }

    /// Hands a clone of `state` to every handler, as its second argument.
    pub fn state<S: Clone + Send + Sync + 'static>(self, state: S) -> WorkerWith<S> {
        WorkerWith {
            worker: self,
            state,
        }
    }

    /// Runs until the queue is over, and returns the exit code that says how it went.
    pub async fn run<T, R, E, F, H>(self, handler: H) -> ExitCode
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        F: Future<Output = Result<R, E>> + Send + 'static,
        H: Fn(Item<T>) -> F + Send + Sync + 'static,
    {
        exit(self.run_until_over(handler).await)
    }

    /// Runs until the queue is over, and returns how it went.
    pub async fn run_until_over<T, R, E, F, H>(self, handler: H) -> End
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        F: Future<Output = Result<R, E>> + Send + 'static,
        H: Fn(Item<T>) -> F + Send + Sync + 'static,
    {
        self.run_raw(Arc::new(move |item| {
            // The handler is called inside of what is caught below.
            let item = item.parse();
            let running = item.map(&handler);
            Box::pin(async move { as_json(running?.await) })
        }))
        .await
    }

    /// Runs a handler that takes and gives JSON as it is.
    pub(crate) async fn run_raw(self, handler: Handler) -> End {
        match self.config {
            Ok(config) => pump::run(config, handler).await,
            Err(text) => End::Misconfigured(text),
        }
    }
}

impl<S: Clone + Send + Sync + 'static> WorkerWith<S> {
    /// Runs until the queue is over, and returns the exit code that says how it went.
    pub async fn run<T, R, E, F, H>(self, handler: H) -> ExitCode
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        F: Future<Output = Result<R, E>> + Send + 'static,
        H: Fn(Item<T>, S) -> F + Send + Sync + 'static,
    {
        exit(self.run_until_over(handler).await)
    }

    /// Runs until the queue is over, and returns how it went.
    pub async fn run_until_over<T, R, E, F, H>(self, handler: H) -> End
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        F: Future<Output = Result<R, E>> + Send + 'static,
        H: Fn(Item<T>, S) -> F + Send + Sync + 'static,
    {
        let Self { worker, state } = self;
        worker
            .run_until_over(move |item| handler(item, state.clone()))
            .await
    }
}

fn as_json<R: Serialize, E: Into<HandlerError>>(result: Result<R, E>) -> Outcome {
    let value = result.map_err(Into::into)?;
    json(&value).map_err(|error| {
        HandlerError::permanent(format!("the result cannot be written as JSON: {error}"))
    })
}

/// Runs a handler; a panic is a failure like any other, and the worker lives on.
pub(crate) async fn guarded(handler: Handler, item: Item<Json>) -> Outcome {
    let caught = AssertUnwindSafe(async move { handler(item).await }).catch_unwind();
    caught.await.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "without a message".into());
        Err(format!("the handler panicked: {text}").into())
    })
}

/// What ends a worker among the errors of its calls.
pub(crate) fn end_of(error: &ClientError) -> Option<End> {
    match error {
        ClientError::Unavailable(_) => None,
        ClientError::Unauthorized(_) => Some(End::CredentialsRefused(error.to_string())),
        ClientError::Refused(_) | ClientError::Protocol(_) => {
            Some(End::Misconfigured(error.to_string()))
        }
    }
}
