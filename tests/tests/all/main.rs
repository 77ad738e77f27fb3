//! Tests that need more than one crate; one binary, since linking is dear.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod cli;
mod conformance;
mod crashes;
mod differential;
mod redis;
mod worker;
