//! All queues of the model: every rule as it is written down, with no thought of cost.

use std::collections::{BTreeMap, BTreeSet};

use gangline_protocol::limits::IDEMPOTENCY_MS;
use gangline_protocol::{
    Certificate, Counts, EndCause, EndPhase, NewItem, PushReply, QueueName, QueueUid, StopOutcome,
    Timestamp,
};

use super::state::{Held, Queue, State};
use crate::queue::command::{Batch, BatchPart};
use crate::queue::{Command, Query, Queues, Refusal, Reply};

/// What a push under an `Idempotency-Key` has taken.
#[derive(Debug, Clone)]
struct Taken {
    at_ms: u64,
    /// Of a stream: lines so far, and whether it is complete.
    stream: Option<(u64, bool)>,
    hash: [u8; 32],
    reply: PushReply,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) queues: BTreeMap<QueueName, Queue>,
    gone: Vec<Certificate>,
    taken: BTreeMap<(QueueName, Box<str>), Taken>,
    pub(super) last_lease: u64,
    /// Every uid and every session id so far: none comes twice.
    uids: BTreeSet<u128>,
    pub(super) session_ids: BTreeSet<u64>,
    last_ms: u64,
}

/// One step: the time, and what the service has answered, to take over what it draws at random.
pub(super) struct Now<'a> {
    pub(super) us: u64,
    pub(super) seen: &'a Result<Reply, Refusal>,
    pub(super) service: &'a Queues,
}

impl Now<'_> {
    pub(super) fn ms(&self) -> u64 {
        self.us / 1_000
    }
}

impl Model {
    pub(super) fn apply(&mut self, now: &Now<'_>, command: Command) -> Result<Reply, Refusal> {
        self.last_ms = now.ms();
        match command {
            Command::Configure { queue, patch } => {
                let old = self.queues.get(&queue).map(|queue| queue.settings.clone());
                let settings = patch.apply(&old.unwrap_or_default())?;
                self.ensure(now, &queue);
                self.step(now, &queue, |queue| {
                    queue.refuse_if_over()?;
                    queue.settings = settings;
                    Ok(Reply::Status(Box::new(queue.status())))
                })
            }
            Command::Push {
                queue,
                items,
                batch,
                seal,
            } => self.push(now, &queue, items, batch, seal),
            Command::Seal { queue } => {
                self.ensure(now, &queue);
                self.step(now, &queue, |queue| {
                    queue.sealed |= !queue.is_over();
                    Ok(Reply::Status(Box::new(queue.status())))
                })
            }
            Command::Pause { queue, paused } => self.step(now, &queue, |queue| {
                queue.refuse_if_over()?;
                queue.paused = paused;
                Ok(Reply::Status(Box::new(queue.status())))
            }),
            Command::Stop {
                queue,
                outcome,
                reason,
                by,
            } => self.step(now, &queue, |queue| {
                if !queue.is_over() {
                    let (phase, cause) = (EndPhase::Stopped, EndCause::Stop);
                    queue.end(now.ms(), phase, cause, outcome, reason, by);
                }
                Ok(Reply::Status(Box::new(queue.status())))
            }),
            Command::Delete { queue: name } => {
                let reply = self.step(now, &name, |queue| {
                    if !queue.is_over() {
                        let (phase, cause) = (EndPhase::Stopped, EndCause::Deleted);
                        queue.end(now.ms(), phase, cause, StopOutcome::Failure, None, None);
                    }
                    Ok(Reply::Status(Box::new(queue.status())))
                })?;
                self.remove(&name);
                Ok(reply)
            }
            Command::Cancel { queue, id } => self.step(now, &queue, |queue| queue.cancel(id)),
            Command::Redrive { queue, selection } => {
                self.step(now, &queue, |queue| queue.redrive(&selection))
            }
            Command::Exchange {
                queue: name,
                request,
            } => self.exchange(now, &name, *request),
            Command::Revoke {
                queue,
                worker,
                counted,
            } => self.step(now, &queue, |queue| {
                Ok(Reply::Revoked(queue.revoke(now.ms(), worker, counted)))
            }),
            Command::Tick => {
                self.tick(now);
                Ok(Reply::Ticked)
            }
        }
    }

    /// Lets time pass, does what is asked, and ends the queue if nothing is left to do.
    pub(super) fn step(
        &mut self,
        now: &Now<'_>,
        name: &QueueName,
        act: impl FnOnce(&mut Queue) -> Result<Reply, Refusal>,
    ) -> Result<Reply, Refusal> {
        let missing = Refusal::QueueNotFound(name.clone());
        let queue = self.queues.get_mut(name).ok_or(missing)?;
        queue.pass(now.ms());
        let reply = act(queue);
        let counts = queue.counts();
        if queue.sealed && !queue.is_over() && counts.left() == 0 {
            let (phase, cause) = (EndPhase::Drained, EndCause::Drained);
            queue.end(now.ms(), phase, cause, StopOutcome::Success, None, None);
        }
        queue.note_nothing_to_do();
        match reply? {
            Reply::Status(_) => Ok(Reply::Status(Box::new(queue.status()))),
            Reply::Exchange(mut reply) if queue.is_over() => {
                reply.over.clone_from(&queue.certificate);
                reply.lease = None;
                Ok(Reply::Exchange(reply))
            }
            reply => Ok(reply),
        }
    }

    fn ensure(&mut self, now: &Now<'_>, name: &QueueName) {
        if self.queues.contains_key(name) {
            return;
        }
        let query = Query::Status {
            queue: name.clone(),
        };
        let Ok(Reply::Status(status)) = now.service.read(now.ms(), query) else {
            panic!("queue {name} was not made")
        };
        assert!(self.uids.insert(status.uid.0), "a uid comes twice");
        self.queues
            .insert(name.clone(), Queue::new(name.clone(), status.uid, now.ms()));
    }

    fn remove(&mut self, name: &QueueName) {
        let queue = self.queues.remove(name).unwrap();
        self.gone.push(queue.certificate.unwrap());
    }

    pub(super) fn certificate(&self, name: &QueueName, uid: QueueUid) -> Certificate {
        let known = self.gone.iter().find(|certificate| certificate.uid == uid);
        known.cloned().unwrap_or_else(|| Certificate {
            queue: name.clone(),
            uid,
            phase: EndPhase::Stopped,
            cause: EndCause::Deleted,
            outcome: StopOutcome::Failure,
            reason: Some("the queue was deleted; nothing more is known of it".into()),
            ended_by: None,
            created_at: Timestamp(0),
            ended_at: Timestamp(0),
            counts: Counts::default(),
            digest: "0".repeat(64).into(),
            history_uncertain: false,
            durability: None,
        })
    }

    fn push(
        &mut self,
        now: &Now<'_>,
        name: &QueueName,
        items: Vec<NewItem>,
        batch: Option<Batch>,
        seal: bool,
    ) -> Result<Reply, Refusal> {
        let slot = batch
            .as_ref()
            .map(|batch| (name.clone(), batch.key.clone()));
        let mut before = slot
            .as_ref()
            .and_then(|slot| self.taken.get(slot))
            .filter(|taken| now.ms() < taken.at_ms + IDEMPOTENCY_MS)
            .cloned();
        if let Some(batch) = &batch {
            if let Some(reply) = repeat(batch, before.as_ref())? {
                return Ok(Reply::Pushed(reply));
            }
            if let Some(before) = &before {
                let uid = before.reply.uid;
                if self.queues.get(name).is_none_or(|queue| queue.uid != uid) {
                    return Err(Refusal::Over(Box::new(self.certificate(name, uid))));
                }
            }
        }
        self.ensure(now, name);
        let mut reply = self.step(now, name, |queue| {
            let items = queue.push(now.ms(), items, true)?;
            queue.sealed |= seal && !queue.is_over();
            let duplicates = items.iter().filter(|item| item.duplicate).count() as u64;
            let added = items.len() as u64 - duplicates;
            let (uid, sealed) = (queue.uid, queue.sealed);
            Ok(Reply::Pushed(PushReply {
                uid,
                items,
                added,
                duplicates,
                sealed,
            }))
        })?;
        if let (Some(batch), Some(slot), Reply::Pushed(reply)) = (batch, slot, &mut reply) {
            let mut taken = Taken {
                at_ms: now.ms(),
                stream: None,
                hash: [0; 32],
                reply: reply.clone(),
            };
            match batch.part {
                BatchPart::Whole { hash } => taken.hash = hash,
                BatchPart::Chunk {
                    lines_before,
                    lines,
                    hash,
                    last,
                } => {
                    taken.hash = hash;
                    taken.stream = Some((lines_before + lines, last));
                    if let Some(before) = before.take() {
                        taken.reply.added += before.reply.added;
                        taken.reply.duplicates += before.reply.duplicates;
                    }
                    // The counts are those of the stream, as in the answer to a repeat.
                    *reply = taken.reply.clone();
                    taken.reply.items.clear();
                }
            }
            self.taken.insert(slot, taken);
        }
        Ok(reply)
    }

    /// When a queue wants an empty step: for a delay, a session, a lease's end, or its retention.
    fn due_ms(queue: &Queue) -> Option<u64> {
        let sessions = queue.sessions.iter().map(|session| session.deadline);
        let leases = queue.lease_ends().into_iter().map(|(end, _)| end);
        let next = sessions
            .chain(leases)
            .chain(queue.seals_at())
            .min()
            .map(|end| {
                let left = end.saturating_sub(queue.queue_time);
                queue.clock_ms + left.min(queue.settings.heartbeat_ms)
            });
        [next, queue.first_due_ms(), queue.retained_until()]
            .into_iter()
            .flatten()
            .min()
    }

    fn tick(&mut self, now: &Now<'_>) {
        for name in self.queues.keys().cloned().collect::<Vec<_>>() {
            let queue = &self.queues[&name];
            if queue
                .retained_until()
                .is_some_and(|until| now.ms() >= until)
            {
                self.remove(&name);
            } else if Self::due_ms(queue).is_some_and(|due_ms| due_ms <= now.ms()) {
                let _ = self.step(now, &name, |_| Ok(Reply::Ticked));
            }
        }
    }

    /// What a restart may change: sessions get a fresh deadline, news may be lost.
    pub(super) fn restart(&mut self, now_ms: u64, from_snapshot: bool) {
        let last_ms = self.last_ms;
        for queue in self.queues.values_mut() {
            queue.clock_ms = now_ms;
            queue.idle_since = None;
            queue.note_nothing_to_do();
            let default_limit = queue.settings.time_limit_ms;
            let (time, session_ms) = (queue.queue_time, queue.settings.session_ms);
            for session in &mut queue.sessions {
                session.deadline = time + session_ms;
                session.waits_until = 0;
                session.idle_since_ms = now_ms;
                session.restarted = true;
            }
            for item in &mut queue.items {
                item.progress = None;
                match &mut item.state {
                    State::Leased(Held {
                        started: Some((at, length, limit)),
                        ..
                    }) => {
                        *at = time;
                        if from_snapshot {
                            *length = session_ms;
                            *limit = item.new.time_limit_ms.or(default_limit);
                        }
                    }
                    // A replay ends the delays that were over before the last step.
                    State::Delayed { due_ms } if !from_snapshot && *due_ms <= last_ms => {
                        item.state = State::Ready;
                        item.came_back = true;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether the clock may be set back here without what is due being told from what is not.
    pub(super) fn is_timeless(&self) -> bool {
        self.taken.is_empty()
            && self
                .queues
                .values()
                .all(|queue| queue.first_due_ms().is_none())
    }
}

/// The answer to a part of a push that was taken before.
fn repeat(batch: &Batch, before: Option<&Taken>) -> Result<Option<PushReply>, Refusal> {
    let key = batch.key.clone();
    let mismatch = |at: String| {
        Err(Refusal::IdempotencyMismatch {
            key: key.clone(),
            at,
        })
    };
    match (&batch.part, before.map(|taken| (taken, taken.stream))) {
        (BatchPart::Whole { .. }, None) => Ok(None),
        (BatchPart::Whole { hash }, Some((taken, None))) if *hash == taken.hash => {
            Ok(Some(taken.reply.clone()))
        }
        (BatchPart::Whole { .. }, Some((_, None))) => mismatch(String::new()),
        (BatchPart::Whole { .. }, Some(_)) => mismatch(": that was a stream".into()),
        (BatchPart::Chunk { .. }, Some((_, None))) => mismatch(": that was no stream".into()),
        (
            BatchPart::Chunk {
                lines_before: 0, ..
            },
            None,
        ) => Ok(None),
        (BatchPart::Chunk { .. }, None) => Err(Refusal::StreamConflict { key, lines: 0 }),
        (
            BatchPart::Chunk {
                lines_before,
                lines,
                hash,
                last,
            },
            Some((taken, Some((so_far, complete)))),
        ) => {
            let end = lines_before + lines;
            if end == so_far && *hash != taken.hash {
                return mismatch(format!(" within the first {end} lines"));
            }
            if complete && end > so_far {
                return mismatch(format!(", of {so_far} lines"));
            }
            if complete || (end == so_far && *lines > 0 && !last) {
                return Ok(Some(taken.reply.clone()));
            }
            if *lines_before != so_far {
                return Err(Refusal::StreamConflict { key, lines: so_far });
            }
            Ok(None)
        }
    }
}
