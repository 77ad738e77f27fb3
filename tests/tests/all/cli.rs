//! `gangline run` as a user meets it: output, exit codes, and what is said about bad input.

mod clients;
mod cluster_clients;
mod help;
mod run_options;

use std::path::Path;

use gangline_tests::gangline::{self, Left, end_of, gangline, run};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Runs `gangline run` with a state directory of its own.
async fn run_in(dir: &Path, arguments: &[&str]) -> Left {
    let mut command = gangline(&["run"]);
    run(command.args(arguments).env("XDG_STATE_HOME", dir)).await
}

async fn run_with_stdin(dir: &Path, arguments: &[&str], stdin: &[u8]) -> Left {
    let mut command = gangline(&["run"]);
    command.args(arguments).env("XDG_STATE_HOME", dir);
    gangline::run_with_stdin(&mut command, stdin).await
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_range_is_processed_and_every_result_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let left = run_in(
        dir.path(),
        &[
            "--range",
            "1..300",
            "--",
            "sh",
            "-c",
            "echo $(( $1 * 2 ))",
            "sh",
            "{}",
        ],
    )
    .await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let mut numbers: Vec<u32> = left
        .stdout
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=300).map(|n| n * 2).collect::<Vec<_>>());
    assert!(left.stderr.contains("300 done"), "{}", left.stderr);
    let runs = dir.path().join("gangline/runs");
    assert_eq!(
        std::fs::read_dir(runs).unwrap().count(),
        0,
        "a finished run leaves nothing"
    );
}

#[tokio::test]
async fn results_are_written_in_the_order_of_the_items() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("results");
    let file = file.to_str().unwrap();
    let program = "sleep 0.0$(( 9 - $1 % 10 )); echo $1";
    let left = run_in(
        dir.path(),
        &[
            "--range", "1..30", "-j4", "-r", file, "--", "sh", "-c", program, "sh",
        ],
    )
    .await;
    assert_eq!(
        (left.code, left.stdout.as_str()),
        (Some(0), ""),
        "{}",
        left.stderr
    );
    let wanted: String = (1..=30).map(|n| format!("{n}\n")).collect();
    assert_eq!(std::fs::read_to_string(file).unwrap(), wanted);
}

#[tokio::test]
async fn real_files_are_counted_as_wc_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pattern = root.to_owned();
    pattern.push("server/src/**/*.rs");
    let left = run_in(
        dir.path(),
        &["--glob", pattern.to_str().unwrap(), "--", "wc", "-l"],
    )
    .await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert!(left.stdout.lines().count() > 20);
    for line in left.stdout.lines() {
        let (count, name) = line.trim().split_once(' ').unwrap();
        let text = std::fs::read_to_string(name).unwrap();
        assert_eq!(
            count.parse::<usize>().unwrap(),
            text.matches('\n').count(),
            "{name}"
        );
    }
}

/// The sources that cargo has put into its registry: thousands of real files, on any machine
/// that has built this.
#[tokio::test]
async fn thousands_of_real_files_are_counted_as_wc_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let registry = std::env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"),
        Into::into,
    );
    let pattern = registry.join("registry/src/*/*/src/**/*.rs");
    let files: Vec<_> = glob::glob(pattern.to_str().unwrap())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(files.len() >= 5_000, "{} files", files.len());
    let names: String = files
        .iter()
        .map(|file| format!("{}\n", file.display()))
        .collect();
    let left = run_with_stdin(dir.path(), &["-j4", "--", "wc", "-l"], names.as_bytes()).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert_eq!(left.stdout.lines().count(), files.len());
    let counted: u64 = left
        .stdout
        .lines()
        .map(|line| {
            line.trim()
                .split(' ')
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum();
    let wc = tokio::process::Command::new("sh")
        .args(["-c", "xargs -d '\\n' cat < \"$1\" | wc -l", "sh"])
        .arg({
            let list = dir.path().join("list");
            std::fs::write(&list, names).unwrap();
            list
        })
        .output()
        .await
        .unwrap();
    let wanted = String::from_utf8(wc.stdout).unwrap();
    assert_eq!(counted, wanted.trim().parse::<u64>().unwrap());
}

#[tokio::test]
async fn lines_nul_bytes_and_json_are_items() {
    let dir = tempfile::tempdir().unwrap();
    let lines = run_with_stdin(
        dir.path(),
        &["--", "printf", "<%s>\\n"],
        b"a b\n\nc\r\na b\n",
    )
    .await;
    assert_eq!(
        sorted(&lines.stdout),
        ["<a b>", "<a b>", "<c>"],
        "{}",
        lines.stderr
    );
    let nul = run_with_stdin(dir.path(), &["-0", "--", "printf", "<%s>;"], b"a\nb\0c\0").await;
    let mut items: Vec<_> = nul.stdout.split_terminator(';').collect();
    items.sort_unstable();
    assert_eq!(items, ["<a\nb>", "<c>"], "{}", nul.stderr);
    let program = [
        "--json",
        "--",
        "printf",
        "%s %s\\n",
        "{item.name}",
        "{item.n}",
    ];
    let stdin = b"{\"name\":\"x\",\"n\":1}\n{\"name\":\"y z\",\"n\":[2]}\n";
    let json = run_with_stdin(dir.path(), &program, stdin).await;
    assert_eq!(sorted(&json.stdout), ["x 1", "y z [2]"], "{}", json.stderr);
}

#[tokio::test]
async fn an_item_can_come_on_stdin_and_bytes_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let cat = run_with_stdin(dir.path(), &["--stdin", "--", "cat"], b"one").await;
    assert_eq!(cat.stdout, "one", "{}", cat.stderr);
    let file = dir.path().join("bytes");
    let arguments = [
        "--range",
        "1..1",
        "-r",
        file.to_str().unwrap(),
        "--",
        "printf",
        "\\377\\000a",
    ];
    let left = run_in(dir.path(), &arguments).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert_eq!(std::fs::read(file).unwrap(), b"\xff\0a");
}

#[tokio::test]
async fn a_failed_item_is_dead_and_the_exit_code_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let program = "test $1 != 3 || { echo no threes >&2; exit 4; }";
    let left = run_in(
        dir.path(),
        &["--range", "1..5", "--", "sh", "-c", program, "sh"],
    )
    .await;
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    assert!(left.stderr.contains("4 done, 1 dead"), "{}", left.stderr);
    assert!(
        left.stderr.contains("1 × exit code 4: no threes"),
        "{}",
        left.stderr
    );
    // Errors that differ in what they name are of one kind.
    let program = "echo \"cannot open $1\" >&2; exit 4";
    let left = run_in(
        dir.path(),
        &["--range", "1..5", "--", "sh", "-c", program, "sh"],
    )
    .await;
    let kind = "  5 × exit code 4: cannot open 1 and the like (first: item 1)\n";
    assert!(left.stderr.contains(kind), "{}", left.stderr);
}

#[tokio::test]
async fn attempts_are_the_programs_runs() {
    let dir = tempfile::tempdir().unwrap();
    let program = "echo $GANGLINE_ITEM_ATTEMPT; test $GANGLINE_ITEM_ATTEMPT = 2";
    let arguments = [
        "--attempts",
        "2",
        "--range",
        "1..2",
        "--",
        "sh",
        "-c",
        program,
    ];
    let left = run_in(dir.path(), &arguments).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert_eq!(left.stdout, "2\n2\n");
}

#[tokio::test]
async fn a_program_that_runs_too_long_is_ended_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let program = format!("(sleep 3; echo late > {}) & wait", mark.display());
    let arguments = [
        "--timeout",
        "200ms",
        "--range",
        "1..1",
        "--",
        "sh",
        "-c",
        &program,
    ];
    let left = run_in(dir.path(), &arguments).await;
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    assert!(left.stderr.contains("longer than 0.2 s"), "{}", left.stderr);
    assert!(!mark.exists());
}

#[tokio::test]
async fn declared_codes_are_dead_at_once_and_a_missing_command_stops_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let program = "echo $GANGLINE_ITEM_ATTEMPT >&2; exit 9";
    let arguments = [
        "--attempts=3",
        "--dead-codes=9",
        "--range=1..1",
        "--",
        "sh",
        "-c",
        program,
    ];
    let left = run_in(dir.path(), &arguments).await;
    assert_eq!(left.code, Some(1));
    assert!(left.stderr.contains("exit code 9: 1"), "{}", left.stderr);
    let arguments = [
        "--range=1..1000",
        "--",
        "sh",
        "-c",
        "no-such-program-at-all",
    ];
    let left = run_in(dir.path(), &arguments).await;
    assert_eq!(left.code, Some(1));
    assert!(left.stderr.contains("abandoned"), "{}", left.stderr);
}

#[tokio::test]
async fn bad_input_is_named_and_ends_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("file"), "mine").unwrap();
    let long = format!("\"{}\"\n", "x".repeat(1 << 20));
    let cases: [(&[&str], &[u8], &str); 9] = [
        (
            &["--range=1..3", "--", "no-such-program"],
            b"",
            "there is no program no-such-program",
        ),
        (&["--range=3..1", "--", "true"], b"", "3 comes after 1"),
        (
            &["--range=1..x", "--", "true"],
            b"",
            "\"x\" is no whole number",
        ),
        (
            &["--", "true"],
            b"ok\nb\xff\n",
            "stdin, line 2: not UTF-8, at byte 2",
        ),
        (
            &["--json", "--", "true"],
            b"{}\n\n{bad\n",
            "stdin, line 3: not JSON",
        ),
        (
            &["--json", "--", "true"],
            long.as_bytes(),
            "line 1: an item must be at most 1048576 bytes",
        ),
        (
            &["-a", "/no/such/file", "--", "true"],
            b"",
            "cannot read /no/such/file",
        ),
        (&["--glob=***", "--", "true"], b"", "--glob \"***\""),
        (
            &["--data-dir", full.to_str().unwrap(), "--", "true"],
            b"",
            "is not empty",
        ),
    ];
    for (arguments, stdin, wanted) in cases {
        let left = run_with_stdin(dir.path(), arguments, stdin).await;
        assert!(
            left.stderr.contains(wanted),
            "{arguments:?}: {}",
            left.stderr
        );
        assert_eq!(left.code, Some(2), "{arguments:?}: {}", left.stderr);
        assert!(!left.stderr.contains("panicked"), "{}", left.stderr);
    }
    assert_eq!(std::fs::read_to_string(full.join("file")).unwrap(), "mine");
}

#[tokio::test]
async fn a_directory_belongs_to_one_command_and_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let job = dir.path().join("job");
    let job = format!("--data-dir={}", job.display());
    let gate = dir.path().join("gate");
    let wait = format!("while ! test -e {}; do sleep 0.05; done", gate.display());
    let arguments = [&job, "--range=1..1", "--", "sh", "-c", &wait];
    let mut first = gangline(&["run"]).args(arguments).spawn().unwrap();
    // Its first line says that it has opened the directory.
    let mut stderr = BufReader::new(first.stderr.take().unwrap());
    stderr.read_line(&mut String::new()).await.unwrap();
    let busy = run_in(dir.path(), &arguments).await;
    assert!(
        busy.stderr.contains("in use by another process"),
        "{}",
        busy.stderr
    );
    assert_eq!(busy.code, Some(74), "{}", busy.stderr);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(end_of(first).await.code, Some(0));
    let other = run_in(dir.path(), &[&job, "--range=1..1", "--", "true"]).await;
    assert_eq!(other.code, Some(2));
    assert!(
        other.stderr.contains("keeps a run of another command"),
        "{}",
        other.stderr
    );
}

#[tokio::test]
async fn a_port_in_use_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = dir.path().join("data");
    let arguments = [
        "server",
        "--listen",
        &address,
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let left = run(&mut gangline(&arguments)).await;
    assert_eq!(left.code, Some(2));
    assert!(
        left.stderr.contains(&format!("cannot listen on {address}")),
        "{}",
        left.stderr
    );
    let left = run(&mut gangline(&["server", "--listen", "0.0.0.0:0"])).await;
    assert_eq!(left.code, Some(2));
    assert!(left.stderr.contains("without a token"), "{}", left.stderr);
}
