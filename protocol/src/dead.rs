//! Dead items: what they died of, and giving them another life.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::ids::{ItemId, QueueName};

/// What `GET …/dead` shows: dead items by the kind of their error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadItems {
    /// How many items are dead.
    pub dead: u64,
    /// The kinds of their errors, the most frequent first.
    pub groups: Vec<DeadGroup>,
    /// Items that are in no group: so many were not looked at, or had too rare an error
    /// ([`DEAD_LOOKED_MAX`](crate::limits::DEAD_LOOKED_MAX),
    /// [`DEAD_GROUPS_MAX`](crate::limits::DEAD_GROUPS_MAX)).
    pub ungrouped: u64,
}

/// Dead items whose errors differ in numbers and quoted texts only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadGroup {
    /// The error of the example; absent where none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
    /// Whether all of them have exactly this error.
    pub same: bool,
    /// How many they are.
    pub count: u64,
    /// When the first of them died.
    pub first_at: Timestamp,
    /// When the last of them died.
    pub last_at: Timestamp,
    /// One of them: that of the lowest id.
    pub example: ItemId,
}

/// Body of `POST …/redrive`: which dead items, and where to. All of them, in place, when empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedriveRequest {
    /// These items; at most [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX). Those that are not
    /// dead stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<ItemId>>,
    /// Those whose error is of the same kind as this text: it differs in numbers and quoted texts
    /// only. Empty: those without an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
    /// Those whose error has this text in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<Box<str>>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// Pushes copies into this other queue, and leaves the items dead where they are. A copy's
    /// key names its origin (`UID/ID`), so that a repeat adds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<QueueName>,
    /// The `next` of the call before.
    #[serde(default)]
    pub cursor: ItemId,
}

/// Answer to a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redriven {
    /// How many items are ready again, or were added to the other queue.
    pub redriven: u64,
    /// How many copies the other queue had already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duplicates: u64,
    /// The cursor with which to go on: there are more dead items than were looked at. Absent when
    /// there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ItemId>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
