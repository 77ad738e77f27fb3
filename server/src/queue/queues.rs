//! All queues of a service: who is asked, what became true, and what is due when.

use std::collections::{BTreeSet, HashMap, VecDeque};

use gangline_protocol::limits::{IDEMPOTENCY_MS, QUEUES_MAX, TOMBSTONES_MAX};
use gangline_protocol::{
    Certificate, Counts, EndCause, EndPhase, QueueName, QueueSettings, QueueUid, StopOutcome,
    Timestamp,
};

use super::command::{Command, Input, Query, Refusal, Reply, Signal};
use super::fact::{BatchRecord, Created, Fact, Record, Taken};
use super::retry::Draw;
use super::state::Queue;

/// What a step did: durable facts as log bytes, signals, and whether they need a sync.
#[derive(Debug, Default)]
pub struct Effects {
    /// The facts, one postcard-encoded [`Record`] after the other.
    pub log: Vec<u8>,
    /// What to tell those who wait, once the facts are durable.
    pub signals: Vec<Signal>,
    /// Whether a reply must wait until the facts are on disk. First leases need not: losing one
    /// gives the item to somebody else.
    pub must_sync: bool,
}

impl Effects {
    /// Adds a record to the log.
    pub(super) fn record(&mut self, record: &Record) {
        self.must_sync |= match record {
            Record::Queue { fact, .. } => match fact {
                Fact::Leased { .. } | Fact::Started { .. } | Fact::SessionOpened { .. } => false,
                Fact::Configured(_)
                | Fact::Pushed { .. }
                | Fact::SessionEnded { .. }
                | Fact::Revoked { .. }
                | Fact::Settled { .. }
                | Fact::TimedOut { .. }
                | Fact::Cancelled { .. }
                | Fact::Redriven { .. }
                | Fact::Sealed
                | Fact::Paused(_)
                | Fact::ConfiguredMore(_)
                | Fact::Ended(_) => true,
            },
            Record::Created(_) | Record::Removed { .. } | Record::Batch(_) | Record::Restore(_) => {
                true
            }
        };
        let log = std::mem::take(&mut self.log);
        self.log = postcard::to_extend(record, log).expect("records can be encoded");
    }
}

/// All queues of a service.
#[derive(Debug, Clone, Default)]
pub struct Queues {
    pub(super) by_name: HashMap<QueueName, Queue>,
    names: HashMap<u32, QueueName>,
    pub(super) last_number: u32,
    /// The newest lease number of any queue, so that none repeats in a queue made anew.
    pub(super) last_lease: u64,
    pub(super) batches: HashMap<(Box<str>, Box<str>), BatchRecord>,
    pub(super) batches_by_time: BTreeSet<(u64, Box<str>, Box<str>)>,
    pub(super) tombstones: VecDeque<Certificate>,
    /// When a queue wants a tick, in milliseconds, and its number.
    schedule: BTreeSet<(u64, u32)>,
    scheduled: HashMap<u32, u64>,
}

/// One step of one queue: its state with all that the step may read and do.
pub(super) struct Step<'a> {
    pub(super) queue: &'a mut Queue,
    pub(super) now_ms: u64,
    pub(super) draw: Draw,
    pub(super) now_us: u64,
    pub(super) last_lease: &'a mut u64,
    pub(super) effects: &'a mut Effects,
}

impl Step<'_> {
    /// Makes a fact true and notes it for the log.
    pub(super) fn happen(&mut self, fact: Fact) {
        let record = Record::Queue {
            number: self.queue.number,
            fact,
        };
        self.effects.record(&record);
        let Record::Queue { fact, .. } = record else {
            unreachable!("made two lines above")
        };
        self.queue.evolve(fact);
    }
}

impl Queues {
    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when the command cannot be carried out; then nothing but the passing of
    /// time has changed anything.
    pub fn apply(
        &mut self,
        input: Input,
        command: Command,
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        match command {
            Command::Configure { queue, patch } => {
                let settings = self.by_name.get(&queue).map(|queue| queue.settings.clone());
                let settings = patch.apply(&settings.unwrap_or_default())?;
                self.ensure(input, &queue, effects)?;
                self.step(input, &queue, effects, |step| step.configure(&settings))
            }
            Command::Push {
                queue,
                items,
                batch,
                seal,
            } => self.push(input, &queue, items, batch, seal, effects),
            Command::Seal { queue } => {
                self.ensure(input, &queue, effects)?;
                self.step(input, &queue, effects, |step| step.seal())
            }
            Command::Pause { queue, paused } => {
                self.step(input, &queue, effects, |step| step.pause(paused))
            }
            Command::Stop {
                queue,
                outcome,
                reason,
                by,
            } => self.step(input, &queue, effects, |step| {
                step.stop(outcome, reason, by)
            }),
            Command::Delete { queue } => self.delete(input, &queue, effects),
            Command::Cancel { queue, id } => {
                self.step(input, &queue, effects, |step| step.cancel(id))
            }
            Command::Redrive { queue, selection } => {
                self.step(input, &queue, effects, |step| step.redrive(selection))
            }
            Command::Exchange { queue, request } => {
                let Some(found) = self.by_name.get(&queue) else {
                    return Ok(self.exchange_without_queue(&queue, &request));
                };
                if let Some(uid) = request.uid.filter(|uid| *uid != found.uid) {
                    return Ok(Self::over(self.tombstone(&queue, uid), &request));
                }
                self.step(input, &queue, effects, |step| step.exchange(*request))
            }
            Command::Revoke {
                queue,
                worker,
                counted,
            } => self.step(input, &queue, effects, |step| step.revoke(worker, counted)),
            Command::Tick => {
                self.tick(input, effects);
                Ok(Reply::Ticked)
            }
        }
    }

    /// Answers a query.
    ///
    /// # Errors
    ///
    /// [`Refusal::QueueNotFound`] and [`Refusal::ItemNotFound`].
    pub fn read(&self, now_ms: u64, query: Query) -> Result<Reply, Refusal> {
        match query {
            Query::Status { queue } => Ok(Reply::Status(Box::new(self.find(&queue)?.status()))),
            Query::List => {
                let mut queues: Vec<_> = self.by_name.values().map(Queue::status).collect();
                queues.sort_by(|a, b| a.queue.cmp(&b.queue));
                Ok(Reply::Queues(queues))
            }
            Query::OldestReady => {
                let queues = self.by_name.values();
                let oldest =
                    queues.filter_map(|queue| Some((queue.name.clone(), queue.oldest_ready()?)));
                let mut oldest: Vec<_> = oldest.collect();
                oldest.sort();
                Ok(Reply::OldestReady(oldest))
            }
            Query::Item { queue, id } => {
                let found = self.find(&queue)?;
                let view = found
                    .item_view(id)
                    .ok_or(Refusal::ItemNotFound(queue, id))?;
                Ok(Reply::Item(Box::new(view)))
            }
            Query::Items {
                queue,
                state,
                after,
                max,
            } => Ok(Reply::Items(
                self.find(&queue)?.item_views(state, after, max),
            )),
            Query::Results { queue, cursor, max } => {
                Ok(Reply::Results(self.find(&queue)?.result_views(cursor, max)))
            }
            Query::Workers { queue } => Ok(Reply::Workers(self.find(&queue)?.worker_views())),
            Query::Worker { queue, worker } => {
                let record = self.find(&queue)?.worker_record(worker);
                Ok(Reply::Worker(Box::new(record)))
            }
            Query::Dead { queue, after, max } => {
                Ok(Reply::Dead(self.find(&queue)?.dead_items(after, max)))
            }
            Query::Copies { queue, ids } => Ok(Reply::Copies(self.find(&queue)?.copies(&ids))),
            Query::Explain { queue } => {
                let grounds = self.find(&queue)?.grounds();
                Ok(Reply::Explanation(Box::new(grounds.explain(now_ms))))
            }
            Query::Stream { queue, key } => {
                let batch = self.batch(now_ms, &queue, &key);
                let stream = batch.and_then(|batch| match &batch.taken {
                    Taken::Stream(stream) => Some(stream.into()),
                    Taken::Whole { .. } => None,
                });
                Ok(Reply::Stream(stream))
            }
        }
    }

    /// Makes a record of a log true again.
    ///
    /// # Errors
    ///
    /// What is wrong with the record: the log was not written by these rules.
    pub fn replay(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Created(created) => self.insert(&created),
            Record::Queue { number, fact } => {
                if let Fact::Leased { lease, .. } = &fact {
                    self.last_lease = self.last_lease.max(*lease);
                }
                self.numbered(number)?.evolve(fact);
            }
            Record::Removed { number } => self.remove(number),
            Record::Batch(batch) => self.keep_batch(batch),
            Record::Restore(part) => self.restore(part)?,
        }
        Ok(())
    }

    /// Begins a new life after a replay: every session gets a fresh deadline.
    pub fn resume(&mut self, now_ms: u64) {
        for queue in self.by_name.values_mut() {
            queue.resume_sessions(now_ms);
        }
        for name in self.by_name.keys().cloned().collect::<Vec<_>>() {
            self.reschedule(&name);
        }
    }

    /// Returns when the next tick is due, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn next_tick_ms(&self) -> Option<u64> {
        let queue = self.schedule.first().map(|(due, _)| *due);
        let batch = self
            .batches_by_time
            .first()
            .map(|(at, _, _)| at + IDEMPOTENCY_MS);
        queue.into_iter().chain(batch).min()
    }

    /// Returns every queue; for checks.
    pub fn all(&self) -> impl Iterator<Item = &Queue> {
        self.by_name.values()
    }

    fn find(&self, name: &QueueName) -> Result<&Queue, Refusal> {
        self.by_name
            .get(name)
            .ok_or_else(|| Refusal::QueueNotFound(name.clone()))
    }

    /// Runs one step of a queue: lets time pass, then does what was asked.
    pub(super) fn step(
        &mut self,
        input: Input,
        name: &QueueName,
        effects: &mut Effects,
        act: impl FnOnce(&mut Step<'_>) -> Result<Reply, Refusal>,
    ) -> Result<Reply, Refusal> {
        let Some(queue) = self.by_name.get_mut(name) else {
            return Err(Refusal::QueueNotFound(name.clone()));
        };
        let now_ms = input.now_ms();
        queue.advance(now_ms);
        let mut step = Step {
            queue,
            now_ms,
            draw: Draw::new(input.random),
            now_us: input.now_us,
            last_lease: &mut self.last_lease,
            effects,
        };
        let leasable = step.queue.leasable();
        let was_over = step.queue.ended.is_some();
        step.sweep();
        let reply = act(&mut step);
        step.end_if_drained();
        step.queue.note_idle();
        let more = step.queue.leasable().saturating_sub(leasable);
        let is_over = step.queue.ended.is_some();
        if more > 0 {
            let queue = name.clone();
            effects.signals.push(Signal::Ready { queue, items: more });
        }
        if is_over && !was_over {
            let queue = name.clone();
            effects.signals.push(Signal::Over { queue });
        }
        self.reschedule(name);
        // The status of a reply is that at the end of the step, which may have ended the queue.
        match reply? {
            Reply::Status(_) => Ok(Reply::Status(Box::new(self.find(name)?.status()))),
            Reply::Exchange(mut exchange) => {
                let queue = self.find(name)?;
                if queue.ended.is_some() {
                    exchange.over = queue.certificate();
                    exchange.lease = None;
                }
                Ok(Reply::Exchange(exchange))
            }
            reply => Ok(reply),
        }
    }

    /// Makes the queue if there is none.
    pub(super) fn ensure(
        &mut self,
        input: Input,
        name: &QueueName,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.by_name.contains_key(name) {
            return Ok(());
        }
        if self.by_name.len() >= QUEUES_MAX {
            return Err(Refusal::TooManyQueues(QUEUES_MAX));
        }
        let created = Created {
            number: self.last_number + 1,
            name: name.full().into(),
            uid: Self::new_uid(input.random).0,
            at_ms: input.now_ms(),
            settings: (&QueueSettings::default()).into(),
        };
        self.insert(&created);
        effects.record(&Record::Created(created));
        // Those who wait for a queue that did not exist ask again, and wait for its items.
        effects.signals.push(Signal::Ready {
            queue: name.clone(),
            items: u64::MAX,
        });
        Ok(())
    }

    /// Returns the uid of a queue that is made in a step with this random number.
    pub(crate) fn new_uid(random: u64) -> QueueUid {
        let mut draw = Draw::new(random ^ 0x5eed_0f0f_0b0b_0a0a);
        // RFC 9562 version 4 layout over two draws, so that uids look like what they are.
        let random = (u128::from(draw.next()) << 64) | u128::from(draw.next());
        QueueUid(random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62))
    }

    pub(super) fn numbered(&mut self, number: u32) -> Result<&mut Queue, String> {
        let name = self.names.get(&number);
        let queue = name.and_then(|name| self.by_name.get_mut(name));
        queue.ok_or_else(|| format!("there is no queue number {number}"))
    }

    pub(super) fn insert(&mut self, created: &Created) {
        let queue = Queue::new(created);
        self.last_number = self.last_number.max(created.number);
        self.names.insert(created.number, queue.name.clone());
        self.by_name.insert(queue.name.clone(), queue);
    }

    fn delete(
        &mut self,
        input: Input,
        name: &QueueName,
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        let reply = self.step(input, name, effects, |step| {
            step.end_as_deleted();
            Ok(Reply::Status(Box::new(step.queue.status())))
        })?;
        let number = self.find(name)?.number;
        self.remove(number);
        effects.record(&Record::Removed { number });
        effects.signals.push(Signal::Over {
            queue: name.clone(),
        });
        Ok(reply)
    }

    fn remove(&mut self, number: u32) {
        let queue = self
            .names
            .remove(&number)
            .and_then(|name| self.by_name.remove(&name));
        if let Some(due) = self.scheduled.remove(&number) {
            self.schedule.remove(&(due, number));
        }
        if let Some(certificate) = queue.and_then(|queue| queue.certificate()) {
            if self.tombstones.len() == TOMBSTONES_MAX {
                self.tombstones.pop_front();
            }
            self.tombstones.push_back(certificate);
        }
    }

    /// Returns the certificate of a queue that is gone; one without counts if it is forgotten.
    pub(super) fn tombstone(&self, name: &QueueName, uid: QueueUid) -> Certificate {
        let known = self
            .tombstones
            .iter()
            .rev()
            .find(|certificate| certificate.uid == uid);
        known.cloned().unwrap_or_else(|| Self::forgotten(name, uid))
    }

    /// Returns the certificate of a queue of which nothing is known any more.
    pub(crate) fn forgotten(name: &QueueName, uid: QueueUid) -> Certificate {
        Certificate {
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
            digest: gangline_protocol::digest::Digest::default().to_hex(),
            history_uncertain: false,
            durability: None,
        }
    }

    pub(super) fn batch(&self, now_ms: u64, name: &QueueName, key: &str) -> Option<&BatchRecord> {
        let batch = self.batches.get(&(name.full().into(), key.into()))?;
        (now_ms < batch.at_ms + IDEMPOTENCY_MS).then_some(batch)
    }

    pub(super) fn keep_batch(&mut self, batch: BatchRecord) {
        let key = (batch.queue.clone(), batch.key.clone());
        let at_ms = batch.at_ms;
        if let Some(old) = self.batches.insert(key.clone(), batch) {
            self.batches_by_time
                .remove(&(old.at_ms, key.0.clone(), key.1.clone()));
        }
        self.batches_by_time.insert((at_ms, key.0, key.1));
    }

    fn tick(&mut self, input: Input, effects: &mut Effects) {
        /// Queues looked after in one tick; the rest is due at once and comes with the next.
        const QUEUES_A_TICK: usize = 64;
        let now_ms = input.now_ms();
        let due: Vec<u32> = self
            .schedule
            .range(..=(now_ms, u32::MAX))
            .map(|(_, number)| *number)
            .take(QUEUES_A_TICK)
            .collect();
        for number in due {
            let Some(name) = self.names.get(&number).cloned() else {
                continue;
            };
            if self.by_name[&name].is_past_retention(now_ms) {
                self.remove(number);
                effects.record(&Record::Removed { number });
                continue;
            }
            let reply = self.step(input, &name, effects, |_| Ok(Reply::Ticked));
            debug_assert!(reply.is_ok(), "a tick refuses nothing");
        }
        self.forget_batches(now_ms);
    }

    /// Forgets a bounded number of `Idempotency-Key`s that are too old to be asked for.
    pub(super) fn forget_batches(&mut self, now_ms: u64) {
        const BATCHES_A_TICK: usize = 1_024;
        for _ in 0..BATCHES_A_TICK {
            let Some((at_ms, queue, key)) = self.batches_by_time.first().cloned() else {
                break;
            };
            if now_ms < at_ms + IDEMPOTENCY_MS {
                break;
            }
            self.batches_by_time.pop_first();
            self.batches.remove(&(queue, key));
        }
    }

    fn reschedule(&mut self, name: &QueueName) {
        let Some(queue) = self.by_name.get(name) else {
            return;
        };
        let number = queue.number;
        let due = queue.next_tick_ms();
        let old = match due {
            Some(due) => self.scheduled.insert(number, due),
            None => self.scheduled.remove(&number),
        };
        if old != due {
            if let Some(old) = old {
                self.schedule.remove(&(old, number));
            }
            if let Some(due) = due {
                self.schedule.insert((due, number));
            }
        }
    }
}
