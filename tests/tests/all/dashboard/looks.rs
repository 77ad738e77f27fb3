//! How the page looks, and whether everybody can use it.
//!
//! The pictures are for people: `target/screenshots/`; `docs/images/dashboard.png` is `job-light.png`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use gangline_tests::api::http_client;
use gangline_tests::gangline::{end_of, gangline};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Browser, Queue, TestServer, browser};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use super::until_counts;
use tokio::io::AsyncBufReadExt;

use super::{CONNECTION, SENTENCE, address_of, assert_discreet, be_patient, patient_queue};

fn target(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target")
        .join(path)
}

/// Takes a picture of the page from an element on, as a screen shows it by day and by night, and a
/// phone.
async fn pictures(page: &mut Browser, name: &str, from: &str) {
    for (kind, width, height, scheme) in [
        ("light", 1280, 1160, "light"),
        ("dark", 1280, 1160, "dark"),
        ("phone", 390, 844, "light"),
    ] {
        page.look_like(width, height, scheme).await;
        page.evaluate(&format!(
            "document.querySelector({from:?}).scrollIntoView()"
        ))
        .await;
        let wide = page.evaluate("document.documentElement.scrollWidth").await;
        assert_eq!(
            wide, width,
            "{name} is wider than the screen of a {kind} page"
        );
        picture(page, &format!("{name}-{kind}")).await;
    }
}

async fn picture(page: &mut Browser, name: &str) {
    // What moves has come to rest after two frames.
    page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
        .await;
    let dir = target("screenshots");
    std::fs::create_dir_all(&dir).unwrap();
    let png = BASE64.decode(page.picture().await).unwrap();
    assert_eq!(png[..4], *b"\x89PNG");
    std::fs::write(dir.join(format!("{name}.png")), png).unwrap();
}

#[tokio::test]
async fn a_run_that_loses_a_worker_shows_it_and_is_pictured_on_all_screens() {
    if browser::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let items: Vec<String> = (1..=300)
        .map(|n| format!("photos/img-{n:03}.jpg"))
        .collect();
    let list = dir.path().join("items.txt");
    std::fs::write(&list, items.join("\n")).unwrap();
    // Some are broken, one takes long, and one kills its worker, once.
    let program = "case $0 in *7.jpg) echo \"cannot open $0: unexpected end of file\" >&2; exit 1;; \
        *005.jpg) until test -e $2; do sleep 0.1; done;; *041.jpg) mkdir $1 2>/dev/null && kill -KILL $PPID;; esac; \
        sleep 0.2; echo $0 512x384";
    let (mark, gate) = (dir.path().join("killed"), dir.path().join("gate"));
    let mut run = gangline(&[
        "run",
        "-a",
        list.to_str().unwrap(),
        "-j6",
        "--workers=3",
        "--dashboard",
        "--",
        "sh",
        "-c",
        program,
        "{}",
        mark.to_str().unwrap(),
        gate.to_str().unwrap(),
    ])
    .env("XDG_STATE_HOME", dir.path())
    .spawn()
    .unwrap();
    let (url, mut stderr) = address_of(&mut run).await;
    let mut line = String::new();
    let mut page = Browser::start().await;
    page.look_like(1280, 1000, "light").await;
    page.open(&url).await;
    page.until_there_are(1, "tbody tr[data-queue]").await;
    page.click("td.name a").await;
    page.until_contains("[data-term=leased]", "times the usual")
        .await;
    // The worker that was killed, and the one in its place.
    page.until_there_are(1, ".fate.failure").await;
    page.until_there_are(4, "tr[data-pod] svg").await;
    page.until(SENTENCE, |text| {
        let percent = text.split(' ').next().and_then(|word| word.parse().ok());
        percent.is_some_and(|percent: u8| percent >= 40)
    })
    .await;
    page.until_there_are(1, "[data-is=dead] details").await;
    pictures(&mut page, "job", "body").await;
    std::fs::write(gate, "").unwrap();
    page.until_contains("[data-is=certificate]", "digest").await;
    page.until_contains("[data-is=pods]", "Failed: DeadItems")
        .await;
    while !line.contains("the dashboard stays until ^C") {
        line.clear();
        let read = stderr.read_line(&mut line).await.unwrap();
        assert!(read > 0, "the run has ended at once");
    }
    pictures(&mut page, "finished", "body").await;
    let pid = Pid::from_raw(run.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(end_of(run).await.code, Some(1), "some items are dead");
    page.close().await;
}

#[tokio::test]
async fn queues_and_their_dead_items_are_pictured_on_all_screens() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = |name: &str| Queue {
        api: api.clone(),
        name: name.to_owned(),
    };
    let push = async |name: &str, count: u32| {
        let queue = queue(name);
        let payloads: Vec<Value> = (1..=count).map(|n| json!(format!("{name}/{n}"))).collect();
        be_patient(&queue).await;
        queue.push(&payloads).await;
        queue
    };
    push("imports-2026-11", 800).await;
    let translations = push("translations", 340).await;
    translations.bare(Method::POST, "/pause").await.ok();
    let emails = push("emails", 60).await;
    let why = json!({"outcome": "failure", "reason": "wrong template", "by": "alice"});
    emails.post("/stop", why).await.ok();
    let report = push("nightly-report", 12).await;
    settle(&report, 12, |_| json!({"outcome": "done", "result": "ok"})).await;
    report.bare(Method::POST, "/seal").await.ok();
    let thumbnails = push("thumbnails", 240).await;
    thumbnails.bare(Method::POST, "/seal").await.ok();
    settle(&thumbnails, 120, |nth| {
        let error = match nth {
            n if n % 9 == 0 => format!("cannot open thumbnails/{nth}: unexpected end of file"),
            n if n % 20 == 0 => "out of memory: 812 MiB wanted".to_owned(),
            _ => return json!({"outcome": "done", "result": {"width": 512, "height": 384}}),
        };
        json!({"outcome": "dead", "error": error})
    })
    .await;
    let _works = thumbnails.open("worker-a", 4).await;
    push(&"a-name-as-long-as-names-may-be-".repeat(2)[..61], 1).await;

    let mut page = Browser::start().await;
    page.open(&format!("{}/dashboard#token={TOKEN}", server.url))
        .await;
    page.until_there_are(6, "tbody tr[data-queue]").await;
    page.until_contains("tr[data-queue=thumbnails]", "sealed")
        .await;
    pictures(&mut page, "queues", "body").await;
    page.click("tr[data-queue=thumbnails] a").await;
    page.until_there_are(2, "[data-is=dead] details").await;
    pictures(&mut page, "dead", "[data-is=dead]").await;
    page.close().await;
}

/// Leases items and settles each as it is told by its number.
async fn settle(queue: &Queue, count: u32, outcome: impl Fn(u64) -> Value) {
    let session = queue.open("worker-b", count).await;
    let settles: Vec<Value> = session
        .items
        .iter()
        .map(|item| {
            let mut settle = outcome(item["id"].as_u64().unwrap());
            settle["id"] = item["id"].clone();
            settle["lease"] = item["lease"].clone();
            settle
        })
        .collect();
    session.say(json!({"settles": settles})).await.ok();
}

/// Returns the text of axe-core, which `tests/run browser` fetches where it can.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn axe() -> Option<String> {
    let path = target("axe/package/axe.min.js");
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!(
            "SKIPPED: there is no {}; tests/run browser fetches it",
            path.display()
        );
    }
    text
}

async fn assert_accessible(page: &mut Browser, axe: &str, what: &str) {
    page.evaluate(&format!("{axe}; 0")).await;
    let found = page
        .evaluate(
            "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => \
             violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]))",
        )
        .await;
    assert_eq!(found, json!([]), "on the page {what}");
}

#[tokio::test]
async fn axe_finds_nothing_on_any_page_in_light_and_dark() {
    if browser::is_missing() {
        return;
    }
    let Some(axe) = axe() else { return };
    let server = TestServer::start().await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = patient_queue(&api).await;
    queue
        .push(&[json!("a"), json!("b"), json!("c"), json!("d")])
        .await;
    let alice = queue.open("uid-a.main", 3).await;
    alice
        .settle(0, json!({"outcome": "done", "result": {"ok": true}}))
        .await;
    alice
        .settle(1, json!({"outcome": "dead", "error": "no"}))
        .await;
    let pod = json!({"name": "a", "uid": "uid-a", "phase": "Running",
        "createdAt": "2026-01-01T00:00:00Z", "startedAt": "2026-01-01T00:00:01Z"});
    let report = json!({"namespace": "n", "name": "j", "uid": "u", "pods": [pod]});
    let path = format!("/v1/queues/{}/job", queue.name);
    api.call(Method::PUT, &path, Some(report)).await.ok();
    let other = api.fresh_queue();
    other.push(&[json!(1)]).await;
    other
        .post("/stop", json!({"outcome": "failure", "reason": "late"}))
        .await
        .ok();
    let mut page = Browser::start().await;
    for scheme in ["light", "dark"] {
        page.look_like(1280, 900, scheme).await;
        page.open(&format!("{}/dashboard#token={TOKEN}", server.url))
            .await;
        page.until_there_are(2, "tbody tr[data-queue]").await;
        assert_accessible(&mut page, &axe, "queues").await;
        page.open(&format!("{}/dashboard?queue={}", server.url, queue.name))
            .await;
        until_counts(&mut page, &[("dead", 1), ("done", 1)]).await;
        page.until_there_are(1, "tr[data-pod] svg").await;
        assert_accessible(&mut page, &axe, "job").await;
        page.click("[data-action=stop]").await;
        page.until_contains("dialog", "will be abandoned").await;
        assert_accessible(&mut page, &axe, "stop").await;
        page.open(&format!("{}/dashboard?queue={}", server.url, other.name))
            .await;
        page.until_contains("[data-is=certificate]", "late").await;
        assert_accessible(&mut page, &axe, "certificate").await;
    }
    page.open(&format!("{}/dashboard?again#token=wrong", server.url))
        .await;
    page.until_contains(CONNECTION, "the token is not one")
        .await;
    assert_accessible(&mut page, &axe, "token").await;
    assert_discreet(&page, &server.url);
    page.close().await;
}

#[tokio::test]
async fn the_page_may_load_nothing_but_itself() {
    let server = TestServer::start().await;
    let page = http_client(&[])
        .get(format!("{}/dashboard", server.url))
        .send()
        .await
        .unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = page.text().await.unwrap();
    // Every file that the page names is there, and none is on another origin.
    for part in html
        .split(['"', '\''])
        .filter(|part| part.starts_with("/dashboard/"))
    {
        let file = http_client(&[])
            .get(format!("{}{part}", server.url))
            .send()
            .await
            .unwrap();
        assert_eq!(file.status(), 200, "{part}");
        assert_eq!(file.headers()["x-content-type-options"], "nosniff");
    }
    assert!(
        !html.contains("http://") && !html.contains("https://"),
        "{html}"
    );
}
