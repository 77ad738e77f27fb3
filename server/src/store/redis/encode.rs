//! What goes into the scripts: items and settles, packed.

use gangline_protocol::limits::{ERROR_BYTES_MAX, PRIORITY_DEFAULT};
use gangline_protocol::{NewItem, QueueSettings, Settle, SettleOutcome, StopOutcome};
use redis::Cmd;

use crate::queue::{cut_front, key_hash};
use gangline_protocol::digest::Digest;

/// Lua's numbers are doubles: from here on they skip integers.
const EXACT_MAX: u64 = 1 << 53;

/// Returns a number that a script can hold; 0 stands for those that no item and no lease has.
pub(super) fn exact(number: u64) -> u64 {
    if number < EXACT_MAX { number } else { 0 }
}

/// Returns a number of which only a part can be meant.
pub(super) fn at_most(number: u64) -> u64 {
    number.min(EXACT_MAX - 1)
}

pub(super) const HAS_KEY: u8 = 16;
pub(super) const HAS_TIME_LIMIT: u8 = 32;
pub(super) const HAS_MAX_ATTEMPTS: u8 = 64;
pub(super) const HAS_TRACEPARENT: u8 = 128;

/// Packs an item: the hash of its key, its delay, its record.
pub(super) fn item(item: &NewItem) -> Vec<u8> {
    let NewItem {
        payload,
        key,
        priority,
        delay_ms,
        time_limit_ms,
        max_attempts,
        traceparent,
    } = item;
    let payload = payload.get().as_bytes();
    let mut packed = Vec::with_capacity(payload.len() + 64);
    packed.push(u8::from(key.is_some()));
    if let Some(key) = key {
        packed.extend_from_slice(&key_hash(key));
    }
    packed.extend_from_slice(&six_bytes(delay_ms.unwrap_or(0)));
    let flag = |given: bool, flag: u8| if given { flag } else { 0 };
    packed.push(
        priority.unwrap_or(PRIORITY_DEFAULT)
            | flag(key.is_some(), HAS_KEY)
            | flag(time_limit_ms.is_some(), HAS_TIME_LIMIT)
            | flag(max_attempts.is_some(), HAS_MAX_ATTEMPTS)
            | flag(traceparent.is_some(), HAS_TRACEPARENT),
    );
    if let Some(limit) = time_limit_ms {
        packed.extend_from_slice(&six_bytes(*limit));
    }
    if let Some(max) = max_attempts {
        packed.extend_from_slice(&max.to_be_bytes());
    }
    if let Some(key) = key {
        let bytes = u16::try_from(key.as_str().len()).expect("a key has at most 512 bytes");
        packed.extend_from_slice(&bytes.to_be_bytes());
        packed.extend_from_slice(key.as_str().as_bytes());
    }
    if let Some(trace) = traceparent {
        packed.push(u8::try_from(trace.len()).expect("a traceparent has at most 64 bytes"));
        packed.extend_from_slice(trace.as_bytes());
    }
    packed.extend_from_slice(payload);
    packed
}

/// Adds a settle: its fixed part, its result or error, what it spawns.
pub(super) fn settle(cmd: &mut Cmd, settle: &Settle) {
    let Settle {
        id,
        lease,
        outcome,
        result,
        error,
        delay_ms,
        spawn,
        stop,
    } = settle;
    let text = match outcome {
        SettleOutcome::Done => Some(result.as_ref().map_or("null", |result| result.get()).into()),
        SettleOutcome::Retry | SettleOutcome::Dead => {
            error.clone().map(|error| cut_front(error, ERROR_BYTES_MAX))
        }
        SettleOutcome::Release => None,
    };
    let mut fixed = Vec::with_capacity(64);
    fixed.push(match outcome {
        SettleOutcome::Done => 0,
        SettleOutcome::Retry => 1,
        SettleOutcome::Dead => 2,
        SettleOutcome::Release => 3,
    });
    fixed.push(match stop {
        None => 0,
        Some(StopOutcome::Success) => 1,
        Some(StopOutcome::Failure) => 2,
    });
    fixed.push(u8::from(delay_ms.is_some()) | u8::from(text.is_some()) << 1);
    let count = u16::try_from(spawn.len()).expect("a settle spawns at most 1,024 items");
    fixed.extend_from_slice(&count.to_be_bytes());
    fixed.extend_from_slice(&six_bytes(if exact(id.0) < 1 << 48 {
        exact(id.0)
    } else {
        0
    }));
    fixed.extend_from_slice(&exact(lease.0).to_be_bytes());
    fixed.extend_from_slice(&six_bytes(delay_ms.unwrap_or(0)));
    match (outcome, &text) {
        (SettleOutcome::Done, Some(text)) => fixed.extend_from_slice(&Digest::of(*id, text)),
        _ => fixed.extend_from_slice(&[0; 32]),
    }
    cmd.arg(fixed).arg(text.as_deref().unwrap_or(""));
    for new in spawn {
        cmd.arg(item(new));
    }
}

/// Adds settings, as the scripts keep them.
pub(super) fn settings(cmd: &mut Cmd, settings: &QueueSettings) {
    for field in setting_texts(settings) {
        cmd.arg(field);
    }
}

/// Returns the settings as texts: they are kept as they are, whatever a double can hold.
pub(super) fn setting_texts(settings: &QueueSettings) -> [String; 10] {
    let QueueSettings {
        max_attempts,
        session_ms,
        heartbeat_ms,
        retry_base_ms,
        retry_cap_ms,
        max_leased,
        retention_ms,
        seal_when_idle_ms,
        time_limit_ms,
        results_bytes_max,
    } = settings;
    let optional = |value: &Option<u64>| value.map_or(String::new(), |value| value.to_string());
    [
        max_attempts.to_string(),
        session_ms.to_string(),
        heartbeat_ms.to_string(),
        retry_base_ms.to_string(),
        retry_cap_ms.to_string(),
        optional(max_leased),
        retention_ms.to_string(),
        optional(seal_when_idle_ms),
        optional(time_limit_ms),
        optional(results_bytes_max),
    ]
}

fn six_bytes(number: u64) -> [u8; 6] {
    let [_, _, bytes @ ..] = number.min((1 << 48) - 1).to_be_bytes();
    bytes
}
