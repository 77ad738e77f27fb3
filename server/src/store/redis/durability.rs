//! What an acknowledgement by a Redis store promises.

use std::fmt;
use std::str::FromStr;

use gangline_protocol::Durability as Promise;

/// What has happened to a step before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Redis has it; how much its crash loses is up to its settings.
    #[default]
    Memory,
    /// It is synced to the log of Redis: a crash loses nothing, the loss of its disk does.
    Aof,
    /// A replica has it, too: the loss of the primary loses nothing, if that replica takes over.
    Replicated,
}

/// Returns what stands for a promise in the scripts and in heads: the weaker, the greater.
pub(super) fn rank(promise: Promise) -> u8 {
    match promise {
        Promise::Replicated => 0,
        Promise::Synced => 1,
        Promise::Logged => 2,
        Promise::Memory => 3,
    }
}

/// Returns the promise that this stands for.
pub(super) fn promise_of_rank(number: u64) -> Option<Promise> {
    let all = [
        Promise::Replicated,
        Promise::Synced,
        Promise::Logged,
        Promise::Memory,
    ];
    all.into_iter()
        .find(|promise| u64::from(rank(*promise)) == number)
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Aof => "aof",
            Self::Replicated => "replicated",
        })
    }
}

/// No level of durability.
#[derive(Debug, thiserror::Error)]
#[error("no such level: there are memory, aof and replicated")]
pub struct NoSuchLevel;

impl FromStr for Durability {
    type Err = NoSuchLevel;

    fn from_str(text: &str) -> Result<Self, NoSuchLevel> {
        match text {
            "memory" => Ok(Self::Memory),
            "aof" => Ok(Self::Aof),
            "replicated" => Ok(Self::Replicated),
            _ => Err(NoSuchLevel),
        }
    }
}
