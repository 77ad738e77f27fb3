//! A service in a test: its queues, its time, and a mirror that is fed with recorded facts only.

use std::sync::Arc;

use gangline_protocol::{
    ExchangeReply, ExchangeRequest, ItemId, LeaseNumber, LeaseReply, LeaseRequest, LeasedItem,
    NewItem, PushReply, QueueName, QueueStatus, QueueUid, SessionId, SettingsPatch, Settle,
    SettleOutcome, SettleStatus, WaitReason, WorkerName, WorkerRecord,
};
use serde_json::value::RawValue;

use crate::queue::{Command, Effects, Input, Query, Queues, Record, Refusal, Reply, Signal};

pub(super) struct World {
    pub(super) queues: Queues,
    mirror: Queues,
    pub(super) now_ms: u64,
    random: u64,
    pub(super) signals: Vec<Signal>,
    pub(super) synced: bool,
}

/// A worker as its client library sees itself.
#[derive(Debug, Clone)]
pub(super) struct Dog {
    pub(super) name: WorkerName,
    pub(super) session: Option<SessionId>,
    pub(super) uid: Option<QueueUid>,
    pub(super) number: u64,
}

pub(super) fn dog(name: &str) -> Dog {
    Dog {
        name: name.parse().unwrap(),
        session: None,
        uid: None,
        number: 0,
    }
}

pub(super) fn q() -> QueueName {
    "q".parse().unwrap()
}

pub(super) fn json(text: &str) -> gangline_protocol::Json {
    Arc::from(RawValue::from_string(text.to_owned()).unwrap())
}

pub(super) fn item(key: &str) -> NewItem {
    let mut item = NewItem::new(json("{}"));
    item.key = (!key.is_empty()).then(|| key.parse().unwrap());
    item
}

pub(super) fn settle(item: &LeasedItem, outcome: SettleOutcome) -> Settle {
    let done = outcome == SettleOutcome::Done;
    Settle {
        id: item.id,
        lease: item.lease,
        outcome,
        result: done.then(|| json("1")),
        error: None,
        delay_ms: None,
        spawn: Vec::new(),
        stop: None,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            queues: Queues::default(),
            mirror: Queues::default(),
            now_ms: 1_700_000_000_000,
            random: 1,
            signals: Vec::new(),
            synced: false,
        }
    }

    pub(super) fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        self.random += 1;
        let input = Input {
            now_us: self.now_ms * 1_000,
            random: self.random.wrapping_mul(0x2545_f491_4f6c_dd1d),
        };
        let mut effects = Effects::default();
        let reply = self.queues.apply(input, command, &mut effects);
        make_due(&mut self.mirror, self.now_ms);
        let mut log = &effects.log[..];
        while !log.is_empty() {
            let (record, rest) = postcard::take_from_bytes::<Record>(log).unwrap();
            self.mirror.replay(record).unwrap();
            log = rest;
        }
        self.signals = effects.signals;
        self.synced = effects.must_sync;
        self.check();
        reply
    }

    /// Checks the invariants, the replay of the facts, and a snapshot's way there and back.
    fn check(&self) {
        self.queues
            .all()
            .for_each(super::super::state::Queue::check);
        self.mirror
            .all()
            .for_each(super::super::state::Queue::check);
        let live = parts(&self.queues, self.now_ms);
        assert!(live == parts(&self.mirror, self.now_ms), "a replay differs");
        assert!(
            live == parts(&restored(&live), self.now_ms),
            "a snapshot differs"
        );
    }

    /// Goes on as after a crash and a restart, from the log or from a snapshot.
    pub(super) fn restart(&mut self, from_snapshot: bool) {
        self.queues = if from_snapshot {
            restored(&self.queues.snapshot().collect::<Vec<_>>())
        } else {
            self.mirror.clone()
        };
        self.queues.resume(self.now_ms);
        self.check();
    }

    pub(super) fn snapshot(&self) -> Vec<Vec<u8>> {
        parts(&self.queues, self.now_ms)
    }

    /// Lets time pass as in a service that runs: with every tick that is due.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(due) = self.queues.next_tick_ms().filter(|due| *due <= end) {
            self.now_ms = self.now_ms.max(due);
            self.apply(Command::Tick).unwrap();
        }
        self.now_ms = end;
    }

    pub(super) fn configure(&mut self, patch: SettingsPatch) {
        self.apply(Command::Configure { queue: q(), patch })
            .unwrap();
    }

    pub(super) fn push(&mut self, items: Vec<NewItem>) -> Result<PushReply, Refusal> {
        self.push_as(items, None)
    }

    pub(super) fn push_as(
        &mut self,
        items: Vec<NewItem>,
        batch: Option<crate::queue::command::Batch>,
    ) -> Result<PushReply, Refusal> {
        let (queue, seal) = (q(), false);
        let reply = self.apply(Command::Push {
            queue,
            items,
            batch,
            seal,
        })?;
        let Reply::Pushed(reply) = reply else {
            panic!("{reply:?}")
        };
        Ok(reply)
    }

    pub(super) fn fill(&mut self, count: usize) {
        self.push(vec![item(""); count]).unwrap();
    }

    pub(super) fn seal(&mut self) -> QueueStatus {
        status(self.apply(Command::Seal { queue: q() }))
    }

    pub(super) fn status(&self) -> QueueStatus {
        status(self.queues.read(self.now_ms, Query::Status { queue: q() }))
    }

    pub(super) fn exchange(
        &mut self,
        dog: &mut Dog,
        fill: impl FnOnce(&mut ExchangeRequest),
    ) -> ExchangeReply {
        let mut request = ExchangeRequest::new(dog.name.clone());
        request.session = dog.session;
        request.uid = dog.uid;
        fill(&mut request);
        let reply = self.send(request).unwrap();
        dog.session = reply.session.or(dog.session);
        dog.uid = reply.uid.or(dog.uid);
        reply
    }

    pub(super) fn send(&mut self, request: ExchangeRequest) -> Result<ExchangeReply, Refusal> {
        let request = Box::new(request);
        let reply = self.apply(Command::Exchange {
            queue: q(),
            request,
        })?;
        let Reply::Exchange(reply) = reply else {
            panic!("{reply:?}")
        };
        Ok(*reply)
    }

    pub(super) fn ask(&mut self, dog: &mut Dog, max: u32) -> ExchangeReply {
        dog.number += 1;
        let number = dog.number;
        self.exchange(dog, |request| {
            request.lease = Some(LeaseRequest {
                number,
                max,
                starting: None,
                wait_ms: 0,
            });
        })
    }

    pub(super) fn lease(&mut self, dog: &mut Dog, max: u32) -> Vec<LeasedItem> {
        items(self.ask(dog, max))
    }

    pub(super) fn settle(
        &mut self,
        dog: &mut Dog,
        item: &LeasedItem,
        outcome: SettleOutcome,
    ) -> SettleStatus {
        let settle = settle(item, outcome);
        self.exchange(dog, |request| request.settles.push(settle))
            .settled[0]
            .status
    }

    pub(super) fn heartbeat(&mut self, dog: &mut Dog) -> ExchangeReply {
        self.exchange(dog, |request| request.heartbeat = Some(Default::default()))
    }

    /// What is known of a worker.
    pub(super) fn worker(&self, name: &str) -> WorkerRecord {
        let (queue, worker) = (q(), name.parse().unwrap());
        match self
            .queues
            .read(self.now_ms, Query::Worker { queue, worker })
        {
            Ok(Reply::Worker(record)) => *record,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn revoke(&mut self, dog: &Dog, counted: bool) {
        let (queue, worker) = (q(), dog.name.clone());
        self.apply(Command::Revoke {
            queue,
            worker,
            counted,
        })
        .unwrap();
    }
}

pub(super) fn items(reply: ExchangeReply) -> Vec<LeasedItem> {
    match reply.lease {
        Some(LeaseReply::Items(items)) => items,
        other => panic!("{other:?}"),
    }
}

pub(super) fn reason(reply: ExchangeReply) -> WaitReason {
    match reply.lease {
        Some(LeaseReply::Wait(wait)) => wait.reason,
        other => panic!("{other:?}"),
    }
}

pub(super) fn ids(items: &[LeasedItem]) -> Vec<u64> {
    items.iter().map(|item| item.id.0).collect()
}

pub(super) fn status(reply: Result<Reply, Refusal>) -> QueueStatus {
    match reply {
        Ok(Reply::Status(status)) => *status,
        other => panic!("{other:?}"),
    }
}

pub(super) fn lease_of(id: u64, lease: u64) -> (ItemId, LeaseNumber) {
    (ItemId(id), LeaseNumber(lease))
}

fn parts(queues: &Queues, now_ms: u64) -> Vec<Vec<u8>> {
    let mut queues = queues.clone();
    make_due(&mut queues, now_ms);
    queues.forget_batches(now_ms);
    queues.snapshot().collect()
}

pub(super) fn restored(parts: &[Vec<u8>]) -> Queues {
    let mut queues = Queues::default();
    for part in parts {
        queues.replay(postcard::from_bytes(part).unwrap()).unwrap();
    }
    queues.all().for_each(super::super::state::Queue::check);
    queues
}

/// That a delay is over follows from the time, and is no fact.
fn make_due(queues: &mut Queues, now_ms: u64) {
    for queue in queues.by_name.values_mut() {
        while let Some((due_ms, id)) = queue.delayed.first().copied()
            && due_ms <= now_ms
        {
            queue.make_due(id);
        }
    }
}
