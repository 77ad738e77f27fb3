//! The Gangline queue service: state machine, stores, HTTP, dashboard.

pub mod clock;
pub mod config;
mod connections;
mod dashboard;
pub mod history;
pub mod http;
pub mod hub;
pub mod jobs;
pub mod metrics;
pub mod queue;
pub mod rate;
pub mod serve;
pub mod service;
pub mod store;
mod tls;
pub mod tokens;

pub use config::{Config, LimitsConfig, StoreConfig, TlsConfig};
pub use serve::{ServeError, Server};
pub use tls::TlsTrouble;
