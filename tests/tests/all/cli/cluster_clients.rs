//! `apply`, `get`, `scale`, `logs`, `wait` and `delete` for Jobs and Pods of `gangline up`.

use std::path::Path;

use gangline_tests::gangline::{Left, gangline, run};
use gangline_tests::up::Up;
use serde_json::Value;

async fn run_at(up: &Up, line: &str) -> Left {
    let mut command = gangline(&line.split(' ').collect::<Vec<_>>());
    run(command.envs(up.exports().iter().cloned())).await
}

/// Runs a command that has to succeed without a word on stderr, and returns what it prints.
async fn printed(up: &Up, line: &str) -> String {
    let left = run_at(up, line).await;
    assert_eq!((left.code, &*left.stderr), (Some(0), ""), "{line}");
    left.stdout
}

/// Writes the manifest of a Job whose Pods run a script.
fn manifest(dir: &Path, name: &str, script: &str) -> String {
    let file = dir.join(format!("{name}.yaml"));
    let text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{ name: {name} }}\nspec:\n  backoffLimit: 0\n  \
         managedBy: gangline.dev/controller\n  template:\n    spec:\n      restartPolicy: Never\n      \
         containers:\n      - {{ name: main, image: none, command: [sh, -c, {script:?}] }}\n"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_is_applied_watched_scaled_read_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("up")).await;
    let gate = dir.path().join("gate");
    let script = format!(
        "echo begun; until test -e {}; do sleep 0.05; done; echo ended",
        gate.display()
    );
    let file = manifest(dir.path(), "slow", &script);
    let apply = format!("apply -f {file}");
    assert_eq!(printed(&up, &apply).await, "job.batch/slow created\n");
    assert_eq!(
        printed(&up, "scale job/slow --replicas 2").await,
        "job.batch/slow scaled\n"
    );
    let jobs = printed(&up, "get jobs").await;
    assert!(
        jobs.starts_with("NAME   STATUS    COMPLETIONS   DURATION   AGE\nslow   Running"),
        "{jobs}"
    );
    let wide = printed(&up, "get job slow -o wide").await;
    assert!(wide.contains("IMAGES") && wide.contains("none"), "{wide}");
    let job: Value = serde_json::from_str(&printed(&up, "get job slow -o json").await).unwrap();
    assert_eq!(
        (&job["kind"], &job["spec"]["parallelism"]),
        (&"Job".into(), &2.into())
    );
    assert_eq!(
        printed(&up, "get jobs -A -o name").await,
        "job.batch/slow\n"
    );
    assert!(
        printed(&up, "get jobs -A")
            .await
            .starts_with("NAMESPACE   NAME")
    );
    std::fs::write(&gate, "").unwrap();
    let left = run_at(&up, "wait job/slow").await;
    assert_eq!(
        (left.code, &*left.stdout),
        (Some(0), "job.batch/slow Complete\n"),
        "{}",
        left.stderr
    );
    let pods = printed(
        &up,
        "get pods -a -l batch.kubernetes.io/job-name=slow -o yaml",
    )
    .await;
    assert!(
        pods.starts_with("apiVersion: v1\nitems:\n- apiVersion: v1\n"),
        "{pods}"
    );
    let name = printed(&up, "get pods -o name").await;
    let name = name.lines().next().unwrap();
    assert!(name.starts_with("pod/slow-"), "{name}");
    assert_eq!(
        printed(&up, &format!("logs {name}")).await,
        "begun\nended\n"
    );
    assert_eq!(
        printed(&up, &format!("logs {name} --tail 1")).await,
        "ended\n"
    );
    let all = printed(&up, "logs job/slow --follow").await;
    assert!(all.contains("begun\n") && all.contains("ended\n"), "{all}");
    assert_eq!(
        printed(&up, &format!("delete -f {file}")).await,
        "job.batch/slow deleted\n"
    );
    up.stop().await;
}

#[tokio::test]
async fn a_failed_job_ends_a_wait_with_1_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("up")).await;
    let file = manifest(dir.path(), "bad", "exit 3");
    printed(&up, &format!("apply -f {file}")).await;
    let left = run_at(&up, "wait job/bad").await;
    assert_eq!(
        (left.code, &*left.stdout),
        (Some(1), "job.batch/bad Failed\n"),
        "{}",
        left.stderr
    );
    assert!(
        left.stderr.contains("BackoffLimitExceeded"),
        "{}",
        left.stderr
    );
    assert_eq!(
        printed(&up, "delete job/bad").await,
        "job.batch/bad deleted\n"
    );
    let left = run_at(&up, "wait job/nothing").await;
    assert_eq!(left.code, Some(1));
    insta::assert_snapshot!(left.stderr, @r#"
    gangline: jobs.batch "nothing" not found
    hint: gangline get jobs, or get pods, shows what there is; -n NAMESPACE where
    "#);
    let left = run_at(&up, "scale images --parallelism 2").await;
    assert_eq!(left.code, Some(2));
    insta::assert_snapshot!(left.stderr, @r"
    gangline: queue/images has no number of Pods
    hint: gangline scale job/NAME --parallelism 5
    ");
    up.stop().await;
}

#[tokio::test]
async fn a_printed_run_is_applied_to_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("up")).await;
    let line = "run --dry-run=client --image=none --range=1..3 -j2 -- echo item";
    let file = dir.path().join("run.yaml");
    std::fs::write(&file, printed(&up, line).await).unwrap();
    let apply = format!("apply -f {}", file.display());
    assert_eq!(printed(&up, &apply).await, "job.batch/echo created\n");
    let left = run_at(&up, "wait job/echo").await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let results = printed(&up, "results echo").await;
    assert_eq!(
        results.matches("\"result\":\"item ").count(),
        3,
        "{results}"
    );
    printed(&up, "delete job/echo").await;
    up.stop().await;
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let home = |line: &str| {
        let mut command = gangline(&line.split(' ').collect::<Vec<_>>());
        command.env("HOME", dir.path()).env_remove("KUBECONFIG");
        command
    };
    let left = run(&mut home("get jobs")).await;
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    assert!(
        left.stderr.contains("no cluster is configured"),
        "{}",
        left.stderr
    );
    assert!(left.stderr.contains("hint: KUBECONFIG"), "{}", left.stderr);
    let up = Up::start(&dir.path().join("up")).await;
    let exports = up.exports().to_vec();
    up.stop().await;
    let left = run(home("get jobs").envs(exports)).await;
    assert_eq!(left.code, Some(69), "{}", left.stderr);
    assert!(
        left.stderr.contains("hint: is it running?"),
        "{}",
        left.stderr
    );
}
