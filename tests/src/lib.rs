//! Helpers of the cross-crate tests: real servers on free ports, and a plain HTTP client.

#![expect(
    clippy::missing_panics_doc,
    reason = "helpers of tests panic where a test would fail"
)]

pub mod api;
pub mod browser;
pub mod gangline;
pub mod history;
pub mod redis;
pub mod redis_cluster;
pub mod server;
pub mod up;

pub use api::{Api, Queue};
pub use browser::Browser;
pub use redis::TestRedis;
pub use redis_cluster::TestCluster;
pub use server::TestServer;
pub use up::Up;
