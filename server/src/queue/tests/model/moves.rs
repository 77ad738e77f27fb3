//! What happens in a walk, and callers that send it as clients do, and again, and too late.

use gangline_protocol::{
    ExchangeRequest, HeartbeatRequest, ItemId, LeaseReply, LeaseRequest, LeasedItem, NewItem,
    QueueUid, SessionId, SettingsPatch, Settle, SettleOutcome, StopOutcome,
};
use proptest::prelude::*;

use super::super::world::{item, json, settle};
use super::name;
use crate::queue::command::{Batch, BatchPart};
use crate::queue::{Command, Refusal, Reply};

const WORKERS: usize = 4;
const STREAM_LINES: u64 = 12;

#[derive(Debug, Clone)]
pub(super) enum Move {
    Push {
        queue: u8,
        items: Vec<Draft>,
        seal: bool,
    },
    Batch {
        queue: u8,
        key: u8,
        body: u8,
        items: Vec<Draft>,
        seal: bool,
    },
    Chunk {
        queue: u8,
        key: u8,
        before: Option<u8>,
        lines: u8,
        other: bool,
        last: bool,
    },
    Exchange {
        worker: u8,
        parts: Parts,
    },
    Opens {
        worker: u8,
        max: u8,
    },
    Revoke {
        worker: u8,
        counted: bool,
    },
    Control {
        queue: u8,
        control: Control,
    },
    Cancel {
        queue: u8,
        id: u8,
    },
    Redrive {
        queue: u8,
        max: u8,
    },
    Configure {
        queue: u8,
        what: u8,
        value: u8,
    },
    Tick,
    Pass {
        ms: u16,
    },
    Jump {
        ms: u32,
    },
    Back {
        ms: u16,
    },
    Restart {
        from_snapshot: bool,
    },
    Repeat {
        back: u8,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    Pause(bool),
    Seal,
    Stop(bool),
    Delete,
}

#[derive(Debug, Clone)]
pub(super) struct Draft {
    key: u8,
    priority: Option<u8>,
    delay_ms: Option<u64>,
    time_limit_ms: Option<u64>,
    max_attempts: Option<u16>,
}

/// Which parts an exchange has.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    settles: Vec<End>,
    started: Option<u8>,
    heartbeat: bool,
    lease: Option<(u8, Option<u8>, u16)>,
    leave: bool,
    /// Which session and uid it names: its own, none, or another's.
    named: u8,
}

#[derive(Debug, Clone)]
struct End {
    which: u8,
    outcome: u8,
    spawn: Vec<Draft>,
    delay_ms: Option<u64>,
    stop: bool,
}

fn draft() -> impl Strategy<Value = Draft> {
    let delay = prop_oneof![4 => Just(None), 1 => (0_u64..20_000).prop_map(Some)];
    let limit = prop_oneof![4 => Just(None), 1 => (1_u64..20_000).prop_map(Some)];
    let attempts = prop_oneof![4 => Just(None), 1 => (1_u16..4).prop_map(Some)];
    (0_u8..24, prop::option::of(3_u8..8), delay, limit, attempts).prop_map(
        |(key, priority, delay_ms, time_limit_ms, max_attempts)| Draft {
            key,
            priority,
            delay_ms,
            time_limit_ms,
            max_attempts,
        },
    )
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    prop::collection::vec(draft(), 0..6)
}

fn end() -> impl Strategy<Value = End> {
    let spawn = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(draft(), 1..3)];
    let delay = prop_oneof![2 => Just(None), 1 => (0_u64..9_000).prop_map(Some)];
    (
        any::<u8>(),
        0_u8..8,
        spawn,
        delay,
        prop::bool::weighted(0.01),
    )
        .prop_map(|(which, outcome, spawn, delay_ms, stop)| End {
            which,
            outcome,
            spawn,
            delay_ms,
            stop,
        })
}

fn parts() -> impl Strategy<Value = Parts> {
    let settles = prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(end(), 1..4)];
    let lease = (
        0_u8..5,
        prop::option::of(0_u8..3),
        prop_oneof![Just(0), 0_u16..30_000],
    );
    let lease = prop::option::weighted(0.6, lease);
    let leave = prop::bool::weighted(0.04);
    (
        settles,
        prop::option::of(any::<u8>()),
        any::<bool>(),
        lease,
        leave,
        0_u8..30,
    )
        .prop_map(|(settles, started, heartbeat, lease, leave, named)| Parts {
            settles,
            started,
            heartbeat,
            lease,
            leave,
            named,
        })
}

pub(super) fn moves() -> impl Strategy<Value = Move> {
    let queue = 0_u8..2;
    let worker = 0..2 * WORKERS as u8;
    let control = prop_oneof![
        6 => prop::bool::weighted(0.4).prop_map(Control::Pause),
        3 => Just(Control::Seal),
        1 => any::<bool>().prop_map(Control::Stop),
        1 => Just(Control::Delete),
    ];
    prop_oneof![
        5 => (queue.clone(), drafts(), prop::bool::weighted(0.03))
            .prop_map(|(queue, items, seal)| Move::Push { queue, items, seal }),
        1 => (queue.clone(), 0_u8..3, 0_u8..4, drafts(), prop::bool::weighted(0.03)).prop_map(
            |(queue, key, body, items, seal)| Move::Batch { queue, key, body, items, seal }
        ),
        3 => (
            queue.clone(),
            0_u8..3,
            prop::option::weighted(0.3, 0..STREAM_LINES as u8),
            0_u8..5,
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.2),
        )
            .prop_map(|(queue, key, before, lines, other, last)| {
                Move::Chunk { queue, key, before, lines, other, last }
            }),
        25 => (worker.clone(), parts())
            .prop_map(|(worker, parts)| Move::Exchange { worker, parts }),
        3 => (worker.clone(), 0_u8..4).prop_map(|(worker, max)| Move::Opens { worker, max }),
        2 => (worker, any::<bool>())
            .prop_map(|(worker, counted)| Move::Revoke { worker, counted }),
        2 => (queue.clone(), control).prop_map(|(queue, control)| Move::Control { queue, control }),
        1 => (queue.clone(), any::<u8>()).prop_map(|(queue, id)| Move::Cancel { queue, id }),
        2 => (queue.clone(), 0_u8..4).prop_map(|(queue, max)| Move::Redrive { queue, max }),
        2 => (queue, 0_u8..6, any::<u8>())
            .prop_map(|(queue, what, value)| Move::Configure { queue, what, value }),
        1 => Just(Move::Tick),
        6 => (0_u16..20_000).prop_map(|ms| Move::Pass { ms }),
        1 => (0_u32..100_000_000).prop_map(|ms| Move::Jump { ms }),
        1 => any::<u16>().prop_map(|ms| Move::Back { ms }),
        1 => any::<bool>().prop_map(|from_snapshot| Move::Restart { from_snapshot }),
        8 => any::<u8>().prop_map(|back| Move::Repeat { back }),
    ]
}

impl Draft {
    fn item(&self) -> NewItem {
        let key = if self.key < 12 {
            format!("k{}", self.key)
        } else {
            String::new()
        };
        NewItem {
            payload: json(&format!("[{}]", self.key)),
            priority: self.priority,
            delay_ms: self.delay_ms,
            time_limit_ms: self.time_limit_ms,
            max_attempts: self.max_attempts,
            traceparent: (self.key > 20).then(|| "00-trace".into()),
            ..item(&key)
        }
    }
}

fn items(drafts: &[Draft]) -> Vec<NewItem> {
    drafts.iter().map(Draft::item).collect()
}

/// A worker process, one queue each: even ones work on one queue, odd ones on the other.
#[derive(Debug, Default)]
struct Process {
    session: Option<SessionId>,
    uid: Option<QueueUid>,
    nonce: u64,
    number: u64,
    /// All that it ever got, newest last.
    got: Vec<LeasedItem>,
}

#[derive(Debug, Default)]
pub(super) struct Caller {
    processes: [Process; 2 * WORKERS],
    /// Lines that each stream has sent.
    lines: [[u64; 3]; 2],
    sent: Vec<Command>,
    draws: u64,
}

impl Caller {
    pub(super) fn command(&mut self, step: Move) -> Option<Command> {
        let command = match step {
            Move::Push {
                queue,
                items: drafts,
                seal,
            } => Command::Push {
                queue: name(queue),
                items: items(&drafts),
                batch: None,
                seal,
            },
            Move::Batch {
                queue,
                key,
                body,
                items: drafts,
                seal,
            } => Command::Push {
                queue: name(queue),
                items: items(&drafts),
                batch: Some(Batch {
                    key: format!("b{key}").into(),
                    part: BatchPart::Whole { hash: [body; 32] },
                }),
                seal,
            },
            Move::Chunk {
                queue,
                key,
                before,
                lines,
                other,
                last,
            } => {
                let sent = &mut self.lines[usize::from(queue)][usize::from(key)];
                let lines_before = before.map_or(*sent, u64::from);
                let lines = u64::from(lines);
                *sent = (lines_before + lines) % STREAM_LINES;
                // Stands for the running hash: the same for the same lines.
                let hash = [(lines_before + lines) as u8 + 100 * u8::from(other); 32];
                let part = BatchPart::Chunk {
                    lines_before,
                    lines,
                    hash,
                    last,
                };
                // The key of a whole batch, now and then.
                let key = if key == 2 {
                    "b2".into()
                } else {
                    format!("s{key}")
                };
                Command::Push {
                    queue: name(queue),
                    items: (0..lines).map(|_| item("")).collect(),
                    batch: Some(Batch {
                        key: key.into(),
                        part,
                    }),
                    seal: last && other,
                }
            }
            Move::Exchange { worker, parts } => self.exchange(worker, parts),
            Move::Opens { worker, max } => {
                let process = &mut self.processes[usize::from(worker)];
                self.draws += 1;
                (process.session, process.uid, process.number) = (None, None, 0);
                process.nonce = self.draws;
                let lease = Some((max, None, 0));
                let (settles, started) = (Vec::new(), None);
                let parts = Parts {
                    settles,
                    started,
                    heartbeat: false,
                    lease,
                    leave: false,
                    named: 9,
                };
                self.exchange(worker, parts)
            }
            Move::Revoke { worker, counted } => Command::Revoke {
                queue: name(worker),
                worker: label(worker),
                counted,
            },
            Move::Control { queue, control } => {
                let queue = name(queue);
                match control {
                    Control::Pause(paused) => Command::Pause { queue, paused },
                    Control::Seal => Command::Seal { queue },
                    Control::Stop(good) => Command::Stop {
                        queue,
                        outcome: if good {
                            StopOutcome::Success
                        } else {
                            StopOutcome::Failure
                        },
                        reason: Some("enough".into()),
                        by: good.then(|| "somebody".into()),
                    },
                    Control::Delete => Command::Delete { queue },
                }
            }
            Move::Cancel { queue, id } => Command::Cancel {
                queue: name(queue),
                id: ItemId(u64::from(id % 40)),
            },
            Move::Redrive { queue, max } => Command::Redrive {
                queue: name(queue),
                max: max.into(),
            },
            Move::Configure { queue, what, value } => Command::Configure {
                queue: name(queue),
                patch: patch(what, value),
            },
            Move::Tick => Command::Tick,
            Move::Repeat { back } => {
                let at = self.sent.len().checked_sub(1 + usize::from(back) % 24)?;
                return self.sent.get(at).cloned();
            }
            Move::Pass { .. } | Move::Jump { .. } | Move::Back { .. } | Move::Restart { .. } => {
                return None;
            }
        };
        self.sent.push(command.clone());
        Some(command)
    }

    fn exchange(&mut self, worker: u8, parts: Parts) -> Command {
        let other = self.processes[usize::from(worker + 2) % (2 * WORKERS)].session;
        let process = &mut self.processes[usize::from(worker)];
        let mut request = ExchangeRequest::new(label(worker));
        let (session, uid) = (process.session, process.uid);
        (request.session, request.uid) = match parts.named {
            0 => (None, None),
            1 => (other, uid),
            2 => (session, Some(QueueUid(7))),
            3 => (session, None),
            _ => (session, uid),
        };
        request.nonce = (parts.named % 7 != 6).then_some(process.nonce);
        request.leave = parts.leave;
        request.heartbeat = parts.heartbeat.then_some(HeartbeatRequest::default());
        if let Some((max, starting, wait_ms)) = parts.lease {
            process.number += u64::from(parts.named != 4);
            request.lease = Some(LeaseRequest {
                number: process.number,
                max: max.into(),
                starting: starting.map(u32::from),
                wait_ms: wait_ms.into(),
            });
        }
        let newest = |which: u8| {
            let at = process.got.len().checked_sub(1 + usize::from(which) % 8)?;
            process.got.get(at)
        };
        request
            .started
            .extend(parts.started.and_then(newest).map(|item| item.id));
        request.settles = parts
            .settles
            .iter()
            .filter_map(|end| Some(end.settle(newest(end.which)?)))
            .collect();
        Command::Exchange {
            queue: name(worker),
            request: Box::new(request),
        }
    }

    pub(super) fn hear(&mut self, command: &Command, reply: &Result<Reply, Refusal>) {
        let (Command::Exchange { request, .. }, Ok(Reply::Exchange(reply))) = (command, reply)
        else {
            return;
        };
        let worker = (0..2 * WORKERS as u8).find(|worker| label(*worker) == request.worker);
        let process = &mut self.processes[usize::from(worker.unwrap())];
        process.session = reply.session.or(process.session);
        process.uid = reply.uid.or(process.uid);
        if reply.session_end.is_some() || reply.over.is_some() {
            (process.session, process.uid, process.number) = (None, None, 0);
            self.draws += 1;
            process.nonce = self.draws;
        }
        if let Some(LeaseReply::Items(items)) = &reply.lease {
            process.got.extend(items.iter().cloned());
        }
    }
}

impl End {
    fn settle(&self, found: &LeasedItem) -> Settle {
        let outcome = match self.outcome {
            0 | 1 => SettleOutcome::Retry,
            2 => SettleOutcome::Dead,
            3 => SettleOutcome::Release,
            _ => SettleOutcome::Done,
        };
        let (done, retry) = (
            outcome == SettleOutcome::Done,
            outcome == SettleOutcome::Retry,
        );
        let failed = retry || outcome == SettleOutcome::Dead;
        let mut settle = settle(found, outcome);
        settle.result = (done && self.outcome < 7).then(|| {
            json(&format!(
                "[{},{},{}]",
                found.id.0, found.lease.0, self.which
            ))
        });
        settle.error = (failed && self.which % 2 == 0).then(|| format!("e{}", self.which).into());
        settle.delay_ms = self.delay_ms.filter(|_| retry);
        // Also where it is refused at the door: only `done` may spawn.
        settle.spawn = items(&self.spawn);
        settle.stop = self.stop.then_some(StopOutcome::Success);
        settle
    }
}

fn label(worker: u8) -> gangline_protocol::WorkerName {
    format!("w{}", worker / 2).parse().unwrap()
}

fn patch(what: u8, value: u8) -> SettingsPatch {
    let mut patch = SettingsPatch::default();
    let value = u64::from(value);
    match what {
        0 => patch.max_attempts = Some(value as u16 % 5),
        1 => patch.max_leased = Some(1 + value % 8),
        2 => patch.session_ms = Some(900 + 150 * value),
        3 => patch.retry_base_ms = Some(10 * value),
        4 => patch.retry_cap_ms = Some(30 * value),
        _ => patch.retention_ms = Some(1_000_000 * value),
    }
    patch
}
