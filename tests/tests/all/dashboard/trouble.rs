//! What goes wrong under the page: each says what happened, and what to do.

use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Browser, TestServer, browser};
use reqwest::Method;
use serde_json::{Value, json};

use super::{CONNECTION, DEAD, PHASE, WORKERS, open, patient_queue};

#[tokio::test]
async fn a_wrong_token_is_asked_for_and_a_phone_at_night_can_read_the_page() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let queue = patient_queue(&Api::new(&server.url, Some(TOKEN))).await;
    let long = "x".repeat(200);
    queue.push(&[json!(long), json!(2)]).await;
    let session = queue.open("a-worker-with-a-rather-long-name", 2).await;
    let error = format!("cannot open {long}");
    session
        .settle(0, json!({"outcome": "dead", "error": error}))
        .await;
    let mut page = Browser::start().await;
    page.look_like(360, 740, "light").await;
    let url = format!("{}/dashboard?queue={}#token=wrong", server.url, queue.name);
    page.open(&url).await;
    page.until_contains(CONNECTION, "the token is not one of this service")
        .await;
    // The field has the focus already; the keyboard is enough.
    page.until_contains("#ask-token", "gangline token create")
        .await;
    page.call("Input.insertText", json!({"text": TOKEN})).await;
    let enter = json!({"type": "keyDown", "key": "Enter", "code": "Enter", "text": "\r",
        "windowsVirtualKeyCode": 13});
    page.call("Input.dispatchKeyEvent", enter).await;
    page.until(CONNECTION, |text| text == "live").await;
    page.until_contains(DEAD, "cannot open").await;
    page.until_contains(WORKERS, "a-worker-with-a-rather-long-name")
        .await;
    let width = page.evaluate("document.documentElement.scrollWidth").await;
    assert_eq!(width, 360, "the page is wider than the screen");
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = page.evaluate(ground).await;
    page.look_like(360, 740, "dark").await;
    assert_ne!(page.evaluate(ground).await, light);
    page.close().await;
}

#[tokio::test]
async fn a_token_for_another_queue_is_told_what_it_is_for() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let root = Api::new(&server.url, Some(TOKEN));
    let wanted = json!({"roles": ["observer"], "queue": "other"});
    let made = root.call(Method::POST, "/v1/tokens", Some(wanted)).await;
    let token = made.ok()["token"].as_str().unwrap().to_owned();
    let mut page = Browser::start().await;
    page.open(&format!(
        "{}/dashboard?queue=mine#token={token}",
        server.url
    ))
    .await;
    page.until_contains("#ask-why", "The token may not see this")
        .await;
    page.close().await;
}

#[tokio::test]
async fn a_job_deleted_under_the_page_leaves_what_was_known_of_it() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    queue.push(&[json!(1)]).await;
    let mut page = open(&server.url, &queue.name, TOKEN).await;
    page.until(PHASE, |text| text == "open").await;
    queue.bare(Method::DELETE, "").await.ok();
    page.until_contains("#empty", "has been deleted").await;
    page.until_there_are(0, "[data-action]:not([hidden])").await;
    assert_eq!(page.text(PHASE).await, "open");
    // A new one of the name is another queue, and is shown.
    queue.push(&[json!(1), json!(2)]).await;
    page.until_contains("[data-is=sentence]", "2 items left")
        .await;
    page.until("#empty", str::is_empty).await;
    page.close().await;
}

#[tokio::test]
async fn markup_is_text_and_a_huge_payload_is_cut_with_a_way_to_have_all_of_it() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let queue = patient_queue(&Api::new(&server.url, Some(TOKEN))).await;
    let markup = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>";
    let huge = "y".repeat(500_000);
    queue.push(&[json!({"html": markup}), json!(huge)]).await;
    let session = queue.open("w", 2).await;
    for nth in 0..2 {
        session
            .settle(nth, json!({"outcome": "dead", "error": markup}))
            .await;
    }
    let mut page = open(&server.url, &queue.name, TOKEN).await;
    page.until_contains(DEAD, markup).await;
    page.click("[data-is=dead] .names li:nth-child(1) button")
        .await;
    page.until_contains("dialog pre:last-of-type", "<script>")
        .await;
    page.evaluate("document.querySelector('dialog').close()")
        .await;
    page.until_there_are(0, "dialog").await;
    page.click("[data-is=dead] .names li:nth-child(2) button")
        .await;
    page.until_contains("dialog", "Cut after 4,000 of 500,000 characters (490 KiB)")
        .await;
    let shown = page
        .evaluate("document.querySelector('dialog').innerText.length")
        .await;
    assert!(shown.as_u64().unwrap() < 10_000, "{shown}");
    // All of it is what is saved.
    let saved = "new Promise((resolve) => { URL.createObjectURL = (blob) => { resolve(blob.size); return '#'; }; \
        document.querySelector('dialog .quiet').click(); })";
    assert_eq!(page.evaluate(saved).await, 500_000);
    assert_eq!(page.evaluate("window.owned ?? null").await, Value::Null);
    assert_eq!(page.errors(), [&Value::Null; 0]);
    page.close().await;
}
