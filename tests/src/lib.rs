//! Helpers of the cross-crate tests: real servers on free ports, and a plain HTTP client.

#![expect(
    clippy::missing_panics_doc,
    reason = "helpers of tests panic where a test would fail"
)]

pub mod api;
pub mod gangline;
pub mod redis;
pub mod server;

pub use api::{Api, Queue};
pub use redis::TestRedis;
pub use server::TestServer;
