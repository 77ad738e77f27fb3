//! The Redis store: the rules as functions inside Redis, for any number of replicas of the service.
//!
//! Each step is one call of a function on the keys of one queue (`redis/keys.rs` has the layout),
//! with Redis' own clock. The state machine in [`crate::queue`] is what the functions are held to,
//! reply by reply (`tests/tests/all/differential.rs`). Signals come back with the reply and are
//! told at once; the other replicas hear them by a publish from inside the function.

mod address;
mod connection;
mod durability;
mod encode;
mod fields;
mod fill;
mod fitness;
mod head;
mod jobs;
mod keys;
mod link;
mod look;
mod record;
mod replies;
mod schedule;
mod scripts;
mod seen;
mod steps;
mod tend;
mod tokens;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use gangline_protocol::limits::QUEUES_MAX;
use gangline_protocol::{QueueName, SessionId};
use redis::{Cmd, Value};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::durability::{Durability, NoSuchLevel};
pub use self::jobs::RedisJobs;
pub use self::link::RedisTrouble;
pub use self::tokens::RedisTokens;

use self::fields::{Fields, Frame, Malformed};
use self::fill::Fill;
use self::link::Link;
use self::schedule::Schedule;
use self::scripts::{Script, Scripts};
use self::seen::Seen;
use super::{Answer, Store, StoreError};
use crate::clock::{Clock, Random};
use crate::hub::Hub;
use crate::queue::{Command, Query, Refusal, Signal};

/// The Redis store.
#[derive(Debug)]
pub struct Redis {
    inner: Arc<Inner>,
    _stop: DropGuard,
}

/// Whose clock is asked.
#[derive(Clone)]
pub enum Time {
    /// Redis' own, which all replicas share.
    Redis,
    /// This one, for tests: then nothing is ticked but by [`Command::Tick`].
    Given(Arc<dyn Clock>),
}

struct Inner {
    link: Arc<Link>,
    scripts: Scripts,
    hub: Hub,
    time: Time,
    random: Arc<dyn Random>,
    schedule: Schedule,
    /// What this replica calls itself in the news.
    replica: String,
    /// Queues that this replica has put into the registry.
    registered: Mutex<HashSet<QueueName>>,
    fill: Fill,
    /// When each queue was last changed, as far as this replica has acknowledged it.
    seen: Seen,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects to a Redis and looks whether it may be used.
    ///
    /// # Errors
    ///
    /// A [`RedisTrouble`] that says what is wrong and what to do about it.
    pub async fn open(
        url: &str,
        durability: Durability,
        time: Time,
        random: Arc<dyn Random>,
        hub: Hub,
    ) -> Result<Self, RedisTrouble> {
        let link = Arc::new(Link::new(url, durability)?);
        let first = link.connect().await?;
        let scripts = Scripts::new();
        link.rehearse(&first, &scripts, &tend::claim(&scripts, 0))
            .await?;
        let inner = Arc::new(Inner {
            link: link.clone(),
            scripts,
            hub,
            replica: format!("{:016x}", random.draw()),
            random,
            schedule: Schedule::default(),
            registered: Mutex::default(),
            fill: Fill::default(),
            seen: Seen::default(),
            time,
        });
        let stop = CancellationToken::new();
        link.begin(&first);
        let listener = inner.clone();
        let hear = move |news: Option<&str>| listener.hear(news);
        let keeping = link.keep(first, stop.clone(), hear);
        spawn(stop.clone(), keeping);
        if matches!(inner.time, Time::Redis) {
            spawn(stop.clone(), inner.clone().tend());
        }
        Ok(Self {
            inner,
            _stop: stop.drop_guard(),
        })
    }
}

impl Store for Redis {
    fn execute(&self, command: Command) -> Answer<'_> {
        Box::pin(self.inner.execute(command))
    }

    fn query(&self, query: Query) -> Answer<'_> {
        Box::pin(self.inner.query(query))
    }

    fn trouble(&self) -> Option<String> {
        self.inner.link.trouble()
    }

    fn durability(&self) -> gangline_protocol::Durability {
        self.inner.link.known().promise
    }
}

/// Runs a task until the store is dropped. It holds nothing that must be written.
fn spawn(stop: CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

impl From<Malformed> for StoreError {
    fn from(error: Malformed) -> Self {
        tracing::error!(%error, "a script and its reader do not fit together");
        Self::Unavailable(error.to_string())
    }
}

impl Inner {
    /// Begins a call of a script on a queue: its keys, and the arguments that all of them take.
    fn call(&self, script: Script, queue: &QueueName, batch: Option<&str>) -> Cmd {
        let mut cmd = self.scripts.call(script);
        keys::add(&mut cmd, queue, batch);
        match &self.time {
            Time::Redis => cmd.arg(""),
            Time::Given(clock) => cmd.arg(clock.now_us()),
        };
        let seal = self.link.seal(self.seen.of(queue));
        cmd.arg(format!("{} {seal}", self.replica))
            .arg(queue.full())
            .arg(keys::NEWS);
        cmd
    }

    async fn send(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        let mut connection = self.link.connection()?;
        self.scripts
            .send(&mut connection, cmd)
            .await
            .map_err(|error| self.link.failed(&error))
    }

    /// Sends a step, and returns when it is as durable as was asked for.
    async fn send_durably(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        let mut connection = self.link.connection()?;
        let answer = self.scripts.send(&mut connection, cmd).await;
        let answer = answer.map_err(|error| self.link.failed(&error))?;
        let key = scripts::first_key(cmd);
        self.link.confirm(&mut connection, key).await?;
        Ok(answer)
    }

    /// Sends a look, and returns when what it shows is as durable as was asked for.
    async fn send_and_confirm_seen(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        let mut connection = self.link.connection()?;
        let answer = self.scripts.send(&mut connection, cmd).await;
        let answer = answer.map_err(|error| self.link.failed(&error))?;
        let key = scripts::first_key(cmd);
        self.link.confirm_seen(&mut connection, key).await?;
        Ok(answer)
    }

    async fn send_plain<T: redis::FromRedisValue>(&self, cmd: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.link.connection()?;
        cmd.query_async(&mut connection)
            .await
            .map_err(|error| self.link.failed(&error))
    }

    /// Runs a step of a queue; tells its signals and notes when the queue is due.
    async fn step(&self, queue: &QueueName, cmd: &Cmd) -> Result<(String, Fields), StoreError> {
        let (frame, fields) = self.step_with_frame(queue, cmd).await?;
        Ok((frame.tag, fields))
    }

    async fn step_with_frame(
        &self,
        queue: &QueueName,
        cmd: &Cmd,
    ) -> Result<(Frame, Fields), StoreError> {
        let mut fields = Fields::of(self.send_durably(cmd).await?)?;
        let frame = Frame::of(&mut fields)?;
        let Frame {
            due_in_ms,
            ready,
            stepped_ms,
            sessions,
            over,
            tag: _,
        } = &frame;
        let is_new = *ready == u64::MAX;
        if let Some(stepped_ms) = stepped_ms {
            self.seen.note(queue, *stepped_ms, is_new);
        }
        if matches!(self.time, Time::Redis) {
            self.schedule.set(queue, *due_in_ms);
        }
        if is_new {
            // Made by this very step: perhaps after another replica has removed it.
            self.send_plain::<()>(
                redis::cmd("ZADD")
                    .arg(keys::QUEUES)
                    .arg(0)
                    .arg(queue.full()),
            )
            .await?;
        }
        self.tell(queue, *ready, sessions, *over);
        Ok((frame, fields))
    }

    fn tell(&self, queue: &QueueName, ready: u64, sessions: &[SessionId], over: bool) {
        for session in sessions {
            let (queue, session) = (queue.clone(), *session);
            self.hub.tell(&Signal::Session { queue, session });
        }
        if ready > 0 {
            let (queue, items) = (queue.clone(), ready);
            self.hub.tell(&Signal::Ready { queue, items });
        }
        if over {
            let queue = queue.clone();
            self.hub.tell(&Signal::Over { queue });
        }
    }

    /// Takes a piece of news from another replica; nothing stands for "anything may have been".
    fn hear(&self, news: Option<&str>) {
        let Some(news) = news else {
            self.hub.wake_all();
            // What this replica knows of may be gone: that is noted before another ends the queue.
            for queue in self.seen.all() {
                self.schedule.set(&queue, Some(0));
            }
            return;
        };
        let mut words = news.split(' ');
        if words.next() == Some(&self.replica) {
            return;
        }
        let queue = words.next().and_then(|word| word.parse().ok());
        let ready = words.next().and_then(|word| word.parse().ok());
        let (Some(queue), Some(ready)) = (queue, ready) else {
            tracing::debug!(news, "a piece of news that nobody understands");
            return;
        };
        let over = words.next() == Some("1");
        let sessions = words.next().unwrap_or_default().split(',');
        let sessions: Vec<SessionId> = sessions.filter_map(|id| id.parse().ok()).collect();
        self.tell(&queue, ready, &sessions, over);
    }

    fn registered(&self) -> std::sync::MutexGuard<'_, HashSet<QueueName>> {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a queue into the registry before it is made, so that none is ever without its entry.
    /// Tells whether there is room for it.
    async fn register(&self, queue: &QueueName) -> Result<bool, StoreError> {
        if self.registered().contains(queue) {
            return Ok(true);
        }
        let mut connection = self.link.connection()?;
        let answer = redis::pipe()
            .cmd("ZADD")
            .arg(keys::QUEUES)
            .arg("NX")
            .arg(0)
            .arg(queue.full())
            .cmd("ZCARD")
            .arg(keys::QUEUES)
            .query_async(&mut connection)
            .await;
        let (added, count): (usize, usize) = answer.map_err(|error| self.link.failed(&error))?;
        if added == 1 && count > QUEUES_MAX {
            self.send_plain::<()>(redis::cmd("ZREM").arg(keys::QUEUES).arg(queue.full()))
                .await?;
            return Ok(false);
        }
        self.registered().insert(queue.clone());
        Ok(true)
    }

    fn forget(&self, queue: &QueueName) {
        self.registered().remove(queue);
        self.fill.forget(queue);
        self.seen.forget(queue);
        self.schedule.set(queue, None);
    }
}

fn not_found(queue: &QueueName) -> StoreError {
    Refusal::QueueNotFound(queue.clone()).into()
}

/// A tag that no script returns here.
fn unexpected(tag: &str) -> StoreError {
    tracing::error!(tag, "a script gave a reply of the wrong kind");
    StoreError::Unavailable(format!("a script gave a reply of the wrong kind: {tag}"))
}
