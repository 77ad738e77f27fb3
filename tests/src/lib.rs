//! Helpers of the cross-crate tests: real servers on free ports, and a plain HTTP client.

#![expect(
    clippy::missing_panics_doc,
    reason = "helpers of tests panic where a test would fail"
)]

pub mod api;
pub mod browser;
pub mod dice;
pub mod forwarder;
pub mod gangline;
pub mod history;
pub mod redis;
pub mod redis_cluster;
pub mod replica;
pub mod server;
pub mod up;

pub use api::{Api, Queue};
pub use browser::Browser;
pub use dice::Dice;
pub use forwarder::Forwarder;
pub use redis::TestRedis;
pub use redis_cluster::TestCluster;
pub use replica::Replica;
pub use server::TestServer;
pub use up::Up;

/// Returns the count of people (`tests/run --full`), or the one for a suite that is run often.
#[must_use]
pub fn full_or<T>(full: T, short: T) -> T {
    if std::env::var_os("GANGLINE_TEST_FULL").is_some() {
        full
    } else {
        short
    }
}
