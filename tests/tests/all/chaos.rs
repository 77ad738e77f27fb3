//! Services, workers and Redis that die, stand still and come back at random, while a history is
//! taken down of what everybody has asked and heard; in the end it must be one that can be true.
//!
//! `GANGLINE_CHAOS_SEED` repeats the choices of a run, though not its timing. With
//! `GANGLINE_TEST_FULL` set (`tests/run --full`) there are many rounds, and pauses of Redis that
//! are longer than a session.

mod people;

use std::time::Duration;

use gangline_protocol::SettleStatus;
use gangline_tests::history::{Call, Event, History};
use gangline_tests::redis::Keeping;
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Dice, Replica, TestRedis, full_or};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
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

/// What may break.
struct Stage {
    dice: Dice,
    /// None for services that have their own store.
    redis: Option<TestRedis>,
    replicas: Vec<Replica>,
    scene: Scene,
    workers: Vec<Worker>,
    /// Workers that there ever were.
    names: usize,
}

impl Stage {
    async fn new(seed: u64, redis: Option<TestRedis>, replicas: Vec<Replica>) -> Self {
        let urls: Vec<&str> = replicas.iter().map(|one| &*one.url).collect();
        let scene = Scene::new(Api::of_replicas(&urls, Some(TOKEN)));
        // No item runs out of attempts by its workers' deaths.
        scene
            .get(Method::PUT, "", Some(json!({"maxAttempts": 100})))
            .await;
        let mut stage = Self {
            dice: Dice(seed),
            redis,
            replicas,
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

    /// Breaks one thing, and repairs it.
    async fn break_something(&mut self) {
        let nth = usize::try_from(self.dice.below(self.replicas.len() as u64)).unwrap();
        let moment = Duration::from_millis(self.dice.below(400));
        let pause = Duration::from_millis(500 + self.dice.below(1_500));
        match (self.dice.below(10), &mut self.redis) {
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
            (0..=3, _) => self.replicas[nth].signal(Signal::SIGKILL),
            (4, _) => {
                self.replicas[nth].signal(Signal::SIGSTOP);
                sleep(pause).await;
                self.replicas[nth].signal(Signal::SIGCONT);
            }
            (5 | 6, _) => self.kill_a_worker().await,
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

    /// Lets things break for a while, waits for the end, and checks what was heard.
    async fn play(mut self, seed: u64) -> String {
        let stop = CancellationToken::new();
        let dice = Dice(self.dice.roll());
        let producer = tokio::spawn(self.scene.clone().produce(dice, stop.clone()));
        let observer = tokio::spawn(self.scene.clone().observe());
        let until = Instant::now() + storm();
        while Instant::now() < until {
            let breaking = timeout(DEADLINE, self.break_something()).await;
            breaking.expect("a service that comes back");
        }
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
            "GANGLINE_CHAOS_SEED={seed}: {} of {} events\n{}",
            words.len(),
            history.events.len(),
            words.join("\n")
        );
        // A run in which nothing happened would show nothing.
        let results = history.ending.results.len();
        assert!(results > 50, "seed {seed}: {results} results");
        summary(&history)
    }
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
        let arguments = ["--redis", &redis.url, "--redis-durability", "aof"];
        let replicas = vec![Replica::start(&arguments), Replica::start(&arguments)];
        let stage = Stage::new(seed, Some(redis), replicas).await;
        println!("{}", stage.play(seed).await);
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
        let stage = Stage::new(seed, None, replicas).await;
        println!("{}", stage.play(seed).await);
    }
}
