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
