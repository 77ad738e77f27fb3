//! A service on a Redis that goes away, runs full, or must not be used.

use std::sync::Arc;
use std::time::Duration;

use gangline_server::clock::SystemRandom;
use gangline_server::hub::Hub;
use gangline_server::store::redis::{Durability, Redis, Time};
use gangline_tests::redis::Keeping;
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, TestRedis, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

mod links;
mod losses;
mod secure;

/// How long something may take that takes a moment.
const DEADLINE: Duration = Duration::from_secs(30);

async fn until_ready(api: &Api, ready: bool) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let response = api.send(Method::GET, "/readyz", &[], Vec::new()).await;
        if response.status().is_success() == ready {
            return;
        }
        assert!(Instant::now() < deadline, "readyz does not become {ready}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_outage_of_redis_is_told_and_ends_by_itself_with_nothing_lost() {
    if !TestRedis::is_installed() {
        return;
    }
    let mut redis = TestRedis::start(Keeping::Always);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    queue.push(&[json!("one"), json!("two")]).await;
    let mut worker = queue.open("w", 1).await;
    assert_eq!(worker.items[0]["payload"], "one");

    redis.kill();
    until_ready(&api, false).await;
    let path = format!("/v1/queues/{}/items", queue.name);
    let headers = [("content-type", "application/json")];
    let refused = api
        .send(Method::POST, &path, &headers, b"{\"payload\":3}".to_vec())
        .await;
    assert_eq!(refused.status().as_u16(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let told = api.call(Method::GET, "/readyz", None).await;
    assert!(
        told.body["detail"].as_str().unwrap().contains("Redis"),
        "{}",
        told.body
    );

    redis.restart();
    until_ready(&api, true).await;
    let reply = worker
        .settle(0, json!({"outcome": "done", "result": 1}))
        .await;
    assert_eq!(reply["settled"][0]["status"], "ok");
    worker.lease(5).await;
    assert_eq!(worker.items[0]["payload"], "two");
    assert_eq!(queue.counts().await, json!({"leased": 1, "done": 1}));
    server.stop().await;
}

#[tokio::test]
async fn another_replica_takes_over_from_one_that_is_gone() {
    if !TestRedis::is_installed() {
        return;
    }
    for is_full in [false, true] {
        another_takes_over(is_full).await;
    }
}

async fn another_takes_over(is_full: bool) {
    let redis = TestRedis::start(Keeping::Memory);
    let mut first = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&first.url, Some(TOKEN));
    let queue = api.fresh_queue();
    queue
        .put(json!({"sessionMs": 1_000, "heartbeatMs": 200}))
        .await
        .ok();
    queue.push(&[json!(1)]).await;
    queue.open("gone", 1).await;
    first.stop().await;
    drop(first);
    if is_full {
        // Sessions end when memory has run out, too.
        let _ = redis.ask(&["CONFIG", "SET", "maxmemory", "500kb"]);
    }

    let mut second = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&second.url, Some(TOKEN));
    let path = format!("/v1/queues/{}", queue.name);
    let deadline = Instant::now() + DEADLINE * 2;
    // A status lets no time pass: what changes it is the replica by itself.
    loop {
        let status = api.call(Method::GET, &path, None).await.ok();
        if status["counts"]["ready"] == 1 {
            assert_eq!(status["sessions"], 0);
            break;
        }
        assert!(
            Instant::now() < deadline,
            "the session never ended: {status}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    second.stop().await;
}

#[tokio::test]
async fn metrics_tell_how_long_the_oldest_ready_item_has_waited() {
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start(Keeping::Memory);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let (queue, idle) = (api.fresh_queue(), api.fresh_queue());
    idle.put(json!({})).await.ok();
    queue.push(&[json!(1)]).await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let response = api.send(Method::GET, "/metrics", &[], Vec::new()).await;
        let text = response.text().await.unwrap();
        let mut ages = text
            .lines()
            .filter(|line| line.starts_with("gangline_queue_oldest_ready_age_seconds{"));
        let age = ages.find(|line| line.contains(&format!("\"{}\"", queue.name)));
        let age: f64 = age.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(!ages.any(|line| line.contains(&idle.name)), "{text}");
        if age >= 1.0 {
            assert!(age < DEADLINE.as_secs_f64() * 2.0, "{age}");
            break;
        }
        assert!(Instant::now() < deadline, "{age} s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_full_redis_takes_no_pushes_and_still_takes_settles() {
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start_with(Keeping::Memory, &["--maxmemory", "8mb"]);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    queue.push(&[json!("first")]).await;
    let worker = queue.open("w", 1).await;
    let large: Value = json!("x".repeat(500_000));
    let mut refused = None;
    for _ in 0..64 {
        let answer = queue.post("/items", json!({"payload": large})).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a Redis of 8 MB does not take 32 MB");
    assert_eq!(refused.refused(503), "unavailable");
    let reply = worker
        .settle(0, json!({"outcome": "done", "result": "kept"}))
        .await;
    assert_eq!(reply["settled"][0]["status"], "ok");
    assert_eq!(queue.get("").await.ok()["counts"]["done"], 1);
    until_ready(&api, true).await;
    server.stop().await;
}

async fn trouble(url: &str) -> String {
    trouble_with(url, Durability::Memory).await
}

async fn trouble_with(url: &str, durability: Durability) -> String {
    let random = Arc::new(SystemRandom);
    let opened = Redis::open(url, durability, Time::Redis, random, Hub::default()).await;
    opened.expect_err("not to open").to_string()
}

#[tokio::test]
async fn a_redis_that_must_not_be_used_is_refused_with_what_to_do() {
    if !TestRedis::is_installed() {
        return;
    }
    let evicting = ["--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru"];
    let evicting = TestRedis::start_with(Keeping::Memory, &evicting);
    let told = trouble(&evicting.url).await;
    assert!(told.contains("set `maxmemory-policy noeviction`"), "{told}");

    let locked = TestRedis::start_with(Keeping::Memory, &["--requirepass", "secret"]);
    let told = trouble(&locked.url).await;
    assert!(told.contains("wants a password"), "{told}");
    let told = trouble(&locked.url.replace("//", "//:wrong@")).await;
    assert!(
        told.contains("refuses the credentials") && !told.contains("wrong"),
        "{told}"
    );

    let roomy = TestRedis::start_with(Keeping::Memory, &["--maxmemory", "64mb"]);
    let mut server = TestServer::start_on_redis(&roomy.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    for (policy, is_ready) in [("allkeys-lru", false), ("noeviction", true)] {
        let _ = roomy.ask(&["CONFIG", "SET", "maxmemory-policy", policy]);
        until_ready(&api, is_ready).await;
    }
    server.stop().await;

    let open = TestRedis::start(Keeping::Memory);
    let user = [
        "ACL",
        "SETUSER",
        "me",
        "on",
        ">secret",
        "~gangline:*",
        "&gangline:*",
    ];
    let rights = ["+@read", "+@write", "+@pubsub", "+@connection", "+info"];
    let _ = open.ask(&[&user[..], &rights[..]].concat());
    let told = trouble(&open.url.replace("//", "//me:secret@")).await;
    assert!(
        told.contains("lets this user do too little") && told.contains("+@scripting"),
        "{told}"
    );
    let _ = open.ask(&["SET", "gangline:{queues}", "1"]);
    let told = trouble(&open.url).await;
    assert!(told.contains("has a string at gangline:{queues}"), "{told}");

    let told = trouble("redis://127.0.0.1:1").await;
    assert!(told.contains("127.0.0.1:1 cannot be reached"), "{told}");
    let told = trouble("http://somewhere").await;
    assert!(told.contains("must look like redis://"), "{told}");
}

/// A Redis without a log forgets them by a restart, and any does by `FUNCTION FLUSH`.
#[tokio::test]
async fn functions_that_redis_has_forgotten_are_taught_again() {
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start(Keeping::Memory);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    queue.push(&[json!(1)]).await;
    assert_eq!(redis.ask(&["FUNCTION", "FLUSH"]), "OK");
    queue.push(&[json!(2)]).await;
    assert_eq!(queue.counts().await, json!({"ready": 2}));
    server.stop().await;
}
