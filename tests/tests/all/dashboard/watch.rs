//! Jobs are watched, from their start to their certificate.

use gangline_tests::gangline::{end_of, gangline};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Browser, TestServer, browser};
use reqwest::Method;
use serde_json::{Value, json};

use super::{CONNECTION, DEAD, PHASE, SENTENCE, WORKERS, address_of, be_patient};
use super::{assert_discreet, open, until_counts};

#[tokio::test]
async fn a_job_is_watched_from_its_start_to_its_certificate() {
    if browser::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::start_in(dir.path()).await;
    let origin = server.url.clone();
    let queue = Api::new(&origin, Some(TOKEN)).fresh_queue();
    let mut page = open(&origin, &queue.name, TOKEN).await;
    page.until_contains("#empty", "There is no queue").await;
    be_patient(&queue).await;

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
    page.until_contains(
        "[data-term=ready]",
        "10 items wait for a worker, and none is here",
    )
    .await;
    page.until_contains("[data-term=not_sealed]", "gangline seal")
        .await;

    let mut alice = queue.open("alice", 4).await;
    until_counts(&mut page, &[("ready", 6), ("leased", 4)]).await;
    let workers = page.until_contains(WORKERS, "frame-01.png").await;
    assert!(workers.contains("alice\t0\tframe-01.png"), "{workers}");
    let leased = page
        .until_contains("[data-term=leased]", "frame-04.png")
        .await;
    assert!(leased.contains("alice for "), "{leased}");
    assert!(leased.contains("attempt 1"), "{leased}");

    // What comes from a worker is text, whatever it looks like.
    let error = "no pixels: <img src=x onerror=alert(1)>";
    alice
        .settle(0, json!({"outcome": "done", "result": "<b>one</b>"}))
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
    assert!(dead.contains("frame-03.png #3, 1 attempt"), "{dead}");
    page.until_contains("[data-is=results]", "<b>one</b>").await;
    page.until_contains(WORKERS, "alice\t2\tframe-04.png").await;
    let (id, lease) = (&alice.items[3]["id"], &alice.items[3]["lease"]);
    let said = json!([{"id": id, "lease": lease, "fraction": 0.5, "text": "<i>half</i>"}]);
    alice.say(json!({"progress": said})).await.ok();
    page.until_contains(WORKERS, "(50 % <i>half</i>)").await;
    page.until_contains("[data-term=leased]", "50 % <i>half</i>")
        .await;
    page.until_contains("[data-is=burn-down]", "7 left").await;
    queue.bare(Method::POST, "/seal").await.ok();
    page.until(PHASE, |text| text == "sealed").await;
    assert_eq!(page.errors(), [&Value::Null; 0]);

    // The same page, never loaded again, finds the service that comes back.
    page.evaluate("window.same = true").await;
    server.stop().await;
    page.until_contains(CONNECTION, "connection lost").await;
    page.until_contains("#notice", "goes on by itself").await;
    let address = origin.strip_prefix("http://").unwrap().parse().unwrap();
    let mut server = TestServer::start_at(dir.path(), address).await;
    page.until(CONNECTION, |text| text == "live").await;
    page.until("#notice", str::is_empty).await;
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
    assert_eq!(page.text("[data-is=open]").await, "");

    assert_eq!(page.evaluate("location.hash").await, "");
    assert_discreet(&page, &origin);
    for error in page.errors() {
        // While the service was away.
        assert_eq!(error["params"]["entry"]["source"], "network", "{error}");
    }
    page.close().await;
    server.stop().await;
}

#[tokio::test]
async fn the_page_of_a_run_shows_its_pods_and_its_end_although_the_service_goes_with_it() {
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
    let (url, _stderr) = address_of(&mut run).await;
    let mut page = Browser::start().await;
    page.open(&url).await;
    // The address is that of all queues; there is one.
    page.until_there_are(1, "tbody tr[data-queue]").await;
    page.click("td.name a").await;
    page.until_contains(SENTENCE, "0 % done, 3 items left")
        .await;
    until_counts(&mut page, &[("leased", 3)]).await;
    // The controller has told the service of its Pods.
    page.until_contains("[data-is=pods]", "works on").await;
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
async fn five_hundred_queues_are_found_sorted_and_kept_up_to_date() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let api = Api::new(&server.url, Some(TOKEN));
    for number in 0..500 {
        let path = format!("/v1/queues/batch-{number:03}/items");
        let items: Vec<Value> = (0..=number % 7).map(|n| json!({"payload": n})).collect();
        let pushed = api.call(Method::POST, &path, Some(json!({"items": items})));
        pushed.await.ok();
    }
    let mut page = Browser::start().await;
    page.open(&format!("{}/dashboard#token={TOKEN}", server.url))
        .await;
    page.until_there_are(500, "tbody tr[data-queue]").await;
    page.until_contains("[data-is=summary]", "500 queues · 500 running")
        .await;
    let search = |text: &str| {
        format!(
            "(() => {{ const field = document.getElementById('search'); field.value = {text:?}; \
             field.dispatchEvent(new Event('input')); }})()"
        )
    };
    page.evaluate(&search("batch-04")).await;
    page.until_there_are(10, "tbody tr[data-queue]").await;
    page.evaluate(&search("no such")).await;
    page.until_contains("#none", "No queue is called so").await;
    page.evaluate(&search("")).await;
    page.until_there_are(500, "tbody tr[data-queue]").await;
    // Rows that were never seen are rendered when somebody comes to them.
    let last = "tbody tr:last-child td.name a";
    let seen = format!(
        "(() => {{ const link = document.querySelector({last:?}); link.focus(); \
         const box = link.getBoundingClientRect(); const text = document.createRange(); \
         text.selectNodeContents(link); const of = text.getBoundingClientRect(); \
         return of.width > 20 && document.elementFromPoint(box.x + 5, box.y + box.height / 2) === link; }})()"
    );
    assert_eq!(page.evaluate(&seen).await, true);
    let height = "document.querySelector('.queues tbody').getBoundingClientRect().height";
    let height = page.evaluate(height).await.as_f64().unwrap();
    assert!(height > 500.0 * 20.0, "500 rows in {height} pixels");
    page.evaluate("scrollTo(0, 0)").await;
    // By what is left, the most first.
    page.click("th.left button").await;
    page.until_contains("th[aria-sort=descending]", "Left")
        .await;
    page.until_contains("tbody tr:first-child td.left", "7")
        .await;
    // A change of one queue comes alone, and to its row.
    let sealed = api.call(Method::POST, "/v1/queues/batch-123/pause", None);
    sealed.await.ok();
    page.evaluate("document.querySelector('tr[data-queue=batch-123] a').focus()")
        .await;
    page.until_contains("tr[data-queue=batch-123] td.state", "paused")
        .await;
    let deleted = api.call(Method::DELETE, "/v1/queues/batch-321", None);
    deleted.await.ok();
    page.until_there_are(499, "tbody tr[data-queue]").await;
    assert_eq!(page.errors(), [&Value::Null; 0]);
    page.close().await;
}
