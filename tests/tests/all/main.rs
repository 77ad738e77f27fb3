//! Tests that need more than one crate; one binary, since linking is dear.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod abuse;
mod access;
mod bad_input;
mod bench;
mod chaos;
mod cli;
mod clients;
mod conformance;
mod controller;
mod crashes;
mod dashboard;
mod differential;
mod documents;
mod events;
mod examples;
mod history;
mod kubernetes_client;
mod kubernetes_docs;
mod pages;
mod pods;
mod redis;
mod schema;
mod server;
mod worker;
