//! What can be asked of the queues, and what they answer.

use gangline_protocol::item::{OutOfBounds, ResultView};
use gangline_protocol::{
    Certificate, ExchangeReply, ExchangeRequest, Explanation, ItemId, ItemState, ItemView, NewItem,
    PushReply, QueueName, QueueStatus, QueueUid, SessionId, SettingsPatch, StopOutcome, Timestamp,
    WorkerName, WorkerRecord, WorkerView,
};

/// What comes in with every command: the time, and a random number to draw others from.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// Microseconds since the Unix epoch.
    pub now_us: u64,
    /// Seeds every draw of this step: ids and jitter.
    pub random: u64,
}

impl Input {
    /// Returns the time in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(self) -> u64 {
        self.now_us / 1_000
    }
}

/// Something that may change a queue.
#[derive(Debug, Clone)]
pub enum Command {
    /// Makes the queue if there is none, and changes its settings.
    Configure {
        /// The queue.
        queue: QueueName,
        /// What to change.
        patch: SettingsPatch,
    },
    /// Adds items; makes the queue if there is none.
    Push {
        /// The queue.
        queue: QueueName,
        /// The items, within their bounds.
        items: Vec<NewItem>,
        /// Makes the push repeatable.
        batch: Option<Batch>,
        /// Seals the queue in the same step.
        seal: bool,
    },
    /// Says that no more items come from outside; makes the queue if there is none.
    Seal {
        /// The queue.
        queue: QueueName,
    },
    /// Sets or clears the flag that keeps leases back.
    Pause {
        /// The queue.
        queue: QueueName,
        /// Whether no leases are given.
        paused: bool,
    },
    /// Ends the queue before it is drained.
    Stop {
        /// The queue.
        queue: QueueName,
        /// Whether this is a success.
        outcome: StopOutcome,
        /// Why.
        reason: Option<Box<str>>,
        /// Who says so.
        by: Option<Box<str>>,
    },
    /// Stops the queue, cause `deleted`, and removes it.
    Delete {
        /// The queue.
        queue: QueueName,
    },
    /// Takes an item back.
    Cancel {
        /// The queue.
        queue: QueueName,
        /// The item.
        id: ItemId,
    },
    /// Makes dead items ready again.
    Redrive {
        /// The queue.
        queue: QueueName,
        /// Which, at most [`REDRIVE_STEP_MAX`](gangline_protocol::limits::REDRIVE_STEP_MAX).
        selection: Selection,
    },
    /// What workers say.
    Exchange {
        /// The queue.
        queue: QueueName,
        /// Settles, heartbeat and lease.
        request: Box<ExchangeRequest>,
    },
    /// Ends the session of a worker that is known to be gone.
    Revoke {
        /// The queue.
        queue: QueueName,
        /// The worker.
        worker: WorkerName,
        /// Whether the loss counts an attempt.
        counted: bool,
    },
    /// Lets time pass for every queue: expired sessions, due items, old batches, retention.
    Tick,
}

/// Which dead items a redrive is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// So many, in the order of their ids.
    First(usize),
    /// Those of these that are dead.
    Items(Vec<ItemId>),
}

/// What makes a push repeatable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The `Idempotency-Key`.
    pub key: Box<str>,
    /// Which part of the body this is.
    pub part: BatchPart,
}

/// Which part of a push a command carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchPart {
    /// All of it.
    Whole {
        /// SHA-256 of the body.
        hash: [u8; 32],
    },
    /// A chunk of a stream.
    Chunk {
        /// How many lines came before it.
        lines_before: u64,
        /// How many lines it has; duplicates included.
        lines: u64,
        /// Running hash over all lines, this chunk included.
        hash: [u8; 32],
        /// Whether the stream has ended properly with it.
        last: bool,
    },
}

/// A look that changes nothing.
#[derive(Debug, Clone)]
pub enum Query {
    /// One queue.
    Status {
        /// The queue.
        queue: QueueName,
    },
    /// All queues, by name.
    List,
    /// The oldest ready item of each queue, as far as the store knows.
    OldestReady,
    /// One item.
    Item {
        /// The queue.
        queue: QueueName,
        /// The item.
        id: ItemId,
    },
    /// Items by id.
    Items {
        /// The queue.
        queue: QueueName,
        /// Only those in this state.
        state: Option<ItemState>,
        /// Only those after this id.
        after: ItemId,
        /// At most so many.
        max: usize,
    },
    /// Results in the order of recording.
    Results {
        /// The queue.
        queue: QueueName,
        /// How many to skip.
        cursor: u64,
        /// At most so many.
        max: usize,
    },
    /// Open sessions, by worker name.
    Workers {
        /// The queue.
        queue: QueueName,
    },
    /// What is known of one worker.
    Worker {
        /// The queue.
        queue: QueueName,
        /// Its name.
        worker: WorkerName,
    },
    /// What the dead items died of, by id.
    Dead {
        /// The queue.
        queue: QueueName,
        /// Only those after this id.
        after: ItemId,
        /// At most so many, and never more than a page.
        max: usize,
    },
    /// Those of these items that are dead, as they were pushed, but without their keys.
    Copies {
        /// The queue.
        queue: QueueName,
        /// The items, at most [`COPY_STEP_MAX`](gangline_protocol::limits::COPY_STEP_MAX).
        ids: Vec<ItemId>,
    },
    /// Why a queue is not over yet.
    Explain {
        /// The queue.
        queue: QueueName,
    },
    /// How far a stream under an `Idempotency-Key` was taken.
    Stream {
        /// The queue.
        queue: QueueName,
        /// The `Idempotency-Key`.
        key: Box<str>,
    },
}

/// The answer to a command or a query.
#[derive(Debug, Clone)]
pub enum Reply {
    /// It is so now.
    Status(Box<QueueStatus>),
    /// To a push. To a chunk of a stream with the counts of the stream so far.
    Pushed(PushReply),
    /// To an exchange.
    Exchange(Box<ExchangeReply>),
    /// To a redrive: how many items are ready again.
    Redriven(u64),
    /// To a revoke: the session that ended, if one was open.
    Revoked(Option<SessionId>),
    /// To a list of queues.
    Queues(Vec<QueueStatus>),
    /// When the oldest ready item was pushed, of those queues that have one.
    OldestReady(Vec<(QueueName, Timestamp)>),
    /// To a look at an item.
    Item(Box<ItemView>),
    /// To a look at items.
    Items(Vec<ItemView>),
    /// To a look at results.
    Results(Vec<ResultView>),
    /// To a look at the workers.
    Workers(Vec<WorkerView>),
    /// To a look at one worker.
    Worker(Box<WorkerRecord>),
    /// To the question what items died of.
    Dead(Vec<DeadItem>),
    /// To a look at dead items as they were pushed.
    Copies(Vec<(ItemId, NewItem)>),
    /// To the question why a queue is not over.
    Explanation(Box<Explanation>),
    /// To a look at a stream.
    Stream(Option<StreamState>),
    /// To a tick.
    Ticked,
}

/// What an item died of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadItem {
    /// The item.
    pub id: ItemId,
    /// The error of its last attempt.
    pub error: Option<Box<str>>,
    /// When it died.
    pub since: Timestamp,
}

/// How far a stream was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// The queue that took it.
    pub uid: QueueUid,
    /// Lines taken.
    pub lines: u64,
    /// Running hash over them.
    pub hash: [u8; 32],
    /// Items added so far.
    pub added: u64,
    /// Items that were there before.
    pub duplicates: u64,
    /// Whether it has ended properly.
    pub complete: bool,
}

/// Why a command or a query was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No such queue.
    #[error("queue {0} does not exist")]
    QueueNotFound(QueueName),
    /// No such item.
    #[error("item {1} of queue {0} does not exist")]
    ItemNotFound(QueueName, ItemId),
    /// A push of new items to a sealed queue.
    #[error("queue {0} is sealed: it takes no more items from outside")]
    Sealed(QueueName),
    /// The queue is over.
    #[error("queue {} is over", .0.queue)]
    Over(Box<Certificate>),
    /// The `Idempotency-Key` was used with another body.
    #[error("Idempotency-Key {key:?} was used before with another body{at}")]
    IdempotencyMismatch {
        /// The key.
        key: Box<str>,
        /// Where the difference was found.
        at: String,
    },
    /// Two requests write the same stream at the same time.
    #[error("stream {key:?} was continued by another request: {lines} lines are taken")]
    StreamConflict {
        /// The key.
        key: Box<str>,
        /// Lines taken.
        lines: u64,
    },
    /// A lease request with a number below the last.
    #[error("lease request number {number} came after {last}")]
    LeaseNumberOutOfOrder {
        /// The number of the request.
        number: u64,
        /// The last one that was answered with items.
        last: u64,
    },
    /// A setting out of its bounds.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
    /// Too many queues.
    #[error("there are {0} queues already, the most that one service keeps")]
    TooManyQueues(usize),
}

/// Something that those who wait want to know, once it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// So many more items may be leased.
    Ready {
        /// The queue.
        queue: QueueName,
        /// How many.
        items: u64,
    },
    /// There is news for a session: it has ended, or lost items.
    Session {
        /// The queue.
        queue: QueueName,
        /// The session.
        session: SessionId,
    },
    /// The queue is over or gone.
    Over {
        /// The queue.
        queue: QueueName,
    },
}
