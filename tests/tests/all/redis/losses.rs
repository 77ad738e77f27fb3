//! What Redis may lose, and what must hold even then.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use gangline_server::store::redis::Durability;
use gangline_tests::redis::Keeping;
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Queue, TestRedis, TestServer};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use tokio::time::Instant;

use super::{DEADLINE, until_ready};

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

fn leases(items: &[Value]) -> Vec<u64> {
    let numbers = items.iter().map(|item| item["lease"].as_u64().unwrap());
    numbers.collect()
}

/// As when a backup is restored, or a disk comes back as it was: what was acknowledged since is
/// gone, and leases that were handed out since are forgotten. Their numbers must not come again.
#[tokio::test]
async fn an_older_log_that_is_put_back_brings_no_lease_number_again() {
    if !TestRedis::is_installed() {
        return;
    }
    let mut redis = TestRedis::start(Keeping::Always);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    let payloads: Vec<Value> = (1..=6).map(Value::from).collect();
    queue.push(&payloads).await;
    let mut worker = queue.open("w", 2).await;
    let before = worker.clone();
    let log = redis.dir().join("appendonlydir");
    let kept = redis.dir().join("kept");
    copy(&log, &kept);
    // From here on all of it will be forgotten.
    worker.lease(4).await;
    let forgotten = worker.clone();
    assert_eq!(forgotten.items.len(), 4);
    let done = json!({"outcome": "done", "result": "forgotten"});
    forgotten.settle(0, done.clone()).await;
    before.settle(0, done.clone()).await;
    let number_before = *leases(&forgotten.items).iter().max().unwrap();

    redis.kill();
    until_ready(&api, false).await;
    std::fs::remove_dir_all(&log).unwrap();
    copy(&kept, &log);
    redis.restart();
    until_ready(&api, true).await;
    assert_eq!(queue.counts().await, json!({"ready": 4, "leased": 2}));

    // The forgotten leases count for nothing, before and after their items are leased again.
    let late = forgotten.settle(1, done.clone()).await;
    assert_eq!(late["settled"][0]["status"], "stale_lease");
    let other = queue.open("other", 6).await;
    assert_eq!(other.items.len(), 4);
    for number in leases(&other.items) {
        assert!(number > number_before, "{number} after {number_before}");
    }
    let late = forgotten.settle(1, done.clone()).await;
    assert_eq!(late["settled"][0]["status"], "stale_lease");
    // What it still knows counts: nobody else has had these leases.
    for nth in 0..2 {
        let late = before.settle(nth, done.clone()).await;
        assert_eq!(late["settled"][0]["status"], "ok");
    }
    for nth in 0..4 {
        let reply = other.settle(nth, json!({"outcome": "done"})).await;
        assert_eq!(reply["settled"][0]["status"], "ok");
    }
    queue.bare(Method::POST, "/seal").await.ok();
    assert_eq!(queue.counts().await, json!({"done": 6}));
    assert_eq!(queue.results("").await.len(), 6);
    // Redis says that it loses nothing, but this replica has acknowledged what is gone.
    let certificate = queue.get("").await.ok()["certificate"].clone();
    assert_eq!(certificate["historyUncertain"], true, "{certificate}");
    server.stop().await;
}

/// Whoever has acknowledged what is gone says so before another replica ends the queue.
#[tokio::test]
async fn a_replica_that_has_acknowledged_more_says_so_as_soon_as_redis_is_back() {
    if !TestRedis::is_installed() {
        return;
    }
    let mut redis = TestRedis::start(Keeping::Always);
    let mut one = TestServer::start_on_redis(&redis.url).await;
    let mut other = TestServer::start_on_redis(&redis.url).await;
    let (api, other_api) = (
        Api::new(&one.url, Some(TOKEN)),
        Api::new(&other.url, Some(TOKEN)),
    );
    let queue = api.fresh_queue();
    queue.push(&[json!(1)]).await;
    let log = redis.dir().join("appendonlydir");
    let kept = redis.dir().join("kept");
    copy(&log, &kept);
    queue.push(&[json!(2)]).await;
    redis.kill();
    until_ready(&api, false).await;
    until_ready(&other_api, false).await;
    std::fs::remove_dir_all(&log).unwrap();
    copy(&kept, &log);
    redis.restart();
    until_ready(&api, true).await;
    until_ready(&other_api, true).await;
    // A mark is what stands in the head from now on.
    let meta = format!("gangline:{{default.{}}}:meta", queue.name);
    let uncertain = "return math.floor(string.byte(redis.call('GET', KEYS[1]), 2) / 4)";
    redis.until_it_says(&["EVAL", uncertain, "1", &meta], "1");
    let path = format!("/v1/queues/{}/stop", queue.name);
    let stop = json!({"outcome": "success"});
    let stopped = other_api.call(Method::POST, &path, Some(stop)).await.ok();
    assert_eq!(stopped["certificate"]["historyUncertain"], true);
    assert_eq!(stopped["counts"]["abandoned"], 1);
    one.stop().await;
    other.stop().await;
}

/// A look must not show what only the primary has: a failover would take it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_shown_that_no_replica_has() {
    if !TestRedis::is_installed() {
        return;
    }
    let primary = TestRedis::start(Keeping::Memory);
    let mut replica = TestRedis::start(Keeping::Memory);
    replica.restart_as_replica_of(&primary);
    let start = || TestServer::start_on_redis_as(&primary.url, Durability::Replicated);
    let (mut one, mut other) = (start().await, start().await);
    let queue = Api::new(&one.url, Some(TOKEN)).fresh_queue();
    queue.push(&[json!(1)]).await;
    let looks = Api::new(&other.url, Some(TOKEN));
    let path = format!("/v1/queues/{}", queue.name);
    let shown = looks.call(Method::GET, &path, None).await.ok();
    assert_eq!(shown["counts"]["ready"], 1);
    assert_eq!(shown["durability"], "replicated");

    replica.signal(Signal::SIGSTOP);
    let stopped = json!({"outcome": "success"});
    let stopping = tokio::spawn({
        let queue = queue.clone();
        async move { queue.post("/stop", stopped).await }
    });
    let meta = format!("gangline:{{default.{}}}:meta", queue.name);
    primary.until_it_says(&["GET", &meta], "stopped");
    let paths = [path.clone(), "/v1/queues".into(), format!("{path}/items")];
    let refused = paths.iter().map(|path| looks.call(Method::GET, path, None));
    for refused in join_all(refused).await {
        assert_eq!(refused.refused(503), "unavailable");
    }
    assert_eq!(stopping.await.unwrap().refused(503), "unavailable");
    replica.signal(Signal::SIGCONT);
    let shown = looks.insist(Method::GET, &path, None).await.ok();
    assert_eq!(shown["phase"], "stopped");
    one.stop().await;
    other.stop().await;
}

/// Asks until a status says that this is promised.
async fn until_promised(queue: &Queue, durability: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = queue.get("").await.ok();
        if status["durability"] == durability {
            return;
        }
        assert!(Instant::now() < deadline, "not {durability}: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_status_says_what_an_acknowledgement_promises() {
    let mut server = TestServer::start().await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    let status = queue.put(json!({})).await.ok();
    assert_eq!(status["durability"], "synced");
    assert_eq!(stopped(&queue).await["durability"], "synced");
    server.stop().await;
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start(Keeping::Always);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let (queue, synced) = (api.fresh_queue(), api.fresh_queue());
    for queue in [&queue, &synced] {
        let status = queue.put(json!({})).await.ok();
        assert_eq!(status["durability"], "synced");
    }
    assert_eq!(stopped(&synced).await["durability"], "synced");
    for (setting, value, durability) in [
        ("appendfsync", "everysec", "logged"),
        ("appendonly", "no", "memory"),
    ] {
        assert_eq!(redis.ask(&["CONFIG", "SET", setting, value]), "OK");
        until_promised(&queue, durability).await;
        let fresh = api.fresh_queue();
        fresh.push(&[json!(1)]).await;
        assert_eq!(stopped(&fresh).await["durability"], durability);
    }
    queue.push(&[json!(1)]).await;
    // A certificate is of the whole life of its queue, and does not change any more.
    assert_eq!(redis.ask(&["CONFIG", "SET", "appendonly", "yes"]), "OK");
    assert_eq!(redis.ask(&["CONFIG", "SET", "appendfsync", "always"]), "OK");
    until_promised(&queue, "synced").await;
    assert_eq!(stopped(&queue).await["durability"], "memory");
    let shown = synced.get("").await.ok();
    assert_eq!(shown["certificate"]["durability"], "synced");
    let deleted = queue.bare(Method::DELETE, "").await.ok();
    assert_eq!(deleted["certificate"]["durability"], "memory");
    server.stop().await;
}

/// Stops a queue; returns its certificate.
async fn stopped(queue: &Queue) -> Value {
    let stop = json!({"outcome": "success"});
    queue.post("/stop", stop).await.ok()["certificate"].clone()
}

/// From 7.2 on Redis can say when its log is synced, and need not sync before each reply.
#[tokio::test]
async fn a_log_that_is_synced_every_second_is_waited_for() {
    let Some(mut redis) = TestRedis::start_newer() else {
        return;
    };
    let mut server = TestServer::start_on_redis_as(&redis.url, Durability::Aof).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    let waits = |redis: &TestRedis| {
        let stats = redis.ask(&["INFO", "commandstats"]);
        let calls = stats.lines().find_map(|line| {
            let calls = line.strip_prefix("cmdstat_waitaof:calls=")?;
            calls.split(',').next()?.parse::<u64>().ok()
        });
        calls.unwrap_or(0)
    };
    let before = waits(&redis);
    queue.push(&[json!(1), json!(2)]).await;
    let after_push = waits(&redis);
    assert!(after_push > before, "an acknowledgement waits");
    let status = queue.get("").await.ok();
    assert_eq!(status["durability"], "synced");
    assert!(waits(&redis) > after_push, "a look waits, too");
    let worker = queue.open("w", 1).await;
    worker.settle(0, json!({"outcome": "done"})).await;
    redis.kill();
    until_ready(&api, false).await;
    redis.restart();
    until_ready(&api, true).await;
    assert_eq!(queue.counts().await, json!({"done": 1, "ready": 1}));
    // Nothing was lost, and nobody says that it may have been.
    let certificate = stopped(&queue).await;
    assert_eq!(
        certificate["historyUncertain"],
        Value::Null,
        "{certificate}"
    );
    assert_eq!(certificate["durability"], "synced");
    server.stop().await;
}
