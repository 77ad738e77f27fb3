//! The embedded store: the state machine in memory, its facts in a log on disk.
//!
//! One thread owns both. It takes requests that wait, namespace by namespace in turns, applies them,
//! appends what became true as one commit, syncs once for all of them, and only then replies. When the log cannot be
//! written the store stops for good: what is in memory could not be proved any more.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gangline_protocol::{Durability, QueueName};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::line::{Line, NoPlace, Waited};
use super::{Answer, Store, StoreError};
use crate::clock::{Clock, Random};
use crate::hub::Hub;
use crate::queue::{Command, Effects, Input, Query, Queues, Record, Reply};

/// Requests that may wait for the store; more are told to come again.
const WAITING_MAX: usize = 16_384;

/// The work of one commit, after which it takes no more requests: some 400 µs, or 256 KiB of log.
///
/// Whoever comes next waits for it, and it is enough to share a sync among many.
const COMMIT_WORK: u64 = 256;

/// The embedded store.
#[derive(Debug)]
pub struct Embedded {
    line: Arc<Line<Request>>,
    failure: Arc<OnceLock<String>>,
    failed: CancellationToken,
}

#[derive(Debug)]
struct Request {
    ask: Ask,
    reply: oneshot::Sender<Result<Reply, StoreError>>,
}

/// The store's end of the line: when it has gone, nobody in there waits in vain.
struct Door(Arc<Line<Request>>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.close();
        while self.0.take().is_some() {}
    }
}

#[derive(Debug)]
enum Ask {
    Command(Command),
    Query(Query),
}

/// What the store's thread is made of.
struct Engine {
    queues: Queues,
    disk: Box<dyn Disk>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    hub: Hub,
    effects: Effects,
    failure: Arc<OnceLock<String>>,
}

type Reply1 = (
    oneshot::Sender<Result<Reply, StoreError>>,
    Result<Reply, StoreError>,
);

impl Embedded {
    /// Reads the log and starts the store's thread.
    ///
    /// # Errors
    ///
    /// When the log cannot be read, or was not written by these rules.
    pub fn open(
        mut disk: Box<dyn Disk>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        hub: Hub,
    ) -> io::Result<Self> {
        let mut queues = Queues::default();
        disk.load(&mut |commit| replay(&mut queues, commit))?;
        queues.resume(clock.now_ms());
        let failure = Arc::new(OnceLock::new());
        let failed = CancellationToken::new();
        let engine = Engine {
            queues,
            disk,
            clock,
            random,
            hub,
            effects: Effects::default(),
            failure: failure.clone(),
        };
        let line = Arc::new(Line::new());
        let door = Door(line.clone());
        let token = failed.clone();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                // A panic in here is a broken invariant of ours: nothing it would reply is proved.
                let _stopped = token.drop_guard();
                engine.run(&door.0);
            })?;
        Ok(Self {
            line,
            failure,
            failed,
        })
    }

    /// Is cancelled when the store has stopped: told to, or since its log cannot be written.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Tells the store to stop after what it has begun; [`Embedded::stopped`] says when it has.
    pub fn stop(&self) {
        self.line.close();
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, StoreError> {
        let (reply, answer) = oneshot::channel();
        let queue = match &ask {
            Ask::Command(command) => command.queue(),
            Ask::Query(query) => query.queue(),
        };
        let namespace: Box<str> = queue.map_or("", QueueName::namespace).into();
        let work = match &ask {
            Ask::Command(command) => command.work(),
            Ask::Query(query) => query.work(),
        };
        let request = Request { ask, reply };
        match self.line.join(&namespace, work, request, WAITING_MAX) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(self.unavailable())),
            Err(NoPlace::Full) => Err(StoreError::Busy(WAITING_MAX)),
            Err(NoPlace::Closed) => Err(self.unavailable()),
        }
    }

    fn unavailable(&self) -> StoreError {
        StoreError::Unavailable(self.trouble().unwrap_or_else(|| "it was stopped".into()))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Store for Embedded {
    fn execute(&self, command: Command) -> Answer<'_> {
        Box::pin(self.ask(Ask::Command(command)))
    }

    fn query(&self, query: Query) -> Answer<'_> {
        Box::pin(self.ask(Ask::Query(query)))
    }

    fn trouble(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }
}

fn replay(queues: &mut Queues, mut commit: &[u8]) -> io::Result<()> {
    let damaged = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    while !commit.is_empty() {
        let (record, rest) = postcard::take_from_bytes::<Record>(commit)
            .map_err(|error| damaged(format!("a record of the log cannot be decoded: {error}")))?;
        queues.replay(record).map_err(damaged)?;
        commit = rest;
    }
    Ok(())
}

impl Engine {
    fn run(mut self, line: &Line<Request>) {
        let mut replies: Vec<Reply1> = Vec::new();
        loop {
            let (mut work, mut stop) = (0, false);
            match line.wait(self.until_tick()) {
                Waited::Request(cost, request) => {
                    work = cost;
                    self.take(request, &mut replies);
                }
                Waited::Nothing => {}
                Waited::End => stop = true,
            }
            while work < COMMIT_WORK
                && let Some((cost, request)) = line.take()
            {
                work += cost;
                self.take(request, &mut replies);
            }
            if self.until_tick().is_zero() {
                self.apply(Command::Tick).expect("a tick is never refused");
            }
            if let Err(error) = self.commit() {
                self.fail(&error, replies);
                return;
            }
            for (reply, result) in replies.drain(..) {
                // A client that has gone away hears nothing, and may ask again.
                let _ = reply.send(result);
            }
            for signal in self.effects.signals.drain(..) {
                self.hub.tell(&signal);
            }
            self.snapshot_if_wanted();
            if stop {
                return;
            }
        }
    }

    fn until_tick(&self) -> Duration {
        /// Longest sleep; a clock that is set forward is noticed after so long.
        const LONGEST: Duration = Duration::from_secs(1);
        let Some(due_ms) = self.queues.next_tick_ms() else {
            return LONGEST;
        };
        Duration::from_millis(due_ms.saturating_sub(self.clock.now_ms())).min(LONGEST)
    }

    /// Takes a request into the commit.
    fn take(&mut self, request: Request, replies: &mut Vec<Reply1>) {
        let Request { ask, reply } = request;
        let result = match ask {
            Ask::Command(command) => self.apply(command),
            Ask::Query(query) => self
                .queues
                .read(self.clock.now_ms(), query)
                .map_err(Into::into),
        };
        replies.push((reply, result));
    }

    fn apply(&mut self, command: Command) -> Result<Reply, StoreError> {
        let input = Input {
            now_us: self.clock.now_us(),
            random: self.random.draw(),
        };
        Ok(self.queues.apply(input, command, &mut self.effects)?)
    }

    fn commit(&mut self) -> io::Result<()> {
        if self.effects.log.is_empty() {
            return Ok(());
        }
        self.disk.append(&self.effects.log)?;
        if self.effects.must_sync {
            self.disk.sync()?;
        }
        self.effects.must_sync = false;
        self.effects.log.clear();
        Ok(())
    }

    fn snapshot_if_wanted(&mut self) {
        if !self.disk.wants_snapshot() {
            return;
        }
        match self.disk.snapshot(&mut self.queues.snapshot()) {
            Ok(()) => tracing::info!("a snapshot has taken the place of the log before it"),
            // The log is as it was, only longer than it need be.
            Err(error) => tracing::warn!(error = %error, "no snapshot could be written"),
        }
    }

    fn fail(self, error: &io::Error, replies: Vec<Reply1>) {
        let text = format!("the log cannot be written: {error}");
        tracing::error!(error = %error, "the log cannot be written; the store has stopped");
        let text = self.failure.get_or_init(|| text).clone();
        for (reply, _) in replies {
            let _ = reply.send(Err(StoreError::Unavailable(text.clone())));
        }
    }
}

#[cfg(test)]
mod tests;
