//! Where queues live: one set of rules, two stores.
//!
//! A store carries out commands by the rules of [`crate::queue`]. Its promises:
//!
//! - a reply is given only when no crash can take back what it shows (first leases excepted: a
//!   crash that loses one gives the item to somebody else);
//! - commands on one queue are carried out one after the other;
//! - after a reply, or when time has changed a queue, the signals that follow from it reach the
//!   [`Hub`](crate::hub::Hub).

pub mod disk;
pub mod embedded;
pub mod guarded;
mod line;
pub mod metered;
pub mod redis;

use std::pin::Pin;

use gangline_protocol::Durability;

use crate::queue::{Command, Query, Refusal, Reply};

/// Why a store gave no reply.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// The rules refuse it; nothing has changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store cannot be reached, or has failed; what was asked may have been done.
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// The namespace has as many queues as it may; nothing has changed.
    #[error("the namespace {namespace} has {queues_max} queues already, the most that it may have")]
    NamespaceFull {
        /// The namespace.
        namespace: Box<str>,
        /// How many it may have.
        queues_max: usize,
    },
    /// The store takes no more requests for now; nothing has changed.
    #[error("the store is busy: {0} requests wait")]
    Busy(usize),
}

/// The future of a store's answer.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, StoreError>> + Send + 'a>>;

/// A place where queues live.
pub trait Store: Send + Sync + 'static {
    /// Carries out a command.
    fn execute(&self, command: Command) -> Answer<'_>;

    /// Answers a query.
    fn query(&self, query: Query) -> Answer<'_>;

    /// Tells why the store cannot serve just now, if it cannot.
    fn trouble(&self) -> Option<String>;

    /// Tells what its acknowledgements promise just now.
    fn durability(&self) -> Durability;
}
