//! Random commands, of which most make sense: workers that remember what they hold, and some
//! that lie, repeat themselves, come late or name what is not theirs.

use std::sync::Arc;

use gangline_protocol::{
    ExchangeRequest, HeartbeatRequest, ItemId, ItemProgress, ItemState, Json, LeaseNumber,
    LeaseReply, LeaseRequest, NewItem, QueueName, QueueUid, SessionId, SettingsPatch, Settle,
    SettleOutcome, StopOutcome,
};
use gangline_server::queue::command::{Batch, BatchPart};
use gangline_server::queue::{Command, Input, Query, Refusal, Reply, Selection};
use gangline_tests::Dice;
use serde_json::value::RawValue;

const WORKERS: usize = 4;

#[derive(Default, Clone)]
struct Worker {
    session: Option<SessionId>,
    uid: Option<QueueUid>,
    /// Sessions that have ended: the nonce of a first call follows from it.
    endings: u64,
    number: u64,
    /// Everything it was ever handed.
    held: Vec<(ItemId, LeaseNumber)>,
}

#[derive(Default)]
struct Seen {
    workers: [Worker; WORKERS],
    uids: Vec<QueueUid>,
    leases: Vec<(ItemId, LeaseNumber)>,
    lines: u64,
}

/// Makes the commands of one walk.
pub(super) struct Mover {
    dice: Dice,
    now_us: u64,
    queues: Vec<QueueName>,
    /// Two workers that seldom settle, so that attempts end by their time limits.
    lazy: bool,
    /// Large batches of items that are all alike, and settled so.
    alike: bool,
    seen: Vec<Seen>,
    sent: Vec<Command>,
    /// Which queue and worker the last command was for.
    last: (usize, usize),
}

impl Mover {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let count = if dice.one_in(2) { 1 } else { 3 };
        let lazy = dice.one_in(4);
        let alike = !lazy && dice.one_in(3);
        let names = ["a", "b", "team.c"];
        Self {
            dice,
            now_us: 1_700_000_000_000_000,
            queues: names[..count]
                .iter()
                .map(|name| name.parse().unwrap())
                .collect(),
            lazy,
            alike,
            seen: (0..count).map(|_| Seen::default()).collect(),
            sent: Vec::new(),
            last: (0, 0),
        }
    }

    /// Returns the next command and when it comes.
    pub(super) fn next(&mut self) -> (Input, Command) {
        self.pass_time();
        let random = self.dice.roll();
        let now_us = self.now_us;
        let repeats = self.dice.one_in(8) && !self.sent.is_empty();
        let command = if repeats {
            self.dice.pick(&self.sent).unwrap()
        } else {
            self.fresh()
        };
        self.sent.push(command.clone());
        (Input { now_us, random }, command)
    }

    fn pass_time(&mut self) {
        let dice = &mut self.dice;
        let several = self.queues.len() > 1;
        match dice.below(40) {
            0 => self.now_us += 1_000 * (1_000 + dice.below(30_000)),
            1 => self.now_us += 70_000_000,
            2 if dice.one_in(6) => self.now_us += 25 * 3_600 * 1_000_000,
            3 if !several => self.now_us -= 1_000 * dice.below(2_000),
            4..=12 if !several => {}
            13..=20 => self.now_us += 1_000 * dice.below(6_000) + 1,
            _ => self.now_us += 1 + dice.below(200_000),
        }
    }

    fn fresh(&mut self) -> Command {
        let at = usize::try_from(self.dice.below(self.queues.len() as u64)).unwrap();
        let queue = self.queues[at].clone();
        let workers = if self.lazy { 2 } else { WORKERS };
        let worker = usize::try_from(self.dice.below(workers as u64)).unwrap();
        self.last = (at, worker);
        match self.dice.below(100) {
            0..=16 => self.push(queue),
            17..=19 => self.stream(at, queue),
            20..=69 => self.exchange(at, worker, queue),
            70..=81 => Command::Tick,
            82..=84 => Command::Configure {
                queue,
                patch: self.patch(),
            },
            85..=86 => Command::Pause {
                queue,
                paused: self.dice.one_in(3),
            },
            87 => Command::Seal { queue },
            88 if self.dice.one_in(3) => self.stop(queue),
            89 if self.dice.one_in(2) => Command::Delete { queue },
            88..=92 => Command::Cancel {
                queue,
                id: self.id(),
            },
            93..=95 => Command::Redrive {
                queue,
                selection: if self.dice.one_in(3) {
                    Selection::Items((0..self.dice.below(40)).map(|_| self.id()).collect())
                } else {
                    Selection::First(self.dice.below(4) as usize)
                },
            },
            _ => Command::Revoke {
                queue,
                worker: format!("w{worker}").parse().unwrap(),
                counted: self.dice.one_in(2),
            },
        }
    }

    fn id(&mut self) -> ItemId {
        match self.dice.below(30) {
            0 => ItemId(0),
            1 => ItemId(u64::MAX),
            2 => ItemId(1 << 50),
            _ => ItemId(1 + self.dice.below(60)),
        }
    }

    fn json(&mut self) -> Json {
        let fill = match self.dice.below(20) {
            0 => 600,
            1 => 3_000,
            2..=6 => 100,
            _ => 2,
        };
        let text = format!(
            "{{\"n\":{}, \"ä\":\"{}\"}}",
            self.dice.roll(),
            "x".repeat(fill)
        );
        Arc::from(RawValue::from_string(text).unwrap())
    }

    fn item(&mut self) -> NewItem {
        let mut item = NewItem::new(self.json());
        let dice = &mut self.dice;
        if self.alike && !dice.one_in(40) {
            item.priority = dice.one_in(40).then(|| dice.below(10) as u8);
            return item;
        }
        if dice.one_in(2) {
            let length = if dice.one_in(10) { 300 } else { 1 };
            let key = format!("{}{}", "k".repeat(length), dice.below(40));
            item.key = Some(key.parse().unwrap());
        }
        item.priority = dice.one_in(3).then(|| dice.below(10) as u8);
        item.delay_ms = dice.one_in(6).then(|| dice.below(6_000));
        item.time_limit_ms = dice.one_in(6).then(|| 1 + dice.below(20_000));
        if self.lazy {
            item.time_limit_ms = Some(1);
        }
        item.max_attempts = dice.one_in(4).then(|| 1 + dice.below(4) as u16);
        item.traceparent = dice.one_in(8).then(|| "00-abc-def-01".into());
        item
    }

    fn items(&mut self, bound: u64) -> Vec<NewItem> {
        (0..self.dice.below(bound)).map(|_| self.item()).collect()
    }

    fn push(&mut self, queue: QueueName) -> Command {
        let items = match self.dice.below(12) {
            0 => (0..70).map(|_| self.item()).collect(),
            1..=6 if self.alike => {
                let count = self.dice.below(80);
                (0..count).map(|_| self.item()).collect()
            }
            _ => self.items(6),
        };
        let batch = self.dice.one_in(6).then(|| Batch {
            key: format!("b{}", self.dice.below(4)).into(),
            part: BatchPart::Whole {
                hash: [self.dice.below(3) as u8; 32],
            },
        });
        let seal = self.dice.one_in(40);
        Command::Push {
            queue,
            items,
            batch,
            seal,
        }
    }

    fn stream(&mut self, at: usize, queue: QueueName) -> Command {
        let lines = self.dice.below(5);
        let lines_before = match self.dice.below(6) {
            0 => self.dice.below(8),
            _ => self.seen[at].lines,
        };
        let end = lines_before + lines;
        self.seen[at].lines = end;
        let hash = if self.dice.one_in(10) {
            [9; 32]
        } else {
            [end as u8; 32]
        };
        let last = self.dice.one_in(5);
        let part = BatchPart::Chunk {
            lines_before,
            lines,
            hash,
            last,
        };
        let items = (0..lines).map(|_| self.item()).collect();
        // Sometimes the key of a whole push.
        let key = if self.dice.one_in(8) {
            "b0".into()
        } else {
            "s".into()
        };
        let batch = Some(Batch { key, part });
        Command::Push {
            queue,
            items,
            batch,
            seal: last && self.dice.one_in(4),
        }
    }

    fn patch(&mut self) -> SettingsPatch {
        let dice = &mut self.dice;
        SettingsPatch {
            max_attempts: dice.one_in(2).then(|| dice.below(5) as u16),
            session_ms: dice.one_in(3).then(|| 1_000 + dice.below(15_000)),
            heartbeat_ms: dice.one_in(4).then(|| 100 + dice.below(5_000)),
            retry_base_ms: dice.one_in(3).then(|| dice.below(3_000)),
            retry_cap_ms: dice.one_in(4).then(|| dice.below(10_000)),
            max_leased: dice.one_in(4).then(|| match dice.below(4) {
                0 => u64::MAX,
                _ => 1 + dice.below(8),
            }),
            retention_ms: dice.one_in(4).then(|| match dice.below(3) {
                0 => u64::MAX,
                _ => dice.below(60_000),
            }),
            seal_when_idle_ms: dice.one_in(8).then(|| dice.below(3) * 20_000),
            time_limit_ms: dice.one_in(8).then(|| dice.below(3) * 4_000),
            results_bytes_max: dice.one_in(8).then(|| dice.below(4) * 300),
        }
    }

    fn outcome(&mut self) -> StopOutcome {
        if self.dice.one_in(2) {
            StopOutcome::Success
        } else {
            StopOutcome::Failure
        }
    }

    fn stop(&mut self, queue: QueueName) -> Command {
        let outcome = self.outcome();
        let reason = self
            .dice
            .one_in(2)
            .then(|| "enough \u{e4}".repeat(200).into());
        let by = self.dice.one_in(2).then(|| "".into());
        Command::Stop {
            queue,
            outcome,
            reason,
            by,
        }
    }

    /// How far a worker is with something it holds, or held.
    fn progress(&mut self, at: usize, worker: usize) -> ItemProgress {
        let settle = self.settle(at, worker);
        ItemProgress {
            id: settle.id,
            lease: settle.lease,
            fraction: self
                .dice
                .pick(&[None, Some(0.0), Some(0.1), Some(1.0)])
                .unwrap(),
            text: self.dice.pick(&[None, Some("half ä way".into())]).unwrap(),
        }
    }

    fn settle(&mut self, at: usize, worker: usize) -> Settle {
        let own = self.seen[at].workers[worker].held.clone();
        let recent = &own[own.len().saturating_sub(6)..];
        let all = self.seen[at].leases.clone();
        let found = if self.dice.one_in(6) {
            self.dice.pick(&all)
        } else {
            self.dice.pick(recent)
        };
        let (mut id, mut lease) = found.unwrap_or((ItemId(1), LeaseNumber(1)));
        if self.dice.one_in(25) {
            id = self.id();
        }
        if self.dice.one_in(25) {
            lease = LeaseNumber(self.dice.pick(&[0, 1, u64::MAX]).unwrap());
        }
        let outcome = match self.dice.below(10) {
            0..=4 => SettleOutcome::Done,
            5..=7 => SettleOutcome::Retry,
            8 => SettleOutcome::Dead,
            _ => SettleOutcome::Release,
        };
        let done = outcome == SettleOutcome::Done;
        let failed = matches!(outcome, SettleOutcome::Retry | SettleOutcome::Dead);
        let error = (failed && !self.dice.one_in(3)).then(|| {
            let text = self
                .dice
                .pick(&["", "no \u{e4} luck", "long\u{e4}"])
                .unwrap();
            if text.len() > 5 && self.dice.one_in(6) {
                text.repeat(1_000)
            } else {
                text.into()
            }
        });
        Settle {
            id,
            lease,
            outcome,
            result: (done && !self.dice.one_in(4)).then(|| self.json()),
            error: error.map(Into::into),
            delay_ms: (outcome == SettleOutcome::Retry && self.dice.one_in(3))
                .then(|| self.dice.below(3) * 2_000),
            // Only those of a done count.
            spawn: if self.dice.one_in(if done { 5 } else { 12 }) {
                self.items(4)
            } else {
                Vec::new()
            },
            stop: (done && self.dice.one_in(25)).then(|| self.outcome()),
        }
    }

    /// What most settles are: `done`, in the order in which the items were handed out.
    fn settle_many(&mut self, at: usize, worker: usize) -> Vec<Settle> {
        let held = self.seen[at].workers[worker].held.clone();
        let stop = held.len().saturating_sub(self.dice.below(40) as usize);
        let count = self.dice.below(80) as usize;
        let mut many = Vec::new();
        for (id, lease) in &held[stop.saturating_sub(count)..stop] {
            if self.dice.one_in(20) {
                continue;
            }
            many.push(Settle {
                id: *id,
                lease: *lease,
                outcome: SettleOutcome::Done,
                result: self.dice.one_in(2).then(|| self.json()),
                error: None,
                delay_ms: None,
                spawn: Vec::new(),
                stop: None,
            });
        }
        many
    }

    fn exchange(&mut self, at: usize, worker: usize, queue: QueueName) -> Command {
        let name = format!("w{worker}");
        let known = self.seen[at].workers[worker].clone();
        let mut request = ExchangeRequest::new(name.parse().unwrap());
        request.session = known.session;
        request.uid = known.uid;
        if self.dice.one_in(20) {
            request.uid = self.dice.pick(&self.seen[at].uids);
        }
        if self.dice.one_in(60) {
            request.uid = Some(QueueUid(self.dice.roll().into()));
        }
        if self.dice.one_in(15) {
            request.session = None;
        }
        if self.dice.one_in(40) {
            request.session = Some(SessionId(self.dice.roll()));
        }
        // From time to time the nonce of an older session; the first one is the greatest.
        let ago = self.dice.pick(&[0, 0, 0, 1, 2]).unwrap();
        request.nonce = self
            .dice
            .one_in(2)
            .then(|| u64::MAX - known.endings.saturating_sub(ago));
        let settles = match self.lazy {
            true => u64::from(self.dice.one_in(6)),
            false => self.dice.below(4),
        };
        request.settles = (0..settles).map(|_| self.settle(at, worker)).collect();
        if self.alike && self.dice.one_in(3) {
            request.settles.extend(self.settle_many(at, worker));
        }
        if self.dice.one_in(3) {
            let held = &known.held;
            let count = if self.alike { 50 } else { 3 };
            request.started = held.iter().rev().take(count).map(|(id, _)| *id).collect();
            if self.dice.one_in(5) {
                request.started.push(self.id());
            }
        }
        if self.dice.one_in(4) {
            request.progress = (0..self.dice.below(3))
                .map(|_| self.progress(at, worker))
                .collect();
        }
        request.heartbeat = self
            .dice
            .one_in(3)
            .then_some(HeartbeatRequest { hold_ms: 0 });
        if !self.dice.one_in(3) {
            let number = match self.dice.below(12) {
                0 => known.number,
                1 => self.dice.below(3),
                2 if self.dice.one_in(8) => u64::MAX,
                _ => known.number + 1,
            };
            request.lease = Some(LeaseRequest {
                number,
                max: match self.alike {
                    true => self.dice.pick(&[1, 5, 33, 70]).unwrap(),
                    false => self.dice.pick(&[0, 1, 1, 2, 3, 5, 40]).unwrap(),
                },
                starting: (self.dice.one_in(3)).then(|| match self.alike {
                    true => self.dice.below(60) as u32,
                    false => self.dice.below(3) as u32,
                }),
                wait_ms: self.dice.pick(&[0, 0, 3_000, 50_000]).unwrap(),
            });
        }
        request.leave = self.dice.one_in(20);
        Command::Exchange {
            queue,
            request: Box::new(request),
        }
    }

    /// Remembers what a worker would.
    pub(super) fn observe(&mut self, command: &Command, reply: &Result<Reply, Refusal>) {
        let (Command::Exchange { queue, request }, Ok(Reply::Exchange(reply))) = (command, reply)
        else {
            return;
        };
        let at = self.queues.iter().position(|name| name == queue).unwrap();
        let seen = &mut self.seen[at];
        let worker = usize::from(request.worker.as_str().as_bytes()[1] - b'0');
        let known = &mut seen.workers[worker];
        if reply.session_end.is_some() || reply.over.is_some() {
            (known.session, known.uid, known.number) = (None, None, 0);
            known.endings += 1;
        } else if let Some(session) = reply.session {
            if known.session != Some(session) {
                known.number = 0;
            }
            (known.session, known.uid) = (Some(session), reply.uid);
        }
        seen.uids.extend(reply.uid);
        if let Some(LeaseReply::Items(items)) = &reply.lease {
            let number = request.lease.map_or(0, |lease| lease.number);
            known.number = known.number.max(number.min(u64::MAX - 1));
            for item in items {
                known.held.push((item.id, item.lease));
                seen.leases.push((item.id, item.lease));
            }
        }
    }
}

/// Everything that can be looked at.
pub(super) fn looks(mover: &mut Mover) -> Vec<Query> {
    let mut all = vec![Query::List, Query::OldestReady];
    for queue in mover.queues.clone() {
        let state = mover.dice.pick(&[
            None,
            None,
            Some(ItemState::Ready),
            Some(ItemState::Delayed),
            Some(ItemState::Leased),
            Some(ItemState::Done),
            Some(ItemState::Dead),
            Some(ItemState::Cancelled),
            Some(ItemState::Abandoned),
        ]);
        let after = ItemId(if mover.dice.one_in(2) {
            0
        } else {
            mover.dice.below(50)
        });
        let id = mover.id();
        all.extend([
            Query::Status {
                queue: queue.clone(),
            },
            Query::Item {
                queue: queue.clone(),
                id,
            },
            Query::Items {
                queue: queue.clone(),
                state: state.unwrap(),
                after,
                max: 1 + mover.dice.below(200) as usize,
            },
            Query::Results {
                queue: queue.clone(),
                cursor: mover.dice.below(20),
                max: mover.dice.below(30) as usize,
            },
            Query::Workers {
                queue: queue.clone(),
            },
            Query::Explain {
                queue: queue.clone(),
            },
            Query::Dead {
                queue: queue.clone(),
                after,
                max: mover.dice.below(30) as usize,
            },
            Query::Copies {
                queue: queue.clone(),
                ids: (0..mover.dice.below(80)).map(|_| mover.id()).collect(),
            },
            Query::Stream {
                queue: queue.clone(),
                key: "s".into(),
            },
        ]);
        // One that nobody goes by is among them.
        all.extend((0..=WORKERS).map(|worker| Query::Worker {
            queue: queue.clone(),
            worker: format!("w{worker}").parse().unwrap(),
        }));
    }
    all
}
