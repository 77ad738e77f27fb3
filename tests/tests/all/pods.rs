//! `gangline run -f`: Jobs as Kubernetes writes them, run by the controller on this machine.

use std::path::{Path, PathBuf};

use gangline_tests::gangline::{Left, built, gangline, run};
use serde_json::json;

fn example(path: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path: PathBuf = tests.parent().unwrap().join("examples").join(path);
    path.to_str().unwrap().to_owned()
}

/// Runs a manifest with more arguments, with its state in a directory of its own.
async fn run_file(manifest: &str, more: &[&str]) -> Left {
    let state = tempfile::tempdir().unwrap();
    let mut arguments = vec!["run", "-f", manifest];
    arguments.extend(more);
    // Programs of the examples are found where they were built.
    let mut path = vec![built("search").parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let mut command = gangline(&arguments);
    command.env("PATH", std::env::join_paths(path).unwrap());
    run(command.env("XDG_STATE_HOME", state.path())).await
}

/// Runs a Job of this spec.
async fn run_job(annotations: &str, spec: &str, more: &[&str]) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("job.yaml");
    let text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: test\n  annotations: {annotations}\n\
         spec: {spec}\n"
    );
    std::fs::write(&file, text).unwrap();
    run_file(file.to_str().unwrap(), more).await
}

fn template(script: &str) -> String {
    format!(
        "{{ spec: {{ restartPolicy: Never, containers: [{{ name: main, image: none, \
         command: [sh, -c, {script:?}, sh] }}] }} }}"
    )
}

/// What the machine's own perl says, if it can.
async fn digits() -> Option<String> {
    let arguments = ["-Mbignum=bpi", "-wle", "print bpi(2000)"];
    let output = tokio::process::Command::new("perl")
        .args(arguments)
        .output();
    let output = output.await.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[tokio::test]
async fn pi_is_printed_to_two_thousand_places() {
    let Some(digits) = digits().await else {
        eprintln!("SKIPPED: perl cannot compute pi here; libmath-bigint-gmp-perl helps");
        return;
    };
    for manifest in ["pi/pi.yaml", "pi/pi-with-timeout.yaml"] {
        let left = run_file(&example(manifest), &[]).await;
        assert_eq!((left.code, left.stderr.as_str()), (Some(0), ""));
        assert!(
            left.stdout
                .starts_with("3.14159265358979323846264338327950288")
        );
        assert_eq!(left.stdout.trim().len(), 2_001);
        assert_eq!(left.stdout, digits);
    }
}

#[tokio::test]
async fn a_job_past_its_deadline_ends_its_pods_and_fails() {
    let spec = format!(
        "{{ activeDeadlineSeconds: 1, template: {} }}",
        template("echo begun; exec sleep 1000")
    );
    let left = run_job("{}", &spec, &[]).await;
    assert_eq!(left.code, Some(1));
    // On a busy machine the second may be over before the shell has come to its first word.
    assert!(["", "begun\n"].contains(&&*left.stdout), "{}", left.stdout);
    assert!(left.stderr.contains("DeadlineExceeded"), "{}", left.stderr);
}

#[tokio::test]
async fn a_failed_pod_is_replaced_until_the_back_off_limit() {
    let spec = format!(
        "{{ backoffLimit: 1, template: {} }}",
        template("echo tried; exit 3")
    );
    let left = run_job("{}", &spec, &[]).await;
    assert_eq!(left.code, Some(1));
    assert_eq!(left.stdout, "tried\ntried\n");
    assert!(
        left.stderr.contains("BackoffLimitExceeded"),
        "{}",
        left.stderr
    );
}

#[tokio::test]
async fn every_start_of_a_container_has_its_log_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark").display().to_string();
    let script = format!("mkdir {mark} 2>/dev/null && echo first && exit 3; echo second");
    let spec = format!(
        "{{ template: {} }}",
        template(&script).replace("Never", "OnFailure")
    );
    let left = run_job("{}", &spec, &[]).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert_eq!(left.stdout, "first\nsecond\n");
}

#[tokio::test]
async fn an_indexed_job_gives_each_pod_its_index() {
    let spec = format!(
        "{{ completionMode: Indexed, completions: 5, parallelism: 2, template: {} }}",
        template("echo $JOB_COMPLETION_INDEX")
    );
    let left = run_job("{}", &spec, &[]).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let mut lines: Vec<&str> = left.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0", "1", "2", "3", "4"]);
}

/// Squares of the numbers, in any order.
#[track_caller]
fn check_squares(stdout: &str, numbers: std::ops::RangeInclusive<u64>) {
    let mut squares: Vec<u64> = stdout.lines().map(|line| line.parse().unwrap()).collect();
    squares.sort_unstable();
    assert_eq!(
        squares,
        numbers.map(|number| number * number).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_work_queue_job_fills_and_empties_its_queue() {
    let left = run_file(&example("work-queue-job/job.yaml"), &[]).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    check_squares(&left.stdout, 1..=100);
    assert!(left.stderr.contains("100 done"), "{}", left.stderr);
}

#[tokio::test]
async fn a_work_queue_job_takes_items_from_the_command_line() {
    let annotations = "{ gangline.dev/queue: $(job), gangline.dev/wrap: 'true' }";
    let spec = format!(
        "{{ parallelism: 2, template: {} }}",
        template("echo $(($1 * $1))")
    );
    let left = run_job(annotations, &spec, &["--range", "3..12"]).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    check_squares(&left.stdout, 3..=12);
}

#[tokio::test]
async fn a_search_ends_at_its_first_success_and_its_job_is_complete() {
    let left = run_file(&example("search/job.yaml"), &[]).await;
    // Another worker may come to the end of a block without a find just before it is told.
    let results = serde_json::Deserializer::from_str(&left.stdout).into_iter();
    let mut results = results.map(|result| result.unwrap());
    let result: serde_json::Value = results.find(|result| *result != json!(null)).unwrap();
    assert!(result["number"].is_u64(), "{result}");
    // What is abandoned is said, loudly.
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    assert!(left.stderr.contains("abandoned"), "{}", left.stderr);
}

#[tokio::test]
async fn a_pod_that_succeeds_first_ends_a_work_queue_without_workers() {
    // The first Pod makes the directory and succeeds; the others would fail for ever after.
    let dir = tempfile::tempdir().unwrap();
    let (first, starts) = (dir.path().join("first"), dir.path().join("starts"));
    let script = format!(
        "echo x >> {}; mkdir {} && exit 0; sleep 0.5; exit 1",
        starts.display(),
        first.display()
    );
    let spec = format!(
        "{{ parallelism: 3, backoffLimit: 20, template: {} }}",
        template(&script)
    );
    let left = run_job("{}", &spec, &[]).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let started = std::fs::read_to_string(&starts).unwrap();
    assert_eq!(
        started.lines().count(),
        3,
        "a Pod was made after the first success"
    );
}

#[tokio::test]
async fn a_manifest_that_cannot_run_is_refused_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("job.yaml");
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: { name: test }\n";
    let spec = format!("spec: {{ template: {} }}\n", template("true"));
    let cases = [
        ("{", "is no YAML"),
        ("hello\n", "\"hello\" is no object"),
        ("- a\n", "is no object"),
        (&format!("{job}spec: x\n"), "the Job's spec"),
        (
            &format!(
                "{job}spec: {{ suspend: true, template: {} }}\n",
                template("true")
            ),
            "spec.suspend is true, so it would never end",
        ),
        (
            &format!(
                "{job}spec: {{ parallelism: 0, template: {} }}\n",
                template("true")
            ),
            "spec.parallelism is 0, so it would never end",
        ),
        (
            &format!(
                "{job}spec: {{ managedBy: foo.dev/x, template: {} }}\n",
                template("true")
            ),
            "spec.managedBy names another controller, \"foo.dev/x\"",
        ),
        ("kind: Pod\n", "holds a Pod, and a run is of a Job"),
        (
            &format!("{job}{spec}---\n{job}{spec}"),
            "exactly one Job, not 2",
        ),
        (
            &format!(
                "{job}spec: {{ paralelism: 2, template: {} }}\n",
                template("true")
            ),
            "unknown field \"spec.paralelism\"",
        ),
        (
            &format!(
                "{job}spec: {{ parallelism: two, template: {} }}\n",
                template("true")
            ),
            "spec.parallelism",
        ),
        (
            &format!(
                "{job}spec: {{ parallelism: -1, template: {} }}\n",
                template("true")
            ),
            "spec.parallelism: Invalid value: -1",
        ),
        (
            &format!("{job}spec: {{ template: {{ spec: {{ containers: [] }} }} }}\n"),
            "spec.template.spec.containers: Required value",
        ),
        (
            &format!(
                "{spec}apiVersion: batch/v1\nkind: Job\nmetadata: {{ name: test, annotations: {{ gangline.dev/idle-seconds: '5' }} }}\n"
            ),
            "gangline.dev/idle-seconds needs gangline.dev/queue",
        ),
        (
            &format!(
                "{spec}apiVersion: batch/v1\nkind: Job\nmetadata: {{ name: test, annotations: {{ gangline.dev/queue: A_B }} }}\n"
            ),
            "gangline.dev/queue does not name a queue",
        ),
        (
            &format!("{job}{spec}---\napiVersion: apps/v1\nkind: Deployment\n"),
            "\"Deployment\" of \"apps/v1\" is no kind that is known here",
        ),
    ];
    for (text, wanted) in cases {
        std::fs::write(&file, text).unwrap();
        let left = run_file(file.to_str().unwrap(), &[]).await;
        assert_eq!(left.code, Some(2), "{text}\n{}", left.stderr);
        assert!(left.stderr.contains(wanted), "{text}\n{}", left.stderr);
    }
    let left = run_file("/no/such/job.yaml", &[]).await;
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    assert!(left.stderr.contains("/no/such/job.yaml"), "{}", left.stderr);
    let left = run_file(&example("pi/pi.yaml"), &["--range", "1..3"]).await;
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    assert!(left.stderr.contains("takes no items"), "{}", left.stderr);
}
