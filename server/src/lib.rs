//! The Gangline queue service: state machine, stores, HTTP, dashboard, metrics.

pub mod clock;
pub mod hub;
pub mod queue;
pub mod store;
