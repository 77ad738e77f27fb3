//! Workers against the real service: exit codes, lost sessions, stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gangline_tests::gangline::{Left, end_of, gangline};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Queue, TestServer};
use gangline_worker::protocol::StopOutcome;
use gangline_worker::{Client, End, HandlerError, Item, Worker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::Notify;

async fn service() -> (TestServer, Queue) {
    let server = TestServer::start().await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    (server, queue)
}

fn worker(queue: &Queue) -> Worker {
    let client = Client::new(&queue.api.url, Some(TOKEN.into())).unwrap();
    Worker::new(client, queue.name.parse().unwrap())
}

fn work(queue: &Queue, name: &str, program: &[&str]) -> Command {
    let mut command = gangline(&["work", "-j2", "--"]);
    command
        .args(program)
        .env("GANGLINE_URL", &queue.api.url)
        .env("GANGLINE_QUEUE", &queue.name)
        .env("GANGLINE_TOKEN", TOKEN)
        .env("GANGLINE_WORKER", name);
    command
}

/// Waits until the counts of a queue satisfy a condition.
async fn until(queue: &Queue, what: &str, wanted: impl Fn(&serde_json::Value) -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let status = queue.get("").await.ok();
        if wanted(&status) {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "never {what}: {status}"
        );
        tokio::task::yield_now().await;
    }
}

fn send(child: &Child, signal: Signal) {
    kill(
        Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()),
        signal,
    )
    .unwrap();
}

#[tokio::test]
async fn handlers_run_until_the_queue_is_drained() {
    let (_server, queue) = service().await;
    let numbers: Vec<_> = (1..=100).map(|n| json!(n)).collect();
    queue.push(&numbers).await;
    queue.bare(Method::POST, "/seal").await.ok();
    let end = worker(&queue)
        .concurrency(4)
        .state(10_u64)
        .run_until_over(|item: Item<u64>, factor| async move {
            Ok::<_, HandlerError>(item.payload * factor)
        })
        .await;
    assert_eq!(end.code(), 0);
    let results = queue.results("").await;
    assert_eq!(results.len(), 100);
    for line in results {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            line["result"].as_u64().unwrap(),
            line["id"].as_u64().unwrap() * 10
        );
    }
}

#[tokio::test]
async fn errors_are_retried_permanent_ones_are_dead_and_panics_are_survived() {
    let (_server, queue) = service().await;
    queue
        .put(json!({"retryBaseMs": 1, "retryCapMs": 1, "maxAttempts": 3}))
        .await
        .ok();
    queue
        .push(&[
            json!("ok"),
            json!("retry"),
            json!("dead"),
            json!("panic"),
            json!(5),
        ])
        .await;
    queue.bare(Method::POST, "/seal").await.ok();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let end = worker(&queue)
        .run_until_over(move |item: Item<String>| {
            let runs = counted.clone();
            async move {
                runs.fetch_add(1, Ordering::Relaxed);
                match item.payload.as_str() {
                    "retry" if item.attempt < 3 => Err("not yet".into()),
                    "dead" => Err(HandlerError::permanent("never")),
                    "panic" => panic!("a bug"),
                    _ => Ok(item.attempt),
                }
            }
        })
        .await;
    assert_eq!(
        end.code(),
        0,
        "a drained queue is a success; its dead items are judged elsewhere"
    );
    // ok once, retry three times, dead once, panic three times; the number is no string.
    assert_eq!(runs.load(Ordering::Relaxed), 8);
    assert_eq!(queue.counts().await, json!({"done": 2, "dead": 3}));
    let dead = queue.get("/items?state=dead").await.ok();
    let errors: Vec<_> = dead["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["error"])
        .collect();
    assert_eq!(errors[0], "never");
    assert_eq!(errors[1], "the handler panicked: a bug");
    assert!(
        errors[2]
            .as_str()
            .unwrap()
            .starts_with("the payload: invalid type"),
        "{}",
        errors[2]
    );
}

#[tokio::test]
async fn the_first_worker_that_finds_it_stops_its_peers_in_the_middle() {
    let (_server, queue) = service().await;
    queue.push(&[json!("long"), json!("found")]).await;
    let started = Arc::new(Notify::new());
    let seen = started.clone();
    let peer = worker(&queue).name("peer".parse().unwrap());
    let peer = tokio::spawn(peer.run_until_over(move |item: Item<String>| {
        let started = seen.clone();
        async move {
            started.notify_one();
            item.cancelled().await;
            Err::<(), _>("cut short")
        }
    }));
    started.notified().await;
    let finder = worker(&queue).name("finder".parse().unwrap());
    let end = finder
        .run_until_over(|item: Item<String>| async move {
            item.stop(StopOutcome::Success);
            Ok::<_, HandlerError>(42)
        })
        .await;
    let End::Over(certificate) = &end else {
        panic!("{end:?}")
    };
    assert_eq!(certificate.ended_by.as_deref(), Some("finder"));
    assert_eq!(peer.await.unwrap(), end);
    assert_eq!(queue.counts().await, json!({"done": 1, "abandoned": 1}));
}

#[tokio::test]
async fn a_worker_whose_session_was_ended_settles_late_and_goes_on() {
    let (_server, queue) = service().await;
    queue.push(&[json!(1), json!(2)]).await;
    queue.bare(Method::POST, "/seal").await.ok();
    let other = queue.clone();
    let end = worker(&queue)
        .name("w".parse().unwrap())
        .run_until_over(move |item: Item<u32>| {
            let queue = other.clone();
            async move {
                if item.payload == 1 && item.attempt == 1 {
                    // Somebody opens a session of the same name: ours is over.
                    queue
                        .open("w", 1)
                        .await
                        .say(json!({"leave": true}))
                        .await
                        .ok();
                }
                Ok::<_, HandlerError>(item.payload)
            }
        })
        .await;
    assert_eq!(end.code(), 0);
    assert_eq!(queue.results("").await.len(), 2);
}

#[tokio::test]
async fn a_cancelled_item_stops_its_handler() {
    let (_server, queue) = service().await;
    queue.push(&[json!(1)]).await;
    queue.bare(Method::POST, "/seal").await.ok();
    let other = queue.clone();
    let end = worker(&queue)
        .run_until_over(move |item: Item<u32>| {
            let queue = other.clone();
            async move {
                queue.bare(Method::DELETE, "/items/1").await.ok();
                item.cancelled().await;
                Err::<(), _>("cut short")
            }
        })
        .await;
    assert_eq!(end.code(), 0);
    assert_eq!(queue.counts().await, json!({"cancelled": 1}));
}

#[tokio::test]
async fn a_wrapped_worker_told_to_go_gives_back_what_it_has_and_exits_143() {
    let (_server, queue) = service().await;
    queue
        .push(&[json!("sleep 60"), json!("echo a"), json!("echo b")])
        .await;
    queue.bare(Method::POST, "/seal").await.ok();
    let mut command = work(&queue, "first", &["sh", "-c", "$1", "sh", "{}"]);
    let first = command.env("GANGLINE_GRACE_SECONDS", "3").spawn().unwrap();
    until(&queue, "two done and one leased", |status| {
        status["counts"]["done"] == 2 && status["counts"]["leased"] == 1
    })
    .await;
    send(&first, Signal::SIGTERM);
    assert_eq!(end_of(first).await.code, Some(143));
    assert_eq!(queue.counts().await, json!({"done": 2, "ready": 1}));
    let second = work(
        &queue,
        "second",
        &["sh", "-c", "echo $GANGLINE_ITEM_ATTEMPT"],
    );
    let left: Left = end_of({ second }.spawn().unwrap()).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let last = queue.results("?cursor=2").await;
    assert!(
        last[0].contains("\"result\":\"1\\n\""),
        "no attempt was counted: {last:?}"
    );
}

#[tokio::test]
async fn a_program_has_the_trace_of_its_item_in_its_environment() {
    let (_server, queue) = service().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let items = json!({"items": [{"payload": 1, "traceparent": trace}, {"payload": 2}]});
    queue.post("/items", items).await.ok();
    queue.bare(Method::POST, "/seal").await.ok();
    let mut command = work(&queue, "w", &["sh", "-c", "printf %s $TRACEPARENT"]);
    let left = end_of(command.env_remove("TRACEPARENT").spawn().unwrap()).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let results = queue.results("?order=push").await;
    let results: Vec<serde_json::Value> = results
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["result"].take())
        .collect();
    assert_eq!(results, [trace, ""]);
}

#[tokio::test]
async fn a_stop_with_failure_ends_workers_with_70_and_their_programs_too() {
    let (_server, queue) = service().await;
    queue.push(&[json!("sleep 60")]).await;
    let child = work(&queue, "w", &["sh", "-c", "$1", "sh"])
        .spawn()
        .unwrap();
    until(&queue, "leased", |status| status["counts"]["leased"] == 1).await;
    queue
        .post("/stop", json!({"outcome": "failure"}))
        .await
        .ok();
    assert_eq!(end_of(child).await.code, Some(70));
}

#[tokio::test]
async fn wrong_credentials_are_77_and_bad_settings_are_2() {
    let (_server, queue) = service().await;
    let wrong = work(&queue, "w", &["true"])
        .env("GANGLINE_TOKEN", "wrong")
        .spawn()
        .unwrap();
    let left = end_of(wrong).await;
    assert_eq!(left.code, Some(77), "{}", left.stderr);
    for (name, value) in [
        ("QUEUE", "No_Name"),
        ("URL", "nowhere"),
        ("GRACE_SECONDS", "soon"),
        ("URL", ""),
    ] {
        let name = format!("GANGLINE_{name}");
        let left = end_of(
            work(&queue, "w", &["true"])
                .env(&name, value)
                .spawn()
                .unwrap(),
        )
        .await;
        assert_eq!(left.code, Some(2), "{}", left.stderr);
        assert!(left.stderr.contains(&name), "{}", left.stderr);
    }
}

#[tokio::test]
async fn a_service_that_is_gone_for_too_long_is_69() {
    let (mut server, queue) = service().await;
    server.stop().await;
    let end = worker(&queue)
        .service_deadline(Duration::from_millis(300))
        .run_until_over(|item: Item<u32>| async move { Ok::<_, HandlerError>(item.payload) })
        .await;
    assert_eq!(end.code(), 69, "{end:?}");
}

#[tokio::test]
async fn results_in_hand_survive_a_restart_of_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::start_in(dir.path()).await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    queue.push(&[json!(1)]).await;
    queue.bare(Method::POST, "/seal").await.ok();
    let (started, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (seen, gate) = (started.clone(), go_on.clone());
    let running = tokio::spawn(worker(&queue).run_until_over(move |_: Item<u32>| {
        let (started, gate) = (seen.clone(), gate.clone());
        async move {
            started.notify_one();
            gate.notified().await;
            Ok::<_, HandlerError>("kept")
        }
    }));
    started.notified().await;
    server.stop().await;
    go_on.notify_one();
    let again = TestServer::start_at(dir.path(), address.parse().unwrap()).await;
    assert_eq!(running.await.unwrap().code(), 0);
    assert_eq!(queue.results("").await.len(), 1);
    drop(again);
}

#[tokio::test]
async fn how_far_a_handler_is_goes_with_the_heartbeats() {
    let (mut server, queue) = service().await;
    queue
        .put(json!({"sessionMs": 60_000, "heartbeatMs": 200}))
        .await
        .ok();
    queue.push(&[json!(1)]).await;
    queue.bare(Method::POST, "/seal").await.ok();
    let seen = Arc::new(Notify::new());
    let until_seen = seen.clone();
    let work = worker(&queue).run_until_over(move |item: Item<u32>| {
        let seen = until_seen.clone();
        async move {
            item.progress(0.1);
            item.progress((0.5, "page 3 of 6"));
            seen.notified().await;
            // Nobody hears this any more.
            item.progress("at its end");
            Ok::<_, HandlerError>(())
        }
    });
    let look = async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let progress = loop {
            let item = queue.get("/items/1").await.ok();
            if item["progress"].is_object() {
                break item["progress"].clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "it stays {item}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (fraction, text) = (&progress["fraction"], &progress["text"]);
        assert_eq!((fraction, text), (&json!(0.5), &json!("page 3 of 6")));
        seen.notify_one();
    };
    let (end, ()) = tokio::join!(work, look);
    assert_eq!(end.code(), 0);
    let item = queue.get("/items/1").await.ok();
    assert_eq!(
        (&item["state"], item.get("progress")),
        (&json!("done"), None)
    );
    server.stop().await;
}
