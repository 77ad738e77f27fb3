//! Random walks: any commands in any order, repeats of earlier ones, restarts, and time.
//!
//! The model knows nothing of the rules' inside: it keeps what the replies have promised.

use std::collections::{BTreeMap, BTreeSet};

use gangline_protocol::{
    ExchangeRequest, ItemId, LeaseReply, LeaseRequest, LeasedItem, NewItem, QueueUid,
    SettingsPatch, SettleOutcome, SettleStatus, StopOutcome,
};
use proptest::prelude::*;

use super::world::{Dog, World, dog, item, json, q, settle};
use crate::queue::command::{Batch, BatchPart};
use crate::queue::{Command, Query, Refusal, Reply, Selection};

#[derive(Debug, Clone)]
enum Move {
    Push {
        key: u8,
        count: u8,
        delay: bool,
        priority: u8,
    },
    Stream {
        lines: u8,
        last: bool,
    },
    Lease {
        dog: u8,
        max: u8,
        starting: u8,
    },
    Settle {
        dog: u8,
        which: u8,
        outcome: u8,
        spawn: bool,
    },
    Beat {
        dog: u8,
    },
    Leave {
        dog: u8,
    },
    Restarted {
        dog: u8,
    },
    Revoke {
        dog: u8,
        counted: bool,
    },
    Pause(bool),
    Seal,
    Stop,
    Cancel {
        id: u8,
    },
    Redrive,
    Configure {
        max_attempts: u8,
    },
    Delete,
    Pass {
        ms: u16,
    },
    Jump {
        ms: u32,
    },
    Restart {
        from_snapshot: bool,
    },
    Repeat {
        which: u8,
    },
}

fn moves() -> impl Strategy<Value = Move> {
    let dog = 0_u8..4;
    prop_oneof![
        4 => (0_u8..20, 1_u8..6, prop::bool::weighted(0.2), 0_u8..10)
            .prop_map(|(key, count, delay, priority)| Move::Push { key, count, delay, priority }),
        1 => (1_u8..5, prop::bool::weighted(0.1))
            .prop_map(|(lines, last)| Move::Stream { lines, last }),
        8 => (dog.clone(), 1_u8..5, 0_u8..5)
            .prop_map(|(dog, max, starting)| Move::Lease { dog, max, starting }),
        10 => (dog.clone(), any::<u8>(), 0_u8..6, any::<bool>())
            .prop_map(|(dog, which, outcome, spawn)| Move::Settle { dog, which, outcome, spawn }),
        2 => dog.clone().prop_map(|dog| Move::Beat { dog }),
        1 => dog.clone().prop_map(|dog| Move::Leave { dog }),
        1 => dog.clone().prop_map(|dog| Move::Restarted { dog }),
        2 => (dog, any::<bool>()).prop_map(|(dog, counted)| Move::Revoke { dog, counted }),
        1 => any::<bool>().prop_map(Move::Pause),
        1 => prop::bool::weighted(0.3).prop_map(|seal| if seal { Move::Seal } else { Move::Pause(false) }),
        1 => prop::bool::weighted(0.1).prop_map(|stop| if stop { Move::Stop } else { Move::Redrive }),
        1 => any::<u8>().prop_map(|id| Move::Cancel { id }),
        1 => Just(Move::Redrive),
        1 => (1_u8..4).prop_map(|max_attempts| Move::Configure { max_attempts }),
        1 => prop::bool::weighted(0.2).prop_map(|delete| if delete { Move::Delete } else { Move::Pause(false) }),
        4 => any::<u16>().prop_map(|ms| Move::Pass { ms }),
        1 => any::<u32>().prop_map(|ms| Move::Jump { ms: ms % 10_000_000 }),
        1 => any::<bool>().prop_map(|from_snapshot| Move::Restart { from_snapshot }),
        6 => any::<u8>().prop_map(|which| Move::Repeat { which }),
    ]
}

/// What the replies about one queue have promised.
#[derive(Debug, Default)]
struct Promises {
    items: u64,
    results: BTreeMap<ItemId, String>,
    leases: BTreeSet<(ItemId, u64)>,
}

struct Walk {
    world: World,
    dogs: Vec<Dog>,
    held: Vec<Vec<LeasedItem>>,
    sent: Vec<Command>,
    uid: Option<QueueUid>,
    promises: Promises,
    last_lease: u64,
    lines: u64,
    counter: u64,
}

impl Walk {
    fn new() -> Self {
        Self {
            world: World::new(),
            dogs: (0..4).map(|n| dog(&format!("w{n}"))).collect(),
            held: vec![Vec::new(); 4],
            sent: Vec::new(),
            uid: None,
            promises: Promises::default(),
            last_lease: 0,
            lines: 0,
            counter: 0,
        }
    }

    fn send(&mut self, command: Command) -> Result<Reply, Refusal> {
        self.sent.push(command.clone());
        let reply = self.world.apply(command.clone());
        self.observe(&command, &reply);
        reply
    }

    fn observe(&mut self, command: &Command, reply: &Result<Reply, Refusal>) {
        let uid = match self
            .world
            .queues
            .read(self.world.now_ms, Query::Status { queue: q() })
        {
            Ok(Reply::Status(status)) => Some(status.uid),
            _ => None,
        };
        if uid != self.uid {
            self.uid = uid;
            self.promises = Promises::default();
        }
        let (Command::Exchange { request, .. }, Ok(Reply::Exchange(reply))) = (command, reply)
        else {
            return;
        };
        if reply.uid != self.uid {
            assert!(
                reply
                    .settled
                    .iter()
                    .all(|settled| settled.status != SettleStatus::Ok)
            );
            return;
        }
        for (settle, settled) in request.settles.iter().zip(&reply.settled) {
            if settled.status == SettleStatus::Ok && settle.outcome == SettleOutcome::Done {
                let result = settle.result.as_ref().unwrap().get().to_owned();
                let kept = self
                    .promises
                    .results
                    .entry(settle.id)
                    .or_insert_with(|| result.clone());
                assert_eq!(
                    *kept, result,
                    "another result of {} was acknowledged",
                    settle.id
                );
            }
        }
        if let Some(LeaseReply::Items(items)) = &reply.lease {
            for item in items {
                assert!(
                    !self.promises.results.contains_key(&item.id),
                    "{} is done",
                    item.id
                );
                if self.promises.leases.insert((item.id, item.lease.0)) {
                    assert!(item.lease.0 >= self.last_lease, "a lease number went back");
                    self.last_lease = item.lease.0;
                }
            }
        }
    }

    /// What was promised is so: every result is there, once and unaltered, and no item is lost.
    fn check(&mut self) {
        let Some(_) = self.uid else { return };
        let status = self.world.status();
        assert!(
            status.counts.total() >= self.promises.items,
            "an item was lost"
        );
        self.promises.items = status.counts.total();
        let query = Query::Results {
            queue: q(),
            cursor: 0,
            max: usize::MAX,
        };
        let Ok(Reply::Results(results)) = self.world.queues.read(self.world.now_ms, query) else {
            panic!("no results")
        };
        assert_eq!(results.len(), self.promises.results.len());
        for result in results {
            assert_eq!(self.promises.results[&result.id], result.result.get());
        }
        let left = status.counts.left();
        match status.certificate {
            Some(certificate) => assert_eq!((left, certificate.counts), (0, status.counts)),
            None => assert_eq!(status.counts.abandoned, 0),
        }
    }

    fn exchange(&mut self, dog: u8, fill: impl FnOnce(&mut ExchangeRequest)) {
        let index = usize::from(dog);
        let mut request = ExchangeRequest::new(self.dogs[index].name.clone());
        request.session = self.dogs[index].session;
        request.uid = self.dogs[index].uid;
        fill(&mut request);
        let request = Box::new(request);
        let Ok(Reply::Exchange(reply)) = self.send(Command::Exchange {
            queue: q(),
            request,
        }) else {
            return;
        };
        let dog = &mut self.dogs[index];
        dog.session = reply.session.or(dog.session);
        dog.uid = reply.uid.or(dog.uid);
        if reply.session_end.is_some() || reply.over.is_some() {
            (dog.session, dog.uid, dog.number) = (None, None, 0);
        }
        if let Some(LeaseReply::Items(items)) = reply.lease {
            self.held[index].extend(items);
        }
    }

    fn go(&mut self, step: Move) {
        let queue = q();
        match step {
            Move::Push {
                key,
                count,
                delay,
                priority,
            } => {
                let items = (0..count).map(|n| {
                    let key = if key < 10 {
                        format!("k{}", key + n)
                    } else {
                        String::new()
                    };
                    let delay_ms = delay.then(|| u64::from(key.len() as u8) * 3_000 + 1);
                    NewItem {
                        delay_ms,
                        priority: Some(priority),
                        ..item(&key)
                    }
                });
                let items = items.collect();
                let _ = self.send(Command::Push {
                    queue,
                    items,
                    batch: None,
                    seal: false,
                });
            }
            Move::Stream { lines, last } => {
                let lines = u64::from(lines);
                let hash = [(self.lines + lines) as u8; 32];
                let part = BatchPart::Chunk {
                    lines_before: self.lines,
                    lines,
                    hash,
                    last,
                };
                let batch = Some(Batch {
                    key: "s".into(),
                    part,
                });
                let items = vec![item(""); lines as usize];
                if self
                    .send(Command::Push {
                        queue,
                        items,
                        batch,
                        seal: false,
                    })
                    .is_ok()
                {
                    self.lines += lines;
                }
            }
            Move::Lease { dog, max, starting } => {
                self.dogs[usize::from(dog)].number += 1;
                let number = self.dogs[usize::from(dog)].number;
                self.exchange(dog, |request| {
                    let (max, starting) = (max.into(), Some(starting.into()));
                    request.nonce = Some(number << 8 | u64::from(dog));
                    request.lease = Some(LeaseRequest {
                        number,
                        max,
                        starting,
                        wait_ms: 0,
                    });
                });
            }
            Move::Settle {
                dog,
                which,
                outcome,
                spawn,
            } => {
                let held = &self.held[usize::from(dog)];
                let Some(found) = held.get(usize::from(which) % held.len().max(1)) else {
                    return;
                };
                let outcome = match outcome {
                    0 => SettleOutcome::Retry,
                    1 => SettleOutcome::Dead,
                    2 => SettleOutcome::Release,
                    _ => SettleOutcome::Done,
                };
                let mut settle = settle(found, outcome);
                self.counter += 1;
                if outcome == SettleOutcome::Done {
                    // By lease, so that a repeat names the same result.
                    settle.result = Some(json(&format!("[{},{}]", found.id.0, found.lease.0)));
                    settle.spawn = vec![item(""); usize::from(spawn && self.counter < 40)];
                }
                self.exchange(dog, |request| request.settles = vec![settle]);
            }
            Move::Beat { dog } => {
                self.exchange(dog, |request| request.heartbeat = Some(Default::default()));
            }
            Move::Leave { dog } => self.exchange(dog, |request| request.leave = true),
            Move::Restarted { dog } => {
                let dog = &mut self.dogs[usize::from(dog)];
                (dog.session, dog.uid, dog.number) = (None, None, 0);
            }
            Move::Revoke { dog, counted } => {
                let worker = self.dogs[usize::from(dog)].name.clone();
                let _ = self.send(Command::Revoke {
                    queue,
                    worker,
                    counted,
                });
            }
            Move::Pause(paused) => drop(self.send(Command::Pause { queue, paused })),
            Move::Seal => drop(self.send(Command::Seal { queue })),
            Move::Stop => {
                let outcome = StopOutcome::Success;
                drop(self.send(Command::Stop {
                    queue,
                    outcome,
                    reason: None,
                    by: None,
                }));
            }
            Move::Cancel { id } => {
                let id = ItemId(u64::from(id % 32));
                drop(self.send(Command::Cancel { queue, id }));
            }
            Move::Redrive => {
                let selection = Selection::First(3);
                drop(self.world.apply(Command::Redrive { queue, selection }));
            }
            Move::Configure { max_attempts } => {
                let max_attempts = Some(max_attempts.into());
                let patch = SettingsPatch {
                    max_attempts,
                    ..SettingsPatch::default()
                };
                let command = Command::Configure { queue, patch };
                let reply = self.world.apply(command.clone());
                self.observe(&command, &reply);
            }
            Move::Delete => {
                let command = Command::Delete { queue };
                let reply = self.world.apply(command.clone());
                self.observe(&command, &reply);
            }
            Move::Pass { ms } => {
                self.world.pass(ms.into());
                self.observe(&Command::Tick, &Ok(Reply::Ticked));
            }
            Move::Jump { ms } => self.world.now_ms += u64::from(ms),
            Move::Restart { from_snapshot } => self.world.restart(from_snapshot),
            Move::Repeat { which } => {
                let which = usize::from(which) % self.sent.len().max(1);
                if let Some(command) = self.sent.get(which).cloned() {
                    let reply = self.world.apply(command.clone());
                    self.observe(&command, &reply);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_promised_stays_so_whatever_happens(moves in prop::collection::vec(moves(), 1..120)) {
        let mut walk = Walk::new();
        for step in moves {
            walk.go(step);
            walk.check();
        }
    }

    #[test]
    fn a_request_that_is_repeated_at_once_changes_nothing(moves in prop::collection::vec(moves(), 1..80)) {
        let mut walk = Walk::new();
        for step in moves {
            let sent = walk.sent.len();
            walk.go(step);
            let Some(command) = walk.sent.get(sent).cloned() else { continue };
            if !is_repeatable(&command) {
                continue;
            }
            let before = walk.world.snapshot();
            let _ = walk.world.apply(command.clone());
            prop_assert!(before == walk.world.snapshot(), "{command:?} is not repeatable");
        }
    }
}

/// A push is repeatable by keys or under an `Idempotency-Key`, a first call by its nonce, and a
/// lease request only if it got items: otherwise it asks again.
fn is_repeatable(command: &Command) -> bool {
    match command {
        Command::Push { items, batch, .. } => {
            batch.is_some() || items.iter().all(|item| item.key.is_some())
        }
        Command::Exchange { request, .. } => request.lease.is_none(),
        _ => true,
    }
}
