//! What a worker program links to take part in a Gangline queue.
//!
//! ```no_run
//! use gangline_worker::{Item, Worker};
//!
//! #[tokio::main]
//! async fn main() -> std::process::ExitCode {
//!     Worker::from_env()
//!         .concurrency(8)
//!         .run(|item: Item<String>| async move {
//!             let text = tokio::fs::read_to_string(&item.payload).await?;
//!             Ok::<_, gangline_worker::HandlerError>(text.lines().count())
//!         })
//!         .await
//! }
//! ```
//!
//! The exit code says what has happened, since a Pod that exits 0 tells its Job that all is
//! done: see [`End`]. A worker that cannot go on says why on stderr.
//!
//! Handlers are async functions ([`Worker::run`]), ones that block or compute
//! ([`Worker::run_blocking`]), or take many items at once ([`Worker::run_batch`]). [`Producer`]
//! fills a queue, [`Client`] has every other call, and [`testing`] runs all of them without a
//! service. `docs/workers.md` shows each in a whole program.

pub mod client;
pub mod error;
// Programs are waited for by pidfds, which only Linux has.
#[cfg(target_os = "linux")]
pub mod exec;
pub mod item;
pub mod producer;
mod progress;
pub mod retry;
pub mod testing;
mod tls;
pub mod transport;
pub mod worker;

pub use client::Client;
pub use error::ClientError;
pub use gangline_protocol as protocol;
pub use gangline_protocol::StopOutcome;
pub use item::{HandlerError, Item};
pub use producer::{Producer, ProducerSettings};
pub use progress::Progress;
pub use worker::{End, Worker};

/// The guide's programs, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/workers.md")]
mod guide {}
