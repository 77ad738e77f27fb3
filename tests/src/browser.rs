//! A headless Chromium with one page, driven by the DevTools protocol.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use crate::api::http_client;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The program, as Debian calls it.
const PROGRAM: &str = "chromium";

/// How long a page may take to come to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the browser says of a page that another one has replaced.
const GONE: [&str; 3] = [
    "Inspected target navigated or closed",
    "Cannot find context with specified id",
    "Execution context was destroyed",
];

/// Waits for the page's next moment.
const NEXT_MOMENT: &str = "new Promise((go) => setTimeout(go, 30))";

/// A browser; dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_id: u64,
    events: VecDeque<Value>,
    /// Kept open: a browser that cannot write its log ends.
    _stderr: BufReader<ChildStderr>,
    _profile: TempDir,
}

/// Says out loud why a test of the browser does not run, if there is none.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn is_missing() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.join(PROGRAM).exists());
    if !found {
        eprintln!("SKIPPED: there is no {PROGRAM}; apt-get install {PROGRAM}");
    }
    !found
}

impl Browser {
    /// Starts a browser with an empty profile and an empty page.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(PROGRAM)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the browser to start");
        let mut stderr = BufReader::new(child.stderr.take().expect("its stderr"));
        let browser = address(&mut stderr).await;
        let page = page_of(&browser).await;
        let (socket, _) = tokio_tungstenite::connect_async(page)
            .await
            .expect("the page to be driven");
        let mut browser = Self {
            child,
            socket,
            last_id: 0,
            events: VecDeque::new(),
            _stderr: stderr,
            _profile: profile,
        };
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        let wanted = json!({"enabled": true});
        browser.call("Page.setLifecycleEventsEnabled", wanted).await;
        browser
    }

    /// Carries out a command of the protocol.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.ask(method, parameters).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Carries out a command of the protocol, or returns why the browser did not.
    async fn ask(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.last_id += 1;
        let id = self.last_id;
        let command = json!({"id": id, "method": method, "params": parameters});
        let message = Message::text(command.to_string());
        self.socket.send(message).await.expect("the browser");
        loop {
            let mut message = self.next_message().await;
            if message["id"] != id {
                self.events.push_back(message);
            } else if message["error"].is_null() {
                return Ok(message["result"].take());
            } else {
                return Err(message["error"].take());
            }
        }
    }

    async fn next_message(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let message = message.expect("a message in time").expect("the browser");
            if let Message::Text(text) = message.expect("a message") {
                return serde_json::from_str(&text).expect("JSON");
            }
        }
    }

    /// Goes to an address, and waits until the page there is loaded.
    pub async fn open(&mut self, url: &str) {
        let left = self.call("Page.navigate", json!({"url": url})).await;
        assert!(left["errorText"].is_null(), "{left}");
        let is_loaded = |event: &Value| {
            let parameters = &event["params"];
            event["method"] == "Page.lifecycleEvent"
                && parameters["name"] == "load"
                && parameters["loaderId"] == left["loaderId"]
        };
        // Another fragment of the page that is there loads nothing.
        let mut is_there = left["loaderId"].is_null() || self.events.iter().any(is_loaded);
        while !is_there {
            let event = self.next_message().await;
            is_there = is_loaded(&event);
            self.events.push_back(event);
        }
    }

    /// Returns the value of an expression in the page; a promise is waited for.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let value = self.try_evaluate(expression).await;
        value.unwrap_or_else(|| panic!("the page has gone under {expression}"))
    }

    /// Returns the value of an expression in the page, if that stays for so long.
    async fn try_evaluate(&mut self, expression: &str) -> Option<Value> {
        let parameters = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        match self.ask("Runtime.evaluate", parameters).await {
            Ok(mut answer) => {
                assert!(answer["exceptionDetails"].is_null(), "{answer}");
                Some(answer["result"]["value"].take())
            }
            Err(error) => {
                let why = error["message"].as_str().unwrap_or_default();
                assert!(GONE.iter().any(|gone| why.contains(gone)), "{error}");
                None
            }
        }
    }

    /// Returns the value of an expression that changes nothing, in whatever page is there.
    async fn look(&mut self, expression: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = self.try_evaluate(expression).await {
                return value;
            }
            assert!(Instant::now() < deadline, "no page stays");
        }
    }

    /// Returns the visible text of the first element that a selector finds.
    pub async fn text(&mut self, selector: &str) -> String {
        // What is not rendered would tell its whole text.
        let expression = format!(
            "(() => {{ const found = document.querySelector({selector:?}); \
             return found?.checkVisibility() ? found.innerText : ''; }})()"
        );
        let text = self.look(&expression).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the visible text of an element satisfies a condition, and returns it.
    pub async fn until(&mut self, selector: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text(selector).await;
            if wanted(&text) {
                return text;
            }
            let page = self.text("body").await;
            let events = &self.events;
            assert!(
                Instant::now() < deadline,
                "{selector} stays {text:?} in:\n{page}\n{events:?}"
            );
            self.look(NEXT_MOMENT).await;
        }
    }

    /// Waits until the visible text of an element contains a text.
    pub async fn until_contains(&mut self, selector: &str, wanted: &str) -> String {
        self.until(selector, |text| text.contains(wanted)).await
    }

    /// Clicks the first element that a selector finds.
    pub async fn click(&mut self, selector: &str) {
        let expression = format!("document.querySelector({selector:?}).click()");
        self.evaluate(&expression).await;
    }

    /// Waits until so many elements are found by a selector.
    pub async fn until_there_are(&mut self, count: u64, selector: &str) {
        let expression = format!("document.querySelectorAll({selector:?}).length");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = self.look(&expression).await;
            if there == count {
                return;
            }
            let page = self.text("body").await;
            let is_late = Instant::now() >= deadline;
            assert!(!is_late, "{there} of {selector}, not {count}, in:\n{page}");
            self.look(NEXT_MOMENT).await;
        }
    }

    /// Makes the page so wide and high, on a screen of a colour scheme (`light` or `dark`).
    pub async fn look_like(&mut self, width: u32, height: u32, scheme: &str) {
        let is_phone = width < 500;
        let scale = if is_phone { 2 } else { 1 };
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone}),
        )
        .await;
        self.call("Emulation.setScrollbarsHidden", json!({"hidden": true}))
            .await;
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    /// Returns a picture of what is seen, as the base64 of a PNG.
    pub async fn picture(&mut self) -> String {
        let mut picture = self
            .call("Page.captureScreenshot", json!({"format": "png"}))
            .await;
        match picture["data"].take() {
            Value::String(data) => data,
            other => panic!("no picture: {other}"),
        }
    }

    /// Returns the addresses of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        let sent = |event: &&Value| event["method"] == "Network.requestWillBeSent";
        let requests = self.events.iter().filter(sent);
        requests
            .map(|event| event["params"]["request"]["url"].as_str())
            .map(|url| url.expect("an address").to_owned())
            .collect()
    }

    /// Returns what a developer would see in red so far: errors of scripts, of the console and
    /// of the browser. Failed requests carry the source `network`.
    pub fn errors(&self) -> Vec<&Value> {
        let is_error = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        self.events.iter().filter(is_error).collect()
    }

    /// Ends the browser.
    pub async fn close(mut self) {
        self.call("Browser.close", json!({})).await;
        self.child.wait().await.expect("its end");
    }
}

/// Reads where the browser listens for its driver.
async fn address(stderr: &mut BufReader<ChildStderr>) -> String {
    loop {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, stderr.read_line(&mut line)).await;
        let read = read.expect("the browser to start in time").expect("a line");
        assert!(read > 0, "the browser has ended at once");
        if let Some((_, url)) = line.split_once("DevTools listening on ws://") {
            let (address, _) = url.split_once('/').expect("an address");
            return address.to_owned();
        }
    }
}

/// Returns where the empty page is driven.
async fn page_of(address: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let url = format!("http://{address}/json/list");
        let pages: Value = http_client(&[])
            .get(url)
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        let pages = pages.as_array().expect("a list");
        let page = pages.iter().find(|page| page["type"] == "page");
        if let Some(url) = page.and_then(|page| page["webSocketDebuggerUrl"].as_str()) {
            return url.to_owned();
        }
        assert!(Instant::now() < deadline, "there is no page: {pages:?}");
        tokio::task::yield_now().await;
    }
}
