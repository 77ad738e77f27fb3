//! What a random walk seldom reaches or is too short for.

use gangline_protocol::limits::{ATTEMPTS_SETTLED_MAX, WORKERS_REMEMBERED_MAX};
use gangline_protocol::{
    ExchangeReply, ExchangeRequest, ItemId, Json, LeaseReply, LeaseRequest, NewItem, QueueName,
    Settle, SettleOutcome, SettleStatus,
};
use gangline_server::queue::{Command, Input, Query, Reply};
use gangline_server::store::Store;
use gangline_tests::TestRedis;
use serde_json::value::RawValue;

use super::{Pair, refusal};

/// Ended sessions that are told apart from unknown ones.
const KEPT: u64 = 1_024;

/// Sessions that are forgotten.
const FORGOTTEN: u64 = 3;

/// A pair on one queue, a microsecond a step.
struct Case {
    redis: TestRedis,
    pair: Pair,
    now_us: u64,
}

impl Case {
    async fn start() -> Self {
        // What is kept like this promises what the log of the other store does.
        let redis = TestRedis::start_synced_in_memory(&[]);
        Self {
            pair: Pair::open(&redis.url).await,
            redis,
            now_us: 1_700_000_000_000_000,
        }
    }

    async fn apply(&mut self, command: Command) -> Reply {
        self.now_us += 1;
        let (now_us, random) = (self.now_us, self.now_us);
        let (expected, got) = self.pair.apply(Input { now_us, random }, command).await;
        assert_eq!(format!("{expected:?}"), format!("{got:?}"));
        got.unwrap()
    }

    async fn look(&mut self, query: Query) {
        let expected = self.pair.queues.read(self.now_us / 1_000, query.clone());
        let got = refusal(self.pair.store.query(query).await);
        assert_eq!(format!("{expected:?}"), format!("{got:?}"));
    }

    async fn push(&mut self, items: Vec<NewItem>) {
        self.apply(Command::Push {
            queue: "q".parse().unwrap(),
            items,
            batch: None,
            seal: false,
        })
        .await;
    }

    /// Calls for the first time, and asks for an item.
    async fn first_call(&mut self, worker: &str, nonce: u64) -> ExchangeReply {
        let mut request = ExchangeRequest::new(worker.parse().unwrap());
        request.nonce = Some(nonce);
        request.lease = Some(LeaseRequest {
            number: 1,
            max: 1,
            starting: None,
            wait_ms: 0,
        });
        self.exchange(request).await
    }

    async fn exchange(&mut self, request: ExchangeRequest) -> ExchangeReply {
        let command = Command::Exchange {
            queue: "q".parse().unwrap(),
            request: Box::new(request),
        };
        match self.apply(command).await {
            Reply::Exchange(reply) => *reply,
            other => panic!("no answer to an exchange: {other:?}"),
        }
    }
}

fn item(priority: u8) -> NewItem {
    let mut item = NewItem::new(RawValue::NULL.to_owned().into());
    item.priority = Some(priority);
    item
}

#[tokio::test]
async fn first_calls_are_known_for_as_long_as_the_ends_of_their_sessions() {
    if !TestRedis::is_installed() {
        return;
    }
    let mut case = Case::start().await;
    case.push(Vec::new()).await;
    // Each one replaces the one before; the last stays open.
    let last = FORGOTTEN + KEPT;
    for nonce in 0..=last {
        case.first_call("w", nonce).await;
    }
    for nonce in (FORGOTTEN..=last).rev() {
        let reply = case.first_call("w", nonce).await;
        assert_eq!(reply.session.is_some(), nonce == last);
        assert_eq!(reply.session_end.is_some(), nonce != last);
    }
    let kept = case.redis.ask(&["ZCARD", "gangline:{default.q}:ended"]);
    assert_eq!(kept, (2 * KEPT).to_string());
    // One that is forgotten is a first call again.
    let reply = case.first_call("w", FORGOTTEN - 1).await;
    assert!(reply.session.is_some());
}

#[tokio::test]
async fn the_repeat_of_a_last_retry_is_answered_as_the_first_time() {
    if !TestRedis::is_installed() {
        return;
    }
    let mut case = Case::start().await;
    let mut once = item(5);
    once.max_attempts = Some(1);
    case.push(vec![once]).await;
    let opened = case.first_call("w", 1).await;
    let Some(LeaseReply::Items(items)) = opened.lease else {
        panic!("nothing was leased: {opened:?}");
    };
    let mut request = ExchangeRequest::new("w".parse().unwrap());
    request.session = opened.session;
    request.settles = vec![Settle {
        id: items[0].id,
        lease: items[0].lease,
        outcome: SettleOutcome::Retry,
        result: None,
        error: None,
        delay_ms: None,
        spawn: Vec::new(),
        stop: None,
    }];
    for _ in 0..2 {
        let reply = case.exchange(request.clone()).await;
        assert_eq!(reply.settled[0].status, SettleStatus::Ok);
    }
}

#[tokio::test]
async fn an_item_that_runs_alone_does_not_wait_for_cancelled_ones() {
    if !TestRedis::is_installed() {
        return;
    }
    let mut case = Case::start().await;
    let mut poison = item(2);
    poison.max_attempts = Some(2);
    case.push(vec![poison]).await;
    case.first_call("w1", 1).await;
    case.apply(Command::Revoke {
        queue: "q".parse().unwrap(),
        worker: "w1".parse().unwrap(),
        counted: true,
    })
    .await;
    case.push(vec![item(9), item(0), item(9)]).await;
    for (worker, expected) in [("w2", ItemId(2)), ("w3", ItemId(1)), ("w4", ItemId(3))] {
        if worker == "w3" {
            case.apply(Command::Cancel {
                queue: "q".parse().unwrap(),
                id: ItemId(4),
            })
            .await;
        }
        let reply = case.first_call(worker, 1).await;
        let Some(LeaseReply::Items(items)) = reply.lease else {
            panic!("nothing was leased: {reply:?}");
        };
        assert_eq!(items[0].id, expected);
    }
}

#[tokio::test]
async fn workers_are_known_until_so_many_have_left_after_them() {
    if !TestRedis::is_installed() {
        return;
    }
    let mut case = Case::start().await;
    case.push(Vec::new()).await;
    let known = async |case: &Case, worker: &str| {
        let query = Query::Worker {
            queue: "q".parse().unwrap(),
            worker: worker.parse().unwrap(),
        };
        let expected = case.pair.queues.read(case.now_us / 1_000, query.clone());
        let got = refusal(case.pair.store.query(query).await);
        assert_eq!(format!("{expected:?}"), format!("{got:?}"));
        match got {
            Ok(Reply::Worker(record)) => record.had_session,
            other => panic!("no answer to a look at a worker: {other:?}"),
        }
    };
    for number in 0..=WORKERS_REMEMBERED_MAX {
        let worker = format!("w{number}");
        let opened = case.first_call(&worker, 1).await;
        let mut request = ExchangeRequest::new(worker.parse().unwrap());
        (request.session, request.leave) = (opened.session, true);
        case.exchange(request).await;
        if number == 0 {
            assert_eq!(known(&case, "w0").await, Some(true));
            assert_eq!(known(&case, "nobody").await, Some(false));
        }
    }
    for (worker, had_session) in [("w0", None), ("w1", Some(true)), ("nobody", None)] {
        assert_eq!(known(&case, worker).await, had_session, "{worker}");
    }
    let kept = case
        .redis
        .ask(&["ZCARD", "gangline:{default.q}:remembered"]);
    assert_eq!(kept, WORKERS_REMEMBERED_MAX.to_string());
}

/// Results are kept in rows of many; a page of them may begin and end in the middle of one.
#[tokio::test]
async fn a_page_of_results_begins_and_ends_anywhere() {
    if !TestRedis::is_installed() {
        eprintln!("SKIPPED: no redis-server on the PATH");
        return;
    }
    let mut case = Case::start().await;
    let (mut session, mut number) = (None, 0);
    for round in 0..40_usize {
        let count = [1, 2, 33, 70][round % 4];
        let mut items: Vec<NewItem> = (0..count).map(|_| item(5)).collect();
        if round % 3 == 0 {
            items[0].key = Some(format!("key-{round}").parse().unwrap());
        }
        case.push(items).await;
        number += 1;
        let mut request = ExchangeRequest::new("w".parse().unwrap());
        request.session = session;
        request.lease = Some(LeaseRequest {
            number,
            max: 100,
            starting: None,
            wait_ms: 0,
        });
        let reply = case.exchange(request).await;
        session = reply.session;
        let Some(LeaseReply::Items(held)) = reply.lease else {
            panic!("nothing to do: {reply:?}")
        };
        let mut request = ExchangeRequest::new("w".parse().unwrap());
        request.session = session;
        request.settles = held
            .iter()
            .map(|item| Settle {
                id: item.id,
                lease: item.lease,
                outcome: SettleOutcome::Done,
                result: Some(result(round, item.id)),
                error: None,
                delay_ms: None,
                spawn: Vec::new(),
                stop: None,
            })
            .collect();
        case.exchange(request).await;
    }
    for cursor in (0..1_100).step_by(7) {
        for max in [1, 40, 1_000] {
            case.look(Query::Results {
                queue: "q".parse().unwrap(),
                cursor,
                max,
            })
            .await;
        }
    }
    for id in (1..=1_060).step_by(23) {
        case.look(Query::Item {
            queue: "q".parse().unwrap(),
            id: ItemId(id),
        })
        .await;
    }
}

/// Some are short, and some rounds have long ones.
fn result(round: usize, id: ItemId) -> Json {
    let long = if round % 5 == 1 { 3_000 } else { 3 };
    let text = format!("\"{}-{}\"", id.0, "x".repeat(long));
    Json::from(RawValue::from_string(text).unwrap())
}

/// Keys lie in buckets that are split while more come.
#[tokio::test]
async fn a_key_is_known_however_many_there_are() {
    if !TestRedis::is_installed() {
        eprintln!("SKIPPED: no redis-server on the PATH");
        return;
    }
    let mut case = Case::start().await;
    let mut next = 0_u64;
    for round in 0..60_u64 {
        let count = [1, 400, 3, 33, 64][usize::try_from(round).unwrap() % 5];
        // Some that are new, and some of before and of this very push.
        let numbers = (0..count).map(|n| match n % 7 {
            3 => (round * 7_919 + n * 104_729) % (next + 1),
            _ => next + n,
        });
        let items = numbers.map(|number| {
            let mut keyed = item(5);
            keyed.key = Some(format!("key-{number}").parse().unwrap());
            keyed
        });
        case.push(items.collect()).await;
        next += count;
    }
    let again = (0..next).step_by(11).map(|number| {
        let mut keyed = item(5);
        keyed.key = Some(format!("key-{number}").parse().unwrap());
        keyed
    });
    case.push(again.collect()).await;
    let buckets = case.redis.ask(&["HLEN", "gangline:{default.q}:dedupe"]);
    assert!(buckets.parse::<u64>().unwrap() > 300, "{buckets} buckets");
}

fn queue() -> QueueName {
    "q".parse().unwrap()
}

/// More than one sweep ends: sessions, each with more leases than eight of them may give back at
/// once, then time limits and delays that end in the same millisecond.
#[tokio::test]
async fn a_sweep_ends_the_same_part_of_what_time_has_ended() {
    const SESSIONS: usize = 20;
    const LEASES: u32 = 75;
    const ALIKE: usize = 700;
    const HEARTBEAT_US: u64 = 5_000_000;
    if !TestRedis::is_installed() {
        return;
    }
    let mut case = Case::start().await;
    for _ in 0..SESSIONS / 10 {
        case.push((0..10 * LEASES).map(|_| item(3)).collect()).await;
    }
    for n in 0..SESSIONS {
        // Some hold little, so that a sweep ends at its eighth session, too.
        let max = if n > SESSIONS / 2 { 1 } else { LEASES };
        case.lease(&format!("w{n:02}"), max).await;
    }
    for steps in 0.. {
        case.now_us += HEARTBEAT_US;
        if case.step().await == 0 {
            // Theirs are over at the third.
            assert!(steps >= 4, "{steps} steps were enough");
            break;
        }
    }
    let limited = (0..ALIKE).map(|_| {
        let mut limited = item(9);
        limited.time_limit_ms = Some(1);
        limited
    });
    case.push(limited.collect()).await;
    let mut held = case.lease("slow", ALIKE as u32).await;
    let delayed = (0..ALIKE).map(|_| {
        let mut delayed = item(9);
        delayed.delay_ms = Some(1);
        delayed
    });
    case.push(delayed.collect()).await;
    // A session that shows signs of life outlives the limits of what it holds.
    held.lease = None;
    for _ in 0..8 {
        case.now_us += HEARTBEAT_US;
        case.exchange(held.clone()).await;
        case.look_at_all().await;
    }
}

impl Case {
    /// Opens a session that leases so many; returns the request that continues it.
    async fn lease(&mut self, worker: &str, max: u32) -> ExchangeRequest {
        let mut request = ExchangeRequest::new(worker.parse().unwrap());
        request.nonce = Some(1);
        request.lease = Some(LeaseRequest {
            number: 1,
            max,
            starting: Some(max / 2),
            wait_ms: 0,
        });
        let reply = self.exchange(request.clone()).await;
        let Some(LeaseReply::Items(items)) = reply.lease else {
            panic!("nothing was leased: {reply:?}");
        };
        assert_eq!(items.len(), max as usize);
        request.session = reply.session;
        // What did not start with its lease starts with the next call.
        let rest = items.iter().skip(max as usize / 2).map(|item| item.id);
        request.started = rest.collect();
        request
    }

    /// Lets time pass in one step; returns how many sessions are left.
    async fn step(&mut self) -> u64 {
        let (queue, paused) = (queue(), false);
        let status = self.apply(Command::Pause { queue, paused }).await;
        self.look_at_all().await;
        match status {
            Reply::Status(status) => status.sessions,
            other => panic!("no status: {other:?}"),
        }
    }

    async fn look_at_all(&mut self) {
        let status = Query::Status { queue: queue() };
        let workers = Query::Workers { queue: queue() };
        let items = [ItemId(0), ItemId(1_000), ItemId(2_000)].map(|after| Query::Items {
            queue: queue(),
            state: None,
            after,
            max: 1_000,
        });
        for query in [status, workers].into_iter().chain(items) {
            self.look(query).await;
        }
    }
}

/// More pushes than there are marks, the oldest leased or cancelled one after the other.
#[tokio::test]
async fn the_oldest_ready_item_is_the_same_however_old_the_queue_is() {
    const PUSHES: u64 = 700;
    if !TestRedis::is_installed() {
        return;
    }
    let mut case = Case::start().await;
    for n in 0..PUSHES {
        case.push(vec![item((n * n % 3) as u8)]).await;
        case.now_us += 1_000 * (n * 7_919 % 9_000);
    }
    let mut request = case.lease("w", 1).await;
    for n in 2..PUSHES / 4 {
        if n % 3 == 0 {
            let (queue, id) = (queue(), ItemId(n * 2));
            case.apply(Command::Cancel { queue, id }).await;
        } else {
            request.started = Vec::new();
            request.lease = Some(LeaseRequest {
                number: n,
                max: 4,
                starting: None,
                wait_ms: 0,
            });
            case.exchange(request.clone()).await;
        }
        case.look(Query::OldestReady).await;
    }
}

/// Items that are settled for good keep their history while they are among the newest of those.
#[tokio::test]
async fn the_histories_that_are_kept_are_the_same() {
    if !TestRedis::is_installed() {
        eprintln!("SKIPPED: no redis-server on the PATH");
        return;
    }
    let mut case = Case::start().await;
    let all = ATTEMPTS_SETTLED_MAX as u64 + 20;
    for _ in 0..all / 510 {
        case.push((0..510).map(|_| item(5)).collect()).await;
    }
    let mut request = ExchangeRequest::new("w".parse().unwrap());
    for number in 1..=4 {
        request.lease = Some(LeaseRequest {
            number,
            max: 510,
            starting: None,
            wait_ms: 0,
        });
        let reply = case.exchange(request.clone()).await;
        request.session = reply.session;
        let Some(LeaseReply::Items(items)) = reply.lease else {
            panic!("nothing was leased: {:?}", reply.lease);
        };
        let settle = |item: gangline_protocol::LeasedItem| Settle {
            id: item.id,
            lease: item.lease,
            // The first time it fails, with an error that is longer than what is kept of it.
            outcome: match item.attempt {
                1 => SettleOutcome::Retry,
                _ => SettleOutcome::Done,
            },
            result: None,
            error: (item.attempt == 1).then(|| "ä€".repeat(150).into()),
            delay_ms: Some(0),
            spawn: Vec::new(),
            stop: None,
        };
        request.settles = items.into_iter().map(settle).collect();
    }
    request.lease = None;
    case.exchange(request).await;
    for id in (1..=all).map(ItemId) {
        case.look(Query::Item {
            queue: "q".parse().unwrap(),
            id,
        })
        .await;
    }
    let fields = case.redis.ask(&["HLEN", "gangline:{default.q}:live"]);
    // The histories, their ring, and how many there were.
    assert_eq!(fields, (2 * ATTEMPTS_SETTLED_MAX + 1).to_string());
}
