//! What a person may do from the page, and what only looks.

use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Browser, TestServer, browser};
use reqwest::Method;
use serde_json::json;

use super::{DEAD, PHASE, open, patient_queue, until_counts};

/// Clicks an action, checks the command that is offered, and confirms.
async fn act(page: &mut Browser, button: &str, command: &str) {
    page.click(button).await;
    page.until_contains("dialog .command", command).await;
    page.click("dialog button[type=submit]").await;
    page.until_there_are(0, "dialog").await;
}

#[tokio::test]
async fn a_queue_is_paused_redriven_sealed_and_stopped_from_the_page() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let queue = patient_queue(&Api::new(&server.url, Some(TOKEN))).await;
    queue
        .push(&[json!("a.png"), json!("b.png"), json!("c.png")])
        .await;
    let alice = queue.open("alice", 2).await;
    let error = "cannot open a.png";
    alice
        .settle(0, json!({"outcome": "dead", "error": error}))
        .await;
    let mut page = open(&server.url, &queue.name, TOKEN).await;
    let line = |verb: &str| format!("gangline {verb} --url {} {}", server.url, queue.name);

    page.until_contains("[data-action=pause]", "Pause").await;
    act(&mut page, "[data-action=pause]", &line("pause")).await;
    page.until(PHASE, |text| text == "open, paused").await;
    page.until_contains("[data-term=paused]", "until somebody resumes it")
        .await;
    act(&mut page, "[data-action=resume]", &line("resume")).await;
    page.until(PHASE, |text| text == "open").await;

    // A dead item is found, looked into, and made ready again.
    page.until_contains(DEAD, error).await;
    page.click("[data-is=dead] .names button").await;
    let item = page
        .until_contains("dialog", "Error of the last attempt")
        .await;
    for text in ["a.png", error, "dead"] {
        assert!(item.contains(text), "{text} is not in {item}");
    }
    let attempts = page
        .until_contains("[data-is=attempts]", "failed for good")
        .await;
    assert!(attempts.contains("alice"), "{attempts}");
    page.click("dialog form button.main").await;
    page.until_there_are(0, "dialog").await;
    act(&mut page, "[data-is=dead] .beside button", &line("redrive")).await;
    until_counts(&mut page, &[("dead", 0), ("ready", 2)]).await;

    // One that is being worked on is looked into, too, and cancelled.
    page.click("[data-term=leased] button.link").await;
    page.until_contains("dialog", "leased").await;
    page.until_contains("dialog [data-is=act]", "Cancel the item")
        .await;
    let cancel = format!("{} 2", line("cancel"));
    act(&mut page, "dialog [data-is=act]", &cancel).await;
    until_counts(&mut page, &[("leased", 0), ("cancelled", 1)]).await;

    act(&mut page, "[data-action=seal]", &line("seal")).await;
    page.until(PHASE, |text| text == "sealed").await;
    // What cannot be taken back is not done by a dialog that is left.
    page.click("[data-action=stop]").await;
    page.until_contains("dialog", "will be abandoned").await;
    page.evaluate("document.querySelector('dialog').close()")
        .await;
    page.until_there_are(0, "dialog").await;
    assert_eq!(queue.get("").await.ok()["phase"], "sealed");
    page.click("[data-action=stop]").await;
    page.evaluate(
        "(() => { const field = document.querySelector('dialog input'); field.value = \"it's late\"; \
         field.dispatchEvent(new Event('input')); })()",
    )
    .await;
    page.until_contains("dialog .command", r"--reason 'it'\''s late'")
        .await;
    page.click("dialog button[type=submit]").await;
    page.until(PHASE, |text| text == "stopped").await;
    let certificate = queue.get("").await.ok()["certificate"].take();
    assert_eq!(certificate["reason"], "it's late");
    assert_eq!(certificate["endedBy"], "dashboard");
    page.until_there_are(1, "[data-action]:not([hidden])").await;
    page.close().await;
}

#[tokio::test]
async fn a_token_that_may_only_look_sees_no_action() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let root = Api::new(&server.url, Some(TOKEN));
    let queue = patient_queue(&root).await;
    queue.push(&[json!(1), json!(2)]).await;
    let alice = queue.open("alice", 1).await;
    alice
        .settle(0, json!({"outcome": "dead", "error": "no"}))
        .await;
    for (role, actions, redrives) in [("observer", 0, 0), ("admin", 4, 1)] {
        let wanted = json!({"roles": [role], "namespace": "*"});
        let made = root.call(Method::POST, "/v1/tokens", Some(wanted)).await;
        let token = made.ok()["token"].as_str().unwrap().to_owned();
        let mut page = open(&server.url, &queue.name, &token).await;
        page.until_contains(super::WORKERS, "alice").await;
        page.until_contains(DEAD, "no").await;
        page.until_there_are(actions, "[data-action]:not([hidden])")
            .await;
        page.until_there_are(redrives, "[data-is=dead] .beside button:not([hidden])")
            .await;
        page.until_there_are(redrives, "[data-is=redrive-these]:not([hidden])")
            .await;
        page.click("[data-is=dead] .names button").await;
        page.until_contains("dialog pre", "no").await;
        page.until_there_are(redrives, "dialog [data-is=act]").await;
        page.close().await;
    }
}

#[tokio::test]
async fn dead_items_are_grouped_however_many_and_redriven_by_their_kind() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    let payloads: Vec<_> = (1..=150).map(|number| json!(number)).collect();
    queue.push(&payloads).await;
    let alice = queue.open("alice", 150).await;
    let settles: Vec<_> = alice
        .items
        .iter()
        .enumerate()
        .map(|(nth, item)| {
            let error = match nth {
                0..120 => format!("it's out of memory at {nth}"),
                _ => "no such file".to_owned(),
            };
            json!({"id": item["id"], "lease": item["lease"], "outcome": "dead", "error": error})
        })
        .collect();
    alice.say(json!({"settles": settles})).await.ok();
    let mut page = open(&server.url, &queue.name, TOKEN).await;
    // More than the page looks at one by one.
    page.until_contains("[data-is=dead] details:nth-of-type(1) .how-many", "120")
        .await;
    page.until_contains("[data-is=dead] details:nth-of-type(1)", "… and the like")
        .await;
    page.until_contains(
        "[data-is=dead] details:nth-of-type(1)",
        "and 100 items more",
    )
    .await;
    page.until_contains("[data-is=dead] details:nth-of-type(2) .how-many", "30")
        .await;
    let button = "[data-is=dead] details:nth-of-type(1) [data-is=redrive-these]";
    let line = r"--error 'it'\''s out of memory at 0'";
    act(&mut page, button, line).await;
    until_counts(&mut page, &[("dead", 30), ("ready", 120)]).await;
    page.until_there_are(1, "[data-is=dead] details").await;
    page.close().await;
}
