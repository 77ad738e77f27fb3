//! The rules of the queue: a pure, deterministic state machine.
//!
//! [`Queues::apply`] takes a command with the time and a random number, and returns a reply, the
//! durable facts that it made true, and signals for those who wait. Nothing in this module does
//! IO, reads a clock, draws randomness or is `async`; it imports neither tokio, axum nor redis.
//!
//! All lasting change goes through `state::Queue::evolve`, one [`fact::Fact`] at a time, so
//! that replaying the facts of a log rebuilds the state. What is not lasting (deadlines, queue
//! time, what a session was last told) is rebuilt with a fresh deadline for every session: an
//! outage ends none of them.

mod attempts;
pub mod command;
mod exchange;
mod explain;
pub mod fact;
pub mod invariants;
mod items;
mod lanes;
mod lease;
mod marks;
mod phase;
mod push;
mod queues;
mod read;
mod results;
mod retry;
mod sessions;
mod settle;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod work;

pub use command::{Command, Input, Query, Refusal, Reply, Selection, Signal};
pub(crate) use explain::{Grounds, Took};
pub use fact::{Fact, Record};
pub(crate) use phase::cut_front;
pub use queues::{Effects, Queues};
pub(crate) use retry::Draw;
pub(crate) use state::key_hash;
