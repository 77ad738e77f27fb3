//! What goes into the scripts: items and settles, packed.

use gangline_protocol::limits::{ERROR_BYTES_MAX, PRIORITY_DEFAULT, SETTLES_MAX};
use gangline_protocol::{ItemProgress, NewItem, QueueSettings, Settle, SettleOutcome, StopOutcome};
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

/// A record that is longer is kept by itself (`INLINE_MAX` in `items.lua`).
const INLINE_MAX: usize = 512;

/// Items of a page (`PAGE` in `items.lua`).
pub(super) const PAGE: usize = 32;

/// Forms of groups (`groups_at` in `items.lua`).
const TOGETHER: u8 = 0;
const KEYED: u8 = 1;
const SINGLE: u8 = 2;

/// Adds items as groups, with their shape before them; returns how many arguments that made.
///
/// Those without delay come together, as a page. A page that begins where one of
/// the queue's begins is taken as it is: `used` says how many items the last one has, as far as is
/// known.
pub(super) fn items(cmd: &mut Cmd, items: &[NewItem], used: usize) -> usize {
    let mut groups = Groups {
        room: PAGE - used % PAGE,
        ..Groups::default()
    };
    let mut packed = Vec::new();
    for item in items {
        packed.clear();
        record(&mut packed, item);
        groups.take(item, &packed);
    }
    groups.close();
    cmd.arg(groups.shape);
    for argument in &groups.arguments {
        cmd.arg(argument);
    }
    groups.arguments.len() + 1
}

/// Items on their way into pages.
#[derive(Default)]
struct Groups {
    shape: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    /// How many items fit into the group that is being made.
    room: usize,
    count: u8,
    /// What its records have.
    has: u8,
    /// Its runs of one priority: priority and length.
    runs: Vec<[u8; 2]>,
    /// Where the records of the group end, and the records.
    offsets: Vec<u8>,
    records: Vec<u8>,
    /// The hashes of its keys.
    hashes: Vec<[u8; 16]>,
}

impl Groups {
    fn take(&mut self, item: &NewItem, record: &[u8]) {
        let hash = item.key.as_ref().map(key_hash);
        let delay_ms = item.delay_ms.unwrap_or(0);
        if delay_ms > 0 || record.len() > INLINE_MAX {
            self.close();
            self.take_single(hash, delay_ms, record);
            return;
        }
        // Of two with the same key only one is new.
        let is_repeated = hash.is_some_and(|hash| self.hashes.contains(&hash));
        if self.count > 0 && (self.hashes.is_empty() == hash.is_some() || is_repeated) {
            self.close();
        }
        self.hashes.extend(hash);
        self.count += 1;
        let priority = record[0] % HAS_KEY;
        self.has |= record[0] - priority;
        match self.runs.last_mut() {
            Some([last, length]) if *last == priority => *length += 1,
            _ => self.runs.push([priority, 1]),
        }
        self.records.extend_from_slice(record);
        self.offsets
            .extend_from_slice(&low_bytes(self.records.len()));
        if usize::from(self.count) == self.room {
            self.close();
        }
    }

    fn take_single(&mut self, hash: Option<[u8; 16]>, delay_ms: u64, record: &[u8]) {
        let mut argument = Vec::with_capacity(record.len() + 23);
        argument.push(u8::from(hash.is_some()));
        argument.extend(hash.iter().flatten());
        argument.extend_from_slice(&six_bytes(delay_ms));
        argument.extend_from_slice(record);
        self.shape.extend_from_slice(&[SINGLE, 1, 0]);
        self.arguments.push(argument);
        self.advance(1);
    }

    /// Ends the group.
    fn close(&mut self) {
        if self.count == 0 {
            return;
        }
        let head = 1 + 2 * (PAGE + 1);
        let mut page = Vec::with_capacity(head + self.records.len());
        page.push(self.has);
        page.extend_from_slice(&[0, 0]);
        page.append(&mut self.offsets);
        page.resize(head, 0);
        page.append(&mut self.records);
        self.arguments.push(page);
        let is_keyed = !self.hashes.is_empty();
        let form = if is_keyed { KEYED } else { TOGETHER };
        let runs = u8::try_from(self.runs.len()).expect("a page has at most 32 runs");
        self.shape.extend_from_slice(&[form, self.count, runs]);
        self.shape.extend(self.runs.drain(..).flatten());
        if is_keyed {
            self.arguments.push(self.hashes.concat());
            self.hashes.clear();
        }
        self.advance(self.count.into());
        (self.count, self.has) = (0, 0);
    }

    fn advance(&mut self, count: usize) {
        self.room = match self.room - count {
            0 => PAGE,
            room => room,
        };
    }
}

/// Packs an item's record.
fn record(packed: &mut Vec<u8>, item: &NewItem) {
    let NewItem {
        payload,
        key,
        priority,
        delay_ms: _,
        time_limit_ms,
        max_attempts,
        traceparent,
    } = item;
    let flag = |given: bool, flag: u8| if given { flag } else { 0 };
    let first_byte = priority.unwrap_or(PRIORITY_DEFAULT)
        | flag(key.is_some(), HAS_KEY)
        | flag(time_limit_ms.is_some(), HAS_TIME_LIMIT)
        | flag(max_attempts.is_some(), HAS_MAX_ATTEMPTS)
        | flag(traceparent.is_some(), HAS_TRACEPARENT);
    packed.push(first_byte);
    if let Some(limit) = time_limit_ms {
        packed.extend_from_slice(&six_bytes(*limit));
    }
    if let Some(max) = max_attempts {
        packed.extend_from_slice(&max.to_be_bytes());
    }
    if let Some(key) = key {
        packed.extend_from_slice(&low_bytes(key.as_str().len()));
        packed.extend_from_slice(key.as_str().as_bytes());
    }
    if let Some(trace) = traceparent {
        packed.push(u8::try_from(trace.len()).expect("a traceparent has at most 64 bytes"));
        packed.extend_from_slice(trace.as_bytes());
    }
    packed.extend_from_slice(payload.get().as_bytes());
}

/// Adds settles: runs of them, and those that are in none.
pub(super) fn settles(cmd: &mut Cmd, settles: &[Settle]) {
    let mut rest = settles;
    while let Some(first) = rest.first() {
        let count = run_of(rest);
        if count > 0 {
            settle_run(cmd, &rest[..count]);
            rest = &rest[count..];
        } else {
            settle(cmd, first);
            rest = &rest[1..];
        }
    }
}

/// Counts what [`settles`] adds: runs, and settles by themselves.
pub(super) fn count_settles(settles: &[Settle]) -> usize {
    let (mut rest, mut count) = (settles, 0);
    while !rest.is_empty() {
        rest = &rest[run_of(rest).max(1)..];
        count += 1;
    }
    count
}

/// What marks a run (`RUN_OF` in `exchange.lua`).
const RUN: u8 = 255;

/// Results of a run are kept together: one that is looked at should not drag many bytes along.
const RUN_BYTES_MAX: usize = 16 << 10;

/// Returns how many settles from the first one on are a run: `done`, with nothing besides, of
/// consecutive items with one lease.
fn run_of(settles: &[Settle]) -> usize {
    let is_plain = |settle: &Settle| {
        let Settle {
            id,
            lease: _,
            outcome,
            result: _,
            error: _,
            delay_ms: _,
            spawn,
            stop,
        } = settle;
        *outcome == SettleOutcome::Done && spawn.is_empty() && stop.is_none() && id.0 < 1 << 47
    };
    let Some(first) = settles.first() else {
        return 0;
    };
    let mut bytes = 0;
    settles
        .iter()
        .take(SETTLES_MAX)
        .zip(first.id.0..=u64::MAX)
        .take_while(|(settle, id)| {
            let fits = bytes < RUN_BYTES_MAX;
            bytes += result_text(settle).len();
            fits && settle.id.0 == *id && settle.lease == first.lease && is_plain(settle)
        })
        .count()
}

fn settle_run(cmd: &mut Cmd, run: &[Settle]) {
    let first = &run[0];
    let mut fixed = Vec::with_capacity(17 + 32 * (run.len() + 1));
    fixed.push(RUN);
    fixed.extend_from_slice(&low_bytes(run.len()));
    fixed.extend_from_slice(&six_bytes(first.id.0));
    fixed.extend_from_slice(&exact(first.lease.0).to_be_bytes());
    let sum_at = fixed.len();
    fixed.extend_from_slice(&[0; 32]);
    let (mut sum, mut lengths, mut results) = (Digest::default(), Vec::new(), String::new());
    for settle in run {
        let result = result_text(settle);
        let hash = Digest::of(settle.id, result);
        sum.add_hash(hash);
        fixed.extend_from_slice(&hash);
        let length = u32::try_from(result.len()).expect("a result has at most 1 MiB");
        lengths.extend_from_slice(&length.to_be_bytes());
        results.push_str(result);
    }
    fixed[sum_at..sum_at + 32].copy_from_slice(sum.bytes());
    cmd.arg(fixed).arg(lengths).arg(results);
}

fn result_text(settle: &Settle) -> &str {
    settle.result.as_ref().map_or("null", |result| result.get())
}

/// Packs how far a session is with items (`progress.lua`).
pub(super) fn progress(said: &[ItemProgress]) -> Vec<u8> {
    let mut packed = Vec::new();
    for one in said {
        let ItemProgress {
            id,
            lease,
            fraction,
            text,
        } = one;
        packed.extend_from_slice(&six_bytes(exact(id.0)));
        packed.extend_from_slice(&exact(lease.0).to_be_bytes());
        packed.extend_from_slice(&fraction.unwrap_or(f64::NAN).to_bits().to_be_bytes());
        let text = text.as_ref().map(|text| text.as_bytes());
        let bytes = text.map_or(0, |text| text.len() + 1);
        packed.push(u8::try_from(bytes).expect("a text has at most 200 bytes"));
        packed.extend_from_slice(text.unwrap_or_default());
    }
    packed
}

/// Adds a settle: its fixed part, its result or error, what it spawns.
fn settle(cmd: &mut Cmd, settle: &Settle) {
    let Settle {
        id,
        lease,
        outcome,
        result: _,
        error,
        delay_ms,
        spawn,
        stop,
    } = settle;
    let text = match outcome {
        SettleOutcome::Done => Some(result_text(settle).into()),
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
    let mut spawned = Cmd::new();
    let arguments = match spawn.is_empty() {
        true => 0,
        false => items(&mut spawned, spawn, 0),
    };
    fixed.extend_from_slice(&low_bytes(arguments));
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
    for argument in spawned.args_iter() {
        if let redis::Arg::Simple(argument) = argument {
            cmd.arg(argument);
        }
    }
}

/// The two low bytes of a number.
fn low_bytes(number: usize) -> [u8; 2] {
    let [.., high, low] = number.to_be_bytes();
    [high, low]
}

/// Returns settings as the scripts take them: with a space behind each.
pub(super) fn settings(settings: &QueueSettings) -> String {
    setting_texts(settings).join(" ") + " "
}

/// Returns the settings as texts: they are kept as they are, whatever a double can hold.
fn setting_texts(settings: &QueueSettings) -> [String; 10] {
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
