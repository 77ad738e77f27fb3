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
use gangline_server::store::redis::{Redis, Time};

struct Bench {
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

    /// Pushes, leases and settles in batches; several workers at a time.
    async fn lives(&self, name: &str, workers: usize, batch: usize, rounds: usize) {
        let queue: QueueName = name.parse().unwrap();
        let (cpu, begin) = (self.cpu_us().await, Instant::now());
        let all = (0..workers).map(|worker| self.live(&queue, worker, batch, rounds));
        futures::future::join_all(all).await;
        let items = (workers * batch * rounds) as f64;
        println!(
            "{name}: {:.0} life cycles/s ({workers} workers, batches of {batch}), {:.2} us of \
             Redis each",
            items / begin.elapsed().as_secs_f64(),
            (self.cpu_us().await - cpu) / items
        );
        self.store.execute(Command::Delete { queue }).await.unwrap();
    }

    async fn live(&self, queue: &QueueName, worker: usize, batch: usize, rounds: usize) {
        let mut session: Option<SessionId> = None;
        let mut number = 0;
        for _ in 0..rounds {
            let items = (0..batch).map(|n| item(n, false)).collect();
            self.push(queue, items).await;
            let mut held: Vec<(ItemId, gangline_protocol::LeaseNumber)> = Vec::new();
            while held.len() < batch {
                number += 1;
                let mut request = ExchangeRequest::new(format!("w{worker}").parse().unwrap());
                request.session = session;
                request.lease = Some(LeaseRequest {
                    number,
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
            let mut request = ExchangeRequest::new(format!("w{worker}").parse().unwrap());
            request.session = session;
            request.settles = held
                .into_iter()
                .map(|(id, lease)| done(id, lease))
                .collect();
            self.exchange(queue, request).await;
        }
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

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("a URL");
    let count = arguments
        .next()
        .map_or(1_000_000, |count| count.parse().unwrap());
    let random = Arc::new(SystemRandom);
    let store = Redis::open(&url, Time::Redis, random, Hub::default())
        .await
        .unwrap();
    let client = redis::Client::open(url.as_str()).unwrap();
    let redis = client.get_multiplexed_async_connection().await.unwrap();
    let bench = Bench { store, redis };
    bench.fill("plain", count, |n| item(n, false)).await;
    bench.fill("with-key", count, |n| item(n, true)).await;
    bench
        .fill("mixed-priorities", count, |n| NewItem {
            priority: Some((n * 7 % 10) as u8),
            ..item(n, false)
        })
        .await;
    bench.lives("batches", 4, 100, count / 2_000).await;
    bench.lives("single", 32, 1, count / 2_000).await;
}
