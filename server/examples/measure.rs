//! Measures the rules without a network: commands a second, memory, snapshots and restarts.
//!
//! `cargo run --release -p gangline-server --example measure [ITEMS]`
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement prints, reads the clock, and stops at the first surprise"
)]

use std::time::Instant;

use gangline_protocol::{
    ExchangeRequest, LeaseReply, LeaseRequest, NewItem, QueueName, Settle, SettleOutcome,
};
use gangline_server::queue::{Command, Effects, Input, Queues, Record, Reply};
use gangline_server::store::disk::{DataDir, Disk as _};

const BATCH: usize = 100;

struct Service {
    queues: Queues,
    now_us: u64,
    log: Vec<u8>,
}

impl Service {
    fn apply(&mut self, command: Command) -> Reply {
        self.now_us += 10;
        let input = Input {
            now_us: self.now_us,
            random: self.now_us,
        };
        let mut effects = Effects::default();
        let reply = self.queues.apply(input, command, &mut effects).unwrap();
        self.log.extend_from_slice(&effects.log);
        reply
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

fn report(what: &str, calls: usize, begin: Instant) {
    let seconds = begin.elapsed().as_secs_f64();
    let rate = calls as f64 / seconds;
    println!("{what:<28} {rate:>10.0} calls/s, {:.2} s in all", seconds);
}

fn main() {
    let count = std::env::args()
        .nth(1)
        .map_or(1_000_000, |count| count.parse().unwrap());
    let queue: QueueName = "q".parse().unwrap();
    let mut service = Service {
        queues: Queues::default(),
        now_us: 1_700_000_000_000_000,
        log: Vec::new(),
    };
    let text = format!("\"{}\"", "x".repeat(98));
    let before = resident_bytes();
    let begin = Instant::now();
    for _ in 0..count / BATCH {
        let payload = || {
            serde_json::value::RawValue::from_string(text.clone())
                .unwrap()
                .into()
        };
        let items = (0..BATCH).map(|_| NewItem::new(payload())).collect();
        service.apply(Command::Push {
            queue: queue.clone(),
            items,
            batch: None,
            seal: false,
        });
        // The log would be counted as memory of the items.
        service.log = Vec::new();
    }
    report("push of 100", count / BATCH, begin);
    let bytes = (resident_bytes() - before) as f64 / count as f64;
    println!("a ready item of 100 bytes    {bytes:>10.1} bytes");

    let dir = std::env::temp_dir().join(format!("gangline-measure-{}", std::process::id()));
    let mut disk = DataDir::open(&dir).unwrap();
    disk.load(&mut |_| Ok(())).unwrap();
    let begin = Instant::now();
    disk.snapshot(&mut service.queues.snapshot()).unwrap();
    println!(
        "snapshot                     {:>10.2} s",
        begin.elapsed().as_secs_f64()
    );
    drop(disk);
    let begin = Instant::now();
    let mut queues = Queues::default();
    let mut disk = DataDir::open(&dir).unwrap();
    disk.load(&mut |mut commit| {
        while !commit.is_empty() {
            let (record, rest) = postcard::take_from_bytes::<Record>(commit).unwrap();
            queues.replay(record).unwrap();
            commit = rest;
        }
        Ok(())
    })
    .unwrap();
    println!(
        "restart                      {:>10.2} s",
        begin.elapsed().as_secs_f64()
    );
    drop((disk, queues));
    std::fs::remove_dir_all(&dir).unwrap();

    let (mut lease_seconds, mut settle_seconds, mut calls) = (0.0, 0.0, 0);
    let mut request = ExchangeRequest::new("one".parse().unwrap());
    for number in 1..=(count / BATCH) as u64 {
        request.lease = Some(LeaseRequest {
            number,
            max: BATCH as u32,
            starting: None,
            wait_ms: 0,
        });
        let ask = |request: &ExchangeRequest| Command::Exchange {
            queue: queue.clone(),
            request: Box::new(request.clone()),
        };
        let command = ask(&request);
        let begin = Instant::now();
        let reply = service.apply(command);
        lease_seconds += begin.elapsed().as_secs_f64();
        let Reply::Exchange(reply) = reply else {
            unreachable!("an exchange has its reply")
        };
        request.session = reply.session;
        let Some(LeaseReply::Items(items)) = reply.lease else {
            break;
        };
        request.lease = None;
        request.settles = items
            .into_iter()
            .map(|item| Settle {
                id: item.id,
                lease: item.lease,
                outcome: SettleOutcome::Done,
                result: None,
                error: None,
                delay_ms: None,
                spawn: Vec::new(),
                stop: None,
            })
            .collect();
        let command = ask(&request);
        let begin = Instant::now();
        service.apply(command);
        settle_seconds += begin.elapsed().as_secs_f64();
        request.settles = Vec::new();
        service.log.clear();
        calls += 1;
    }
    for (what, seconds) in [
        ("lease of 100", lease_seconds),
        ("100 settles", settle_seconds),
    ] {
        println!(
            "{what:<28} {:>10.0} calls/s, {seconds:.2} s in all",
            calls as f64 / seconds
        );
    }
}
