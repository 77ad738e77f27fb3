//! A worker: takes items from one queue until the queue is over.

mod batch;
mod blocking;
mod end;
mod handling;
mod heartbeat;
mod pump;
mod signals;
mod wrap;

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gangline_protocol::{InvalidId, Json, QueueName, WorkerName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::item::{HandlerError, Item, json};
use crate::transport::Transport;
use batch::Batches;
pub use end::End;
use end::exit;
pub use wrap::Next;
use wrap::Wrap;

/// Most handlers at a time: the leases that one session may hold.
const CONCURRENCY_MAX: usize = gangline_protocol::limits::SESSION_LEASES_MAX;

/// What a handler made of an item: JSON, or why not.
pub type Outcome = Result<Json, HandlerError>;

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
    wraps: Vec<Wrap>,
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
    /// `GANGLINE_URL`, `GANGLINE_QUEUE`, `GANGLINE_TOKEN`, `GANGLINE_WORKER`,
    /// `GANGLINE_GRACE_SECONDS` and `GANGLINE_CA`.
    ///
    /// What is wrong with them is said by `run`, which then ends with exit code 2.
    pub fn from_env() -> Self {
        Self {
            config: config_from_env(),
            wraps: Vec::new(),
        }
    }

    /// Sets a worker up on a queue, which it reaches by a [`Client`] or another transport.
    pub fn new(transport: impl Transport, queue: QueueName) -> Self {
        Self {
            config: default_name().map(|name| Config::new(Arc::new(transport), queue, name)),
            wraps: Vec::new(),
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
    let token = variable("GANGLINE_TOKEN");
    let client = match variable("GANGLINE_CA") {
        Some(file) => {
            let ca = std::fs::read(&file)
                .map_err(|error| format!("GANGLINE_CA: cannot read {file}: {error}"))?;
            Client::with_ca(&url, token, &ca)
                .map_err(|error| format!("GANGLINE_URL, or GANGLINE_CA ({file}): {error}"))?
        }
        None => Client::new(&url, token).map_err(|error| format!("GANGLINE_URL: {error}"))?,
    };
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

    /// Puts `wrap` around every handler: it gets each item before the handler does, and the outcome
    /// before it is recorded. The first that is added is the outermost. Around batches it is run
    /// for each item.
    ///
    /// ```
    /// use gangline_worker::protocol::Json;
    /// use gangline_worker::testing::MemoryQueue;
    /// use gangline_worker::worker::Next;
    /// use gangline_worker::{HandlerError, Item};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let queue = MemoryQueue::of(["a", "b"]);
    /// let worker = queue.worker().wrap(|item: Item<Json>, next: Next| async move {
    ///     let (id, began) = (item.id, tokio::time::Instant::now());
    ///     let outcome = next.run(item).await;
    ///     println!("item {id} took {:?}: {}", began.elapsed(), match &outcome {
    ///         Ok(result) => result.get(),
    ///         Err(error) => error.text(),
    ///     });
    ///     outcome
    /// });
    /// let end = worker
    ///     .run_until_over(|item: Item<String>| async move { Ok::<_, HandlerError>(item.payload) })
    ///     .await;
    /// assert_eq!(end.code(), 0);
    /// # }
    /// ```
    pub fn wrap<F>(mut self, wrap: impl Fn(Item<Json>, Next) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.wraps.push(Wrap::new(wrap));
        self
    }

    /// Hands a clone of `state` to every handler, as its second argument: what is dear to make and
    /// cheap to clone, as a pool of connections, a client, or anything in an `Arc`.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use gangline_worker::testing::MemoryQueue;
    /// use gangline_worker::{HandlerError, Item};
    /// use tokio::sync::{Mutex, Semaphore};
    ///
    /// /// At most so many connections, which all handlers share.
    /// struct Pool {
    ///     free: Semaphore,
    ///     connections: Mutex<Vec<Connection>>,
    /// }
    ///
    /// struct Connection;
    ///
    /// impl Connection {
    ///     async fn look_up(&self, name: &str) -> Result<usize, std::io::Error> {
    ///         Ok(name.len())
    ///     }
    /// }
    ///
    /// impl Pool {
    ///     async fn look_up(&self, name: &str) -> Result<usize, HandlerError> {
    ///         let _permit = self.free.acquire().await?;
    ///         let taken = self.connections.lock().await.pop();
    ///         let connection = taken.unwrap_or(Connection);
    ///         let found = connection.look_up(name).await;
    ///         self.connections.lock().await.push(connection);
    ///         Ok(found?)
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let pool = Arc::new(Pool {
    ///     free: Semaphore::new(2),
    ///     connections: Mutex::default(),
    /// });
    /// let queue = MemoryQueue::of(["ann", "bob", "charles"]);
    /// let end = queue
    ///     .worker()
    ///     .concurrency(8)
    ///     .state(pool)
    ///     .run_until_over(|item: Item<String>, pool| async move {
    ///         pool.look_up(&item.payload).await
    ///     })
    ///     .await;
    /// assert_eq!(end.code(), 0);
    /// # }
    /// ```
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

    /// Runs a handler of up to `max` items at once, until the queue is over; a batch that is not
    /// full goes `max_wait` after its first item came. The handler returns one outcome an item, in
    /// their order, and each item is settled by its own. [`concurrency`](Self::concurrency) is the
    /// number of batches at a time. An item's time limit includes its wait for the batch.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use gangline_worker::{HandlerError, Item, Worker};
    ///
    /// #[tokio::main]
    /// async fn main() -> std::process::ExitCode {
    ///     Worker::from_env()
    ///         .run_batch(64, Duration::from_millis(50), |items: Vec<Item<String>>| async move {
    ///             // One call of something that is faster with many.
    ///             let lengths = items.iter().map(|item| item.payload.len());
    ///             lengths.map(Ok::<_, HandlerError>).collect()
    ///         })
    ///         .await
    /// }
    /// ```
    pub async fn run_batch<T, R, E, F, H>(
        self,
        max: usize,
        max_wait: Duration,
        handler: H,
    ) -> ExitCode
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        E: Into<HandlerError> + 'static,
        F: Future<Output = Vec<Result<R, E>>> + Send + 'static,
        H: Fn(Vec<Item<T>>) -> F + Send + Sync + 'static,
    {
        exit(self.run_batch_until_over(max, max_wait, handler).await)
    }

    /// As [`run_batch`](Self::run_batch), but returns how it went.
    pub async fn run_batch_until_over<T, R, E, F, H>(
        mut self,
        max: usize,
        max_wait: Duration,
        handler: H,
    ) -> End
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        E: Into<HandlerError> + 'static,
        F: Future<Output = Vec<Result<R, E>>> + Send + 'static,
        H: Fn(Vec<Item<T>>) -> F + Send + Sync + 'static,
    {
        let batches = match &mut self.config {
            Ok(config) => Batches::of(config, max, max_wait),
            Err(text) => Err(std::mem::take(text)),
        };
        match batches {
            Ok(batches) => self.run_raw(batch::handler_of(batches, handler)).await,
            Err(text) => End::Misconfigured(text),
        }
    }

    /// Runs a handler that blocks or computes, until the queue is over: each on a thread of its
    /// own, so that neither heartbeats nor other handlers wait for it. One that heeds neither its
    /// time limit nor [`Item::is_cancelled`] is left behind and does not keep the program from
    /// ending.
    ///
    /// ```no_run
    /// use gangline_worker::{Item, Worker};
    ///
    /// #[tokio::main]
    /// async fn main() -> std::process::ExitCode {
    ///     Worker::from_env()
    ///         .concurrency(4)
    ///         .run_blocking(|item: Item<u64>| {
    ///             let mut sum = 0_u64;
    ///             for number in 0..item.payload {
    ///                 if number % 4_096 == 0 && item.is_cancelled() {
    ///                     return Err("the sum is not wanted any more");
    ///                 }
    ///                 sum = sum.wrapping_add(number);
    ///             }
    ///             Ok(sum)
    ///         })
    ///         .await
    /// }
    /// ```
    pub async fn run_blocking<T, R, E, H>(self, handler: H) -> ExitCode
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        H: Fn(Item<T>) -> Result<R, E> + Send + Sync + 'static,
    {
        exit(self.run_blocking_until_over(handler).await)
    }

    /// As [`run_blocking`](Self::run_blocking), but returns how it went.
    pub async fn run_blocking_until_over<T, R, E, H>(self, handler: H) -> End
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        H: Fn(Item<T>) -> Result<R, E> + Send + Sync + 'static,
    {
        self.run_raw(blocking::handler_of(handler)).await
    }

    /// Runs a handler that takes and gives JSON as it is.
    pub(crate) async fn run_raw(self, handler: Handler) -> End {
        let Self { config, wraps } = self;
        match config {
            // The first of them is the outermost.
            Ok(config) => pump::run(config, wraps.into_iter().rfold(handler, Wrap::around)).await,
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

    /// As [`Worker::run_batch`]; a batch gets one clone of the state.
    pub async fn run_batch<T, R, E, F, H>(
        self,
        max: usize,
        max_wait: Duration,
        handler: H,
    ) -> ExitCode
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        E: Into<HandlerError> + 'static,
        F: Future<Output = Vec<Result<R, E>>> + Send + 'static,
        H: Fn(Vec<Item<T>>, S) -> F + Send + Sync + 'static,
    {
        exit(self.run_batch_until_over(max, max_wait, handler).await)
    }

    /// As [`Worker::run_batch_until_over`]; a batch gets one clone of the state.
    pub async fn run_batch_until_over<T, R, E, F, H>(
        self,
        max: usize,
        max_wait: Duration,
        handler: H,
    ) -> End
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        E: Into<HandlerError> + 'static,
        F: Future<Output = Vec<Result<R, E>>> + Send + 'static,
        H: Fn(Vec<Item<T>>, S) -> F + Send + Sync + 'static,
    {
        let Self { worker, state } = self;
        worker
            .run_batch_until_over(max, max_wait, move |items| handler(items, state.clone()))
            .await
    }

    /// As [`Worker::run_blocking`].
    pub async fn run_blocking<T, R, E, H>(self, handler: H) -> ExitCode
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        H: Fn(Item<T>, S) -> Result<R, E> + Send + Sync + 'static,
    {
        exit(self.run_blocking_until_over(handler).await)
    }

    /// As [`Worker::run_blocking_until_over`].
    pub async fn run_blocking_until_over<T, R, E, H>(self, handler: H) -> End
    where
        T: DeserializeOwned + Send + 'static,
        R: Serialize,
        E: Into<HandlerError>,
        H: Fn(Item<T>, S) -> Result<R, E> + Send + Sync + 'static,
    {
        let Self { worker, state } = self;
        worker
            .run_blocking_until_over(move |item| handler(item, state.clone()))
            .await
    }
}

fn as_json<R: Serialize, E: Into<HandlerError>>(result: Result<R, E>) -> Outcome {
    let value = result.map_err(Into::into)?;
    json(&value).map_err(|error| {
        HandlerError::permanent(format!("the result cannot be written as JSON: {error}"))
    })
}

#[cfg(test)]
mod tests;
