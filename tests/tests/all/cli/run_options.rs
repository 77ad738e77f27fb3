//! What can be said to `gangline run` beside the items and the program.

use std::path::Path;

use gangline_tests::gangline::{gangline, run};
use serde_json::Value;

use super::{run_in, run_with_stdin, sorted};

/// Reads a job log: its heading, and its lines by their number without the times.
fn joblog(path: &Path) -> (String, Vec<(u32, String)>) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let heading = lines.next().unwrap().to_owned();
    let mut runs: Vec<_> = lines
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            assert_eq!(columns.len(), 9, "{line}");
            assert!(columns[2].parse::<f64>().unwrap() > 1e9, "{line}");
            assert!(columns[3].trim().parse::<f64>().unwrap() >= 0.0, "{line}");
            let rest = [&columns[1..2], &columns[4..]].concat().join(" ");
            (columns[0].parse().unwrap(), rest)
        })
        .collect();
    runs.sort();
    (heading, runs)
}

#[tokio::test]
async fn a_job_log_has_a_line_a_run_with_the_columns_of_gnu_parallel() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    std::fs::write(&log, "of an earlier run\n").unwrap();
    let program = "test $1 != 2 || exit 5; test $1 != 3 || kill -9 $$; echo $1$1";
    let arguments = [
        "--range=1..3",
        "-j4",
        "--joblog",
        log.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        program,
        "sh",
    ];
    let left = run_in(dir.path(), &arguments).await;
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    let (heading, runs) = joblog(&log);
    let columns = "Seq Host Starttime JobRuntime Send Receive Exitval Signal Command";
    assert_eq!(heading.replace('\t', " "), columns);
    let runs: Vec<_> = runs.iter().map(|(seq, rest)| (*seq, &**rest)).collect();
    let wanted = [": 0 3 0 0", ": 0 0 5 0", ": 0 0 0 9"];
    for ((seq, rest), (number, start)) in runs.iter().zip((1..).zip(wanted)) {
        assert_eq!(*seq, number);
        assert_eq!(*rest, format!("{start} sh -c '{program}' sh {number}"));
    }
    assert_eq!(runs.len(), 3);
}

#[tokio::test]
async fn a_resumed_run_goes_on_with_its_job_log() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (dir.path().join("log"), dir.path().join("job"));
    let (log_argument, job) = (
        format!("--joblog={}", log.display()),
        format!("--data-dir={}", job.display()),
    );
    // The first run ends at a line that is none; two items are done by then, or will be.
    let arguments = ["--json", "-j1", &log_argument, &job, "--", "echo"];
    let left = run_with_stdin(dir.path(), &arguments, b"1\n2\n{\n").await;
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    assert!(
        left.stderr.contains("to go on with it: "),
        "{}",
        left.stderr
    );
    let left = run_with_stdin(dir.path(), &arguments, b"1\n2\n3\n").await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let (_, runs) = joblog(&log);
    let mut seen: Vec<u32> = runs.iter().map(|(seq, _)| *seq).collect();
    seen.dedup();
    assert_eq!(seen, [1, 2, 3]);
}

#[tokio::test]
async fn a_job_log_that_cannot_be_written_is_said_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let mark = mark.to_str().unwrap();
    let arguments = ["--range=1..1", "--joblog=/no/such/log", "--", "touch", mark];
    let left = run_in(dir.path(), &arguments).await;
    insta::assert_snapshot!(left.stderr, @r"
    gangline: cannot write the job log /no/such/log: No such file or directory (os error 2)
    hint: --joblog names a file in a directory that is there
    ");
    assert_eq!(left.code, Some(2));
    assert!(!Path::new(mark).exists());
}

#[tokio::test]
async fn the_first_dead_item_stops_a_job_that_is_to_fail_fast() {
    let dir = tempfile::tempdir().unwrap();
    // Those that wait are ended by the stop, or the job would not end.
    let program = "test $1 != 3 || { echo no threes >&2; exit 4; }; test $1 -lt 3 || sleep 3600";
    let arguments = [
        "--fail-fast",
        "--range=1..1000",
        "-j2",
        "--",
        "sh",
        "-c",
        program,
        "sh",
    ];
    let left = run_in(dir.path(), &arguments).await;
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    assert!(left.stderr.contains("1 dead, 99"), "{}", left.stderr);
    assert!(
        left.stderr.contains("1 × exit code 4: no threes"),
        "{}",
        left.stderr
    );
    let manifest = dir.path().join("job.yaml");
    std::fs::write(
        &manifest,
        "{apiVersion: batch/v1, kind: Job, metadata: {name: plain}, spec: {template: {spec: \
         {restartPolicy: Never, containers: [{name: a, image: a, command: ['true']}]}}}}",
    )
    .unwrap();
    let left = run_in(
        dir.path(),
        &["--fail-fast", "-f", manifest.to_str().unwrap()],
    )
    .await;
    insta::assert_snapshot!(left.stderr, @r"
    gangline: --fail-fast needs a Job with a queue, annotation gangline.dev/queue
    hint: backoffLimit: 0 ends a Job without one at its first failed Pod
    ");
    assert_eq!(left.code, Some(2));
    let left = run_in(
        dir.path(),
        &["--dashboard", "-f", manifest.to_str().unwrap()],
    )
    .await;
    insta::assert_snapshot!(left.stderr, @r"
    gangline: the Job has no annotation gangline.dev/queue, and the dashboard shows queues
    hint: leave --dashboard out
    ");
    assert_eq!(left.code, Some(2));
}

#[tokio::test]
async fn a_dry_run_prints_the_commands_and_runs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let commands = ["--dry-run", "--", "no-such-program", "{.}", "{#}", "$x"];
    let left = run_with_stdin(dir.path(), &commands, b"a b.jpg\nit's\n").await;
    insta::assert_snapshot!(left.stdout, @r"
    no-such-program 'a b' 1 '$x'
    no-such-program 'it'\''s' 2 '$x'
    ");
    assert_eq!((left.code, &*left.stderr), (Some(0), ""));
    let stdin = ["--dry-run", "--stdin", "--", "wc", "-c"];
    let left = run_with_stdin(dir.path(), &stdin, b"a b\n").await;
    assert_eq!(left.stdout, "printf %s 'a b' | wc -c\n");
    let fields = ["--dry-run", "--json", "--", "echo", "{item.name}"];
    let left = run_with_stdin(dir.path(), &fields, b"{\"name\":\"x\"}\n{}\n").await;
    assert_eq!((left.code, &*left.stdout), (Some(1), "echo x\n"));
    assert_eq!(
        left.stderr,
        "gangline: item 2 would be dead: the item has no field \"name\"\n"
    );
    assert!(!dir.path().join("gangline").exists(), "no run was begun");
}

/// Runs a manifest that was printed as `gangline run` does, after a look at it.
async fn run_printed(dir: &Path, manifest: &str) -> String {
    let file = dir.join("job.yaml");
    std::fs::write(&file, manifest).unwrap();
    let left = run_in(dir, &["-f", file.to_str().unwrap()]).await;
    assert_eq!(left.code, Some(0), "{manifest}\n{}", left.stderr);
    left.stdout
}

#[tokio::test]
async fn a_dry_run_for_a_cluster_prints_a_job_that_does_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "--dry-run=client",
        "-o",
        "yaml",
        "--image=example.com/tools:1",
        "-j2",
        "--dead-codes=3",
        "--fail-fast",
        "--",
        "sh",
        "-c",
        "echo \"<$1>\" $(echo x)",
        "sh",
    ];
    let printed = run_with_stdin(dir.path(), &arguments, b"a b\n7\n").await;
    assert_eq!((printed.code, &*printed.stderr), (Some(0), ""));
    insta::assert_snapshot!(printed.stdout, @r#"
    apiVersion: v1
    data:
      items.txt: |
        a b
        7
    kind: ConfigMap
    metadata:
      name: sh-items
    ---
    apiVersion: batch/v1
    kind: Job
    metadata:
      annotations:
        gangline.dev/items: configmap/sh-items
        gangline.dev/queue: $(job)
        gangline.dev/stop-at-dead-items: "1"
        gangline.dev/wrap: "true"
      name: sh
    spec:
      managedBy: gangline.dev/controller
      parallelism: 2
      template:
        spec:
          containers:
          - command:
            - sh
            - -c
            - echo "<$1>" $$(echo x)
            - sh
            env:
            - name: GANGLINE_DEAD_CODES
              value: "3"
            - name: GANGLINE_ATTEMPTS
              value: "1"
            image: example.com/tools:1
            name: worker
          restartPolicy: Never
    "#);
    let results = run_printed(dir.path(), &printed.stdout).await;
    assert_eq!(sorted(&results), ["<7> x", "<a b> x"]);
}

#[tokio::test]
async fn numbers_and_objects_stay_what_they_are_on_the_way_to_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let range = [
        "--dry-run=client",
        "--image=i",
        "-j4",
        "--workers=2",
        "--range=1..5",
    ];
    let printed = run_in(dir.path(), &[&range[..], &["--", "echo"]].concat()).await;
    let manifest = &printed.stdout;
    assert!(
        manifest.contains("gangline.dev/items: \"1..5\""),
        "{manifest}"
    );
    assert!(manifest.contains("name: GANGLINE_JOBS"), "{manifest}");
    let results = run_printed(dir.path(), manifest).await;
    assert_eq!(sorted(&results), ["1", "2", "3", "4", "5"]);
    let json = ["--json", "--dry-run=client", "-o=json", "--image=i", "--"];
    let json = [&json[..], &["echo", "{item.n}"]].concat();
    let printed = run_with_stdin(dir.path(), &json, b"{\"n\": 1}\n{\"n\": \"x y\"}\n").await;
    let list: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(
        list["items"][0]["data"]["items.jsonl"],
        "{\"n\": 1}\n{\"n\": \"x y\"}\n"
    );
    let results = run_printed(dir.path(), &printed.stdout).await;
    assert_eq!(sorted(&results), ["1", "x y"]);
}

#[tokio::test]
async fn a_job_that_cannot_be_printed_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let run_dry = async |arguments: &[&str], stdin: &[u8]| {
        let arguments = [&["--dry-run=client"], arguments, &["--", "wc"]].concat();
        let left = run_with_stdin(dir.path(), &arguments, stdin).await;
        (left.code, left.stderr)
    };
    let (code, stderr) = run_dry(&[], b"a\n").await;
    insta::assert_snapshot!(stderr, @r"
    gangline: a Job on a cluster needs an image
    hint: --image IMAGE names one that has the program
    ");
    assert_eq!(code, Some(2));
    let large = "x".repeat(1_000_000) + "\n" + &"y".repeat(100_000);
    let (code, stderr) = run_dry(&["--image=i"], large.as_bytes()).await;
    insta::assert_snapshot!(stderr, @r"
    gangline: the items must be at most 1048576 bytes to go into a config map
    hint: print the Job without items (</dev/null), and fill its queue with: gangline push wc --seal
    ");
    assert_eq!(code, Some(2));
    let (code, stderr) = run_dry(&["--image=i"], b"").await;
    insta::assert_snapshot!(stderr, @"gangline: the Job has no items yet; fill its queue with: gangline push wc --seal");
    assert_eq!(code, Some(0));
    let left = run(&mut gangline(&["run", "-o", "yaml", "--", "wc"])).await;
    assert_eq!(left.code, Some(2));
    assert!(left.stderr.contains("--dry-run"), "{}", left.stderr);
}
