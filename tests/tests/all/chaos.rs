//! Services, workers and Redis that die, stand still and come back at random, while a history is
//! taken down of what everybody has asked and heard; in the end it must be one that can be true.
//!
//! `GANGLINE_CHAOS_SEED` repeats the choices of a run, though not its timing. With
//! `GANGLINE_TEST_FULL` set (`tests/run --full`) there are many rounds, and pauses of Redis that
//! are longer than a session.

mod failover;
mod people;
mod upgrade;

use std::time::Duration;

use gangline_protocol::{Certificate, SettleStatus};
use gangline_tests::history::{Call, Event, History};
use gangline_tests::redis::Keeping;
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Dice, Forwarder, Replica, TestRedis, full_or};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use people::{Scene, Worker};

const WORKERS: usize = 8;

/// How long a queue may take to end when nothing breaks any more.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long things break in a round.
fn storm() -> Duration {
    full_or(Duration::from_secs(60), Duration::from_secs(12))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is configured by its environment"
)]
fn seed(round: u64) -> u64 {
    let given = std::env::var("GANGLINE_CHAOS_SEED");
    let first = given.map_or_else(
        |_| u64::from(std::process::id()),
        |seed| seed.parse().expect("GANGLINE_CHAOS_SEED to be a number"),
    );
    first.wrapping_add(round)
}

/// No item runs out of attempts by its workers' deaths.
fn patient() -> Value {
    json!({"maxAttempts": 100})
}

/// What may break.
struct Stage {
    seed: u64,
    dice: Dice,
    /// None for services that have their own store.
    redis: Option<TestRedis>,
    replicas: Vec<Replica>,
    /// Their ways to Redis, where these can be cut.
    ways: Vec<Forwarder>,
    scene: Scene,
    workers: Vec<Worker>,
    /// Workers that there ever were.
    names: usize,
}

impl Stage {
    async fn new(
        seed: u64,
        settings: Value,
        redis: Option<TestRedis>,
        replicas: Vec<Replica>,
    ) -> Self {
        let urls: Vec<&str> = replicas.iter().map(|one| &*one.url).collect();
        let scene = Scene::new(Api::of_replicas(&urls, Some(TOKEN)));
        scene.get(Method::PUT, "", Some(settings)).await;
        let mut stage = Self {
            seed,
            dice: Dice(seed),
            redis,
            replicas,
            ways: Vec::new(),
            scene,
            workers: Vec::new(),
            names: 0,
        };
        for _ in 0..WORKERS {
            stage.hire();
        }
        stage
    }

    fn hire(&mut self) {
        self.names += 1;
        let name = format!("w{}", self.names);
        self.put_to_work(&name);
    }

    fn put_to_work(&mut self, name: &str) {
        let dice = Dice(self.dice.roll());
        self.workers.push(Worker::start(&self.scene, name, dice));
    }

    /// Waits until more has been done than by now.
    async fn some_results(&self) {
        const SOME: u64 = 20;
        let done = async || self.scene.get(Method::GET, "", None).await["counts"]["done"].as_u64();
        let wait = async {
            let before = done().await.unwrap();
            while done().await.unwrap() < before + SOME {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, wait).await.expect("work that goes on");
    }

    /// Breaks one thing, and repairs it.
    async fn break_something(&mut self) {
        let nth = usize::try_from(self.dice.below(self.replicas.len() as u64)).unwrap();
        let moment = Duration::from_millis(self.dice.below(400));
        let pause = Duration::from_millis(500 + self.dice.below(1_500));
        match (self.dice.below(12), &mut self.redis) {
            (0 | 1, Some(redis)) => {
                redis.kill();
                sleep(moment).await;
                redis.restart();
            }
            (2, Some(redis)) => {
                redis.signal(Signal::SIGSTOP);
                sleep(pause).await;
                redis.signal(Signal::SIGCONT);
            }
            // It may still read its log.
            (3, Some(redis)) => redis.until_it_says(&["FUNCTION", "FLUSH"], "OK"),
            (4, Some(_)) => self.ways[nth].cut(),
            (0..=5, _) => self.replicas[nth].signal(Signal::SIGKILL),
            (6, _) => {
                self.replicas[nth].signal(Signal::SIGSTOP);
                sleep(pause).await;
                self.replicas[nth].signal(Signal::SIGCONT);
            }
            (7 | 8, _) => self.kill_a_worker().await,
            _ => self.doubt_a_worker().await,
        }
        sleep(moment).await;
    }

    async fn kill_a_worker(&mut self) {
        let nth = usize::try_from(self.dice.below(self.workers.len() as u64)).unwrap();
        let worker = self.workers.swap_remove(nth);
        let name = worker.name.clone();
        worker.kill().await;
        if self.dice.one_in(2) {
            // Started again, as a container in its Pod.
            self.put_to_work(&name);
        } else {
            self.scene.revoke(&name).await;
            self.hire();
        }
    }

    /// Takes a worker for dead that only sleeps, and settles what it holds when it wakes up.
    async fn doubt_a_worker(&mut self) {
        let nth = usize::try_from(self.dice.below(self.workers.len() as u64)).unwrap();
        let nap = Duration::from_millis(200 + self.dice.below(800));
        let worker = &self.workers[nth];
        worker.put_to_sleep(nap).await;
        self.scene.revoke(&worker.name).await;
        // Its name gets no session for a minute.
        self.hire();
    }

    /// Opens the queue to everybody.
    fn begin(&mut self) -> Play {
        let stop = CancellationToken::new();
        let dice = Dice(self.dice.roll());
        Play {
            producer: tokio::spawn(self.scene.clone().produce(dice, stop.clone())),
            observer: tokio::spawn(self.scene.clone().observe()),
            stop,
        }
    }

    /// Lets things break for a while.
    async fn storm(&mut self) {
        let until = Instant::now() + storm();
        while Instant::now() < until {
            let breaking = timeout(DEADLINE, self.break_something()).await;
            breaking.expect("a service that comes back");
        }
        // A run in which nothing was done would show nothing.
        self.some_results().await;
    }

    /// Waits for the end, and checks what was heard.
    async fn finish(mut self, play: Play) -> String {
        let Play {
            producer,
            observer,
            stop,
        } = play;
        stop.cancel();
        let ended = timeout(DEADLINE, async {
            producer.await.unwrap();
            for worker in std::mem::take(&mut self.workers) {
                worker.end().await;
            }
            observer.await.unwrap()
        })
        .await;
        let certificate = ended.ok();
        let ending = self.scene.ending(certificate).await;
        let history = self.scene.recorder.history(ending);
        let violations = history.violations();
        let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert!(
            words.is_empty(),
            "GANGLINE_CHAOS_SEED={}: {} of {} events\n{}",
            self.seed,
            words.len(),
            history.events.len(),
            words.join("\n")
        );
        summary(&history)
    }
}

/// Who is busy beside the workers.
struct Play {
    producer: JoinHandle<()>,
    observer: JoinHandle<Certificate>,
    stop: CancellationToken,
}

/// What was seen of the storm, for whoever looks at the output.
fn summary(history: &History) -> String {
    let count = |wanted: fn(&Event) -> bool| history.events.iter().filter(|e| wanted(e)).count();
    format!(
        "{} events, {} leases, {} settles, {} workers killed, {} settles that came too late, {} calls never answered, {} items, \
         {} results",
        history.events.len(),
        count(|event| matches!(event.call, Call::Lease)),
        count(|event| matches!(event.call, Call::Settle { .. })),
        count(|event| matches!(event.call, Call::Crash(_))),
        count(|event| {
            let settled = event.heard.as_ref().and_then(|(_, heard)| heard.settled);
            settled.is_some_and(|status| status != SettleStatus::Ok)
        }),
        count(|event| event.heard.is_none() && !matches!(event.call, Call::Crash(_))),
        history.ending.items.len(),
        history.ending.results.len()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_services_and_workers_that_die_and_stand_still_break_no_promise() {
    if !TestRedis::is_installed() {
        return;
    }
    for round in 0..full_or(20, 1) {
        let seed = seed(round);
        println!("GANGLINE_CHAOS_SEED={seed}");
        let redis = TestRedis::start(Keeping::Always);
        let (mut ways, mut replicas) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let way = Forwarder::start(redis.port(), None).await;
            let url = format!("redis://127.0.0.1:{}", way.port);
            replicas.push(Replica::start(&[
                "--redis",
                &url,
                "--redis-durability",
                "aof",
            ]));
            ways.push(way);
        }
        let mut stage = Stage::new(seed, patient(), Some(redis), replicas).await;
        stage.ways = ways;
        let play = stage.begin();
        stage.storm().await;
        println!("{}", stage.finish(play).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_its_own_store_that_dies_and_stands_still_breaks_no_promise() {
    for round in 0..full_or(20, 1) {
        let seed = seed(round);
        println!("GANGLINE_CHAOS_SEED={seed}");
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_str().unwrap();
        let replicas = vec![Replica::start(&["--data-dir", data])];
        let mut stage = Stage::new(seed, patient(), None, replicas).await;
        let play = stage.begin();
        stage.storm().await;
        println!("{}", stage.finish(play).await);
    }
}

/// Without a death of a worker no session ends, and no attempt is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_that_are_longer_than_a_session_end_none() {
    if !TestRedis::is_installed() {
        return;
    }
    let seed = seed(0);
    println!("GANGLINE_CHAOS_SEED={seed}");
    let outage = Duration::from_secs(full_or(40, 5));
    let session_ms = full_or(15_000, 3_000);
    let settings = json!({"sessionMs": session_ms, "heartbeatMs": session_ms / 10});
    let redis = TestRedis::start(Keeping::Always);
    let arguments = ["--redis", &redis.url];
    let replicas = vec![Replica::start(&arguments), Replica::start(&arguments)];
    let mut stage = Stage::new(seed, settings, Some(redis), replicas).await;
    let play = stage.begin();
    for _ in 0..full_or(3, 1) {
        stage.some_results().await;
        let redis = stage.redis.as_mut().unwrap();
        redis.signal(Signal::SIGSTOP);
        sleep(outage).await;
        redis.signal(Signal::SIGCONT);
        stage.some_results().await;
        let redis = stage.redis.as_mut().unwrap();
        redis.kill();
        sleep(outage).await;
        redis.restart();
        stage.some_results().await;
        for replica in &stage.replicas {
            replica.signal(Signal::SIGSTOP);
        }
        sleep(outage).await;
        for replica in &stage.replicas {
            replica.signal(Signal::SIGCONT);
        }
    }
    println!("{}", stage.finish(play).await);
}
