//! How queues end, and what everybody sees then.

use gangline_tests::Queue;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) async fn a_seal_of_an_empty_queue_drains_it(q: Queue) {
    let status = q.bare(Method::POST, "/seal").await.ok();
    assert_eq!(status["phase"], "drained");
    assert_eq!(status["certificate"]["cause"], "drained");
    assert_eq!(status["certificate"]["digest"], "0".repeat(64));
}

pub(crate) async fn the_last_settle_drains_a_sealed_queue_in_its_own_answer(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    q.bare(Method::POST, "/seal").await.ok();
    let session = q.open("w", 2).await;
    let first = session.settle(0, json!({"outcome": "done"})).await;
    assert!(first["over"].is_null());
    let last = session
        .settle(1, json!({"outcome": "dead", "error": "no"}))
        .await;
    assert_eq!(last["over"]["phase"], "drained");
    assert_eq!(last["over"]["outcome"], "success");
    assert_eq!(
        (
            &last["over"]["counts"]["done"],
            &last["over"]["counts"]["dead"]
        ),
        (&json!(1), &json!(1))
    );
}

pub(crate) async fn a_drained_queue_shows_its_certificate_to_everybody(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    let peer = q.open("peer", 1).await;
    q.bare(Method::POST, "/seal").await.ok();
    let certificate = session
        .settle(0, json!({"outcome": "done", "result": 7}))
        .await["over"]
        .clone();
    let beat = peer
        .say(json!({"heartbeat": {"holdMs": 10_000}}))
        .await
        .ok();
    assert_eq!(beat["over"], certificate);
    let stranger = q
        .exchange(json!({"worker": "late", "lease": {"number": 1, "max": 1}}))
        .await
        .ok();
    assert_eq!(stranger["over"], certificate);
    assert!(stranger["session"].is_null());
    assert_eq!(q.get("").await.ok()["certificate"], certificate);
}

pub(crate) async fn a_stop_abandons_what_is_left_and_refuses_results(q: Queue) {
    q.push(&[json!(1), json!(2), json!(3)]).await;
    let session = q.open("w", 2).await;
    session.settle(0, json!({"outcome": "done"})).await;
    let stop = json!({"outcome": "failure", "reason": "enough", "by": "me"});
    let certificate = q.post("/stop", stop).await.ok()["certificate"].clone();
    assert_eq!(
        (&certificate["cause"], &certificate["outcome"]),
        (&json!("stop"), &json!("failure"))
    );
    assert_eq!(
        (&certificate["reason"], &certificate["endedBy"]),
        (&json!("enough"), &json!("me"))
    );
    let late = session
        .settle(1, json!({"outcome": "done", "result": 2}))
        .await;
    assert_eq!(late["settled"][0]["status"], "over");
    assert_eq!(late["over"], certificate);
    assert_eq!(q.counts().await, json!({"done": 1, "abandoned": 2}));
    assert_eq!(
        q.post("/items", json!({"payload": 4})).await.refused(409),
        "queue_over"
    );
}

pub(crate) async fn a_worker_stops_the_queue_with_its_settle(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    let session = q.open("finder", 1).await;
    let reply = session
        .settle(
            0,
            json!({"outcome": "done", "result": 42, "stop": "success"}),
        )
        .await;
    let over = &reply["over"];
    assert_eq!(
        (&over["phase"], &over["cause"], &over["endedBy"]),
        (&json!("stopped"), &json!("worker"), &json!("finder"))
    );
    assert_eq!(q.results("").await.len(), 1);
    assert_eq!(q.counts().await, json!({"done": 1, "abandoned": 1}));
}

pub(crate) async fn cancelled_items_are_a_fourth_end(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    let session = q.open("w", 1).await;
    assert_eq!(
        q.bare(Method::DELETE, "/items/1").await.ok()["state"],
        "cancelled"
    );
    let late = session.settle(0, json!({"outcome": "done"})).await;
    assert_eq!(late["settled"][0]["status"], "cancelled");
    q.bare(Method::POST, "/seal").await.ok();
    assert_eq!(q.get("").await.ok()["phase"], "sealed");
    assert_eq!(
        q.bare(Method::DELETE, "/items/2").await.ok()["state"],
        "cancelled"
    );
    assert_eq!(q.get("").await.ok()["phase"], "drained");
    assert_eq!(q.counts().await, json!({"cancelled": 2}));
    assert_eq!(
        q.bare(Method::DELETE, "/items/3").await.refused(404),
        "item_not_found"
    );
}

pub(crate) async fn a_deleted_queue_is_gone_and_its_workers_hear_of_it(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    let (beat, deleted) = tokio::join!(
        session.say(json!({"heartbeat": {"holdMs": 20_000}})),
        q.bare(Method::DELETE, "")
    );
    assert_eq!(deleted.ok()["certificate"]["cause"], "deleted");
    let over = beat.ok()["over"].clone();
    assert_eq!(
        (&over["cause"], &over["outcome"]),
        (&json!("deleted"), &json!("failure"))
    );
    assert_eq!(q.get("").await.refused(404), "queue_not_found");
}

pub(crate) async fn an_old_uid_is_answered_over(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    q.bare(Method::DELETE, "").await.ok();
    q.push(&[json!(2)]).await;
    let reply = session.settle(0, json!({"outcome": "done"})).await;
    assert_eq!(reply["over"]["cause"], "deleted");
    assert_eq!(reply["over"]["uid"], session.uid);
    assert_eq!(q.counts().await, json!({"ready": 1}));
}

pub(crate) async fn results_come_back_byte_for_byte_on_one_line(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    let session = q.open("w", 2).await;
    let path = format!("/v1/queues/{}/settle", q.name);
    for (nth, result) in ["{ \"b\":1e400,\"b\":18446744073709551615 }", "[1,\n 2]"]
        .iter()
        .enumerate()
    {
        let (id, lease) = (&session.items[nth]["id"], &session.items[nth]["lease"]);
        let body = format!(
            "{{\"worker\":\"w\",\"session\":{},\"settles\":[{{\"id\":{id},\"lease\":{lease},\
             \"outcome\":\"done\",\"result\":{result}}}]}}",
            session.id
        );
        let headers = [("content-type", "application/json")];
        let reply = q.api.send(Method::POST, &path, &headers, body.into()).await;
        assert_eq!(reply.status().as_u16(), 200);
    }
    let lines = q.results("").await;
    assert!(
        lines[0].contains("\"result\":{ \"b\":1e400,\"b\":18446744073709551615 },"),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains("\"result\":[1,  2],"), "{}", lines[1]);
}

pub(crate) async fn results_are_resumed_by_cursor_and_followed_to_the_end(q: Queue) {
    q.push(&[json!(1), json!(2), json!(3)]).await;
    q.bare(Method::POST, "/seal").await.ok();
    let session = q.open("w", 3).await;
    session
        .settle(2, json!({"outcome": "done", "result": "first"}))
        .await;
    let finish = async {
        session
            .settle(0, json!({"outcome": "done", "result": "second"}))
            .await;
        session
            .settle(1, json!({"outcome": "done", "result": "third"}))
            .await;
    };
    let (lines, ()) = tokio::join!(q.results("?follow=true&cursor=1"), finish);
    let results: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let shown: Vec<_> = results
        .iter()
        .map(|line| (&line["id"], &line["result"]))
        .collect();
    assert_eq!(
        shown,
        [(&json!(1), &json!("second")), (&json!(2), &json!("third"))]
    );
    assert_eq!(q.results("?cursor=3").await.len(), 0);
    assert_eq!(q.results("?cursor=99").await.len(), 0);
}

pub(crate) async fn wait_answers_at_the_end(q: Queue) {
    assert_eq!(q.get("/wait").await.refused(404), "queue_not_found");
    q.push(&[json!(1)]).await;
    assert_eq!(
        q.get("/wait?until=over&waitMs=1").await.ok()["phase"],
        "open"
    );
    let session = q.open("w", 1).await;
    let end = async {
        q.bare(Method::POST, "/seal").await.ok();
        session.settle(0, json!({"outcome": "done"})).await;
    };
    let (waited, ()) = tokio::join!(q.get("/wait?until=over&waitMs=50000"), end);
    assert_eq!(waited.ok()["phase"], "drained");
}

pub(crate) async fn the_digest_is_that_of_the_results(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    q.bare(Method::POST, "/seal").await.ok();
    let session = q.open("w", 2).await;
    session
        .settle(1, json!({"outcome": "done", "result": "b"}))
        .await;
    let over = session
        .settle(0, json!({"outcome": "done", "result": [1, 2]}))
        .await["over"]
        .clone();
    let mut sum = [0_u8; 32];
    for (id, result) in [(1_u64, "[1,2]"), (2, "\"b\"")] {
        let hash = Sha256::new_with_prefix(id.to_be_bytes())
            .chain_update(result)
            .finalize();
        let mut carry = 0;
        for at in (0..32).rev() {
            let digit = u16::from(sum[at]) + u16::from(hash[at]) + carry;
            sum[at] = digit.to_be_bytes()[1];
            carry = digit >> 8;
        }
    }
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(over["digest"], hex);
}

pub(crate) async fn a_queue_that_is_idle_for_long_enough_seals_itself(q: Queue) {
    let settings = json!({"sealWhenIdleMs": 3_000, "sessionMs": 1_000, "heartbeatMs": 100});
    q.put(settings).await.ok();
    assert_eq!(q.get("").await.ok()["phase"], "open");
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    session.settle(0, json!({"outcome": "done"})).await;
    let over = q.get("/wait?until=over&waitMs=40000").await.ok();
    assert_eq!(
        (&over["phase"], &over["counts"]["done"]),
        (&json!("drained"), &json!(1))
    );
    let refused = q.post("/items", json!({"payload": 2})).await;
    assert_eq!(refused.refused(409), "queue_over");
    let settings = q
        .put(json!({"sealWhenIdleMs": 30_u64 * 24 * 3_600_000 + 1}))
        .await;
    assert_eq!(settings.refused(400), "out_of_bounds");
}
