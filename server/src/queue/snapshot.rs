//! Snapshots: the whole lasting state as a sequence of bounded parts, and back.
//!
//! Equal states make equal parts, whatever the way that led to them, so that two states can be
//! compared by their snapshots. What is not lasting (deadlines, queue time, news not yet heard)
//! is left out.

use gangline_protocol::{
    Certificate, Counts, InvalidId, ItemId, ItemKey, QueueSettings, SessionEnd, SessionId,
    SettleOutcome,
};
use serde::{Deserialize, Serialize};

use super::attempts::AttemptPart;
use super::fact::{Created, Ended, JsonText, MoreSettings, Record};
use super::items::{Extra, Found, Holder, Item, Place, Slot};
use super::lanes::Standing;
use super::marks::Marks;
use super::queues::Queues;
use super::results::ResultRecord;
use super::sessions::{EndedSession, Session};
use super::state::{KeyHash, Queue};
use gangline_protocol::digest::Digest;

/// Bytes of payloads and results after which a part is full.
const PART_BYTES: usize = 1 << 20;

/// Rows after which a part is full.
const PART_ROWS: usize = 4_096;

/// Histories after which a part is full: each has up to 6.5 KiB.
const PART_HISTORIES: usize = 128;

/// A bounded part of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part(Content);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Content {
    Service {
        last_number: u32,
        last_lease: u64,
    },
    /// As JSON: a certificate leaves out what it does not have.
    Tombstone(String),
    Queue(Box<QueuePart>),
    Session(u32, Box<SessionPart>),
    Items(u32, Vec<SlotPart>),
    Keys(u32, Vec<(KeyHash, u64)>),
    Results(u32, Vec<ResultPart>),
    /// Workers whose last session has ended, the longest ago first.
    Remembered(u32, Vec<Box<str>>),
    MoreSettings(u32, MoreSettings),
    /// When items were pushed: the first id and the time of each mark.
    Marks(u32, Vec<(u64, u64)>),
    /// What became of attempts: of items that are not settled for good, then of the others in the
    /// order of their settling.
    Attempts(u32, Vec<(u64, Vec<AttemptPart>)>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct QueuePart {
    created: Created,
    sealed: bool,
    paused: bool,
    ended: Option<Ended>,
    counts: Counts,
    digest: Digest,
    retried: u64,
    first_lease_ms: Option<u64>,
    last_done_ms: Option<u64>,
    revoked: Vec<(Box<str>, u64)>,
    ended_sessions: Vec<EndedPart>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct EndedPart {
    id: u64,
    end: SessionEnd,
    /// Worker and nonce.
    first_call: Option<(Box<str>, u64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SessionPart {
    id: u64,
    worker: Box<str>,
    nonce: Option<u64>,
    last_request: u64,
    last_lease: u64,
    answers: Vec<(u64, u64, SettleOutcome)>,
    done: u64,
    opened_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum SlotPart {
    Live(Box<ItemPart>),
    Done(u32),
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ItemPart {
    payload: JsonText,
    key: Option<Box<str>>,
    place: Place,
    standing: Option<Standing>,
    priority: u8,
    attempts: u16,
    extra: Option<ExtraPart>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ExtraPart {
    due_ms: Option<u64>,
    time_limit_ms: Option<u64>,
    max_attempts: Option<u16>,
    traceparent: Option<Box<str>>,
    error: Option<Box<str>>,
    lease: u64,
    attempt: u16,
    /// Session, and whether the item was started in it.
    holder: Option<(u64, bool)>,
    lease_lost: bool,
    leased_ms: u64,
    lost_attempts: u16,
    dead_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ResultPart {
    id: u64,
    key: Option<Box<str>>,
    result: JsonText,
    attempt: u16,
    took_ms: u64,
}

impl Queues {
    /// Returns the state as encoded [`Record`]s, to be replayed in their order.
    ///
    /// # Panics
    ///
    /// Never: what was decoded or checked once can be encoded.
    pub fn snapshot(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let service = Content::Service {
            last_number: self.last_number,
            last_lease: self.last_lease,
        };
        let tombstones = self.tombstones.iter().map(|certificate| {
            let json = serde_json::to_string(certificate);
            Content::Tombstone(json.expect("a certificate can be encoded"))
        });
        let mut queues: Vec<&Queue> = self.all().collect();
        queues.sort_unstable_by_key(|queue| queue.number);
        let batches = self.batches_by_time.iter().map(|(_, queue, key)| {
            let batch = &self.batches[&(queue.clone(), key.clone())];
            Record::Batch(batch.clone())
        });
        std::iter::once(service)
            .chain(tombstones)
            .chain(queues.into_iter().flat_map(Queue::parts))
            .map(|content| Record::Restore(Part(content)))
            .chain(batches)
            .map(|record| postcard::to_stdvec(&record).expect("records can be encoded"))
    }

    pub(super) fn restore(&mut self, part: Part) -> Result<(), String> {
        let Part(content) = part;
        match content {
            Content::Service {
                last_number,
                last_lease,
            } => {
                self.last_number = last_number;
                self.last_lease = last_lease;
            }
            Content::Tombstone(json) => {
                let certificate: Certificate =
                    serde_json::from_str(&json).map_err(|error| error.to_string())?;
                self.tombstones.push_back(certificate);
            }
            Content::Queue(part) => {
                self.insert(&part.created);
                self.numbered(part.created.number)?.restore_head(*part)?;
            }
            Content::MoreSettings(number, more) => more.set(&mut self.numbered(number)?.settings),
            Content::Marks(number, rows) => self.numbered(number)?.marks = Marks::of_rows(rows),
            Content::Attempts(number, rows) => {
                let queue = self.numbered(number)?;
                for (id, parts) in rows {
                    let id = ItemId(id);
                    let is_settled = queue.items.live(id).is_none();
                    let parts = parts.into_iter().map(AttemptPart::restored);
                    let attempts = parts.collect::<Result<_, _>>()?;
                    queue.attempts.restore(id, attempts, is_settled);
                }
            }
            Content::Session(number, part) => self.numbered(number)?.restore_session(*part)?,
            Content::Items(number, slots) => {
                let queue = self.numbered(number)?;
                for slot in slots {
                    queue.restore_slot(slot)?;
                }
            }
            Content::Keys(number, keys) => {
                let keys = keys.into_iter().map(|(hash, id)| (hash, ItemId(id)));
                self.numbered(number)?.keys.extend(keys);
            }
            Content::Results(number, results) => {
                let queue = self.numbered(number)?;
                for part in results {
                    queue.took.note(part.took_ms);
                    queue.results_bytes += part.result.0.get().len() as u64;
                    queue.results.push(ResultRecord {
                        id: ItemId(part.id),
                        key: parse_key(part.key)?,
                        result: part.result.0,
                        attempt: part.attempt,
                        took_ms: part.took_ms,
                    });
                }
            }
            Content::Remembered(number, workers) => {
                let queue = self.numbered(number)?;
                for worker in workers {
                    let worker = worker.parse().map_err(|error| format!("{error}"))?;
                    queue.sessions.remember_worker(worker);
                }
            }
        }
        Ok(())
    }
}

impl Queue {
    fn parts(&self) -> impl Iterator<Item = Content> + '_ {
        let number = self.number;
        let head = Content::Queue(Box::new(self.head()));
        let sessions = self.sessions.by_worker().map(move |(id, session)| {
            Content::Session(number, Box::new(SessionPart::of(id, session)))
        });
        let mut next = 1;
        let items = std::iter::from_fn(move || {
            let (mut slots, mut bytes) = (Vec::new(), 0);
            while slots.len() < PART_ROWS
                && bytes < PART_BYTES
                && let Some(found) = self.items.find(ItemId(next))
            {
                slots.push(self.slot_part(ItemId(next), found, &mut bytes));
                next += 1;
            }
            (!slots.is_empty()).then_some(Content::Items(number, slots))
        });
        let mut keys: Vec<(KeyHash, u64)> =
            self.keys.iter().map(|(hash, id)| (*hash, id.0)).collect();
        keys.sort_unstable_by_key(|(_, id)| *id);
        let mut keys = keys.into_iter();
        let keys = std::iter::from_fn(move || {
            let rows: Vec<_> = keys.by_ref().take(PART_ROWS).collect();
            (!rows.is_empty()).then_some(Content::Keys(number, rows))
        });
        let mut records = self.results.iter();
        let results = std::iter::from_fn(move || {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while rows.len() < PART_ROWS
                && bytes < PART_BYTES
                && let Some(record) = records.next()
            {
                bytes += record.result.get().len();
                rows.push(ResultPart::of(record));
            }
            (!rows.is_empty()).then_some(Content::Results(number, rows))
        });
        let mut histories = self
            .attempts
            .all(|id| self.items.live(id).is_none())
            .into_iter();
        let histories = std::iter::from_fn(move || {
            let rows = histories.by_ref().take(PART_HISTORIES);
            let rows: Vec<_> = rows
                .map(|(id, attempts)| (id.0, attempts.iter().map(AttemptPart::of).collect()))
                .collect();
            (!rows.is_empty()).then_some(Content::Attempts(number, rows))
        });
        let mut names = self.sessions.remembered().map(|name| name.as_str().into());
        let remembered = std::iter::from_fn(move || {
            let rows: Vec<Box<str>> = names.by_ref().take(PART_ROWS).collect();
            (!rows.is_empty()).then_some(Content::Remembered(number, rows))
        });
        let more = MoreSettings::from(&self.settings);
        let more = (more != MoreSettings::default()).then_some(Content::MoreSettings(number, more));
        let marks = self.marks.rows();
        let marks = (!marks.is_empty()).then_some(Content::Marks(number, marks));
        std::iter::once(head)
            .chain(more)
            .chain(marks)
            .chain(sessions)
            .chain(remembered)
            .chain(items)
            .chain(histories)
            .chain(keys)
            .chain(results)
    }

    fn head(&self) -> QueuePart {
        QueuePart {
            created: Created {
                number: self.number,
                name: self.name.full().into(),
                uid: self.uid.0,
                at_ms: self.created_ms,
                settings: (&self.settings).into(),
            },
            sealed: self.sealed,
            paused: self.paused,
            ended: self.ended.clone(),
            counts: self.counts,
            digest: self.digest,
            retried: self.retried,
            first_lease_ms: self.first_lease_ms,
            last_done_ms: self.last_done_ms,
            revoked: self
                .revoked
                .iter()
                .map(|(worker, until_ms)| (worker.as_str().into(), *until_ms))
                .collect(),
            ended_sessions: self.sessions.ended().map(EndedPart::from).collect(),
        }
    }

    fn restore_head(&mut self, part: QueuePart) -> Result<(), String> {
        let QueuePart {
            created: _,
            sealed,
            paused,
            ended,
            counts,
            digest,
            retried,
            first_lease_ms,
            last_done_ms,
            revoked,
            ended_sessions,
        } = part;
        self.sealed = sealed;
        self.paused = paused;
        self.ended = ended;
        self.counts = counts;
        self.digest = digest;
        self.retried = retried;
        self.first_lease_ms = first_lease_ms;
        self.last_done_ms = last_done_ms;
        for (worker, until_ms) in revoked {
            let worker = worker.parse().map_err(|error| format!("{error}"))?;
            self.revoked.insert(worker, until_ms);
        }
        for ended in ended_sessions {
            self.sessions.remember_ended(ended.restore()?);
        }
        Ok(())
    }

    fn restore_session(&mut self, part: SessionPart) -> Result<(), String> {
        let worker = part.worker.parse().map_err(|error| format!("{error}"))?;
        let deadline = self.queue_time + self.settings.session_ms;
        let mut session = Session::new(worker, part.nonce, part.opened_ms, deadline);
        session.last_request = part.last_request;
        session.last_lease = part.last_lease;
        session.done = part.done;
        for (id, lease, outcome) in part.answers {
            session.remember(ItemId(id), lease, outcome);
        }
        self.sessions.insert(SessionId(part.id), session);
        Ok(())
    }

    fn slot_part(&self, id: ItemId, found: Found<'_>, bytes: &mut usize) -> SlotPart {
        let item = match found {
            Found::Done(place) => return SlotPart::Done(place),
            Found::Cancelled => return SlotPart::Cancelled,
            Found::Live(item) => item,
        };
        *bytes += item.payload.get().len();
        let ready = item.place == Place::Ready && self.ended.is_none();
        SlotPart::Live(Box::new(ItemPart {
            payload: JsonText(item.payload.clone()),
            key: self.items.key(id).map(|key| key.as_str().into()),
            place: item.place,
            standing: ready.then(|| self.lanes.standing(id, item.priority)),
            priority: item.priority,
            attempts: item.attempts,
            extra: item.extra.as_deref().map(ExtraPart::of),
        }))
    }

    fn restore_slot(&mut self, part: SlotPart) -> Result<(), String> {
        let part = match part {
            SlotPart::Done(place) => {
                self.items.restore(Slot::Done(place), None);
                return Ok(());
            }
            SlotPart::Cancelled => {
                self.items.restore(Slot::Cancelled, None);
                return Ok(());
            }
            SlotPart::Live(part) => *part,
        };
        let id = self.items.next_id();
        let mut item = Item {
            payload: part.payload.0,
            extra: part
                .extra
                .map(|extra| Box::new(extra.restored(&self.settings))),
            place: part.place,
            priority: part.priority,
            attempts: part.attempts,
        };
        if let Some(standing) = part.standing {
            self.lanes.insert(id, part.priority, standing);
        }
        match part.place {
            Place::Ready => {}
            Place::Dead => {
                self.dead.insert(id);
            }
            Place::Delayed | Place::Leased if self.ended.is_some() => {}
            Place::Delayed => {
                let due_ms = item.extra().due_ms.ok_or("a delayed item has no time")?;
                self.delayed.insert((due_ms, id));
            }
            Place::Leased => {
                let holder = item.holder().ok_or("a leased item has no holder")?;
                if let Some(deadline) = holder.deadline {
                    self.lease_deadlines.insert((deadline, id));
                }
                let session = self.sessions.get_mut(holder.session);
                let session = session.ok_or("the holder of a lease is not open")?;
                session.holds.insert(id);
            }
        }
        self.items.restore(Slot::Live(item), parse_key(part.key)?);
        Ok(())
    }
}

impl From<&EndedSession> for EndedPart {
    fn from(ended: &EndedSession) -> Self {
        let first_call = ended.first_call.as_ref();
        Self {
            id: ended.id.0,
            end: ended.end,
            first_call: first_call.map(|(worker, nonce)| (worker.as_str().into(), *nonce)),
        }
    }
}

impl EndedPart {
    fn restore(self) -> Result<EndedSession, String> {
        let first_call = match self.first_call {
            Some((worker, nonce)) => {
                let worker = worker.parse().map_err(|error| format!("{error}"))?;
                Some((worker, nonce))
            }
            None => None,
        };
        Ok(EndedSession {
            id: SessionId(self.id),
            end: self.end,
            first_call,
        })
    }
}

impl SessionPart {
    fn of(id: SessionId, session: &Session) -> Self {
        Self {
            id: id.0,
            worker: session.worker.as_str().into(),
            nonce: session.nonce,
            last_request: session.last_request,
            last_lease: session.last_lease,
            answers: session
                .answers()
                .map(|(id, lease, outcome)| (id.0, lease, outcome))
                .collect(),
            done: session.done,
            opened_ms: session.opened_ms,
        }
    }
}

impl ResultPart {
    fn of(record: &ResultRecord) -> Self {
        Self {
            id: record.id.0,
            key: record.key.as_ref().map(|key| key.as_str().into()),
            result: JsonText(record.result.clone()),
            attempt: record.attempt,
            took_ms: record.took_ms,
        }
    }
}

impl ExtraPart {
    fn of(extra: &Extra) -> Self {
        Self {
            due_ms: extra.due_ms,
            time_limit_ms: extra.time_limit_ms,
            max_attempts: extra.max_attempts,
            traceparent: extra.traceparent.clone(),
            error: extra.error.clone(),
            lease: extra.lease,
            attempt: extra.attempt,
            holder: extra
                .holder
                .map(|holder| (holder.session.0, holder.started)),
            lease_lost: extra.lease_lost,
            leased_ms: extra.leased_ms,
            lost_attempts: extra.lost_attempts,
            dead_ms: extra.dead_ms,
        }
    }

    /// A started item with a time limit gets all of it again: queue time begins anew.
    fn restored(self, settings: &QueueSettings) -> Extra {
        let Self {
            due_ms,
            time_limit_ms,
            max_attempts,
            traceparent,
            error,
            lease,
            attempt,
            holder,
            lease_lost,
            leased_ms,
            lost_attempts,
            dead_ms,
        } = self;
        let holder = holder.map(|(session, started)| Holder {
            session: SessionId(session),
            started,
            deadline: time_limit_ms
                .or(settings.time_limit_ms)
                .filter(|_| started)
                .map(|limit| limit + settings.session_ms),
        });
        Extra {
            due_ms,
            time_limit_ms,
            max_attempts,
            traceparent,
            error,
            lease,
            attempt,
            holder,
            lease_lost,
            leased_ms,
            lost_attempts,
            dead_ms,
        }
    }
}

fn parse_key(key: Option<Box<str>>) -> Result<Option<ItemKey>, String> {
    key.map(|key| key.parse())
        .transpose()
        .map_err(|error: InvalidId| error.to_string())
}
