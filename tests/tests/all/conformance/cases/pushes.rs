//! Pushes: single items, batches, streams, and sending them again.

use gangline_tests::Queue;
use reqwest::Method;
use serde_json::{Value, json};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const JSON: (&str, &str) = ("content-type", "application/json");

fn lines(numbers: std::ops::RangeInclusive<u32>) -> String {
    numbers.map(|n| format!("{{\"payload\":{n}}}\n")).collect()
}

pub(crate) async fn a_push_makes_the_queue_and_numbers_its_items(q: Queue) {
    assert_eq!(q.get("").await.refused(404), "queue_not_found");
    assert_eq!(q.push(&[json!("a"), json!("b")]).await, [1, 2]);
    assert_eq!(q.push(&[json!("c")]).await, [3]);
    let status = q.get("").await.ok();
    assert_eq!(
        (&status["phase"], &status["counts"]["ready"]),
        (&json!("open"), &json!(3))
    );
}

pub(crate) async fn a_single_item_is_pushed_as_an_object(q: Queue) {
    let reply = q
        .post("/items", json!({"payload": {"n": 1}, "key": "k"}))
        .await
        .ok();
    assert_eq!(reply["items"], json!([{"id": 1}]));
    let item = q.get("/items/1").await.ok();
    assert_eq!(
        (&item["key"], &item["state"]),
        (&json!("k"), &json!("ready"))
    );
}

pub(crate) async fn a_trace_comes_to_the_worker_with_its_items(q: Queue) {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let own = "00-ffffffffffffffffffffffffffffffff-00f067aa0ba902b7-00";
    let body = json!({"items": [{"payload": 1}, {"payload": 2, "traceparent": own}]}).to_string();
    let key = ("idempotency-key", "k");
    let reply = q
        .push_raw("", &[JSON, key, ("traceparent", trace)], &body)
        .await;
    let again = trace.replace("-00f067", "-11f067");
    let repeat = q
        .push_raw("", &[JSON, key, ("traceparent", &again)], &body)
        .await;
    assert_eq!(reply.ok(), repeat.ok());
    q.push_raw("", &[JSON], "{\"payload\":3}").await.ok();
    let session = q.open("w", 3).await;
    let traces: Vec<&Value> = session
        .items
        .iter()
        .map(|item| &item["traceparent"])
        .collect();
    assert_eq!(traces, [&json!(trace), &json!(own), &Value::Null]);
}

pub(crate) async fn payloads_come_back_byte_for_byte(q: Queue) {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let long = format!("\"{}\"", "x".repeat((1 << 20) - 2));
    let payloads = [
        "18446744073709551615",
        "-9223372036854775808",
        "1.0",
        "1e400",
        "{ \"b\" : 1,  \"a\":2, \"a\":3 }",
        "\"\\u00e9 é 🐕 \\ud83d\\udc15\"",
        "null",
        &deep,
        &long,
    ];
    for payload in payloads {
        let body = format!("{{\"payload\":{payload}}}");
        let reply = q.push_raw("", &[JSON], &body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let path = format!("/v1/queues/{}/lease", q.name);
    let lease = json!({"worker": "w", "lease": {"number": 1, "max": payloads.len()}});
    let response = q
        .api
        .send(Method::POST, &path, &[JSON], lease.to_string().into())
        .await;
    let text = response.text().await.unwrap();
    for payload in payloads {
        let wanted = format!("\"payload\":{payload}}}");
        assert!(
            text.contains(&wanted),
            "{} is not there",
            &payload[..payload.len().min(40)]
        );
    }
}

pub(crate) async fn a_second_item_of_a_key_is_not_taken(q: Queue) {
    let items = json!({"items": [{"payload": 1, "key": "a"}, {"payload": 2, "key": "a"}]});
    let reply = q.post("/items", items).await.ok();
    assert_eq!(
        reply["items"],
        json!([{"id": 1}, {"id": 1, "duplicate": true}])
    );
    assert_eq!(
        (&reply["added"], &reply["duplicates"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(q.get("/items/1").await.ok()["payload"], 1);
}

pub(crate) async fn a_key_stays_taken_after_its_item_is_done(q: Queue) {
    q.post("/items", json!({"payload": 1, "key": "a"}))
        .await
        .ok();
    let session = q.open("w", 1).await;
    session
        .settle(0, json!({"outcome": "done", "result": 1}))
        .await;
    let reply = q
        .post("/items", json!({"payload": 1, "key": "a"}))
        .await
        .ok();
    assert_eq!(reply["items"], json!([{"id": 1, "duplicate": true}]));
    assert_eq!(q.counts().await, json!({"done": 1}));
}

pub(crate) async fn a_batch_under_an_idempotency_key_is_taken_once(q: Queue) {
    let headers = [JSON, ("idempotency-key", "b-1")];
    let body = r#"{"items":[{"payload":1},{"payload":2}]}"#;
    let first = q.push_raw("?seal=true", &headers, body).await.ok();
    let again = q.push_raw("?seal=true", &headers, body).await.ok();
    assert_eq!(first, again);
    assert_eq!(first["added"], 2);
    assert_eq!(q.counts().await, json!({"ready": 2}));
}

pub(crate) async fn another_body_under_an_idempotency_key_is_refused(q: Queue) {
    let headers = [JSON, ("idempotency-key", "b-1")];
    q.push_raw("", &headers, r#"{"payload":1}"#).await.ok();
    let other = q.push_raw("", &headers, r#"{"payload":2}"#).await;
    assert_eq!(other.refused(422), "idempotency_mismatch");
    assert_eq!(q.counts().await, json!({"ready": 1}));
}

pub(crate) async fn an_idempotency_key_survives_the_deletion_of_its_queue(q: Queue) {
    let headers = [JSON, ("idempotency-key", "b-1")];
    let first = q.push_raw("", &headers, r#"{"payload":1}"#).await.ok();
    q.bare(Method::DELETE, "").await.ok();
    let again = q.push_raw("", &headers, r#"{"payload":1}"#).await.ok();
    assert_eq!(first, again);
    assert_eq!(q.get("").await.refused(404), "queue_not_found");
}

pub(crate) async fn a_stream_is_taken_in_chunks_and_sealed_at_its_end(q: Queue) {
    let headers = [NDJSON, ("idempotency-key", "s")];
    let body = lines(1..=2_500);
    let reply = q
        .push_raw("?seal=true&count=2500", &headers, &body)
        .await
        .ok();
    assert_eq!(
        (&reply["added"], &reply["sealed"]),
        (&json!(2_500), &json!(true))
    );
    assert_eq!(q.get("").await.ok()["phase"], "sealed");
    assert_eq!(q.get("/items/2500").await.ok()["payload"], 2_500);
}

pub(crate) async fn a_stream_that_is_sent_again_adds_nothing(q: Queue) {
    let headers = [NDJSON, ("idempotency-key", "s")];
    let body = lines(1..=1_500);
    let first = q.push_raw("?seal=true", &headers, &body).await.ok();
    let again = q.push_raw("?seal=true", &headers, &body).await.ok();
    assert_eq!(first, again);
    assert_eq!(q.counts().await, json!({"ready": 1_500}));
}

pub(crate) async fn a_stream_continues_where_a_shorter_one_ended(q: Queue) {
    let headers = [NDJSON, ("idempotency-key", "s")];
    let broken = format!("{}{{\"payload\":", lines(1..=2_200));
    assert_eq!(
        q.push_raw("", &headers, &broken).await.refused(400),
        "invalid_body"
    );
    assert_eq!(q.counts().await, json!({"ready": 2_000}));
    let reply = q.push_raw("", &headers, &lines(1..=2_300)).await.ok();
    assert_eq!(reply["added"], 2_300);
    assert_eq!(q.counts().await, json!({"ready": 2_300}));
    assert_eq!(q.get("/items/2300").await.ok()["payload"], 2_300);
}

pub(crate) async fn a_stream_with_a_differing_prefix_is_refused(q: Queue) {
    let headers = [NDJSON, ("idempotency-key", "s")];
    q.push_raw("", &headers, &lines(1..=1_200)).await.ok();
    let other = q.push_raw("", &headers, &lines(2..=1_202)).await;
    assert_eq!(other.refused(422), "idempotency_mismatch");
    let shorter = q.push_raw("", &headers, &lines(1..=10)).await;
    assert_eq!(shorter.refused(422), "idempotency_mismatch");
    assert_eq!(q.counts().await, json!({"ready": 1_200}));
}

pub(crate) async fn a_stream_without_a_key_is_all_or_nothing(q: Queue) {
    let one_chunk = q.push_raw("", &[NDJSON], &lines(1..=1_000)).await.ok();
    assert_eq!(one_chunk["added"], 1_000);
    let more = q.push_raw("", &[NDJSON], &lines(1..=1_001)).await;
    assert_eq!(more.refused(413), "body_too_large");
    let bad = q.push_raw("", &[NDJSON], "{\"payload\":1}\nnope\n").await;
    assert_eq!(bad.refused(400), "invalid_body");
    assert_eq!(q.counts().await, json!({"ready": 1_000}));
}

pub(crate) async fn a_bad_line_of_a_stream_is_named(q: Queue) {
    let body = "{\"payload\":1}\n\n{\"payload\":2,\"priority\":10}\n";
    let answer = q.push_raw("", &[NDJSON], body).await;
    let detail = answer.body["detail"].as_str().unwrap().to_owned();
    assert_eq!(answer.refused(400), "out_of_bounds");
    assert!(
        detail.starts_with("line 2: priority must be 0 to 9, got 10"),
        "{detail}"
    );
}

pub(crate) async fn a_stream_of_another_length_than_announced_is_not_sealed(q: Queue) {
    let short = q
        .push_raw("?seal=true&count=3", &[NDJSON], &lines(1..=2))
        .await;
    assert_eq!(short.refused(400), "incomplete_stream");
    assert_eq!(q.get("").await.refused(404), "queue_not_found");
    let batch = q.push_raw("?count=2", &[JSON], r#"{"payload":1}"#).await;
    assert_eq!(batch.refused(400), "incomplete_stream");
}

pub(crate) async fn a_sealed_queue_takes_no_new_items_and_answers_repeats(q: Queue) {
    q.post("/items?seal=true", json!({"payload": 1, "key": "a"}))
        .await
        .ok();
    assert_eq!(
        q.post("/items", json!({"payload": 2})).await.refused(409),
        "queue_sealed"
    );
    let known = q
        .post("/items", json!({"payload": 1, "key": "a"}))
        .await
        .ok();
    assert_eq!(known["duplicates"], 1);
    assert_eq!(q.bare(Method::POST, "/seal").await.ok()["phase"], "sealed");
}
