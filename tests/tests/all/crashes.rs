//! What is lost when something dies: nothing.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use gangline_tests::gangline::{Left, end_of, gangline};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Queue, TestServer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

fn start(job: &Path, results: &Path, items: u32, program: &str) -> Child {
    let (job, results) = (job.to_str().unwrap(), results.to_str().unwrap());
    let range = format!("--range=1..{items}");
    let arguments = [
        "run",
        "--data-dir",
        job,
        "-r",
        results,
        "--results-format",
        "ndjson",
        &range,
        "-j4",
        "--",
        "sh",
        "-c",
        program,
        "sh",
    ];
    gangline(&arguments).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Every item has exactly one result, and it is the right one.
#[track_caller]
fn check_results(results: &Path, items: u32) {
    let text = std::fs::read_to_string(results).unwrap();
    let mut seen = HashMap::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let item = line["key"]
            .as_str()
            .unwrap()
            .strip_prefix("1:")
            .unwrap()
            .to_owned();
        assert_eq!(line["result"], format!("{item}!\n"));
        *seen.entry(item).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), items as usize);
    assert!(seen.values().all(|count| *count == 1));
}

#[tokio::test]
async fn a_run_killed_at_thirty_moments_ends_with_one_result_an_item() {
    const ITEMS: u32 = 400;
    let dir = tempfile::tempdir().unwrap();
    let (job, results) = (dir.path().join("job"), dir.path().join("results"));
    for nth in 0..30 {
        let mut child = start(&job, &results, ITEMS, "sleep 0.01; echo \"$1!\"");
        let moment = Duration::from_millis(20 + moment(nth) % 180);
        // Killed, unless it is done by then.
        if tokio::time::timeout(moment, child.wait()).await.is_err() {
            child.kill().await.unwrap();
        }
    }
    let left = end_of(start(&job, &results, ITEMS, "sleep 0.01; echo \"$1!\"")).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    check_results(&results, ITEMS);
}

/// Other moments in each run of the test: what matters is that none of them loses anything.
fn moment(nth: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (std::process::id(), nth).hash(&mut hasher);
    hasher.finish()
}

#[tokio::test]
async fn a_worker_that_is_killed_is_replaced_and_its_items_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let (job, results) = (dir.path().join("job"), dir.path().join("results"));
    let mark = dir.path().join("mark");
    // The first run of item 20 kills the worker that has started it.
    let program = format!(
        "if test $1 = 20 && mkdir {} 2>/dev/null; then kill -9 $PPID; sleep 5; fi; echo \"$1!\"",
        mark.display()
    );
    let left: Left = end_of(start(&job, &results, 60, &program)).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert!(
        left.stderr.contains("was lost (exit code 137)"),
        "{}",
        left.stderr
    );
    check_results(&results, 60);
}

#[tokio::test]
async fn an_interrupt_that_ends_the_producer_too_does_not_end_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let (state, mark) = (dir.path().join("job"), dir.path().join("mark"));
    let program = format!("mkdir -p {}; sleep 0.02; echo \"$1!\"", mark.display());
    let state = format!("--data-dir={}", state.display());
    let arguments = ["run", &state, "-j2", "--", "sh", "-c", &program, "sh"];
    let lines = |numbers: std::ops::RangeInclusive<u32>| {
        let lines = numbers.map(|number| format!("{number}\n"));
        lines.collect::<String>().into_bytes()
    };
    let mut command = gangline(&arguments);
    let mut first = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut producer = first.stdin.take().unwrap();
    producer.write_all(&lines(1..=40)).await.unwrap();
    let begun = async {
        while !mark.exists() {
            tokio::task::yield_now().await;
        }
    };
    in_time("the first item", begun).await;
    signal(&first, Signal::SIGINT);
    drop(producer);
    assert_eq!(end_of(first).await.code, Some(130));
    let mut command = gangline(&arguments);
    let mut second = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut producer = second.stdin.take().unwrap();
    producer.write_all(&lines(1..=60)).await.unwrap();
    drop(producer);
    let left = in_time("the end of the run", end_of(second)).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert!(left.stderr.contains("60 done"), "{}", left.stderr);
}

/// Starts the run of a job that is there already, with sessions that last ten minutes: what a
/// dead worker held comes back in time only if somebody says that it is dead.
async fn start_with_long_sessions(dir: &Path, items: u32, program: &str) -> Child {
    let (job, results) = (dir.join("job"), dir.join("results"));
    let mut child = start(&job, &results, items, program);
    let begun = async {
        while !job.join("run.json").exists() || !job.join("queue").exists() {
            tokio::task::yield_now().await;
        }
    };
    in_time("the job's directory", begun).await;
    child.kill().await.unwrap();
    let server = TestServer::start_in(&job.join("queue")).await;
    let api = Api::new(&server.url, Some(TOKEN));
    let settings = json!({ "sessionMs": 600_000, "heartbeatMs": 1_000 });
    let queue = Queue {
        api,
        name: "run".into(),
    };
    queue.put(settings).await.ok();
    let mut server = server;
    server.stop().await;
    start(&job, &results, items, program)
}

async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(60);
    let waited = tokio::time::timeout(deadline, wait).await;
    waited.unwrap_or_else(|_| panic!("{what}: not within {deadline:?}"))
}

/// Runs sixty items; the first run of item 20 sends a signal to the worker that has started it.
async fn with_a_signalled_worker(signal: &str) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let program = format!(
        "if test $1 = 20 && mkdir {} 2>/dev/null; then kill -{signal} $PPID; sleep 5; fi; \
         sleep 0.05; echo \"$1!\"",
        mark.display()
    );
    let run = start_with_long_sessions(dir.path(), 60, &program).await;
    let left = in_time("the end of the run", end_of(run)).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    check_results(&dir.path().join("results"), 60);
    left
}

#[tokio::test]
async fn the_items_of_a_killed_worker_are_done_long_before_its_session_would_end() {
    let left = with_a_signalled_worker("KILL").await;
    assert!(
        left.stderr.contains("was lost (exit code 137)"),
        "{}",
        left.stderr
    );
}

#[tokio::test]
async fn a_worker_that_is_told_to_go_exits_143_and_the_job_goes_on() {
    let left = with_a_signalled_worker("TERM").await;
    assert!(
        left.stderr.contains("was lost (exit code 143)"),
        "{}",
        left.stderr
    );
}

#[tokio::test]
async fn an_interrupted_run_says_how_to_resume_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let (job, results) = (dir.path().join("job"), dir.path().join("results"));
    let mark = dir.path().join("mark");
    let program = format!(
        "test $1 = 5 && mkdir -p {}; sleep 0.02; echo \"$1!\"",
        mark.display()
    );
    let child = start(&job, &results, 100, &program);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !mark.exists() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "item 5 has not started"
        );
        tokio::task::yield_now().await;
    }
    signal(&child, Signal::SIGINT);
    let left = end_of(child).await;
    assert_eq!(left.code, Some(130), "{}", left.stderr);
    assert!(
        left.stderr.contains("to go on with it: "),
        "{}",
        left.stderr
    );
    let left = end_of(start(&job, &results, 100, &program)).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert!(
        left.stderr.contains("of them before this run"),
        "{}",
        left.stderr
    );
    check_results(&results, 100);
}
