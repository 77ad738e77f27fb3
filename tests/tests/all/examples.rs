//! The examples, run as their READMEs say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gangline_tests::gangline::{built, end_of, gangline};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Queue, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

async fn service() -> (TestServer, Queue) {
    let server = TestServer::start().await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    (server, queue)
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}

/// A program that finds its queue in the environment.
fn worker(mut command: Command, queue: &Queue, name: &str) -> Command {
    command
        .env("GANGLINE_URL", &queue.api.url)
        .env("GANGLINE_QUEUE", &queue.name)
        .env("GANGLINE_TOKEN", TOKEN)
        .env("GANGLINE_WORKER", name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The sources in cargo's registry: thousands of real files on any machine that has built this.
fn sources() -> Vec<String> {
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"),
        Into::into,
    );
    let pattern = cargo.join("registry/src/*/*/src/**/*.rs");
    let files: Vec<String> = glob::glob(pattern.to_str().unwrap())
        .unwrap()
        .map(|path| path.unwrap().into_os_string().into_string().unwrap())
        .collect();
    assert!(files.len() >= 5_000, "{} files", files.len());
    files
}

/// Lines and words of each file, as `wc` counts them.
async fn as_wc_counts(files: &[String]) -> HashMap<String, (u64, u64)> {
    let mut counts = HashMap::new();
    for some in files.chunks(1_000) {
        let mut wc = Command::new("wc");
        let output = wc.env("LC_ALL", "C.UTF-8").arg("-lw").args(some).output();
        let output = String::from_utf8(output.await.unwrap().stdout).unwrap();
        for line in output.lines() {
            let (lines, rest) = line.trim_start().split_once(' ').unwrap();
            let (words, path) = rest.trim_start().split_once(' ').unwrap();
            if path != "total" {
                let count = (lines.parse().unwrap(), words.parse().unwrap());
                counts.insert(path.to_owned(), count);
            }
        }
    }
    counts
}

async fn push(queue: &Queue, payloads: &[Value]) {
    for some in payloads.chunks(1_000) {
        queue.push(some).await;
    }
    queue.bare(Method::POST, "/seal").await.ok();
}

#[tokio::test]
async fn count_words_counts_thousands_of_files_as_wc_does() {
    let (_server, queue) = service().await;
    let files = sources();
    let mut payloads: Vec<Value> = files.iter().map(|path| json!(path)).collect();
    payloads.push(json!("/no/such/file.rs"));
    push(&queue, &payloads).await;
    let workers = ["one", "two"].map(|name| {
        let command = Command::new(built("count-words"));
        worker(command, &queue, name).spawn().unwrap()
    });
    for child in workers {
        let left = end_of(child).await;
        assert_eq!((left.code, left.stderr.as_str()), (Some(0), ""));
    }
    let wanted = as_wc_counts(&files).await;
    let mut counted = HashMap::new();
    for line in queue.results("").await {
        let result: Value = serde_json::from_str(&line).unwrap();
        let Value::Object(result) = &result["result"] else {
            panic!("{result}")
        };
        let number = |name: &str| result[name].as_u64().unwrap();
        let path = result["path"].as_str().unwrap().to_owned();
        counted.insert(path, (number("lines"), number("words")));
    }
    let differ: Vec<_> = wanted
        .iter()
        .filter(|(path, count)| counted.get(*path) != Some(count))
        .map(|(path, count)| (path, count, counted.get(path)))
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
    assert_eq!(counted.len(), files.len());
    let dead = queue.get("/items?state=dead").await.ok();
    let dead = dead["items"].as_array().unwrap();
    assert_eq!(dead.len(), 1);
    assert!(
        dead[0]["error"]
            .as_str()
            .unwrap()
            .starts_with("/no/such/file.rs: "),
        "{dead:?}"
    );
}

#[tokio::test]
async fn count_words_by_a_script_gives_the_same_alone_and_as_a_worker() {
    let (_server, queue) = service().await;
    let script = root().join("examples/count-words-shell/count-words.sh");
    let script = script.to_str().unwrap();
    let files: Vec<String> = sources().into_iter().take(100).collect();
    let payloads: Vec<Value> = files.iter().map(|path| json!(path)).collect();
    push(&queue, &payloads).await;
    let work = gangline(&["work", "-j2", "--", script]);
    let left = end_of(worker(work, &queue, "w").spawn().unwrap()).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let mut as_worker: Vec<Value> = Vec::new();
    for line in queue.results("").await {
        let line: Value = serde_json::from_str(&line).unwrap();
        as_worker.push(serde_json::from_str(line["result"].as_str().unwrap()).unwrap());
    }

    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    std::fs::write(&list, files.join("\n")).unwrap();
    let arguments = ["run", "-j2", "-a", list.to_str().unwrap(), "--", script];
    let mut command = gangline(&arguments);
    let run = command.env("XDG_STATE_HOME", dir.path()).spawn().unwrap();
    let left = end_of(run).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let alone = left
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let mut alone: Vec<Value> = alone.collect();

    let counts = as_wc_counts(&files).await.into_values();
    let mut wanted: Vec<Value> = counts
        .map(|(lines, words)| json!({"lines": lines, "words": words}))
        .collect();
    for list in [&mut as_worker, &mut alone, &mut wanted] {
        list.sort_by_key(Value::to_string);
    }
    assert_eq!(as_worker, wanted);
    assert_eq!(alone, wanted);
}

#[tokio::test]
async fn the_first_worker_that_finds_it_ends_the_search_of_its_peers() {
    let (_server, queue) = service().await;
    // Nobody comes to the end of such blocks: who exits has found it, or was stopped in one.
    let block = "1000000000000";
    let blocks: Vec<Value> = (1..=20).map(|n| json!(n)).collect();
    push(&queue, &blocks).await;
    let names = ["one", "two", "three", "four"];
    let workers = names.map(|name| {
        let mut command = Command::new(built("search"));
        command.args(["3", block]);
        worker(command, &queue, name).spawn().unwrap()
    });
    for child in workers {
        let left = end_of(child).await;
        assert_eq!(left.code, Some(0), "{}", left.stderr);
    }
    let status = queue.get("").await.ok();
    let certificate = &status["certificate"];
    assert_eq!(certificate["phase"], "stopped");
    assert_eq!(certificate["cause"], "worker");
    assert_eq!(certificate["outcome"], "success");
    let finder = certificate["endedBy"].as_str().unwrap();
    assert!(names.contains(&finder), "{finder}");
    assert_eq!(queue.counts().await, json!({"done": 1, "abandoned": 19}));
    let results = queue.results("").await;
    let found: Value = serde_json::from_str(&results[0]).unwrap();
    let number = found["result"]["number"].as_u64().unwrap();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(number.to_string().as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(hash.starts_with("000"), "{number}: {hash}");
    assert_eq!(found["result"]["sha256"], hash);
}

#[tokio::test]
async fn a_worker_that_cannot_start_says_why() {
    for program in ["search", "count-words"] {
        let mut command = Command::new(built(program));
        if program == "search" {
            command.arg("3");
        }
        command.env_remove("GANGLINE_URL").stderr(Stdio::piped());
        let left = end_of(command.spawn().unwrap()).await;
        assert_eq!(left.code, Some(2), "{}", left.stderr);
        assert_eq!(left.stderr, "worker: GANGLINE_URL is not set\n");
    }
}
