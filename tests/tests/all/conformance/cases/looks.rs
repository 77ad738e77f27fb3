//! What is said about a queue that does not end.

use gangline_tests::Queue;
use reqwest::Method;
use serde_json::{Value, json};

/// Asks why the queue is not over, and returns the term of this name.
async fn term(q: &Queue, name: &str) -> Value {
    let explanation = q.get("/explain").await.ok();
    let terms = explanation["terms"].as_array().unwrap();
    let found = terms.iter().find(|term| term["term"] == name);
    found.cloned().unwrap_or_default()
}

pub(crate) async fn an_explanation_has_every_term_that_keeps_a_queue_open(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    q.post("/items", json!({"payload": 3, "delayMs": 600_000}))
        .await
        .ok();
    let ready = term(&q, "ready").await;
    assert_eq!(
        (&ready["items"], &ready["trouble"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(ready["because"], "no_worker");
    let delayed = term(&q, "delayed").await;
    assert_eq!(delayed["items"], 1);
    assert!(delayed["nextDueAt"].is_string());
    let open = term(&q, "not_sealed").await;
    assert_eq!(open["call"], format!("POST /v1/queues/{}/seal", q.name));

    q.put(json!({"maxLeased": 1})).await.ok();
    let session = q.open("w", 1).await;
    assert_eq!(term(&q, "ready").await["because"], "limit_reached");
    let leased = term(&q, "leased").await;
    assert_eq!(
        (&leased["items"], leased.get("typicalMs")),
        (&json!(1), None)
    );
    let oldest = &leased["oldest"][0];
    assert_eq!(
        (&oldest["worker"], &oldest["attempt"]),
        (&json!("w"), &json!(1))
    );
    assert_eq!(
        (&oldest["session"], &oldest["lease"]),
        (&session.id, &session.items[0]["lease"])
    );

    q.bare(Method::POST, "/pause").await.ok();
    assert_eq!(term(&q, "paused").await["trouble"], true);
    assert_eq!(term(&q, "ready").await["because"], "paused");
    q.bare(Method::POST, "/seal").await.ok();
    assert_eq!(term(&q, "not_sealed").await, Value::Null);

    session.settle(0, json!({"outcome": "done"})).await;
    q.bare(Method::POST, "/resume").await.ok();
    let _other = q.open("w", 1).await;
    assert!(term(&q, "leased").await["typicalMs"].is_u64());
    q.post("/stop", json!({"outcome": "success"})).await.ok();
    let over = q.get("/explain").await.ok();
    assert_eq!(over["terms"], json!([]));
    assert_eq!(over["certificate"]["phase"], "stopped");
}

/// Makes the `nth` item of a fresh queue dead of the `nth` error.
async fn bury(q: &Queue, errors: &[Value]) {
    let payloads: Vec<Value> = (1..=errors.len()).map(|n| json!({ "n": n })).collect();
    q.push(&payloads).await;
    let session = q.open("undertaker", 100).await;
    for (nth, error) in errors.iter().enumerate() {
        session
            .settle(nth, json!({"outcome": "dead", "error": error}))
            .await;
    }
}

pub(crate) async fn dead_items_are_grouped_by_the_kind_of_their_error(q: Queue) {
    let errors = [
        json!("took 31 ms"),
        json!("no such file: 'a'"),
        json!("took 7 ms"),
        json!(null),
        json!("took 7 ms"),
        json!("no such file: 'a'"),
    ];
    bury(&q, &errors).await;
    let dead = q.get("/dead").await.ok();
    assert_eq!((&dead["dead"], &dead["ungrouped"]), (&json!(6), &json!(0)));
    let groups: Vec<Value> = dead["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            json!([
                group["error"],
                group["same"],
                group["count"],
                group["example"]
            ])
        })
        .collect();
    assert_eq!(
        groups,
        [
            json!(["took 31 ms", false, 3, 1]),
            json!(["no such file: 'a'", true, 2, 2]),
            json!([null, true, 1, 4]),
        ]
    );
    for group in dead["groups"].as_array().unwrap() {
        assert!(group["firstAt"].as_str().unwrap() <= group["lastAt"].as_str().unwrap());
    }
}

pub(crate) async fn a_redrive_takes_those_that_it_is_asked_for(q: Queue) {
    let errors: Vec<Value> = (1..=6)
        .map(|n| json!(format!("{} {n}", if n % 2 == 0 { "even" } else { "odd" })))
        .collect();
    bury(&q, &errors).await;
    let redrive = async |which: Value| q.post("/redrive", which).await.ok();
    // Of what is named only the dead, each once.
    let some = redrive(json!({"ids": [2, 2, 99, 0]})).await;
    assert_eq!(some, json!({"redriven": 1}));
    let again = redrive(json!({"ids": [2]})).await;
    assert_eq!(again, json!({"redriven": 0}));
    let kind = redrive(json!({"error": "odd 77", "max": 1})).await;
    assert_eq!(kind, json!({"redriven": 1, "next": 1}));
    let rest = redrive(json!({"error": "odd 77", "cursor": kind["next"]})).await;
    assert_eq!(rest, json!({"redriven": 2}));
    let none = redrive(json!({"contains": "4", "error": "odd 1"})).await;
    assert_eq!(none, json!({"redriven": 0}));
    let text = redrive(json!({"contains": "n 4"})).await;
    assert_eq!(text, json!({"redriven": 1}));
    assert_eq!(q.counts().await, json!({"ready": 5, "dead": 1}));
    assert_eq!(redrive(json!({})).await, json!({"redriven": 1}));
    let many: Vec<u64> = (1..=1_001).collect();
    let refused = q.post("/redrive", json!({ "ids": many })).await;
    assert_eq!(refused.refused(400), "out_of_bounds");
}

pub(crate) async fn dead_items_of_a_queue_that_is_over_live_on_in_another(q: Queue) {
    let item = json!({"payload": {"n": 1}, "key": "own", "priority": 9, "maxAttempts": 1});
    q.post("/items", item).await.ok();
    let session = q.open("w", 1).await;
    session
        .settle(0, json!({"outcome": "retry", "error": "one"}))
        .await;
    bury(&q, &[json!("two"), json!("three")]).await;
    let status = q.bare(Method::POST, "/seal").await.ok();
    assert_eq!(status["phase"], "drained");
    let refused = q.post("/redrive", json!({"ids": [1]})).await;
    assert_eq!(refused.refused(409), "queue_over");

    let mut other = q.clone();
    other.name = format!("{}-again", q.name);
    let into = json!({"into": other.name, "contains": "t"});
    let copied = q.post("/redrive", into.clone()).await.ok();
    assert_eq!(copied, json!({"redriven": 2}));
    let repeated = q.post("/redrive", into).await.ok();
    assert_eq!(repeated, json!({"redriven": 0, "duplicates": 2}));
    let rest = q.post("/redrive", json!({"into": other.name})).await.ok();
    assert_eq!(rest, json!({"redriven": 1, "duplicates": 2}));
    assert_eq!(q.counts().await, json!({"dead": 3}));
    assert_eq!(other.counts().await, json!({"ready": 3}));
    let mut session = other.open("w", 1).await;
    let first = &session.items[0];
    let origin = format!("{}/1", status["uid"].as_str().unwrap());
    assert_eq!(
        (&first["payload"], &first["key"], &first["attempt"]),
        (&json!({"n": 1}), &json!(origin), &json!(1))
    );
    // Its `maxAttempts` came along.
    session
        .settle(0, json!({"outcome": "retry", "error": "again"}))
        .await;
    session.lease(1).await;
    assert_eq!(
        other.counts().await,
        json!({"dead": 1, "leased": 1, "ready": 1})
    );

    let itself = q.post("/redrive", json!({"into": q.name})).await;
    assert_eq!(itself.refused(400), "invalid_body");
    other.bare(Method::POST, "/seal").await.ok();
    let repeated = q.post("/redrive", json!({"into": other.name})).await.ok();
    assert_eq!(repeated["duplicates"], 3);
    other.bare(Method::DELETE, "").await.ok();
}

pub(crate) async fn results_come_in_the_order_of_pushing_when_asked_for(q: Queue) {
    q.push(&[json!(1), json!(2), json!(3), json!(4)]).await;
    let session = q.open("w", 4).await;
    for nth in [3, 0, 1] {
        session
            .settle(nth, json!({"outcome": "done", "result": format!("r{nth}")}))
            .await;
    }
    session.settle(2, json!({"outcome": "dead"})).await;
    let ids = async |query: &str| -> Vec<u64> {
        let lines = q.results(query).await;
        let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        lines
            .map(|line: Value| line["id"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(ids("").await, [4, 1, 2]);
    assert_eq!(ids("?order=push").await, [1, 2, 4]);
    assert_eq!(ids("?order=push&cursor=2").await, [4]);
    let (mut recorded, mut pushed) = (q.results("").await, q.results("?order=push").await);
    recorded.sort_unstable();
    pushed.sort_unstable();
    assert_eq!(recorded, pushed);
    let item = q.get("/items/4").await.ok();
    assert_eq!(
        (&item["result"], item["tookMs"].is_u64()),
        (&json!("r3"), true)
    );
}

pub(crate) async fn results_are_followed_in_the_order_of_pushing(q: Queue) {
    q.push(&[json!(1), json!(2), json!(3), json!(4), json!(5)])
        .await;
    let session = q.open("w", 5).await;
    session.settle(1, json!({"outcome": "done"})).await;
    session.settle(3, json!({"outcome": "dead"})).await;
    session.settle(4, json!({"outcome": "done"})).await;
    let path = format!("/v1/queues/{}/results?order=push&follow=true", q.name);
    let mut response = q.api.send(Method::GET, &path, &[], Vec::new()).await;
    let mut text = String::new();
    let mut ids = async |count| -> Vec<u64> {
        while text.lines().count() < count
            && let Some(part) = response.chunk().await.unwrap()
        {
            text.push_str(std::str::from_utf8(&part).unwrap());
        }
        let lines = text.lines().map(serde_json::from_str::<Value>);
        lines
            .map(|line| line.unwrap()["id"].as_u64().unwrap())
            .collect()
    };
    // Item 1 keeps all of them back, and item 4 what comes after it: it may be redriven.
    session.settle(0, json!({"outcome": "done"})).await;
    assert_eq!(ids(2).await, [1, 2]);
    q.bare(Method::DELETE, "/items/3").await.ok();
    q.post("/redrive", json!({"ids": [4]})).await.ok();
    let again = q.open("again", 1).await;
    again.settle(0, json!({"outcome": "done"})).await;
    assert_eq!(ids(4).await, [1, 2, 4, 5]);
    // At the end nothing is waited for any more, and what is dead has no result.
    q.push(&[json!(6), json!(7)]).await;
    let last = q.open("last", 2).await;
    last.settle(0, json!({"outcome": "dead"})).await;
    last.settle(1, json!({"outcome": "done"})).await;
    q.bare(Method::POST, "/seal").await.ok();
    assert_eq!(ids(usize::MAX).await, [1, 2, 4, 5, 7]);
}

pub(crate) async fn results_of_a_queue_that_is_deleted_break_off(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    let session = q.open("w", 1).await;
    session.settle(0, json!({"outcome": "done"})).await;
    let mut responses = Vec::new();
    for order in ["recorded", "push"] {
        let path = format!("/v1/queues/{}/results?order={order}&follow=true", q.name);
        let mut response = q.api.send(Method::GET, &path, &[], Vec::new()).await;
        assert!(response.chunk().await.unwrap().is_some());
        responses.push(response);
    }
    q.bare(Method::DELETE, "").await.ok();
    for mut response in responses {
        response.chunk().await.unwrap_err();
    }
}
