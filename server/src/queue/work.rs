//! How much work a request is, before it is done: what shares the store fairly goes by it.

use gangline_protocol::exchange::Settle;
use gangline_protocol::limits::DEAD_LOOKED_MAX;
use gangline_protocol::{NewItem, QueueName};

use super::command::{Command, Query, Selection};

/// What moves as many bytes as this through the store and its log is as much work as a request that
/// does nothing else: 1 to 2 µs (`docs/benchmarks.md`, "The state machine and its snapshots").
const BYTES: usize = 1_024;

/// … and so are so many items that are pushed or leased,
const ITEMS: usize = 8;

/// … so many settles,
const SETTLES: usize = 4;

/// … and so many items that are looked at.
const LOOKS: usize = 16;

/// A call that may look at much of a queue.
const LARGE: usize = 256;

impl Command {
    /// Returns the queue that it is about.
    #[must_use]
    pub fn queue(&self) -> Option<&QueueName> {
        match self {
            Self::Configure { queue, .. }
            | Self::Push { queue, .. }
            | Self::Seal { queue }
            | Self::Pause { queue, .. }
            | Self::Stop { queue, .. }
            | Self::Delete { queue }
            | Self::Cancel { queue, .. }
            | Self::Redrive { queue, .. }
            | Self::Exchange { queue, .. }
            | Self::Revoke { queue, .. } => Some(queue),
            Self::Tick => None,
        }
    }

    /// Estimates how much work it is: 1 for a request that does next to nothing, some µs.
    #[must_use]
    pub fn work(&self) -> u64 {
        let more = match self {
            Self::Push { items, .. } => of_items(items),
            Self::Exchange { request, .. } => {
                let settles = request.settles.len() / SETTLES;
                let leases = request.lease.map_or(0, |lease| lease.max as usize) / ITEMS;
                settles + leases + request.settles.iter().map(of_settle).sum::<usize>()
            }
            Self::Redrive { selection, .. } => match selection {
                Selection::First(max) => max / SETTLES,
                Selection::Items(ids) => ids.len() / SETTLES,
            },
            // What is left is abandoned, however much it is.
            Self::Stop { .. } | Self::Delete { .. } => LARGE,
            Self::Configure { .. }
            | Self::Seal { .. }
            | Self::Pause { .. }
            | Self::Cancel { .. }
            | Self::Revoke { .. }
            | Self::Tick => 0,
        };
        1 + more as u64
    }
}

fn of_items(items: &[NewItem]) -> usize {
    let bytes: usize = items.iter().map(|item| item.payload.get().len()).sum();
    items.len() / ITEMS + bytes / BYTES
}

fn of_settle(settle: &Settle) -> usize {
    let result = settle.result.as_ref().map_or(0, |json| json.get().len());
    result / BYTES + of_items(&settle.spawn)
}

impl Query {
    /// Returns the queue that it is about.
    #[must_use]
    pub fn queue(&self) -> Option<&QueueName> {
        match self {
            Self::Status { queue }
            | Self::Item { queue, .. }
            | Self::Items { queue, .. }
            | Self::Results { queue, .. }
            | Self::Workers { queue }
            | Self::Worker { queue, .. }
            | Self::Explain { queue }
            | Self::Dead { queue, .. }
            | Self::Copies { queue, .. }
            | Self::Stream { queue, .. } => Some(queue),
            Self::List | Self::OldestReady => None,
        }
    }

    /// Estimates how much work it is, as [`Command::work`] does.
    #[must_use]
    pub fn work(&self) -> u64 {
        let more = match self {
            Self::Items { max, .. } | Self::Results { max, .. } => max / LOOKS,
            Self::Dead { max, .. } => max.min(&DEAD_LOOKED_MAX) / LOOKS,
            Self::Copies { ids, .. } => ids.len() / SETTLES,
            Self::List | Self::OldestReady | Self::Workers { .. } | Self::Explain { .. } => LARGE,
            Self::Status { .. } | Self::Item { .. } | Self::Worker { .. } | Self::Stream { .. } => {
                0
            }
        };
        1 + more as u64
    }
}
