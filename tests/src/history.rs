//! What the clients of one queue asked and heard, and whether all of it can be true.
//!
//! Clients note each call before it is sent, so that what a killed client had asked is known, too;
//! a call that is sent again until it is answered is one call. All moments are those of one clock,
//! so that "heard before the other was asked" means that it happened before.

mod check;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gangline_protocol::{
    Certificate, ItemId, ItemState, LeaseNumber, Phase, SessionEnd, SessionId, SettleOutcome,
    SettleStatus,
};
use tokio::time::Instant;

pub use check::{Rule, Violation};

/// Since the history began.
pub type Moment = Duration;

/// One call of a client.
#[derive(Debug, Clone)]
pub struct Event {
    /// Who called.
    pub client: String,
    /// When it was first sent.
    pub asked: Moment,
    /// When the answer was there, and what was in it; absent for a client that died before.
    pub heard: Option<(Moment, Heard)>,
    /// What was asked.
    pub call: Call,
}

/// What a client asked.
#[derive(Debug, Clone)]
pub enum Call {
    /// A push of items with these keys.
    Push(Vec<String>),
    /// A lease request of a worker.
    Lease,
    /// A settle.
    Settle {
        /// The item.
        id: ItemId,
        /// The lease under which it was handed out.
        lease: LeaseNumber,
        /// How it ended.
        outcome: SettleOutcome,
        /// The result, of a `done`.
        result: Option<String>,
        /// Keys of the items that are added with it.
        spawn: Vec<String>,
    },
    /// Anything else that a session says.
    Say,
    /// A seal.
    Seal,
    /// A look at the queue.
    Look,
    /// Not a call: the client was killed, with the session that it had.
    Crash(Option<SessionId>),
}

/// What a client heard. Each answer has some of it.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Ids of what was pushed, in the order of the keys; false for those that were there before.
    pub pushed: Vec<(ItemId, bool)>,
    /// What was leased.
    pub leased: Vec<Leased>,
    /// What became of the settle.
    pub settled: Option<SettleStatus>,
    /// The session that was told to be open.
    pub session: Option<SessionId>,
    /// Items that the session was told to have lost.
    pub lost: BTreeSet<ItemId>,
    /// The end of the session.
    pub session_end: Option<SessionEnd>,
    /// What a look has shown.
    pub status: Option<Shown>,
    /// The certificate.
    pub over: Option<Certificate>,
}

/// One item, handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// The item.
    pub id: ItemId,
    /// The lease.
    pub lease: LeaseNumber,
    /// Which try this is, from 1.
    pub attempt: u16,
}

/// What a look at a queue has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The phase.
    pub phase: Phase,
    /// How many items were ever taken.
    pub total: u64,
    /// How many are done.
    pub done: u64,
}

/// What is there in the end.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// The certificate; absent if the queue did not end.
    pub certificate: Option<Certificate>,
    /// All items.
    pub items: Vec<(ItemId, ItemState)>,
    /// The keys of all items.
    pub keys: Vec<(ItemId, String)>,
    /// All results as they are recorded.
    pub results: Vec<(ItemId, String)>,
}

/// Everything that was asked and heard, and what was there in the end.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The calls, by when they were asked.
    pub events: Vec<Event>,
    /// The end.
    pub ending: Ending,
}

/// Takes down what clients ask and hear.
#[derive(Debug, Clone)]
pub struct Recorder {
    start: Instant,
    events: Arc<Mutex<Vec<Event>>>,
}

/// A call that has been noted, and is not answered yet.
#[derive(Debug)]
#[must_use]
pub struct Asked {
    recorder: Recorder,
    at: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            events: Arc::default(),
        }
    }
}

impl Recorder {
    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call that is about to be sent.
    pub fn ask(&self, client: &str, call: Call) -> Asked {
        let mut events = self.events();
        events.push(Event {
            client: client.to_owned(),
            asked: self.start.elapsed(),
            heard: None,
            call,
        });
        Asked {
            recorder: self.clone(),
            at: events.len() - 1,
        }
    }

    /// Returns what was taken down, with what is there in the end.
    #[must_use]
    pub fn history(&self, ending: Ending) -> History {
        History {
            events: self.events().clone(),
            ending,
        }
    }
}

impl Asked {
    /// Notes the answer.
    pub fn hear(self, heard: Heard) {
        let Self { recorder, at } = self;
        let moment = recorder.start.elapsed();
        recorder.events()[at].heard = Some((moment, heard));
    }
}
