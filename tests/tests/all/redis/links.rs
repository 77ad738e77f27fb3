//! The ways to a Redis, what is asked of it at the start, and what becomes of its failovers.

use gangline_server::store::redis::Durability;
use gangline_tests::redis::Keeping;
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Queue, TestCluster, TestRedis, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{DEADLINE, trouble, trouble_with, until_ready};

/// Queues that are spread over the primaries.
const QUEUES: usize = 12;

/// Calls until the answer is a success: while a primary is away it is a 503.
async fn until_ok(api: &Api, method: Method, path: &str, body: Option<Value>) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = api.call(method.clone(), path, body.clone()).await;
        if answer.status == 200 {
            return answer.body;
        }
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(Instant::now() < deadline, "still {}", answer.body);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_primary_of_a_cluster_that_is_gone_loses_nothing_that_was_replicated() {
    if !TestRedis::is_installed() {
        return;
    }
    let mut cluster = TestCluster::start(true);
    let mut server = TestServer::start_on_redis_as(&cluster.url, Durability::Replicated).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let path = |n: usize, rest: &str| format!("/v1/queues/of-a-cluster-{n}{rest}");
    for n in 0..QUEUES {
        let items = json!({"items": [{"payload": 1}, {"payload": 2}]});
        until_ok(&api, Method::POST, &path(n, "/items"), Some(items)).await;
    }
    cluster.nodes[0].kill();
    cluster.nodes[3].until_it_says(&["INFO", "replication"], "role:master");
    // What is shown, too, must be on two of them.
    cluster.nodes[0].restart();
    for n in 0..QUEUES {
        let status = until_ok(&api, Method::GET, &path(n, ""), None).await;
        assert_eq!(status["counts"]["ready"], 2, "queue {n}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_redis_behind_a_socket_or_a_sentinel_is_found() {
    if !TestRedis::is_installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("redis.sock");
    let extra = ["--unixsocket", socket.to_str().unwrap()];
    let redis = TestRedis::start_with(Keeping::Memory, &extra);
    let config = dir.path().join("sentinel.conf");
    let watched = format!("sentinel monitor main 127.0.0.1 {} 1\n", redis.port());
    std::fs::write(&config, watched).unwrap();
    let sentinel = TestRedis::start_sentinel(&config);
    for url in [
        format!("unix://{}", socket.display()),
        format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port()),
    ] {
        let mut server = TestServer::start_on_redis(&url).await;
        let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
        queue.push(&[json!(1)]).await;
        assert_eq!(queue.counts().await, json!({"ready": 1}), "{url}");
        server.stop().await;
    }
    let told = trouble(&format!(
        "redis+sentinel://127.0.0.1:{}/other",
        sentinel.port()
    ))
    .await;
    assert!(told.contains("no primary named other"), "{told}");
}

/// The primary of before does not notice for some seconds: what it is given then is lost.
#[tokio::test]
async fn another_primary_that_the_sentinels_name_is_used_at_once() {
    if !TestRedis::is_installed() {
        return;
    }
    let primary = TestRedis::start(Keeping::Memory);
    let mut replica = TestRedis::start(Keeping::Memory);
    replica.restart_as_replica_of(&primary);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sentinel.conf");
    let watched = format!("sentinel monitor main 127.0.0.1 {} 1\n", primary.port());
    std::fs::write(&config, watched).unwrap();
    let sentinel = TestRedis::start_sentinel(&config);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port());
    let mut server = TestServer::start_on_redis(&url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    queue.push(&[json!(1)]).await;
    let meta = format!("gangline:{{default.{}}}:meta", queue.name);
    replica.until_it_says(&["EXISTS", &meta], "1");

    // Nobody can tell the primary that it is none any more, as when it is cut off from the others.
    let deaf = ["ACL", "SETUSER", "default", "-slaveof", "-replicaof"];
    assert_eq!(primary.ask(&deaf), "OK");
    // The Sentinel must have heard of the replica first.
    sentinel.until_it_says(&["SENTINEL", "FAILOVER", "main"], "OK");
    replica.until_it_says(&["INFO", "replication"], "role:master");
    let deadline = Instant::now() + DEADLINE;
    loop {
        let fresh = api.fresh_queue();
        let path = format!("/v1/queues/{}/items", fresh.name);
        until_ok(&api, Method::POST, &path, Some(json!({"payload": 1}))).await;
        let meta = format!("gangline:{{default.{}}}:meta", fresh.name);
        if replica.ask(&["EXISTS", &meta]) == "1" {
            break;
        }
        assert!(Instant::now() < deadline, "still the old primary");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let stop = json!({"outcome": "success"});
    let stopped = queue.post("/stop", stop).await.ok();
    assert_eq!(stopped["certificate"]["historyUncertain"], true);
    server.stop().await;
}

#[tokio::test]
async fn what_a_level_of_durability_needs_is_asked_for_at_the_start() {
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start(Keeping::Memory);
    let told = trouble_with(&redis.url, Durability::Aof).await;
    assert!(told.contains("set `appendonly yes`"), "{told}");
    let told = trouble_with(&redis.url, Durability::Replicated).await;
    assert!(told.contains("has no replica"), "{told}");
    let of = redis.port().to_string();
    let replica = TestRedis::start_with(Keeping::Memory, &["--replicaof", "127.0.0.1", &of]);
    let told = trouble(&replica.url).await;
    assert!(told.contains("address of its primary"), "{told}");
}

#[tokio::test]
async fn a_newer_layout_and_keys_of_another_type_are_refused_with_words() {
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start(Keeping::Memory);
    let newer = "redis.call('SET', KEYS[1], cmsgpack.pack({ layout = 99 }))";
    let _ = redis.ask(&["EVAL", newer, "1", "gangline:{default.newer}:meta"]);
    let _ = redis.ask(&["LPUSH", "gangline:{default.list}:meta", "1"]);
    let _ = redis.ask(&["SET", "gangline:{default.other}:pages", "1"]);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    for (name, expected) in [
        ("newer", "stored layout 99"),
        ("list", "WRONGTYPE"),
        ("other", "other keys of it exist"),
    ] {
        let path = format!("/v1/queues/{name}/items");
        let answer = api
            .call(Method::POST, &path, Some(json!({"payload": 1})))
            .await;
        assert_eq!(answer.status, 503, "{name}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{name}: {detail}");
    }
    // The library of another version stands beside this one's.
    let library = "#!lua name=gangline_of_another_version\n\
                   redis.register_function('gangline_of_another_version_push', function() end)";
    let _ = redis.ask(&["FUNCTION", "LOAD", library]);
    let queue = api.fresh_queue();
    queue.push(&[json!(1)]).await;
    assert!(
        redis
            .ask(&["FUNCTION", "LIST"])
            .contains("gangline_of_another_version")
    );
    server.stop().await;
}

/// Redis is killed while a queue lives; tells whether its certificate says so.
async fn is_uncertain_after_a_crash(keeping: Keeping, extra: &[&str]) -> Value {
    let mut redis = TestRedis::start_with(keeping, extra);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    queue.push(&[json!(1)]).await;
    redis.kill();
    until_ready(&api, false).await;
    redis.restart();
    until_ready(&api, true).await;
    let stopped = queue
        .post("/stop", json!({"outcome": "success"}))
        .await
        .ok();
    server.stop().await;
    stopped["certificate"]["historyUncertain"].clone()
}

#[tokio::test]
async fn a_certificate_says_whether_redis_may_have_lost_something() {
    if !TestRedis::is_installed() {
        return;
    }
    assert_ne!(is_uncertain_after_a_crash(Keeping::Always, &[]).await, true);
    // It writes before each reply, so that only a crash of the machine would lose the queue.
    let weak = ["--appendonly", "yes", "--appendfsync", "no"];
    let told = is_uncertain_after_a_crash(Keeping::Memory, &weak).await;
    assert_eq!(told, true);
}

#[tokio::test]
async fn pushes_stop_before_redis_is_full() {
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start_with(Keeping::Memory, &["--maxmemory", "24mb"]);
    let fill = "redis.call('SET', KEYS[1], string.rep('x', ARGV[1]))";
    let _ = redis.ask(&["EVAL", fill, "1", "filler", "20400000"]);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    let refused = queue.post("/items", json!({"payload": 1})).await;
    let detail = refused.body["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("raise maxmemory"), "{detail}");
    assert_eq!(refused.refused(503), "unavailable");
    let _ = redis.ask(&["DEL", "filler"]);
    let path = format!("/v1/queues/{}/items", queue.name);
    until_ok(&api, Method::POST, &path, Some(json!({"payload": 1}))).await;
    server.stop().await;
}

/// Asks until a call is refused for want of memory, at so many percent at least.
async fn until_full(queue: &Queue, percent: u64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = queue.post("/items", json!({"payload": "more"})).await;
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        let told = detail.split(" % full").next();
        let full = told.and_then(|text| text.rsplit(' ').next()?.parse::<u64>().ok());
        if full.is_some_and(|full| full >= percent) {
            assert_eq!(answer.refused(503), "unavailable");
            return;
        }
        assert!(Instant::now() < deadline, "still {}", answer.body);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn settles_that_spawn_stop_when_redis_is_nearly_full_and_others_do_not() {
    const MAX_BYTES: u64 = 24 << 20;
    if !TestRedis::is_installed() {
        return;
    }
    let limit = MAX_BYTES.to_string();
    let redis = TestRedis::start_with(Keeping::Memory, &["--maxmemory", &limit]);
    let mut server = TestServer::start_on_redis(&redis.url).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    queue.push(&[json!(1), json!(2), json!(3)]).await;
    let mut worker = queue.open("w", 3).await;
    let fill = "return redis.call('SET', KEYS[1], string.rep('x', 100000))";
    let used = |redis: &TestRedis| {
        let told = redis.ask(&["INFO", "memory"]);
        let used = told
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        used.and_then(|used| used.trim().parse::<u64>().ok())
            .unwrap()
    };
    let fillers = (0..).take_while(|n| {
        let is_wanted = used(&redis) < MAX_BYTES / 100 * 96;
        if is_wanted {
            let _ = redis.ask(&["EVAL", fill, "1", &format!("filler:{n}")]);
        }
        is_wanted
    });
    let fillers = fillers.count();
    until_full(&api.fresh_queue(), 95).await;

    let spawning = json!({"outcome": "done", "result": "a", "spawn": [{"payload": "child"}]});
    let settle = |nth: usize, fields: &Value| {
        let mut settle = fields.clone();
        settle["id"] = worker.items[nth]["id"].clone();
        settle["lease"] = worker.items[nth]["lease"].clone();
        json!({"worker": "w", "session": worker.id, "uid": worker.uid, "settles": [settle]})
    };
    let refused = queue.exchange(settle(0, &spawning)).await;
    let detail = refused.body["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("from 95 % on"), "{detail}");
    assert_eq!(refused.refused(503), "unavailable");
    let counts = queue.counts().await;
    assert_eq!(counts, json!({"leased": 3}), "the lease is kept");
    let plain = json!({"outcome": "done", "result": "b"});
    let settled = queue.exchange(settle(1, &plain)).await.ok();
    assert_eq!(settled["settled"][0]["status"], "ok");
    let retry = json!({"outcome": "retry", "error": "c", "delayMs": 0});
    let settled = queue.exchange(settle(2, &retry)).await.ok();
    assert_eq!(settled["settled"][0]["status"], "ok");

    for n in 0..fillers {
        let _ = redis.ask(&["DEL", &format!("filler:{n}")]);
    }
    let path = format!("/v1/queues/{}/exchange", queue.name);
    let settled = until_ok(&api, Method::POST, &path, Some(settle(0, &spawning))).await;
    assert_eq!(settled["settled"][0]["status"], "ok");
    assert_eq!(queue.counts().await, json!({"done": 2, "ready": 2}));
    worker.lease(2).await;
    assert_eq!(worker.items.len(), 2);
    server.stop().await;
}
