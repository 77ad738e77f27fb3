//! The replies to pushes and exchanges, and looks at sessions and streams.

use gangline_protocol::{
    ExchangeReply, ExchangeRequest, HeldItem, ItemId, LeaseNumber, LeaseReply, LeasedItem,
    PushReply, Pushed, QueueName, SessionEnd, SettleStatus, Settled, Timestamp, Wait, WaitReason,
    WorkerName, WorkerRecord, WorkerView,
};
use redis::Value;

use super::fields::{Decoded, Fields, Malformed, big_endian, json, small, take};
use super::head::Head;
use super::record::{self, Record};
use crate::queue::command::StreamState;
use crate::queue::{Grounds, Took};

/// Reads the answer to a push.
pub(super) fn pushed(fields: &mut Fields) -> Decoded<PushReply> {
    let uid = fields.parsed()?;
    let items = fields.bytes()?;
    // Runs of consecutive ids: duplicates or not, the first one, how many.
    let items = items.chunks_exact(9).flat_map(|run| {
        let (first, count) = (big_endian(&run[1..7]), big_endian(&run[7..]));
        let duplicate = run[0] == 1;
        (first..first + count).map(move |id| Pushed {
            id: ItemId(id),
            duplicate,
        })
    });
    Ok(PushReply {
        uid,
        items: items.collect(),
        added: fields.number()?,
        duplicates: fields.number()?,
        sealed: fields.flag()?,
    })
}

/// Reads the answer to an exchange.
pub(super) fn exchange(
    fields: &mut Fields,
    queue: &QueueName,
    request: &ExchangeRequest,
) -> Decoded<ExchangeReply> {
    let uid = fields.parsed()?;
    let heartbeat_ms = fields.number()?;
    let statuses = fields.bytes()?;
    if statuses.len() != request.settles.len() {
        return Err(Malformed("not a status for each settle"));
    }
    let mut settled = Vec::with_capacity(request.settles.len());
    for (settle, status) in request.settles.iter().zip(statuses) {
        let (id, lease) = (settle.id, settle.lease);
        let status = settle_status(status)?;
        settled.push(Settled { id, lease, status });
    }
    let session_end = match fields.next() {
        Value::Nil => None,
        Value::Int(code) => Some(session_end(code)?),
        _ => return Err(Malformed("no session end")),
    };
    let session = fields.optional_parsed()?;
    let mut lost_ids = fields.list()?;
    let mut lost = Vec::with_capacity(lost_ids.left());
    while lost_ids.left() > 0 {
        lost.push(ItemId(lost_ids.number()?));
    }
    let lease = fields.optional_list()?.map(lease).transpose()?;
    let over = Head::optional(fields)?.and_then(|head| head.certificate(queue));
    Ok(ExchangeReply {
        session,
        uid: Some(uid),
        heartbeat_ms: Some(heartbeat_ms),
        settled,
        lost,
        session_end,
        lease,
        over,
    })
}

fn settle_status(code: u8) -> Decoded<SettleStatus> {
    Ok(match code {
        0 => SettleStatus::Ok,
        1 => SettleStatus::AlreadySettled,
        2 => SettleStatus::StaleLease,
        3 => SettleStatus::Cancelled,
        4 => SettleStatus::UnknownItem,
        5 => SettleStatus::Over,
        _ => return Err(Malformed("no settle status")),
    })
}

fn session_end(code: i64) -> Decoded<SessionEnd> {
    Ok(match code {
        -1 => SessionEnd::Unknown,
        0 => SessionEnd::Expired,
        1 => SessionEnd::Replaced,
        2 => SessionEnd::Revoked,
        3 => SessionEnd::Left,
        _ => return Err(Malformed("no session end")),
    })
}

/// Splits the records of consecutive items where their offsets say; none for one.
fn split<'a>(offsets: &[u8], records: &'a [u8]) -> Decoded<Vec<&'a [u8]>> {
    if offsets.is_empty() {
        return Ok(vec![records]);
    }
    let mut rest = records;
    let at = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
    let ends = offsets.chunks_exact(2);
    ends.clone()
        .zip(ends.skip(1))
        .map(|(from, to)| take(&mut rest, at(to).wrapping_sub(at(from)).into()))
        .collect()
}

fn lease(mut fields: Fields) -> Decoded<LeaseReply> {
    let Some(reason) = fields.optional_text()? else {
        let lease = LeaseNumber(fields.number()?);
        let default_limit_ms = Some(fields.number()?).filter(|limit_ms| *limit_ms > 0);
        let mut rows = fields.list()?;
        let mut items = Vec::with_capacity(rows.left() / 5);
        while rows.left() > 0 {
            let (first, attempt) = (rows.number()?, small(rows.number()?)?);
            let (offsets, skipped, records) = (rows.bytes()?, rows.number()?, rows.bytes()?);
            let mut rest = &records[..];
            take(&mut rest, usize::try_from(skipped).unwrap_or(usize::MAX))?;
            for (id, record) in (first..=u64::MAX).zip(split(&offsets, rest)?) {
                let record = Record::of(record)?;
                items.push(LeasedItem {
                    id: ItemId(id),
                    lease,
                    attempt,
                    key: record.key,
                    time_limit_ms: record.time_limit_ms.or(default_limit_ms),
                    traceparent: record.traceparent,
                    payload: json(record.payload)?,
                });
            }
        }
        return Ok(LeaseReply::Items(items));
    };
    let reason = match reason.as_str() {
        "nothing_ready" => WaitReason::NothingReady,
        "paused" => WaitReason::Paused,
        "delayed" => WaitReason::Delayed,
        "limit_reached" => WaitReason::LimitReached,
        "last_attempt_alone" => WaitReason::LastAttemptAlone,
        "revoked" => WaitReason::Revoked,
        "results_full" => WaitReason::ResultsFull,
        _ => return Err(Malformed("no wait reason")),
    };
    Ok(LeaseReply::Wait(Wait {
        reason,
        retry_ms: fields.number()?,
        due_at: fields.optional_number()?.map(Timestamp),
    }))
}

/// Reads a page of sessions.
pub(super) fn workers(fields: &mut Fields) -> Decoded<Vec<WorkerView>> {
    let mut rows = fields.list()?;
    let mut views = Vec::with_capacity(rows.left());
    while rows.left() > 0 {
        let mut row = rows.list()?;
        let (worker, session) = (row.parsed()?, row.parsed()?);
        let holds = u32::try_from(row.number()?).unwrap_or(u32::MAX);
        let (done, opened_ms, idle_ms) = (row.number()?, row.number()?, row.number()?);
        views.push(WorkerView {
            worker,
            session,
            holds,
            done,
            opened_at: Timestamp(opened_ms),
            idle_since: (holds == 0).then_some(Timestamp(idle_ms)),
        });
    }
    Ok(views)
}

/// Reads what is known of the worker `name`.
pub(super) fn worker(fields: &mut Fields, name: WorkerName) -> Decoded<WorkerRecord> {
    let had_session = match fields.integer()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
    Ok(WorkerRecord {
        name,
        had_session,
        session: workers(fields)?.pop(),
    })
}

/// Reads what keeps a queue from being over.
pub(super) fn grounds(fields: &mut Fields, queue: &QueueName) -> Decoded<Grounds> {
    let status = Head::of(fields)?.status(queue);
    let next_due_ms = fields.optional_number()?;
    let mut counts = fields.list()?;
    let mut rows = Vec::with_capacity(counts.left());
    while counts.left() > 0 {
        rows.push(counts.number()?);
    }
    let (only_alone, results_bytes) = (fields.flag()?, fields.number()?);
    let mut held = fields.list()?;
    let mut oldest = Vec::with_capacity(held.left());
    while held.left() > 0 {
        let mut row = held.list()?;
        oldest.push(HeldItem {
            id: ItemId(row.number()?),
            key: Record::of(&row.bytes()?)?.key,
            lease: LeaseNumber(row.number()?),
            attempt: small(row.number()?)?,
            session: row.parsed()?,
            worker: row.parsed()?,
            since: Timestamp(row.number()?),
            progress: record::progress(&mut row)?,
            held_ms: 0,
            slow: false,
        });
    }
    Ok(Grounds {
        status,
        next_due_ms,
        took: Took::of_rows(rows),
        only_alone,
        results_bytes,
        oldest,
    })
}

/// Reads how far a stream was taken.
pub(super) fn stream(fields: &mut Fields) -> Decoded<Option<StreamState>> {
    let Some(mut stream) = fields.optional_list()? else {
        return Ok(None);
    };
    Ok(Some(StreamState {
        uid: stream.parsed()?,
        lines: stream.number()?,
        hash: {
            let hash = stream.bytes()?;
            hash.try_into().map_err(|_| Malformed("no hash"))?
        },
        added: stream.number()?,
        duplicates: stream.number()?,
        complete: stream.flag()?,
    }))
}
