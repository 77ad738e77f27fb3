//! Helpers of the cross-crate tests: real servers on free ports, and a plain HTTP client.

pub mod api;
pub mod server;

pub use api::{Api, Queue};
pub use server::TestServer;
