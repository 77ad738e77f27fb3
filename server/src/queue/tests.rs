//! The rules, one noun a file. Every step of every test also checks the invariants, and that
//! the recorded facts and a snapshot both rebuild the state.

mod history;
mod leases;
mod model;
mod phases;
mod push;
mod restart;
mod sessions;
mod settles;
mod time;
mod walk;
mod world;
