//! Callers that send what clients send, and send it again, and too late.

use gangline_protocol::{
    ExchangeRequest, HeartbeatRequest, ItemId, ItemProgress, LeaseReply, LeaseRequest, LeasedItem,
    QueueUid, SessionId, SettingsPatch, Settle, SettleOutcome, StopOutcome,
};

use super::super::world::{item, json, settle};
use super::moves::{Control, End, Move, Parts, STREAM_LINES, WORKERS, items};
use super::name;
use crate::queue::command::{Batch, BatchPart};
use crate::queue::{Command, Refusal, Reply, Selection};

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
                    progress: None,
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
            Move::Redrive { queue, max, ids } => Command::Redrive {
                queue: name(queue),
                selection: match ids {
                    Some(ids) => {
                        Selection::Items(ids.into_iter().map(|id| ItemId(id.into())).collect())
                    }
                    None => Selection::First(max.into()),
                },
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
        request
            .progress
            .extend(parts.progress.and_then(newest).map(|item| ItemProgress {
                id: item.id,
                lease: item.lease,
                fraction: Some(0.25),
                text: Some(format!("at {}", process.number).into()),
            }));
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
        settle.error =
            (failed && self.which.is_multiple_of(2)).then(|| format!("e{}", self.which).into());
        settle.delay_ms = self.delay_ms.filter(|_| retry);
        // Also where it is refused at the door: only `done` may spawn.
        settle.spawn = items(&self.spawn);
        settle.stop = self.stop.then_some(StopOutcome::Success);
        settle
    }
}

pub(super) fn label(worker: u8) -> gangline_protocol::WorkerName {
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
        5 => patch.seal_when_idle_ms = Some(value % 4 * 10_000),
        6 => patch.time_limit_ms = Some(value % 4 * 5_000),
        7 => patch.results_bytes_max = Some(value % 8 * 10),
        _ => patch.retention_ms = Some(1_000_000 * value),
    }
    patch
}
