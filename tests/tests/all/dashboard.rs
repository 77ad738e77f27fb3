//! The dashboard in a real browser.

use gangline_tests::gangline::{end_of, gangline};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Browser, TestServer, browser};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

const SENTENCE: &str = "[data-is=sentence]";
const PHASE: &str = "[data-is=phase]";
const COUNTS: &str = "[data-is=counts]";
const WORKERS: &str = "[data-is=workers]";
const DEAD: &str = "[data-is=dead]";
const CONNECTION: &str = "#connection";

/// Waits until the counts of the page are these.
async fn until_counts(page: &mut Browser, wanted: &[(&str, u64)]) {
    let wanted: Vec<String> = wanted
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    page.until(COUNTS, |text| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        wanted.iter().all(|count| text.contains(count))
    })
    .await;
}

#[tokio::test]
async fn a_job_is_watched_from_its_start_to_its_certificate() {
    if browser::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::start_in(dir.path()).await;
    let origin = server.url.clone();
    let queue = Api::new(&origin, Some(TOKEN)).fresh_queue();
    let mut page = Browser::start().await;
    let name = &queue.name;
    page.open(&format!("{origin}/dashboard?queue={name}#token={TOKEN}"))
        .await;
    page.until(CONNECTION, |text| text == "live").await;
    page.until_contains("#empty", "There is no queue yet").await;

    let payloads: Vec<Value> = (1..=10)
        .map(|n| json!(format!("frame-{n:02}.png")))
        .collect();
    queue.push(&payloads).await;
    page.until(PHASE, |text| text == "open").await;
    page.until_contains(
        SENTENCE,
        "0 % done, 10 items left so far, no worker is here",
    )
    .await;
    until_counts(&mut page, &[("ready", 10), ("leased", 0), ("done", 0)]).await;

    let mut alice = queue.open("alice", 4).await;
    until_counts(&mut page, &[("ready", 6), ("leased", 4)]).await;
    let workers = page.until_contains(WORKERS, "frame-01.png").await;
    assert!(workers.starts_with("alice\t0\t"), "{workers}");
    assert!(workers.contains("frame-04.png"), "{workers}");

    // What comes from a worker is text, whatever it looks like.
    let error = "no pixels: <img src=x onerror=alert(1)>";
    alice
        .settle(0, json!({"outcome": "done", "result": "one"}))
        .await;
    alice
        .settle(1, json!({"outcome": "done", "result": 2}))
        .await;
    alice
        .settle(2, json!({"outcome": "dead", "error": error}))
        .await;
    until_counts(&mut page, &[("leased", 1), ("done", 2), ("dead", 1)]).await;
    let sentence = page.text(SENTENCE).await;
    assert!(
        sentence.starts_with("30 % done, 7 items left"),
        "{sentence}"
    );
    assert!(sentence.ends_with("1 dead"), "{sentence}");
    let bar = "document.querySelector('[role=progressbar]').getAttribute('aria-valuenow')";
    assert_eq!(page.evaluate(bar).await, "30");
    let dead = page.until_contains(DEAD, error).await;
    assert_eq!(dead, format!("1\t{error}\tframe-03.png"));
    page.until_contains(WORKERS, "alice\t2\tframe-04.png").await;
    queue.bare(Method::POST, "/seal").await.ok();
    page.until(PHASE, |text| text == "sealed").await;
    assert_eq!(page.errors(), [&Value::Null; 0]);

    // The same page, never loaded again, finds the service that comes back.
    page.evaluate("window.same = true").await;
    server.stop().await;
    page.until_contains(CONNECTION, "connection lost").await;
    let address = origin.strip_prefix("http://").unwrap().parse().unwrap();
    let mut server = TestServer::start_at(dir.path(), address).await;
    page.until(CONNECTION, |text| text == "live").await;
    assert_eq!(page.evaluate("window.same").await, true);

    alice
        .settle(3, json!({"outcome": "done", "result": null}))
        .await;
    until_counts(&mut page, &[("leased", 0), ("done", 3)]).await;
    alice.lease(6).await;
    for nth in 0..6 {
        alice
            .settle(nth, json!({"outcome": "done", "result": nth}))
            .await;
    }
    page.until(PHASE, |text| text == "drained").await;
    page.until_contains(SENTENCE, "9 of 10 items done, 1 dead, after")
        .await;
    let certificate = queue.get("").await.ok()["certificate"].take();
    let shown = page.until_contains("[data-is=certificate]", "digest").await;
    for field in ["digest", "uid", "cause", "outcome"] {
        let value = certificate[field].as_str().unwrap();
        assert!(
            shown.contains(value),
            "{field} {value} is not shown:\n{shown}"
        );
    }

    // The token is nowhere but in the tab, and nothing was asked of anybody else.
    assert_eq!(page.evaluate("location.hash").await, "");
    for url in page.requests() {
        assert!(url.starts_with(&origin), "{url}");
        assert!(!url.contains(TOKEN) || url.contains("#token="), "{url}");
    }
    for error in page.errors() {
        // While the service was away.
        assert_eq!(error["params"]["entry"]["source"], "network", "{error}");
    }
    page.close().await;
    server.stop().await;
}

#[tokio::test]
async fn the_page_of_a_run_shows_its_end_although_the_service_goes_with_it() {
    if browser::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let program = format!("until test -e {}; do sleep 0.05; done", gate.display());
    let mut run = gangline(&["run", "--range=1..3", "-j3", "--", "sh", "-c", &program])
        .env("XDG_STATE_HOME", dir.path())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(run.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).await.unwrap();
    let (_, url) = line.trim().split_once("watch at ").unwrap();
    let mut page = Browser::start().await;
    page.open(url).await;
    page.until_contains(SENTENCE, "0 % done, 3 items left")
        .await;
    until_counts(&mut page, &[("leased", 3)]).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(end_of(run).await.code, Some(0));
    page.until(PHASE, |text| text == "drained").await;
    page.until_contains(SENTENCE, "Over: all 3 items done, in ")
        .await;
    page.until_contains(CONNECTION, "the service has ended")
        .await;
    page.close().await;
}

#[tokio::test]
async fn a_wrong_token_is_asked_for_and_a_phone_at_night_can_read_the_page() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    let long = "x".repeat(200);
    queue.push(&[json!(long), json!(2)]).await;
    let session = queue.open("a-worker-with-a-rather-long-name", 2).await;
    let error = format!("cannot open {long}");
    session
        .settle(0, json!({"outcome": "dead", "error": error}))
        .await;
    let mut page = Browser::start().await;
    page.call(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true}),
    )
    .await;
    page.open(&format!("{}/dashboard#token=wrong", server.url))
        .await;
    page.until_contains(CONNECTION, "the token is not one of this service")
        .await;
    // The field has the focus already; the keyboard is enough.
    page.until_contains("#ask-token", "wants its token").await;
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
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        page.call("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
        grounds.push(page.evaluate(ground).await);
    }
    assert_eq!(grounds, ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]);
    page.close().await;
}
