//! The Gangline Job controller: runs `batch/v1` Jobs, and knows about queues.
//!
//! Two pure steps decide everything: [`plan`](plan::plan) says what to do about what was observed,
//! [`account`](plan::account()) what to write down about what was done. The driver around them reads,
//! acts and writes, and decides nothing. It speaks the Kubernetes API and the queue service's API,
//! and knows neither a cluster from one machine nor one store from another.

pub mod api;
pub mod driver;
pub mod plan;

pub use driver::{Controller, HttpQueueService, QueueService, Settings};
