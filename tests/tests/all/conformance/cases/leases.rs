//! Leases: what is handed out, in which order, and how long a call is held.

use gangline_tests::Queue;
use reqwest::Method;
use serde_json::{Value, json};

fn payloads(items: &[Value]) -> Vec<Value> {
    items.iter().map(|item| item["payload"].clone()).collect()
}

pub(crate) async fn higher_priorities_come_first_and_equal_ones_in_order(q: Queue) {
    let items = json!({"items": [
        {"payload": "a"}, {"payload": "low", "priority": 0}, {"payload": "b"},
        {"payload": "high", "priority": 9}, {"payload": "c", "priority": 5},
    ]});
    q.post("/items", items).await.ok();
    let session = q.open("w", 10).await;
    assert_eq!(
        payloads(&session.items),
        [
            json!("high"),
            json!("a"),
            json!("b"),
            json!("c"),
            json!("low")
        ]
    );
}

pub(crate) async fn a_lease_of_large_payloads_gives_fewer_than_asked_for(q: Queue) {
    const LARGE: usize = 1 << 20;
    for _ in 0..10 {
        let payload = "x".repeat(LARGE - 2);
        q.post("/items", json!({"payload": payload})).await.ok();
    }
    let mut session = q.open("w", 100).await;
    assert_eq!(session.items.len(), 8);
    let reply = session.lease(100).await;
    assert_eq!(reply["lease"]["items"].as_array().unwrap().len(), 2);
}

pub(crate) async fn a_delayed_item_waits_for_its_time(q: Queue) {
    let tomorrow = json!({"payload": 2, "delayMs": 86_400_000});
    q.post("/items", tomorrow).await.ok();
    let mut session = q.open("w", 1).await;
    assert!(session.items.is_empty());
    let reply = session.lease(1).await;
    assert_eq!(reply["lease"]["wait"]["reason"], "delayed");
    assert!(reply["lease"]["wait"]["dueAt"].is_string());
    assert_eq!(q.counts().await, json!({"delayed": 1}));
    let soon = json!({"payload": 1, "delayMs": 300});
    q.post("/items", soon).await.ok();
    let lease = json!({"number": 3, "max": 2, "waitMs": 20_000});
    let reply = session.say(json!({"lease": lease})).await.ok();
    assert_eq!(
        payloads(reply["lease"]["items"].as_array().unwrap()),
        [json!(1)]
    );
}

pub(crate) async fn a_lease_on_a_queue_that_does_not_exist_waits(q: Queue) {
    let lease = json!({"worker": "w", "lease": {"number": 1, "max": 1}});
    let reply = q.post("/lease", lease).await.ok();
    assert_eq!(reply["lease"]["wait"]["reason"], "no_such_queue");
    assert!(reply["session"].is_null());
    assert_eq!(q.get("").await.refused(404), "queue_not_found");
    let held = json!({"worker": "w", "lease": {"number": 1, "max": 1, "waitMs": 20_000}});
    let item = json!({"payload": "now"});
    let (reply, _) = tokio::join!(q.post("/lease", held), q.post("/items", item));
    assert_eq!(
        payloads(reply.ok()["lease"]["items"].as_array().unwrap()),
        [json!("now")]
    );
}

pub(crate) async fn a_held_lease_is_woken_by_a_push(q: Queue) {
    q.put(json!({})).await.ok();
    let mut session = q.open("w", 1).await;
    session.number += 1;
    let lease = json!({"number": session.number, "max": 5, "waitMs": 20_000});
    let item = json!({"payload": 1});
    let (reply, _) = tokio::join!(session.say(json!({"lease": lease})), q.post("/items", item));
    assert_eq!(reply.ok()["lease"]["items"].as_array().unwrap().len(), 1);
}

pub(crate) async fn a_revoked_session_in_line_keeps_no_item_from_the_next(q: Queue) {
    q.put(json!({})).await.ok();
    let revoked = q.open("revoked", 1).await;
    let next = q.open("next", 1).await;
    // Shorter than after what time a held request is looked at unasked.
    let lease = json!({"lease": {"number": 2, "max": 1, "waitMs": 4_000}});
    let (ended, reply, ()) = tokio::join!(revoked.say(lease.clone()), next.say(lease), async {
        q.post("/workers/revoked/revoke", json!({})).await.ok();
        q.push(&[json!(1)]).await;
    });
    assert_eq!(ended.ok()["sessionEnd"], "revoked");
    assert_eq!(reply.ok()["lease"]["items"][0]["payload"], 1);
}

pub(crate) async fn a_held_lease_is_woken_by_the_end(q: Queue) {
    q.put(json!({})).await.ok();
    let session = q.open("w", 1).await;
    let lease = json!({"number": 2, "max": 1, "waitMs": 20_000});
    let (reply, _) = tokio::join!(
        session.say(json!({"lease": lease})),
        q.bare(Method::POST, "/seal")
    );
    assert_eq!(reply.ok()["over"]["phase"], "drained");
}

pub(crate) async fn a_repeated_lease_request_gets_the_same_items(q: Queue) {
    q.push(&[json!(1), json!(2), json!(3)]).await;
    let session = q.open("w", 2).await;
    let again = session
        .say(json!({"lease": {"number": 1, "max": 2}}))
        .await
        .ok();
    assert_eq!(again["lease"]["items"], json!(session.items));
    assert_eq!(q.counts().await, json!({"ready": 1, "leased": 2}));
}

pub(crate) async fn a_lease_request_with_an_older_number_is_refused(q: Queue) {
    q.push(&[json!(1), json!(2), json!(3)]).await;
    let mut session = q.open("w", 1).await;
    session.lease(1).await;
    let older = session.say(json!({"lease": {"number": 1, "max": 1}})).await;
    assert_eq!(older.refused(409), "lease_number_out_of_order");
}

pub(crate) async fn a_paused_queue_hands_out_nothing_until_it_is_resumed(q: Queue) {
    q.push(&[json!(1)]).await;
    assert_eq!(q.bare(Method::POST, "/pause").await.ok()["paused"], true);
    let mut session = q.open("w", 1).await;
    assert!(session.items.is_empty());
    assert_eq!(session.lease(1).await["lease"]["wait"]["reason"], "paused");
    let lease = json!({"number": 3, "max": 1, "waitMs": 20_000});
    let (reply, _) = tokio::join!(
        session.say(json!({"lease": lease})),
        q.bare(Method::POST, "/resume")
    );
    assert_eq!(reply.ok()["lease"]["items"][0]["payload"], 1);
}

pub(crate) async fn max_leased_bounds_all_sessions_together(q: Queue) {
    q.put(json!({"maxLeased": 2})).await.ok();
    q.push(&[json!(1), json!(2), json!(3)]).await;
    let first = q.open("a", 5).await;
    assert_eq!(first.items.len(), 2);
    let mut second = q.open("b", 5).await;
    assert!(second.items.is_empty());
    assert_eq!(
        second.lease(1).await["lease"]["wait"]["reason"],
        "limit_reached"
    );
    let lease = json!({"number": 3, "max": 1, "waitMs": 20_000});
    let (reply, _) = tokio::join!(
        second.say(json!({"lease": lease})),
        first.settle(0, json!({"outcome": "done"}))
    );
    assert_eq!(reply.ok()["lease"]["items"].as_array().unwrap().len(), 1);
}

pub(crate) async fn full_results_hold_leases_back_until_more_are_allowed(q: Queue) {
    q.put(json!({"resultsBytesMax": 8})).await.ok();
    q.push(&[json!(1), json!(2), json!(3), json!(4)]).await;
    let mut session = q.open("w", 3).await;
    // What is leased is taken, however much it is.
    for nth in 0..2 {
        session
            .settle(nth, json!({"outcome": "done", "result": "a result"}))
            .await;
    }
    assert_eq!(
        session.lease(1).await["lease"]["wait"]["reason"],
        "results_full"
    );
    let explanation = q.get("/explain").await.ok();
    let ready = &explanation["terms"][0];
    assert_eq!(
        (&ready["because"], &ready["trouble"]),
        (&json!("results_full"), &json!(true))
    );
    let lease = json!({"number": 3, "max": 1, "waitMs": 20_000});
    let (reply, _) = tokio::join!(
        session.say(json!({"lease": lease})),
        q.put(json!({"resultsBytesMax": 21}))
    );
    assert_eq!(reply.ok()["lease"]["items"][0]["payload"], 4);
    assert_eq!(q.results("").await.len(), 2);
    let settings = q.put(json!({"resultsBytesMax": 0})).await.ok();
    assert_eq!(settings["settings"].get("resultsBytesMax"), None);
}

pub(crate) async fn the_time_limit_of_a_queue_is_that_of_items_without_one(q: Queue) {
    q.put(json!({"timeLimitMs": 60_000})).await.ok();
    q.push(&[json!(1)]).await;
    q.post("/items", json!({"payload": 2, "timeLimitMs": 7_000}))
        .await
        .ok();
    let session = q.open("w", 2).await;
    let limits: Vec<_> = session
        .items
        .iter()
        .map(|item| &item["timeLimitMs"])
        .collect();
    assert_eq!(limits, [&json!(60_000), &json!(7_000)]);
}

pub(crate) async fn how_far_a_worker_is_with_an_item_is_shown_until_its_lease_ends(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    let session = q.open("w", 2).await;
    let of = |nth: usize, fraction: f64| {
        let item = &session.items[nth];
        json!({"id": item["id"], "lease": item["lease"], "fraction": fraction, "text": "page 3"})
    };
    let shown = async |id: u64| q.get(&format!("/items/{id}")).await.ok()["progress"].clone();
    assert_eq!(shown(1).await, Value::Null);
    session.say(json!({"progress": [of(0, 0.25)]})).await.ok();
    session
        .say(json!({"heartbeat": {}, "progress": [of(0, 0.5)]}))
        .await
        .ok();
    let progress = shown(1).await;
    assert_eq!(
        (&progress["fraction"], &progress["text"]),
        (&json!(0.5), &json!("page 3"))
    );
    assert!(progress["at"].is_string());
    assert_eq!(shown(2).await, Value::Null);
    // Where it is asked what keeps the queue open, too.
    let explanation = q.get("/explain").await.ok();
    let terms = explanation["terms"].as_array().unwrap();
    let leased = terms.iter().find(|term| term["term"] == "leased").unwrap();
    assert_eq!(leased["oldest"][0]["progress"], progress);
    let listed = q.get("/items?state=leased").await.ok();
    assert_eq!(listed["items"][0]["progress"], progress);
    // Of something else than what it holds nobody can say anything.
    let mut stale = of(1, 0.75);
    stale["lease"] = json!(1);
    session.say(json!({"progress": [stale]})).await.ok();
    session
        .settle(0, json!({"outcome": "retry", "delayMs": 0}))
        .await;
    assert_eq!((shown(1).await, shown(2).await), (Value::Null, Value::Null));
    let _other = q.open("other", 1).await;
    session.say(json!({"progress": [of(0, 0.9)]})).await.ok();
    assert_eq!(shown(1).await, Value::Null);
}
