//! The Redis store against the state machine: the same random commands, clock and random numbers
//! on both, and every reply must be the same.
//!
//! Nothing is normalised: session ids, uids, lease numbers and back-off are all drawn from the
//! number that comes in with a step. With several queues the clock never stands still, since the
//! state machine keeps one newest lease number for all queues, and Redis one for each.
//!
//! `GANGLINE_DIFFERENTIAL_WALKS` and `GANGLINE_DIFFERENTIAL_SEED` run more, or one again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gangline_server::clock::{Clock, Random};
use gangline_server::hub::Hub;
use gangline_server::queue::{Command, Effects, Input, Queues, Refusal, Reply};
use gangline_server::store::redis::{Durability, Redis, Time};
use gangline_server::store::{Store, StoreError};
use gangline_tests::TestRedis;

mod cases;
mod moves;

use moves::{Mover, looks};

/// Walks unless told otherwise; a walk has [`STEPS`] commands.
const WALKS: u64 = 40;
const STEPS: usize = 300;

/// After so many commands everything that can be looked at is compared.
const LOOK_EVERY: usize = 10;

#[derive(Default)]
struct Given(AtomicU64);

impl Clock for Given {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Random for Given {
    fn draw(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is configured by its environment"
)]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn redis_gives_the_replies_of_the_state_machine() {
    if !TestRedis::is_installed() {
        eprintln!("SKIPPED: no redis-server on the PATH; `apt-get install redis-server` brings it");
        return;
    }
    let redis = TestRedis::start_synced_in_memory(&["--databases", "1024"]);
    let first = number("GANGLINE_DIFFERENTIAL_SEED").unwrap_or(1);
    let walks = number("GANGLINE_DIFFERENTIAL_WALKS")
        .unwrap_or(WALKS)
        .min(1_024);
    let mut kinds = BTreeSet::new();
    for walk in 0..walks {
        compare(&format!("{}/{walk}", redis.url), first + walk, &mut kinds).await;
    }
    // A walk that never gets anywhere would compare nothing.
    let missing: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| !kinds.contains(*kind))
        .collect();
    assert!(
        first != 1 || walks < WALKS || missing.is_empty(),
        "no reply was like {missing:?}"
    );
}

/// What replies must have been about, at least once.
const KINDS: [&str; 47] = [
    "AlreadySettled",
    "StaleLease",
    "UnknownItem",
    "status: Cancelled",
    "status: Over",
    "status: Ok",
    "NoSuchQueue",
    "NothingReady",
    "reason: Paused",
    "reason: Delayed",
    "LimitReached",
    "LastAttemptAlone",
    "ResultsFull",
    "because: Some(NoWorker)",
    "because: Some(ResultsFull)",
    "slow: true",
    "Copies([(",
    "reason: Revoked",
    "Some(Expired)",
    "Some(Replaced)",
    "Some(Revoked)",
    "Some(Left)",
    "Some(Unknown)",
    "lost: [ItemId",
    "phase: Drained",
    "cause: Worker",
    "cause: Stop",
    "cause: Deleted",
    "nothing more is known",
    "Err(Sealed",
    "Err(Over",
    "Err(IdempotencyMismatch",
    "Err(StreamConflict",
    "Err(LeaseNumberOutOfOrder",
    "Err(OutOfBounds",
    "duplicate: true",
    "Redriven(2)",
    "traceparent: Some",
    "outcome: Retry",
    "outcome: Dead",
    "outcome: Release",
    "outcome: TimeLimit",
    "outcome: Expired",
    "outcome: Replaced",
    "outcome: Disrupted",
    "outcome: Left",
    "progress: Some",
];

type Replied = Result<Reply, Refusal>;

/// A Redis store and a state machine that go the same way.
struct Pair {
    clock: Arc<Given>,
    random: Arc<Given>,
    store: Redis,
    queues: Queues,
}

impl Pair {
    async fn open(url: &str) -> Self {
        let (clock, random) = (Arc::new(Given::default()), Arc::new(Given::default()));
        let time = Time::Given(clock.clone());
        let store = Redis::open(
            url,
            Durability::Memory,
            time,
            random.clone(),
            Hub::default(),
        )
        .await
        .unwrap();
        Self {
            clock,
            random,
            store,
            queues: Queues::default(),
        }
    }

    /// Returns the reply of the state machine, and that of Redis.
    async fn apply(&mut self, input: Input, command: Command) -> (Replied, Replied) {
        self.clock.0.store(input.now_us, Ordering::SeqCst);
        self.random.0.store(input.random, Ordering::SeqCst);
        let expected = self
            .queues
            .apply(input, command.clone(), &mut Effects::default());
        (expected, refusal(self.store.execute(command).await))
    }
}

async fn compare(url: &str, seed: u64, kinds: &mut BTreeSet<&'static str>) {
    let mut pair = Pair::open(url).await;
    let mut mover = Mover::new(seed);
    let mut history = Vec::new();
    for step in 0..STEPS {
        let (input, command) = mover.next();
        history.push(format!("{} {command:?}", input.now_us));
        let (expected, got) = pair.apply(input, command.clone()).await;
        same(seed, step, &history, &expected, &got);
        mover.observe(&command, &expected);
        note(kinds, &expected);
        if step % LOOK_EVERY == 0 || step + 1 == STEPS {
            for query in looks(&mut mover) {
                let expected = pair.queues.read(input.now_ms(), query.clone());
                let got = refusal(pair.store.query(query.clone()).await);
                history.push(format!("{query:?}"));
                same(seed, step, &history, &expected, &got);
                note(kinds, &expected);
                history.pop();
            }
        }
    }
}

fn note(kinds: &mut BTreeSet<&'static str>, reply: &Replied) {
    let reply = format!("{reply:?}");
    kinds.extend(KINDS.into_iter().filter(|kind| reply.contains(kind)));
}

fn refusal(answer: Result<Reply, StoreError>) -> Replied {
    answer.map_err(|error| match error {
        StoreError::Refused(refusal) => refusal,
        error => panic!("{error}"),
    })
}

#[track_caller]
fn same(seed: u64, step: usize, history: &[String], expected: &Replied, got: &Replied) {
    let (expected, got) = (format!("{expected:?}"), format!("{got:?}"));
    let recent = &history[history.len().saturating_sub(12)..];
    assert!(
        expected == got,
        "seed {seed}, step {step}: the replies differ\nstate machine: {expected}\nRedis: {got}\n\
         after\n{}",
        recent.join("\n")
    );
}

/// What a walk starts with, and what it may see.
#[test]
fn a_seed_makes_the_same_walk() {
    let input = |input: Input| (input.now_us, input.random);
    let (mut one, mut other) = (Mover::new(7), Mover::new(7));
    for _ in 0..100 {
        let ((a, first), (b, second)) = (one.next(), other.next());
        assert_eq!(input(a), input(b));
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
        let _: (&Command, &Command) = (&first, &second);
    }
}
