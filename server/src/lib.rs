//! The Gangline queue service: state machine, stores, HTTP, dashboard, metrics.

pub mod queue;
