//! A naive queue beside the real one: item by item, written from the rules and not from the code.
//!
//! Random commands go to both. Every answer must be the same in full, and so must all that can
//! be seen afterwards. What the service draws at random (uids, session ids, back-offs) the model
//! takes over from it, after a look whether it obeys its rule.

mod callers;
mod leases;
mod moves;
mod queue;
mod rules;
mod state;
mod workers;

use std::fmt::Debug;

use gangline_protocol::{ItemId, ItemState, QueueName};
use proptest::prelude::*;

use self::callers::{Caller, label};
use self::moves::{Move, WORKERS, moves};
use self::rules::{Model, Now};
use super::world::World;
use crate::queue::{Command, Query, Refusal, Reply};

struct Pair {
    world: World,
    model: Model,
}

impl Pair {
    fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        let reply = self.world.apply(command.clone());
        let us = self.world.now_ms * 1_000;
        let now = Now {
            us,
            seen: &reply,
            service: &self.world.queues,
        };
        let expected = self.model.apply(&now, command.clone());
        alike(&reply, &expected, &command);
        self.compare();
        reply
    }

    /// Compares all that can be seen.
    fn compare(&self) {
        let see = |query| self.world.queues.read(self.world.now_ms, query);
        let statuses = self
            .model
            .queues
            .values()
            .map(|queue| queue.status())
            .collect();
        same(see(Query::List), Reply::Queues(statuses));
        for (name, queue) in &self.model.queues {
            let name = || name.clone();
            same(
                see(Query::Workers { queue: name() }),
                Reply::Workers(queue.worker_views()),
            );
            // One that nobody goes by is among them.
            for worker in (0..=2 * WORKERS as u8).step_by(2).map(label) {
                let record = queue.worker_record(worker.clone());
                let queue = name();
                same(
                    see(Query::Worker { queue, worker }),
                    Reply::Worker(Box::new(record)),
                );
            }
            let explanation = queue.grounds().explain(self.world.now_ms);
            same(
                see(Query::Explain { queue: name() }),
                Reply::Explanation(Box::new(explanation)),
            );
            let (after, ids) = (ItemId(0), (0..30).map(ItemId));
            let (dead, copies) = queue.dead();
            let (query, max) = (name(), 1_000);
            same(
                see(Query::Dead {
                    queue: query,
                    after,
                    max,
                }),
                Reply::Dead(dead),
            );
            same(
                see(Query::Copies {
                    queue: name(),
                    ids: ids.collect(),
                }),
                Reply::Copies(copies),
            );
            let (cursor, max) = (0, 1_000);
            let results = queue.results.clone();
            same(
                see(Query::Results {
                    queue: name(),
                    cursor,
                    max,
                }),
                Reply::Results(results),
            );
            for state in [None, Some(ItemState::Leased), Some(ItemState::Dead)] {
                let after = ItemId(0);
                let query = Query::Items {
                    queue: name(),
                    state,
                    after,
                    max,
                };
                let ids = (1..=queue.items.len() as u64).map(ItemId);
                let views = ids.filter_map(|id| queue.item_view(id));
                let views = views.filter(|view| state.is_none_or(|state| view.state == state));
                same(see(query), Reply::Items(views.collect()));
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.world.now_ms + ms;
        while let Some(due) = self.world.queues.next_tick_ms().filter(|due| *due <= end) {
            self.world.now_ms = self.world.now_ms.max(due);
            let _ = self.apply(Command::Tick);
        }
        self.world.now_ms = end;
    }

    fn restart(&mut self, from_snapshot: bool) {
        self.world.restart(from_snapshot);
        self.model.restart(self.world.now_ms, from_snapshot);
        self.compare();
    }
}

fn same(seen: Result<Reply, Refusal>, expected: Reply) {
    alike(&seen, &Ok(expected), &"a look");
}

/// Compares two answers in full; names the lines that differ.
fn alike(seen: &Result<Reply, Refusal>, expected: &Result<Reply, Refusal>, asked: &dyn Debug) {
    if format!("{seen:?}") != format!("{expected:?}") {
        let (seen, expected) = (format!("{seen:#?}"), format!("{expected:#?}"));
        let lines = seen.lines().zip(expected.lines());
        let differing: Vec<_> = lines.filter(|(seen, expected)| seen != expected).collect();
        panic!("answer and model differ in {differing:?}\n{seen}\nto {asked:?}");
    }
}

fn walk(moves: Vec<Move>) {
    let mut pair = Pair {
        world: World::new(),
        model: Model::default(),
    };
    let mut caller = Caller::default();
    for step in moves {
        match step {
            Move::Pass { ms } => pair.pass(ms.into()),
            Move::Jump { ms } => pair.world.now_ms += u64::from(ms),
            Move::Back { ms } if pair.model.is_timeless() => {
                pair.world.now_ms -= u64::from(ms);
            }
            Move::Back { .. } => {}
            Move::Restart { from_snapshot } => pair.restart(from_snapshot),
            step => {
                if let Some(command) = caller.command(step) {
                    let reply = pair.apply(command.clone());
                    caller.hear(&command, &reply);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_that_of_the_model(moves in prop::collection::vec(moves(), 1..150)) {
        walk(moves);
    }
}

pub(super) fn name(number: u8) -> QueueName {
    ["q", "other.r"][usize::from(number) % 2].parse().unwrap()
}
