//! The dashboard in a real browser.

mod actions;
mod looks;
mod pods;
mod trouble;
mod watch;

use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Browser, Queue};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr};

const SENTENCE: &str = "[data-is=sentence]";
const PHASE: &str = "[data-is=phase]";
const COUNTS: &str = "[data-is=counts]";
const WORKERS: &str = "[data-is=workers]";
const DEAD: &str = "[data-is=dead]";
const CONNECTION: &str = "#connection";

/// Opens the page of a queue with a token, and waits until it is live.
async fn open(origin: &str, queue: &str, token: &str) -> Browser {
    let mut page = Browser::start().await;
    page.open(&format!("{origin}/dashboard?queue={queue}#token={token}"))
        .await;
    page.until(CONNECTION, |text| text == "live").await;
    page
}

/// Makes a queue with patience.
async fn patient_queue(api: &Api) -> Queue {
    let queue = api.fresh_queue();
    be_patient(&queue).await;
    queue
}

/// Has sessions of the queue outlast the start of a browser on a busy machine.
async fn be_patient(queue: &Queue) {
    queue.put(json!({"sessionMs": 600_000})).await.ok();
}

/// Returns where a run says that it can be watched. What it says later wants to be read, too.
async fn address_of(run: &mut Child) -> (String, BufReader<ChildStderr>) {
    let mut stderr = BufReader::new(run.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).await.unwrap();
    let (_, url) = line.trim().split_once("watch at ").unwrap();
    (url.to_owned(), stderr)
}

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

/// Nothing was asked of anybody else, and the token is nowhere but in the tab.
fn assert_discreet(page: &Browser, origin: &str) {
    for url in page.requests() {
        assert!(url.starts_with(origin), "{url}");
        assert!(!url.contains(TOKEN) || url.contains("#token="), "{url}");
    }
}
