//! Items and results, from the records in which they are kept.

use gangline_protocol::item::{Attempt, Ending, Progress, ResultView};
use gangline_protocol::{ItemId, ItemKey, ItemState, ItemView, LeaseNumber, NewItem, Timestamp};

use super::encode::{HAS_KEY, HAS_MAX_ATTEMPTS, HAS_TIME_LIMIT, HAS_TRACEPARENT};
use super::fields::{Decoded, Fields, Malformed, big_endian, json, small, take, text};
use crate::queue::command::DeadItem;

/// An item's record, as it was pushed.
pub(super) struct Record<'a> {
    priority: u8,
    max_attempts: Option<u16>,
    pub(super) key: Option<ItemKey>,
    pub(super) time_limit_ms: Option<u64>,
    pub(super) traceparent: Option<Box<str>>,
    pub(super) payload: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Decoded<Self> {
        let mut rest = bytes;
        let flags = take(&mut rest, 1)?[0];
        let has = |flag: u8| flags & flag != 0;
        let time_limit_ms = match has(HAS_TIME_LIMIT) {
            true => Some(big_endian(take(&mut rest, 6)?)),
            false => None,
        };
        let max_attempts = match has(HAS_MAX_ATTEMPTS) {
            true => Some(small(big_endian(take(&mut rest, 2)?))?),
            false => None,
        };
        let key = match has(HAS_KEY) {
            true => {
                let bytes = usize::try_from(big_endian(take(&mut rest, 2)?));
                Some(key(take(&mut rest, bytes.unwrap_or(usize::MAX))?)?)
            }
            false => None,
        };
        let traceparent = match has(HAS_TRACEPARENT) {
            true => {
                let bytes = take(&mut rest, 1)?[0];
                Some(text(take(&mut rest, bytes.into())?.to_vec())?.into())
            }
            false => None,
        };
        Ok(Self {
            priority: flags % HAS_KEY,
            max_attempts,
            key,
            time_limit_ms,
            traceparent,
            payload: rest,
        })
    }
}

fn key(bytes: &[u8]) -> Decoded<ItemKey> {
    text(bytes.to_vec())?
        .parse()
        .map_err(|_| Malformed("no item key"))
}

/// Stands for the length of a key where there is none (`NO_KEY` in `exchange.lua`).
const NO_KEY: u16 = u16::MAX;

/// Reads a row of results: those of consecutive items (`record_results` in `exchange.lua`).
fn row(bytes: &[u8]) -> Decoded<Vec<ResultView>> {
    let mut rest = bytes;
    let count = small(big_endian(take(&mut rest, 2)?))?;
    let first = big_endian(take(&mut rest, 6)?);
    let attempt = small(big_endian(take(&mut rest, 2)?))?;
    let took_ms = big_endian(take(&mut rest, 6)?);
    let has_keys = take(&mut rest, 1)?[0] == 1;
    let mut lengths = match count {
        1 => &[][..],
        _ => take(&mut rest, 4 * usize::from(count))?,
    };
    let mut views = Vec::with_capacity(count.into());
    for id in (first..=u64::MAX).take(count.into()) {
        let length = match count {
            1 => rest.len(),
            _ => usize::try_from(big_endian(take(&mut lengths, 4)?)).unwrap_or(usize::MAX),
        };
        let mut one = take(&mut rest, length)?;
        let key_bytes = match has_keys {
            true => small(big_endian(take(&mut one, 2)?))?,
            false => NO_KEY,
        };
        let key = match key_bytes {
            NO_KEY => None,
            bytes => Some(key(take(&mut one, bytes.into())?)?),
        };
        views.push(ResultView {
            id: ItemId(id),
            key,
            result: json(one)?,
            attempt,
            took_ms,
        });
    }
    Ok(views)
}

/// Reads a page of results, so many at most.
pub(super) fn results(fields: &mut Fields, max: usize) -> Decoded<Vec<ResultView>> {
    let mut rows = fields.list()?;
    let mut results = Vec::new();
    while rows.left() > 0 {
        let skipped = usize::try_from(rows.number()?).unwrap_or(usize::MAX);
        results.extend(row(&rows.bytes()?)?.into_iter().skip(skipped));
    }
    results.truncate(max);
    Ok(results)
}

/// Reads what items died of.
pub(super) fn dead(fields: &mut Fields) -> Decoded<Vec<DeadItem>> {
    let mut rows = fields.list()?;
    let mut items = Vec::with_capacity(rows.left());
    while rows.left() > 0 {
        let mut row = rows.list()?;
        items.push(DeadItem {
            id: ItemId(row.number()?),
            error: row.optional_text()?.map(Into::into),
            since: Timestamp(row.number()?),
        });
    }
    Ok(items)
}

/// Reads items as they were pushed, but for their keys.
pub(super) fn copies(fields: &mut Fields) -> Decoded<Vec<(ItemId, NewItem)>> {
    let mut rows = fields.list()?;
    let mut copies = Vec::with_capacity(rows.left() / 2);
    while rows.left() > 0 {
        let (id, bytes) = (ItemId(rows.number()?), rows.bytes()?);
        let record = Record::of(&bytes)?;
        let mut copy = NewItem::new(json(record.payload)?);
        copy.priority = Some(record.priority);
        copy.time_limit_ms = record.time_limit_ms;
        copy.max_attempts = record.max_attempts;
        copy.traceparent = record.traceparent;
        copies.push((id, copy));
    }
    Ok(copies)
}

/// Reads a page of items.
pub(super) fn items(fields: &mut Fields) -> Decoded<Vec<ItemView>> {
    let mut rows = fields.list()?;
    let mut items = Vec::with_capacity(rows.left());
    while rows.left() > 0 {
        items.push(item(&mut rows)?);
    }
    Ok(items)
}

/// Reads a look at an item (`item_row` in `items.lua`).
pub(super) fn item(fields: &mut Fields) -> Decoded<ItemView> {
    let mut row = fields.list()?;
    let id = ItemId(row.number()?);
    let state = state_of(&row.text()?)?;
    let mut view = ItemView {
        id,
        state,
        key: None,
        payload: None,
        result: None,
        took_ms: None,
        attempts: 0,
        error: None,
        due_at: None,
        lease: None,
        session: None,
        worker: None,
        since: None,
        progress: None,
        history: Vec::new(),
    };
    match state {
        ItemState::Cancelled => {
            row.next();
            view.history = history(&mut row)?;
            return Ok(view);
        }
        ItemState::Done => {
            let results = self::row(&row.bytes()?)?;
            view.history = history(&mut row)?;
            let done = results.into_iter().find(|done| done.id == id);
            let done = done.ok_or(Malformed("no result"))?;
            view.key = done.key;
            view.result = Some(done.result);
            view.took_ms = Some(done.took_ms);
            view.attempts = done.attempt;
            return Ok(view);
        }
        ItemState::Ready
        | ItemState::Delayed
        | ItemState::Leased
        | ItemState::Dead
        | ItemState::Abandoned => {}
    }
    let record = row.bytes()?;
    let record = Record::of(&record)?;
    view.key = record.key;
    view.payload = Some(json(record.payload)?);
    view.attempts = small(row.number()?)?;
    view.error = row.optional_text()?.map(Into::into);
    let time = row.optional_number()?.map(Timestamp);
    match state {
        ItemState::Delayed => view.due_at = time,
        ItemState::Dead | ItemState::Leased => view.since = time,
        ItemState::Ready | ItemState::Abandoned | ItemState::Done | ItemState::Cancelled => {}
    }
    view.lease = row.optional_number()?.map(LeaseNumber);
    view.session = row.optional_parsed()?;
    view.worker = row.optional_parsed()?;
    view.history = history(&mut row)?;
    view.progress = progress(&mut row)?;
    Ok(view)
}

/// Reads how far a worker is with an item (`progress.lua`).
pub(super) fn progress(row: &mut Fields) -> Decoded<Option<Progress>> {
    let Some(packed) = row.optional_bytes()? else {
        return Ok(None);
    };
    let mut rest = &packed[..];
    let fraction = f64::from_bits(big_endian(take(&mut rest, 8)?));
    let at = Timestamp(big_endian(take(&mut rest, 6)?));
    let text = match take(&mut rest, 1)?[0] {
        0 => None,
        bytes => Some(self::text(take(&mut rest, usize::from(bytes) - 1)?.to_vec())?.into()),
    };
    Ok(Some(Progress {
        // Stands for none.
        fraction: Some(fraction).filter(|fraction| !fraction.is_nan()),
        text,
        at,
    }))
}

/// Reads what became of attempts (`attempts.lua`).
fn history(row: &mut Fields) -> Decoded<Vec<Attempt>> {
    let packed = row.optional_bytes()?.unwrap_or_default();
    let mut rest = &packed[..];
    let mut attempts = Vec::new();
    while !rest.is_empty() {
        let outcome = ending(take(&mut rest, 1)?[0])?;
        let attempt = small(big_endian(take(&mut rest, 2)?))?;
        let leased_at = Timestamp(big_endian(take(&mut rest, 6)?));
        let ended_at = Timestamp(big_endian(take(&mut rest, 6)?));
        let worker_bytes = usize::from(take(&mut rest, 1)?[0]);
        let error_bytes = usize::from(small(big_endian(take(&mut rest, 2)?))?);
        let worker = text(take(&mut rest, worker_bytes)?.to_vec())?;
        let worker = Some(worker).filter(|worker| !worker.is_empty());
        let worker = worker.map(|worker| worker.parse()).transpose();
        let error = match error_bytes {
            0 => None,
            bytes => Some(text(take(&mut rest, bytes - 1)?.to_vec())?.into()),
        };
        attempts.push(Attempt {
            attempt,
            worker: worker.map_err(|_| Malformed("no worker name"))?,
            leased_at,
            ended_at,
            outcome,
            error,
        });
    }
    Ok(attempts)
}

fn ending(code: u8) -> Decoded<Ending> {
    Ok(match code {
        0 => Ending::Done,
        1 => Ending::Retry,
        2 => Ending::Dead,
        3 => Ending::Release,
        4 => Ending::TimeLimit,
        5 => Ending::Expired,
        6 => Ending::Replaced,
        7 => Ending::Revoked,
        8 => Ending::Left,
        9 => Ending::Disrupted,
        _ => return Err(Malformed("no end of an attempt")),
    })
}

/// A state as the scripts name it.
pub(super) fn state_name(state: ItemState) -> &'static str {
    match state {
        ItemState::Ready => "ready",
        ItemState::Delayed => "delayed",
        ItemState::Leased => "leased",
        ItemState::Done => "done",
        ItemState::Dead => "dead",
        ItemState::Cancelled => "cancelled",
        ItemState::Abandoned => "abandoned",
    }
}

fn state_of(name: &str) -> Decoded<ItemState> {
    let all = [
        ItemState::Ready,
        ItemState::Delayed,
        ItemState::Leased,
        ItemState::Done,
        ItemState::Dead,
        ItemState::Cancelled,
        ItemState::Abandoned,
    ];
    let found = all.into_iter().find(|state| state_name(*state) == name);
    found.ok_or(Malformed("no such item state"))
}
