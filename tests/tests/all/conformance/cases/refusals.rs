//! Bad input: a clear error that names the field, and nothing has changed.

use gangline_tests::Queue;
use serde_json::{Value, json};

#[track_caller]
fn check(answer: gangline_tests::api::Answer, code: &str, field: &str) {
    assert_eq!(answer.body["field"], field, "{}", answer.body);
    assert_eq!(answer.refused(400), code);
}

pub(crate) async fn settings_out_of_bounds_are_refused_by_name(q: Queue) {
    check(
        q.put(json!({"maxAttempts": 0})).await,
        "out_of_bounds",
        "maxAttempts",
    );
    check(
        q.put(json!({"sessionMs": 999})).await,
        "out_of_bounds",
        "sessionMs",
    );
    check(
        q.put(json!({"heartbeatMs": 8_000})).await,
        "out_of_bounds",
        "heartbeatMs",
    );
    check(
        q.put(json!({"maxAttempts": -1})).await,
        "invalid_body",
        "maxAttempts",
    );
    assert_eq!(q.get("").await.refused(404), "queue_not_found");
    let status = q.put(json!({"sessionMs": 3_000})).await.ok();
    assert_eq!(status["settings"]["heartbeatMs"], 1_000);
}

pub(crate) async fn unknown_fields_are_refused_with_their_path(q: Queue) {
    let batch = json!({"items": [{"payload": 1}, {"payload": 2, "prio": 1}]});
    check(
        q.post("/items", batch).await,
        "invalid_body",
        "items[1].prio",
    );
    let array = q.put(json!([3, null])).await;
    assert_eq!(array.refused(400), "invalid_body");
    check(q.put(json!({"colour": 1})).await, "invalid_body", "colour");
    let exchange = json!({"worker": "w", "lease": {"number": 1, "max": 1, "wait": 1}});
    check(q.exchange(exchange).await, "invalid_body", "lease.wait");
    let spawn = json!([{"payload": 1, "priority": 77}]);
    let settle = json!({"id": 1, "lease": 1, "outcome": "done", "spawn": spawn});
    let exchange = json!({"worker": "w", "settles": [settle]});
    check(
        q.exchange(exchange).await,
        "out_of_bounds",
        "settles[0].spawn[0].priority",
    );
    for (field, value, code) in [
        ("fraction", json!(1.5), "out_of_bounds"),
        ("fraction", json!(-0.1), "out_of_bounds"),
        ("text", json!("x".repeat(201)), "out_of_bounds"),
        ("percent", json!(1), "invalid_body"),
    ] {
        let said = json!([{"id": 1, "lease": 1}, {"id": 1, "lease": 1, field: value}]);
        let exchange = json!({"worker": "w", "progress": said});
        let field = format!("progress[1].{field}");
        check(q.exchange(exchange).await, code, &field);
    }
    let said = vec![json!({"id": 1, "lease": 1}); 1_025];
    let exchange = json!({"worker": "w", "progress": said});
    check(q.exchange(exchange).await, "out_of_bounds", "progress");
    assert_eq!(q.get("").await.refused(404), "queue_not_found");
}

pub(crate) async fn fields_that_do_not_go_with_an_outcome_are_refused(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    let cases: [(&str, &str, Value); 5] = [
        ("dead", "result", json!(1)),
        ("retry", "spawn", json!([{"payload": 1}])),
        ("done", "error", json!("e")),
        ("release", "error", json!("e")),
        ("dead", "delayMs", json!(1)),
    ];
    for (outcome, field, value) in cases {
        let settle =
            json!({"id": 1, "lease": session.items[0]["lease"], "outcome": outcome, field: value});
        let answer = session.say(json!({"settles": [settle]})).await;
        check(answer, "invalid_body", &format!("settles[0].{field}"));
    }
    assert_eq!(q.counts().await, json!({"leased": 1}));
    let lease = q
        .post(
            "/lease",
            json!({"worker": "w", "leave": true, "lease": {"number": 1, "max": 1}}),
        )
        .await;
    check(lease, "invalid_body", "leave");
}

pub(crate) async fn bad_names_in_the_path_are_refused(q: Queue) {
    for name in ["UPPER", "a_b", "-a", "a.b.c", "%20", "%F0%9F%90%95"] {
        let answer = q
            .api
            .call(reqwest::Method::GET, &format!("/v1/queues/{name}"), None)
            .await;
        assert_eq!(answer.refused(400), "invalid_parameter", "{name}");
    }
    assert_eq!(q.get("/items/zero").await.refused(400), "invalid_parameter");
    assert_eq!(
        q.get("/items?state=lost").await.refused(400),
        "invalid_parameter"
    );
    assert_eq!(q.get("/items?max=1001").await.refused(400), "out_of_bounds");
    assert_eq!(q.get("/nothing").await.refused(404), "not_found");
    assert_eq!(
        q.bare(reqwest::Method::PATCH, "").await.refused(405),
        "method_not_allowed"
    );
}

pub(crate) async fn forms_and_other_media_types_are_refused(q: Queue) {
    for kind in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data",
    ] {
        let answer = q
            .push_raw("", &[("content-type", kind)], r#"{"payload":1}"#)
            .await;
        assert_eq!(answer.refused(415), "unsupported_media_type", "{kind}");
    }
    let json = [("content-type", "application/json; charset=utf-8")];
    for body in [
        "",
        "{",
        "[]",
        "[[{\"payload\":1}]]",
        " [1,null]",
        "{\"payload\":1}x",
        "{\"payload\":\u{1}}",
        "{}",
    ] {
        assert_eq!(
            q.push_raw("", &json, body).await.refused(400),
            "invalid_body",
            "{body:?}"
        );
    }
    let large = format!("{{\"payload\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(
        q.push_raw("", &json, &large).await.refused(400),
        "out_of_bounds"
    );
    assert_eq!(q.get("").await.refused(404), "queue_not_found");
}
