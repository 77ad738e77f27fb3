//! Measures the Redis store: bytes a waiting item, and life cycles a second with the processor
//! time that Redis spends on them.
//!
//! `cargo run --release -p gangline-server --example measure_redis URL [ITEMS]`, on an empty Redis.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement prints, reads the clock, and stops at the first surprise"
)]

use std::sync::Arc;
use std::time::Instant;

use gangline_protocol::{
    ExchangeRequest, ItemId, LeaseReply, LeaseRequest, NewItem, QueueName, SessionId, Settle,
    SettleOutcome,
};
use gangline_server::clock::SystemRandom;
use gangline_server::hub::Hub;
use gangline_server::queue::{Command, Reply};
use gangline_server::store::Store;
use gangline_server::store::redis::{Durability, Redis, Time};

/// Producers and workers in one, at a time.
const WORKERS: usize = 4;

/// Measurements of which the median counts.
const TURNS: usize = 3;

const BARE: [&str; 3] = [
    include_str!("../../tests/bench/bare/push.lua"),
    include_str!("../../tests/bench/bare/lease.lua"),
    include_str!("../../tests/bench/bare/settle.lua"),
];

/// Microseconds that calls of a kind took, all together.
#[derive(Default)]
struct Times {
    push: f64,
    lease: f64,
    settle: f64,
}

struct Bench {
    url: String,
    store: Redis,
    redis: redis::aio::MultiplexedConnection,
}

fn item(number: usize, key: bool) -> NewItem {
    let text = format!("\"{number:098}\"");
    let mut item = NewItem::new(Arc::from(
        serde_json::value::RawValue::from_string(text).unwrap(),
    ));
    item.key = key.then(|| format!("key-{number}").parse().unwrap());
    item
}

impl Bench {
    async fn info(&self, section: &str, name: &str) -> Option<String> {
        let mut redis = self.redis.clone();
        let mut cmd = redis::cmd("INFO");
        let text: String = cmd.arg(section).query_async(&mut redis).await.unwrap();
        let mut lines = text.lines().map(str::to_owned);
        lines.find_map(|line| line.strip_prefix(name).map(|rest| rest[1..].to_owned()))
    }

    async fn number(&self, section: &str, name: &str) -> f64 {
        let text = self.info(section, name).await.unwrap();
        text.trim().parse().unwrap()
    }

    /// Bytes in use, once deleted queues are really gone.
    async fn memory(&self) -> f64 {
        while self.number("memory", "lazyfree_pending_objects").await > 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.number("memory", "used_memory").await
    }

    /// Microseconds of processor time that Redis' one thread has used.
    async fn cpu_us(&self) -> f64 {
        let user = self.number("cpu", "used_cpu_user_main_thread").await;
        (user + self.number("cpu", "used_cpu_sys_main_thread").await) * 1e6
    }

    async fn push(&self, queue: &QueueName, items: Vec<NewItem>) {
        let command = Command::Push {
            queue: queue.clone(),
            items,
            batch: None,
            seal: false,
        };
        self.store.execute(command).await.unwrap();
    }

    async fn fill(&self, name: &str, count: usize, make: impl Fn(usize) -> NewItem) {
        let queue: QueueName = name.parse().unwrap();
        let (before, cpu, begin) = (self.memory().await, self.cpu_us().await, Instant::now());
        for from in (0..count).step_by(1_000) {
            self.push(&queue, (from..from + 1_000).map(&make).collect())
                .await;
        }
        let items = count as f64;
        let (seconds, cpu) = (begin.elapsed().as_secs_f64(), self.cpu_us().await - cpu);
        let bytes = (self.memory().await - before) / items;
        println!(
            "{name}: {:.1} bytes an item over its payload of 100; {:.0} items/s pushed, {:.2} us \
             of Redis each",
            bytes - 100.0,
            items / seconds,
            cpu / items
        );
        self.store.execute(Command::Delete { queue }).await.unwrap();
    }

    /// The life cycle beside that of a bare script, in turns; prints medians.
    async fn lives(&self, batch: usize, rounds: usize) {
        let (mut own, mut bare) = (Vec::new(), Vec::new());
        let mut times = Times::default();
        let mut cpu = [0.0; 2];
        for _ in 0..TURNS {
            let queue: QueueName = format!("lives-{batch}").parse().unwrap();
            let (before, begin) = (self.cpu_us().await, Instant::now());
            let all = (0..WORKERS).map(|worker| self.live(&queue, worker, batch, rounds));
            for one in futures::future::join_all(all).await {
                times.push += one.push;
                times.lease += one.lease;
                times.settle += one.settle;
            }
            own.push(begin.elapsed().as_secs_f64());
            cpu[0] += self.cpu_us().await - before;
            self.store.execute(Command::Delete { queue }).await.unwrap();
            self.memory().await;
            let (before, begin) = (self.cpu_us().await, Instant::now());
            let all = (0..WORKERS).map(|_| bare_life(&self.url, batch, rounds));
            futures::future::join_all(all).await;
            bare.push(begin.elapsed().as_secs_f64());
            cpu[1] += self.cpu_us().await - before;
        }
        let items = (WORKERS * batch * rounds) as f64;
        let median = |mut seconds: Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            items / seconds[TURNS / 2]
        };
        let (own, bare) = (median(own), median(bare));
        let each = items * TURNS as f64;
        println!(
            "batches of {batch}: {own:.0} life cycles/s, {:.2} us of Redis each; bare script \
             {bare:.0}/s, {:.2} us; ratio {:.2}; calls took push {:.0}, lease {:.0}, settle {:.0} us",
            cpu[0] / each,
            cpu[1] / each,
            own / bare,
            times.push / (each / batch as f64),
            times.lease / (each / batch as f64),
            times.settle / (each / batch as f64),
        );
    }

    async fn live(&self, queue: &QueueName, worker: usize, batch: usize, rounds: usize) -> Times {
        let mut session: Option<SessionId> = None;
        let mut times = Times::default();
        for number in 1..=rounds as u64 {
            let begin = Instant::now();
            let items = (0..batch).map(|n| item(n, false)).collect();
            self.push(queue, items).await;
            let pushed = Instant::now();
            let mut held: Vec<(ItemId, gangline_protocol::LeaseNumber)> = Vec::new();
            let mut calls = number * 1_000;
            while held.len() < batch {
                calls += 1;
                let mut request = ExchangeRequest::new(format!("w{worker}").parse().unwrap());
                request.session = session;
                request.lease = Some(LeaseRequest {
                    number: calls,
                    max: (batch - held.len()) as u32,
                    starting: None,
                    wait_ms: 0,
                });
                let reply = self.exchange(queue, request).await;
                session = reply.session;
                if let Some(LeaseReply::Items(items)) = reply.lease {
                    held.extend(items.iter().map(|item| (item.id, item.lease)));
                }
            }
            let leased = Instant::now();
            let mut request = ExchangeRequest::new(format!("w{worker}").parse().unwrap());
            request.session = session;
            request.settles = held
                .into_iter()
                .map(|(id, lease)| done(id, lease))
                .collect();
            self.exchange(queue, request).await;
            times.push += (pushed - begin).as_secs_f64() * 1e6;
            times.lease += (leased - pushed).as_secs_f64() * 1e6;
            times.settle += leased.elapsed().as_secs_f64() * 1e6;
        }
        times
    }

    async fn exchange(
        &self,
        queue: &QueueName,
        request: ExchangeRequest,
    ) -> gangline_protocol::ExchangeReply {
        let (queue, request) = (queue.clone(), Box::new(request));
        let reply = self
            .store
            .execute(Command::Exchange { queue, request })
            .await;
        let Ok(Reply::Exchange(reply)) = reply else {
            panic!("{reply:?}")
        };
        *reply
    }
}

fn done(id: ItemId, lease: gangline_protocol::LeaseNumber) -> Settle {
    Settle {
        id,
        lease,
        outcome: SettleOutcome::Done,
        result: None,
        error: None,
        delay_ms: None,
        spawn: Vec::new(),
        stop: None,
    }
}

/// The same by bare scripts: no sessions, no expiry, no keys, no results.
async fn bare_life(url: &str, batch: usize, rounds: usize) {
    let client = redis::Client::open(url).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut hashes: Vec<String> = Vec::new();
    for script in BARE {
        let mut cmd = redis::cmd("SCRIPT");
        let hash = cmd.arg("LOAD").arg(script).query_async(&mut redis).await;
        hashes.push(hash.unwrap());
    }
    let call = |script: usize, keys: [&str; 2]| {
        let mut cmd = redis::cmd("EVALSHA");
        let tagged = keys.map(|key| format!("{{bare}}:{key}"));
        cmd.arg(&hashes[script]).arg(2).arg(&tagged);
        cmd
    };
    for _ in 0..rounds {
        let mut push = call(0, ["ready", "last"]);
        for number in 0..batch {
            push.arg(format!("\"{number:098}\""));
        }
        push.exec_async(&mut redis).await.unwrap();
        let mut lease = call(1, ["ready", "leased"]);
        lease.arg(batch).arg("01234567");
        let items: Vec<Vec<u8>> = lease.query_async(&mut redis).await.unwrap();
        let mut settle = call(2, ["leased", "done"]);
        for item in &items {
            settle.arg(&item[..8]);
        }
        settle.exec_async(&mut redis).await.unwrap();
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("a URL");
    let count = arguments
        .next()
        .map_or(1_000_000, |count| count.parse().unwrap());
    let random = Arc::new(SystemRandom);
    let store = Redis::open(
        &url,
        Durability::Memory,
        Time::Redis,
        random,
        Hub::default(),
    )
    .await
    .unwrap();
    let client = redis::Client::open(url.as_str()).unwrap();
    let redis = client.get_multiplexed_async_connection().await.unwrap();
    let bench = Bench { url, store, redis };
    bench.fill("plain", count, |n| item(n, false)).await;
    bench.fill("with-key", count, |n| item(n, true)).await;
    bench
        .fill("mixed-priorities", count, |n| NewItem {
            priority: Some((n * 7 % 10) as u8),
            ..item(n, false)
        })
        .await;
    for batch in [1, 10, 100, 1_000] {
        let items = if batch < 100 { count / 50 } else { count / 10 };
        bench.lives(batch, (items / WORKERS / batch).max(1)).await;
    }
}
