//! The Gangline queue service: state machine, stores, HTTP, dashboard.

pub mod clock;
pub mod config;
mod dashboard;
pub mod http;
pub mod hub;
pub mod queue;
pub mod serve;
pub mod service;
pub mod store;

pub use config::{Config, StoreConfig};
pub use serve::{ServeError, Server};
