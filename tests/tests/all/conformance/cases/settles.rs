//! Settles: which ones count, and what becomes of the item.

use gangline_tests::Queue;
use reqwest::Method;
use serde_json::json;

pub(crate) async fn a_repeated_settle_gets_the_same_answer(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    let settle = json!({"outcome": "done", "result": "x"});
    let first = session.settle(0, settle.clone()).await;
    let again = session.settle(0, settle).await;
    assert_eq!(first["settled"], again["settled"]);
    assert_eq!(first["settled"][0]["status"], "ok");
    assert_eq!(q.results("").await.len(), 1);
    let other = session.settle(0, json!({"outcome": "dead"})).await;
    assert_eq!(other["settled"][0]["status"], "already_settled");
    assert_eq!(q.counts().await, json!({"done": 1}));
}

pub(crate) async fn a_settle_with_an_older_lease_changes_nothing(q: Queue) {
    q.push(&[json!(1)]).await;
    let old = q.open("old", 1).await;
    old.say(json!({"leave": true})).await.ok();
    let new = q.open("new", 1).await;
    assert_ne!(old.items[0]["lease"], new.items[0]["lease"]);
    let late = old
        .settle(0, json!({"outcome": "done", "result": "late"}))
        .await;
    assert_eq!(late["settled"][0]["status"], "stale_lease");
    assert_eq!(late["sessionEnd"], "left");
    assert_eq!(q.counts().await, json!({"leased": 1}));
    let unknown = new
        .say(json!({"settles": [{"id": 99, "lease": 1, "outcome": "done"}]}))
        .await
        .ok();
    assert_eq!(unknown["settled"][0]["status"], "unknown_item");
}

pub(crate) async fn a_settle_after_the_session_has_left_still_counts_as_done(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    session.say(json!({"leave": true})).await.ok();
    assert_eq!(q.counts().await, json!({"ready": 1}));
    let late = session
        .settle(0, json!({"outcome": "done", "result": "late"}))
        .await;
    assert_eq!(late["settled"][0]["status"], "ok");
    assert_eq!(q.counts().await, json!({"done": 1}));
}

pub(crate) async fn a_late_retry_after_the_session_was_revoked_is_stale(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    q.post("/workers/w/revoke", json!({})).await.ok();
    for outcome in ["retry", "release"] {
        let late = session.settle(0, json!({"outcome": outcome})).await;
        assert_eq!(late["settled"][0]["status"], "stale_lease", "{outcome}");
        assert_eq!(late["sessionEnd"], "revoked");
    }
    assert_eq!(q.counts().await, json!({"ready": 1}));
}

pub(crate) async fn a_retry_comes_back_after_its_delay_with_the_next_attempt(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    assert_eq!(session.items[0]["attempt"], 1);
    session
        .settle(0, json!({"outcome": "retry", "error": "e", "delayMs": 0}))
        .await;
    let lease = json!({"number": 2, "max": 1, "waitMs": 20_000});
    let reply = session.say(json!({"lease": lease})).await.ok();
    assert_eq!(reply["lease"]["items"][0]["attempt"], 2);
    assert_eq!(q.get("").await.ok()["retried"], 1);
}

pub(crate) async fn an_item_out_of_attempts_is_dead_with_its_last_error(q: Queue) {
    q.post("/items", json!({"payload": 1, "maxAttempts": 2}))
        .await
        .ok();
    let mut session = q.open("w", 1).await;
    session
        .settle(0, json!({"outcome": "retry", "error": "one", "delayMs": 0}))
        .await;
    session.lease(1).await;
    session
        .settle(0, json!({"outcome": "retry", "error": "two", "delayMs": 0}))
        .await;
    assert_eq!(q.counts().await, json!({"dead": 1}));
    let dead = q.get("/items?state=dead").await.ok();
    let item = &dead["items"][0];
    assert_eq!(
        (&item["error"], &item["attempts"], &item["payload"]),
        (&json!("two"), &json!(2), &json!(1))
    );
}

pub(crate) async fn a_dead_item_can_be_redriven(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    let mut session = q.open("w", 2).await;
    session
        .settle(0, json!({"outcome": "dead", "error": "bad"}))
        .await;
    assert_eq!(q.bare(Method::POST, "/redrive").await.ok()["redriven"], 1);
    assert_eq!(q.counts().await, json!({"ready": 1, "leased": 1}));
    session.lease(1).await;
    assert_eq!(
        (&session.items[0]["id"], &session.items[0]["attempt"]),
        (&json!(1), &json!(1))
    );
    q.post("/stop", json!({"outcome": "success"})).await.ok();
    assert_eq!(
        q.bare(Method::POST, "/redrive").await.refused(409),
        "queue_over"
    );
}

pub(crate) async fn a_released_item_counts_no_attempt(q: Queue) {
    q.post("/items", json!({"payload": 1, "maxAttempts": 1}))
        .await
        .ok();
    let mut session = q.open("w", 1).await;
    session.settle(0, json!({"outcome": "release"})).await;
    session.lease(1).await;
    assert_eq!(session.items[0]["attempt"], 1);
}

pub(crate) async fn a_done_spawns_items_even_into_a_sealed_queue(q: Queue) {
    q.push(&[json!("root")]).await;
    q.bare(Method::POST, "/seal").await.ok();
    let mut session = q.open("w", 1).await;
    let spawn = json!([{"payload": "child", "key": "c"}, {"payload": "child", "key": "c"}]);
    let reply = session
        .settle(0, json!({"outcome": "done", "spawn": spawn}))
        .await;
    assert!(reply["over"].is_null());
    assert_eq!(q.counts().await, json!({"done": 1, "ready": 1}));
    session.lease(1).await;
    assert_eq!(session.items[0]["payload"], "child");
    let reply = session.settle(0, json!({"outcome": "done"})).await;
    assert_eq!(reply["over"]["phase"], "drained");
}

pub(crate) async fn a_history_says_how_each_attempt_ended(q: Queue) {
    q.push(&[json!("a"), json!("b")]).await;
    let first = q.open("rex", 2).await;
    first
        .settle(
            0,
            json!({"outcome": "retry", "delayMs": 0, "error": "no route to host"}),
        )
        .await;
    first
        .settle(1, json!({"outcome": "done", "result": 1}))
        .await;
    let _second = q.open("fido", 1).await;
    q.post("/workers/fido/revoke", json!({"counted": false}))
        .await
        .ok();
    let third = q.open("rex", 1).await;
    let late = third.settle(0, json!({"outcome": "done"})).await;
    assert_eq!(late["settled"][0]["status"], "ok");
    let item = q.get("/items/1").await.ok();
    let history = item["history"].as_array().unwrap();
    let seen: Vec<_> = history
        .iter()
        .map(|one| {
            (
                &one["attempt"],
                &one["worker"],
                &one["outcome"],
                &one["error"],
            )
        })
        .collect();
    let null = &json!(null);
    let expected = [
        (
            &json!(1),
            &json!("rex"),
            &json!("retry"),
            &json!("no route to host"),
        ),
        (&json!(2), &json!("fido"), &json!("disrupted"), null),
        (&json!(2), &json!("rex"), &json!("done"), null),
    ];
    assert_eq!(seen, expected);
    assert!(
        history
            .iter()
            .all(|one| one["leasedAt"].is_string() && one["endedAt"].is_string())
    );
    // One that was done at once leaves nothing behind.
    assert_eq!(q.get("/items/2").await.ok().get("history"), None);
    let listed = q.get("/items").await.ok();
    assert_eq!(listed["items"][0]["history"], item["history"]);
}
