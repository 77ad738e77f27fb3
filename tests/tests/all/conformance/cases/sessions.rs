//! Sessions: who works, until when, and what happens to what they held.

use gangline_tests::Queue;
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) async fn a_repeated_first_call_continues_its_session(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    let first = json!({"worker": "w", "nonce": 7, "lease": {"number": 1, "max": 1}});
    let reply = q.exchange(first.clone()).await.ok();
    let again = q.exchange(first).await.ok();
    assert_eq!(reply["session"], again["session"]);
    assert_eq!(reply["lease"], again["lease"]);
    assert_eq!(q.counts().await, json!({"ready": 1, "leased": 1}));
}

pub(crate) async fn a_new_session_of_a_name_ends_the_older_one(q: Queue) {
    q.push(&[json!(1)]).await;
    let older = q.open("w", 1).await;
    let newer = q.open("w", 1).await;
    assert_ne!(older.id, newer.id);
    assert_eq!(newer.items[0]["id"], older.items[0]["id"]);
    let beat = older.say(json!({"heartbeat": {}})).await.ok();
    assert_eq!(beat["sessionEnd"], "replaced");
    assert_eq!(q.get("").await.ok()["sessions"], 1);
}

pub(crate) async fn a_leaving_session_gives_its_items_back_first_in_line(q: Queue) {
    q.push(&[json!(1), json!(2), json!(3)]).await;
    let leaver = q.open("leaver", 2).await;
    let reply = leaver.say(json!({"leave": true})).await.ok();
    assert_eq!(reply["sessionEnd"], "left");
    let session = q.open("w", 3).await;
    let order: Vec<&Value> = session.items.iter().map(|item| &item["payload"]).collect();
    assert_eq!(order, [&json!(1), &json!(2), &json!(3)]);
    assert!(session.items.iter().all(|item| item["attempt"] == 1));
}

pub(crate) async fn a_revoked_worker_gets_no_new_session_for_a_while(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("w", 1).await;
    let revoked = q
        .post("/workers/w/revoke", json!({"counted": false}))
        .await
        .ok();
    assert_eq!(revoked["session"], session.id);
    let call = json!({"worker": "w", "lease": {"number": 1, "max": 1}});
    let reply = q.exchange(call).await.ok();
    assert!(reply["session"].is_null());
    assert_eq!(reply["lease"]["wait"]["reason"], "revoked");
    assert_eq!(q.open("other", 1).await.items.len(), 1);
    assert!(q.post("/workers/nobody/revoke", json!({})).await.ok()["session"].is_null());
}

pub(crate) async fn a_counted_revoke_counts_an_attempt_and_an_uncounted_one_does_not(q: Queue) {
    q.push(&[json!(1)]).await;
    q.open("a", 1).await;
    q.post("/workers/a/revoke", json!({"counted": false}))
        .await
        .ok();
    let session = q.open("b", 1).await;
    assert_eq!(session.items[0]["attempt"], 1);
    q.post("/workers/b/revoke", json!({"counted": true}))
        .await
        .ok();
    let session = q.open("c", 1).await;
    assert_eq!(session.items[0]["attempt"], 2);
}

pub(crate) async fn a_held_heartbeat_is_answered_when_its_item_is_cancelled(q: Queue) {
    q.push(&[json!(1), json!(2)]).await;
    let session = q.open("w", 2).await;
    let (beat, cancelled) = tokio::join!(
        session.say(json!({"heartbeat": {"holdMs": 20_000}})),
        q.bare(reqwest::Method::DELETE, "/items/2")
    );
    assert_eq!(cancelled.ok()["state"], "cancelled");
    assert_eq!(beat.ok()["lost"], json!([2]));
}

pub(crate) async fn workers_show_what_they_hold(q: Queue) {
    q.push(&[json!(1), json!(2), json!(3)]).await;
    let session = q.open("a", 2).await;
    q.open("b", 1).await;
    session.settle(0, json!({"outcome": "done"})).await;
    let workers = q.get("/workers").await.ok();
    let shown: Vec<_> = workers["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| (&worker["worker"], &worker["holds"], &worker["done"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&json!("a"), &json!(1), &json!(1)),
            (&json!("b"), &json!(1), &json!(0))
        ]
    );
}

pub(crate) async fn a_worker_is_known_to_have_had_a_session_after_its_end(q: Queue) {
    q.push(&[json!(1)]).await;
    let session = q.open("a/b", 1).await;
    let worker = q.get("/workers/a%2Fb").await.ok();
    assert_eq!(worker["name"], "a/b");
    assert_eq!(worker["hadSession"], true);
    assert_eq!(worker["session"]["session"], session.id);
    assert_eq!(worker["session"]["holds"], 1);
    session.say(json!({"leave": true})).await.ok();
    let worker = q.get("/workers/a%2Fb").await.ok();
    assert_eq!(worker, json!({"name": "a/b", "hadSession": true}));
    let worker = q.get("/workers/nobody").await.ok();
    assert_eq!(worker, json!({"name": "nobody", "hadSession": false}));
    // Another queue of the name knows nothing of it.
    q.bare(Method::DELETE, "").await.ok();
    assert_eq!(q.get("/workers/a%2Fb").await.status, 404);
    q.push(&[json!(1)]).await;
    assert_eq!(q.get("/workers/a%2Fb").await.ok()["hadSession"], false);
}
