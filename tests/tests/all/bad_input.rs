//! What does not work is said, with what to do, and loses nothing.

use std::path::Path;
use std::process::Stdio;

use gangline_tests::gangline::{Left, built, gangline, run, run_with_stdin};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Queue, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// A failure as a user may expect it: its code, its words, and no panic.
#[track_caller]
fn check(left: &Left, code: i32, words: &[&str]) {
    assert_eq!(left.code, Some(code), "{}", left.stderr);
    for wanted in words {
        assert!(left.stderr.contains(wanted), "{wanted}: {}", left.stderr);
    }
    assert!(!left.stderr.contains("panicked"), "{}", left.stderr);
}

async fn service() -> (TestServer, Queue) {
    let server = TestServer::start().await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    (server, queue)
}

fn of(mut command: Command, queue: &Queue) -> Command {
    command
        .env("GANGLINE_URL", &queue.api.url)
        .env("GANGLINE_QUEUE", &queue.name)
        .env("GANGLINE_TOKEN", TOKEN);
    command
}

#[tokio::test]
async fn a_push_of_broken_lines_names_the_line_and_seals_nothing() {
    let (_server, queue) = service().await;
    let long = format!("1\n\"{}\"\n", "x".repeat(1 << 20));
    let cases: [(&[&str], &[u8], &[&str]); 4] = [
        (
            &[],
            b"ok\nb\xff\n",
            &["stdin, line 2: not UTF-8, at byte 2"],
        ),
        (&["--json"], b"{}\n\n{bad\n", &["stdin, line 3: not JSON"]),
        (
            &["--json"],
            long.as_bytes(),
            &[
                "stdin, line 2: an item must be at most",
                "put large data into files",
            ],
        ),
        (&["--range=3..1"], b"", &["3 comes after 1"]),
    ];
    for (arguments, stdin, words) in cases {
        let mut command = of(gangline(&["push", &queue.name, "--seal"]), &queue);
        command.args(arguments);
        check(&run_with_stdin(&mut command, stdin).await, 2, words);
    }
    let status = queue.get("").await;
    assert_ne!(status.body["phase"], "sealed", "{}", status.body);
    // What is mended can be pushed again.
    let mut mended = of(gangline(&["push", &queue.name, "--seal"]), &queue);
    check(
        &run_with_stdin(&mut mended, b"ok\nb\n").await,
        0,
        &["sealed"],
    );
}

#[tokio::test]
async fn a_service_that_is_not_there_is_said_with_what_to_do() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let mut push = gangline(&["push", "images", "--url", &url]);
    let left = run_with_stdin(&mut push, b"a\n").await;
    check(
        &left,
        69,
        &["does not answer", "gangline server starts one"],
    );
    let left = run(&mut gangline(&["push", "No_Name", "--range=1..2"])).await;
    check(&left, 2, &["No_Name"]);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_before_anything_is_taken() {
    let (_server, queue) = service().await;
    queue.push(&[json!(1)]).await;
    let left = run(&mut of(
        gangline(&["work", "--", "no-such-program"]),
        &queue,
    ))
    .await;
    check(&left, 2, &["there is no program no-such-program", "PATH"]);
    let left = run(&mut of(gangline(&["work"]), &queue)).await;
    check(&left, 2, &["no program was given", "gangline run -a"]);
    assert_eq!(queue.counts().await, json!({"ready": 1}));
}

#[tokio::test]
async fn a_terminal_is_not_waited_at_for_items() {
    let dir = tempfile::tempdir().unwrap();
    let binary = built("gangline");
    for command in ["run -- true", "push images"] {
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--command"])
            .arg(format!("{} {command}", binary.display()))
            .arg("/dev/null")
            .env("XDG_STATE_HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let left = run(&mut script).await;
        // Both streams are the terminal.
        assert_eq!(left.code, Some(2), "{}", left.stdout);
        let wanted = "there are no items: stdin is a terminal";
        assert!(left.stdout.contains(wanted), "{}", left.stdout);
        assert!(left.stdout.contains("-a FILE"), "{}", left.stdout);
    }
}

fn count_runs(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("ran"))
        .unwrap_or_default()
        .lines()
        .count()
}

#[tokio::test]
async fn a_full_disk_ends_a_run_with_74_and_the_resumed_run_has_every_result() {
    let dir = tempfile::tempdir().unwrap();
    let job = dir.path().join("job");
    // Files may grow to 10,000 blocks of 512 bytes or a kilobyte, as the shell has it: writes of
    // the log fail then, as on a full disk.
    let limited = "trap '' XFSZ; ulimit -f 10000; exec \"$@\"";
    let program = format!(
        "yes | head -c 100000; echo ran >> {}/ran",
        dir.path().display()
    );
    let data_dir = format!("--data-dir={}", job.display());
    let arguments = [
        "run",
        &data_dir,
        "--range=1..120",
        "-j4",
        "--",
        "sh",
        "-c",
        &program,
    ];
    let mut command = Command::new("sh");
    command
        .args(["-c", limited, "sh"])
        .arg(built("gangline"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let first = run(&mut command).await;
    let words = [
        "File too large",
        "to go on with it: ",
        "make room on the disk",
    ];
    check(&first, 74, &words);
    let ran = count_runs(dir.path());
    assert!((1..120).contains(&ran), "the limit was met after {ran}");
    let file = dir.path().join("results");
    let results = [
        "--results",
        file.to_str().unwrap(),
        "--results-format=ndjson",
    ];
    let mut again = gangline(&["run", &data_dir, "--range=1..120", "-j4"]);
    again.args(results).args(&arguments[4..]);
    let left = run(&mut again).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let ids: Vec<u64> = std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (1..=120).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_run_keeps_the_results_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("results");
    let gate = dir.path().join("gate");
    let job = dir.path().join("job");
    // The broken line comes once the second item, and so the first, has run.
    let line = format!(
        "{{ echo 1; echo 2; until test -e {gate}; do sleep 0.05; done; echo '{{'; }} | \
         {gangline} run --json -j1 --data-dir {job} -r {file} -- \
         sh -c 'echo $1; test $1 = 1 || touch {gate}' sh",
        gate = gate.display(),
        gangline = built("gangline").display(),
        job = job.display(),
        file = file.display(),
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &line])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let left = run(&mut command).await;
    check(&left, 2, &["stdin, line 3: not JSON", "results so far"]);
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.starts_with("1\n"), "{kept:?}");
}

#[tokio::test]
async fn the_demonstration_kills_a_worker_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = gangline(&["run", "--demo"]);
    let left = run(command.env("XDG_STATE_HOME", dir.path())).await;
    check(
        &left,
        0,
        &["/dashboard#token=", "nothing lost: 200 of 200 done"],
    );
    assert!(
        left.stderr.contains("one worker was killed on the way"),
        "{}",
        left.stderr
    );
    assert!(
        left.stderr.contains("was lost (exit code 137)"),
        "{}",
        left.stderr
    );
    assert_eq!(left.stdout, "");
}

/// A file that takes nothing.
fn full() -> std::process::Stdio {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).open("/dev/full").unwrap().into()
}

#[tokio::test]
async fn results_that_cannot_be_written_are_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = gangline(&["run", "--range", "1..3", "--", "printf", "x"]);
    let left = run(command.env("XDG_STATE_HOME", dir.path()).stdout(full())).await;
    check(&left, 74, &["cannot write to stdout", "to go on with it: "]);
}

#[tokio::test]
async fn remarks_that_cannot_be_written_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = gangline(&["run", "--range", "1..3", "--", "echo"]);
    let left = run(command.env("XDG_STATE_HOME", dir.path()).stderr(full())).await;
    assert_eq!((left.code, left.stdout.lines().count()), (Some(0), 3));
}

#[tokio::test]
async fn a_data_directory_of_a_running_service_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::start_in(dir.path()).await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    queue.push(&[json!(1)]).await;
    let data = dir.path().to_str().unwrap();
    let arguments = ["server", "--listen", "127.0.0.1:0", "--data-dir", data];
    let left = run(&mut gangline(&arguments)).await;
    check(
        &left,
        74,
        &[
            "in use by another process",
            "hint: wait until",
            "--data-dir",
        ],
    );
    queue.bare(Method::POST, "/seal").await.ok();
    server.stop().await;
}
