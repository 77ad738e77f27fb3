//! A producer: pushes items in batches, one after the other, and knows what was taken.
//!
//! ```
//! use gangline_worker::producer::{Producer, ProducerSettings};
//! use gangline_worker::testing::MemoryQueue;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // With a service: Client::new("http://127.0.0.1:4264", token)?
//! let queue = MemoryQueue::new();
//! let settings = ProducerSettings::default();
//! let producer = Producer::start(queue.clone(), queue.name().clone(), settings)?;
//! for number in 0..2_500 {
//!     producer.push_payload(&number).await?;
//! }
//! let report = producer.seal().await?;
//! assert_eq!((report.added, report.duplicates), (2_500, 0));
//! # Ok(())
//! # }
//! ```
//!
//! Batches that got no answer are sent again and change nothing by it: the service knows them by
//! the keys of their items or, where an item has none, by an `Idempotency-Key`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gangline_protocol::item::OutOfBounds;
use gangline_protocol::limits::{BODY_BYTES_MAX, PUSH_ITEMS_MAX};
use gangline_protocol::{ErrorCode, NewItem, QueueName};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::ClientError;
use crate::item::json;
use crate::retry::{random, until_answered};
use crate::transport::Transport;

/// The most bytes of payloads in a batch: half of what a request may have, for what else there is
/// in an item.
const BATCH_BYTES_MAX: usize = BODY_BYTES_MAX / 2;

/// The most items, and bytes of them, that wait to be pushed.
const BUFFER_ITEMS_MAX: usize = 1_000_000;
const BUFFER_BYTES_MAX: usize = 1 << 30;

/// When a batch goes, and how much may wait.
#[derive(Debug, Clone)]
pub struct ProducerSettings {
    /// Items with which a batch goes at once: 1 to 1,000, which is the default.
    pub batch_items: usize,
    /// Bytes of payloads with which a batch goes at once: up to 32 MiB; 4 MiB by default.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more; 10 ms by default. Without any a batch
    /// takes what is there.
    pub linger: Duration,
    /// Items that may wait before [`Producer::push`] waits: up to a million; 2,000 by default.
    pub buffer_items: usize,
    /// Bytes of payloads that may wait, those under way included: up to 1 GiB; 16 MiB by default.
    /// One item that is larger waits alone.
    pub buffer_bytes: usize,
    /// How long the service may be away before the producer gives up; 120 s by default. A service
    /// that says when to come again is not away.
    pub patience: Duration,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            batch_items: PUSH_ITEMS_MAX,
            batch_bytes: 4 << 20,
            linger: Duration::from_millis(10),
            buffer_items: 2 * PUSH_ITEMS_MAX,
            buffer_bytes: 16 << 20,
            patience: Duration::from_secs(120),
        }
    }
}

impl ProducerSettings {
    fn check(&self) -> Result<(), OutOfBounds> {
        let bounds = [
            ("batch_items", self.batch_items, PUSH_ITEMS_MAX, ""),
            ("batch_bytes", self.batch_bytes, BATCH_BYTES_MAX, "bytes"),
            ("buffer_items", self.buffer_items, BUFFER_ITEMS_MAX, ""),
            ("buffer_bytes", self.buffer_bytes, BUFFER_BYTES_MAX, "bytes"),
        ];
        let broken = bounds
            .into_iter()
            .find(|(_, value, max, _)| !(1..=*max).contains(value));
        match broken {
            None => Ok(()),
            Some((field, value, max, unit)) => Err(OutOfBounds {
                field,
                value: value as u64,
                min: 1,
                max: max as u64,
                unit,
            }),
        }
    }
}

/// What has become of the items that were pushed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Items that were given to the producer.
    pub pushed: u64,
    /// Those that the service has taken.
    pub added: u64,
    /// Those that it had before, by their key.
    pub duplicates: u64,
}

impl Report {
    /// Returns how many items the service has not said to have. After a failure that
    /// [may have taken effect](ClientError::may_have_taken_effect) it may have up to a batch of
    /// them all the same.
    #[must_use]
    pub fn untaken(&self) -> u64 {
        self.pushed - self.added - self.duplicates
    }
}

/// Why a producer does not go on, or does not take an item.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProducerError {
    /// The item is out of bounds; the producer goes on without it.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
    /// The payload has no form in JSON; the producer goes on without it.
    #[error("the payload cannot be written as JSON: {0}")]
    NoJson(Arc<serde_json::Error>),
    /// A batch was refused, or the service was away for too long. Nothing is pushed any more, and
    /// every call says so.
    #[error("{error} ({} items were taken, {} were not)", .report.added + .report.duplicates, .report.untaken())]
    Failed {
        /// What the last call said.
        error: Arc<ClientError>,
        /// What was taken before.
        report: Report,
    },
    /// The runtime that the producer was started on has ended.
    #[error("the producer's runtime has ended")]
    Ended,
}

impl ProducerError {
    /// Returns the error of the call that has failed.
    #[must_use]
    pub fn client_error(&self) -> Option<&ClientError> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::OutOfBounds(_) | Self::NoJson(_) | Self::Ended => None,
        }
    }

    /// Returns the code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.client_error().and_then(ClientError::code)
    }
}

/// Pushes items into one queue. Clones of it share batches, bounds and fate.
///
/// What waits when the last of them is dropped is still pushed as long as the runtime runs;
/// [`close`](Self::close) waits for it and says what came of it.
#[derive(Debug, Clone)]
pub struct Producer {
    send: mpsc::Sender<Order>,
    room: Arc<Semaphore>,
    buffer_bytes: usize,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    report: Report,
    failed: Option<Arc<ClientError>>,
}

type Answer = oneshot::Sender<Result<Report, ProducerError>>;

#[derive(Debug)]
enum Order {
    Push(NewItem, OwnedSemaphorePermit),
    Flush(Answer),
    Seal(Answer),
}

impl Producer {
    /// Starts one, which reaches the queue by a [`Client`](crate::Client) or another transport.
    /// It runs on the present tokio runtime.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its bounds.
    pub fn start(
        transport: impl Transport,
        queue: QueueName,
        settings: ProducerSettings,
    ) -> Result<Self, OutOfBounds> {
        settings.check()?;
        let (send, orders) = mpsc::channel(settings.buffer_items);
        let producer = Self {
            send,
            room: Arc::new(Semaphore::new(settings.buffer_bytes)),
            buffer_bytes: settings.buffer_bytes,
            shared: Arc::default(),
        };
        let pushing = Pushing {
            transport: Box::new(transport),
            queue,
            settings,
            shared: producer.shared.clone(),
            batch: Batch::default(),
        };
        tokio::spawn(pushing.run(orders));
        Ok(producer)
    }

    /// Adds an item to the batch that is being filled; waits while too much waits already.
    ///
    /// # Errors
    ///
    /// See [`ProducerError`]. An error of an earlier item's push may come here, too.
    pub async fn push(&self, item: NewItem) -> Result<(), ProducerError> {
        if let Some(bound) = item.out_of_bounds() {
            return Err(bound.into());
        }
        if let Some(failed) = failure(&self.shared()) {
            return Err(failed);
        }
        let bytes = item.payload.get().len().min(self.buffer_bytes);
        // The bound of the buffer is far below it.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(bytes).await;
        let room = room.map_err(|_| ProducerError::Ended)?;
        let sent = self.send.send(Order::Push(item, room)).await;
        sent.map_err(|_| ProducerError::Ended)
    }

    /// Adds an item of this payload and nothing else, as [`push`](Self::push) does.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push), and [`ProducerError::NoJson`].
    pub async fn push_payload<T: Serialize + ?Sized>(
        &self,
        payload: &T,
    ) -> Result<(), ProducerError> {
        let payload = json(payload).map_err(|error| ProducerError::NoJson(Arc::new(error)))?;
        self.push(NewItem::new(payload)).await
    }

    /// Waits until the service has all items of earlier calls; returns what was taken so far.
    ///
    /// # Errors
    ///
    /// [`ProducerError::Failed`] says what was taken, too.
    pub async fn flush(&self) -> Result<Report, ProducerError> {
        self.ask(Order::Flush).await
    }

    /// Flushes, and says that no more items come from outside.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub async fn seal(&self) -> Result<Report, ProducerError> {
        self.ask(Order::Seal).await
    }

    /// Flushes, and lets go of the producer.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub async fn close(self) -> Result<Report, ProducerError> {
        self.flush().await
    }

    /// Returns what has become of the items so far, those that still wait not counted.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared().report
    }

    async fn ask(&self, order: impl FnOnce(Answer) -> Order) -> Result<Report, ProducerError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.send.send(order(answer)).await;
        sent.map_err(|_| ProducerError::Ended)?;
        answered.await.map_err(|_| ProducerError::Ended)?
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure(shared: &Shared) -> Option<ProducerError> {
    shared.failed.as_ref().map(|error| ProducerError::Failed {
        error: error.clone(),
        report: shared.report,
    })
}

/// The batch that is being filled.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<NewItem>,
    bytes: usize,
    room: Vec<OwnedSemaphorePermit>,
}

/// The task that fills batches and pushes them.
struct Pushing {
    transport: Box<dyn Transport>,
    queue: QueueName,
    settings: ProducerSettings,
    shared: Arc<Mutex<Shared>>,
    batch: Batch,
}

impl Pushing {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            let mut next = Some(order);
            let until = Instant::now() + self.settings.linger;
            // The receiver is asked before the clock: what is there goes with the batch, also
            // without any time to linger.
            while let Some(Order::Push(item, room)) = next {
                self.add(item, room).await;
                next = if self.batch.items.is_empty() {
                    None
                } else {
                    timeout_at(until, orders.recv()).await.ok().flatten()
                };
            }
            self.push().await;
            match next {
                None | Some(Order::Push(..)) => {}
                Some(Order::Flush(answer)) => drop(answer.send(self.told())),
                Some(Order::Seal(answer)) => {
                    self.seal().await;
                    drop(answer.send(self.told()));
                }
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> Result<Report, ProducerError> {
        let shared = self.shared();
        failure(&shared).map_or(Ok(shared.report), Err)
    }

    /// Adds an item; what is full goes before it or with it.
    async fn add(&mut self, item: NewItem, room: OwnedSemaphorePermit) {
        let bytes = item.payload.get().len();
        if self.batch.bytes + bytes > self.settings.batch_bytes {
            self.push().await;
        }
        self.shared().report.pushed += 1;
        self.batch.bytes += bytes;
        self.batch.items.push(item);
        self.batch.room.push(room);
        let full = self.batch.items.len() >= self.settings.batch_items
            || self.batch.bytes >= self.settings.batch_bytes;
        if full {
            self.push().await;
        }
    }

    /// Pushes the batch, if there is anything in it.
    async fn push(&mut self) {
        let Batch { items, room, .. } = std::mem::take(&mut self.batch);
        if items.is_empty() || self.shared().failed.is_some() {
            return;
        }
        let nameless = items.iter().any(|item| item.key.is_none());
        let key = nameless.then(|| format!("{:016x}{:016x}", random(), random()));
        let (transport, queue, key) = (&self.transport, &self.queue, key.as_deref());
        let pushed = until_answered(self.settings.patience, || {
            transport.push(queue, &items, key)
        });
        let pushed = pushed.await;
        let mut shared = self.shared();
        match pushed {
            Ok(reply) => {
                shared.report.added += reply.added;
                shared.report.duplicates += reply.duplicates;
            }
            Err(error) => shared.failed = Some(Arc::new(error)),
        }
        drop(room);
    }

    async fn seal(&mut self) {
        if self.shared().failed.is_some() {
            return;
        }
        let (transport, queue) = (&self.transport, &self.queue);
        let sealed = until_answered(self.settings.patience, || transport.seal(queue)).await;
        if let Err(error) = sealed {
            self.shared().failed = Some(Arc::new(error));
        }
    }
}

#[cfg(test)]
mod tests;
