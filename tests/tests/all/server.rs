//! `gangline server` as a process: what it logs, TLS, and memory.

mod streams;
pub(crate) mod tls;

use std::path::Path;

use gangline_tests::gangline::gangline;
use gangline_tests::{Api, server::TOKEN};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// A running service; dropping it kills it.
pub(crate) struct Process {
    /// Killed when dropped.
    child: Child,
    pub(crate) url: String,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Process {
    async fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = gangline(&["server", "--listen=127.0.0.1:0"]);
        command
            .args(arguments)
            .arg(format!("--data-dir={}", dir.display()))
            .env("GANGLINE_TOKEN", TOKEN);
        Self::run(command).await
    }

    /// Runs a command that is a service, until it says where it listens.
    pub(crate) async fn run(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = loop {
            let line = stderr.next_line().await.unwrap().expect("an address");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(',').next().unwrap().to_owned();
            }
        };
        Self { child, url, stderr }
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }
}

#[tokio::test]
async fn each_call_is_logged_with_what_it_was_and_took_when_somebody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--log=gangline_server=debug", "--log-format=json"];
    let mut process = Process::start(dir.path(), &arguments).await;
    let api = Api::new(&process.url, Some(TOKEN));
    let headers = [("x-request-id", "from-a-proxy")];
    api.send(Method::GET, "/v1/queues/team.q", &headers, Vec::new())
        .await;
    let answered: Value = loop {
        let line = process.stderr.next_line().await.unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).expect("each line is JSON");
        if line["fields"]["message"] == "answered" {
            break line;
        }
    };
    assert_eq!(answered["fields"]["http.status"], 404);
    assert!(answered["fields"]["took_us"].is_u64());
    let span = &answered["span"];
    for (field, value) in [
        ("name", json!("request")),
        ("request.id", json!("from-a-proxy")),
        ("http.method", json!("GET")),
        ("http.route", json!("/v1/queues/{queue}")),
        ("queue.name", json!("team.q")),
    ] {
        assert_eq!(span[field], value, "{field} in {answered}");
    }
    assert!(!answered.to_string().contains(TOKEN));
}
