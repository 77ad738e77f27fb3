//! The stored layout, version 2.
//!
//! All keys of a queue share the hash tag `{namespace.name}`, so that one script may touch them
//! all on a Redis Cluster, too. Every script declares all of them, in the order of [`PARTS`].
//! Binary numbers are big-endian; `I6` is a number of six bytes.
//!
//! | key `gangline:{queue}:…` | type | holds |
//! | --- | --- | --- |
//! | `meta` | string | the head: layout, flags, numbers, counts, lanes, the digest, how long items took, then as msgpack what seldom changes: uid, settings, how it ended, the `epoch` of the Redis it was on, the weakest `promise` |
//! | `pages` | hash | page number → what its records have, 33 offsets of `I2` from 0 on, then the records of 32 consecutive items; dropped when all of them are settled. `pushed` → when a mark was made last, in digits; `marks` → up to 512 times `I6` id, `I6` time from which on items were pushed |
//! | `blobs` | hash | id → record, for records over 512 bytes |
//! | `ends` | hash | page number → 32 numbers of `I4`: 0, 2³¹ and the number of the row of the result, or 2³²−1 for cancelled |
//! | `live` | hash | id → what changes of an item: for items in flight, delayed, dead, or that came back, unless they share a lease; `h` and id → attempts at it that have ended, of those that were not just done at the first: how, `I2` number, `I6` when leased, `I6` when ended, bytes of worker, `I2` bytes of error + 1, worker, error; `s0` … `s999` and `settled` → those of them that are settled for good, in a ring, and how many there were |
//! | `leased` | hash | page number → what its items that were leased fresh have in common, those of a lease and a session together: `I4` which ones, `I8` lease, `I6` when, priority and whether some have keys, whether they run, session |
//! | `marks` | sorted set | numbers of some rows of results, by how many results come before |
//! | `fresh:0` … `fresh:9` | list | runs of ids never leased, `first` or `first:count`, a list a priority |
//! | `back` | sorted set | ready items that came back, by (9 − priority) · 2⁴⁴ + id |
//! | `alone` | sorted set | ready items whose last attempt must run alone, by (9 − priority) · 2⁴⁴ + id |
//! | `delayed` | sorted set | delayed items by when they are due |
//! | `dead` | sorted set | dead items by id |
//! | `dedupe` | hash | number of a bucket → first 16 bytes of the SHA-256 of keys, each with the `I6` id of its item |
//! | `sessions` | hash | session → its numbers, its name and the newest of its settles that counted |
//! | `expires` | sorted set | sessions by deadline in queue time |
//! | `workers` | hash | worker name → its session |
//! | `holds` | sorted set | leased items, or `page:serial` for those that share a lease, by the serial number of their session |
//! | `answers` | hash | `serial:page` → 16 times settles that counted, alike and of consecutive items: `I6` first id, `I8` lease, outcome, `I2` count; `progress:serial` → how far the session is with items: `I6` id, `I8` lease, fraction as a double (NaN: none), `I6` when, bytes of text + 1, text |
//! | `lost` | hash | session → ids that it lost without its doing |
//! | `revoked` | sorted set | worker names by until when they get no session |
//! | `limits` | sorted set | leased items by the end of their time limit, in queue time |
//! | `ended` | sorted set | the last 1,024 sessions that ended and their first calls (`nonce:worker`), by order and cause |
//! | `results` | list | rows of results of consecutive items with the same attempt and time: `I2` how many, `I6` first id, `I2` attempt, `I6` ms it took, whether there are keys; unless it is one, their lengths of `I4`; then the results, behind `I2` length and key if there are keys (length 2¹⁶−1: none) |
//! | `gone` | list | heads of deleted queues of this name, newest first; for a week |
//! | `remembered` | sorted set | workers whose last session has ended, by the order of these ends |
//! | `batch:KEY` | string | what a push under an `Idempotency-Key` took; for 24 h, whatever becomes of the queue |
//! | `meta:seen` | string | nothing: a mark behind which a look is confirmed, for a second |
//!
//! A record is one byte (priority; 16: has a key, 32: a time limit, 64: `maxAttempts`, 128: a
//! trace context), then of these what it has (`I6`, `I2`, `I2` length and key, one byte length
//! and trace context), then the payload as it was sent.
//!
//! `gangline:{…}:job` is what the controller said last of the queue's Job, as JSON; no script reads
//! it, and it goes by itself.
//!
//! Beside the queues there is `gangline:{queues}`, a sorted set of all queue names by when some
//! replica should look after them, and the channel `gangline:news`.

use gangline_protocol::QueueName;
use redis::Cmd;

/// The version that this code reads and writes; it stands in every head.
#[cfg(test)]
pub(super) const LAYOUT: u32 = 2;

/// The tokens: a hash from a token's id to its JSON.
pub(super) const TOKENS: &str = "gangline:{tokens}";

/// All queue names by when to look after them.
pub(super) const QUEUES: &str = "gangline:{queues}";

/// Where replicas tell each other what has changed.
pub(super) const NEWS: &str = "gangline:news";

/// The keys of a queue, in the order in which scripts get them (`names` in `head.lua`).
const PARTS: [&str; 34] = [
    "meta",
    "pages",
    "blobs",
    "ends",
    "live",
    "back",
    "alone",
    "delayed",
    "dead",
    "dedupe",
    "sessions",
    "expires",
    "workers",
    "holds",
    "answers",
    "lost",
    "revoked",
    "limits",
    "ended",
    "results",
    "gone",
    "remembered",
    "leased",
    "marks",
    "fresh:0",
    "fresh:1",
    "fresh:2",
    "fresh:3",
    "fresh:4",
    "fresh:5",
    "fresh:6",
    "fresh:7",
    "fresh:8",
    "fresh:9",
];

/// Where the report of a queue's Job is.
pub(super) fn job(queue: &QueueName) -> String {
    format!("gangline:{{{}}}:job", queue.full())
}

/// Adds the keys of a queue to a call of a script, with their number before them.
pub(super) fn add(cmd: &mut Cmd, queue: &QueueName, batch: Option<&str>) {
    cmd.arg(PARTS.len() + usize::from(batch.is_some()));
    let mut key = format!("gangline:{{{}}}:", queue.full());
    let prefix = key.len();
    for part in PARTS {
        key.truncate(prefix);
        key.push_str(part);
        cmd.arg(&key);
    }
    if let Some(batch) = batch {
        key.truncate(prefix);
        key.push_str("batch:");
        key.push_str(batch);
        cmd.arg(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripts::HEAD;
    use super::*;

    #[test]
    fn the_scripts_know_the_same_keys_and_the_same_layout() {
        let (_, rest) = HEAD.split_once("local names = {").expect("a list of names");
        let (list, _) = rest.split_once('}').expect("its end");
        let mut names: Vec<String> = list
            .split(',')
            .map(|name| name.trim().trim_matches('\'').to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        names.extend((0..10).map(|priority| format!("fresh:{priority}")));
        assert_eq!(names, PARTS);
        assert!(HEAD.contains(&format!("local LAYOUT = {LAYOUT}\n")));
    }
}
