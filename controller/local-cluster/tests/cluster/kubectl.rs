//! A session of `kubectl` with the cluster's own kubeconfig.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::world::{TOKEN, World, in_time};

const MANIFEST: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: wq, labels: {app: demo}}
spec:
  parallelism: 2
  template:
    spec:
      restartPolicy: OnFailure
      containers:
      - {name: w, image: busybox, command: [sh, -c, "echo hello; until [ -e GO ]; do sleep 0.05; done"]}
"#;

struct Kubectl<'a> {
    home: &'a Path,
}

impl Kubectl<'_> {
    /// Runs a command whose words have no spaces, and returns its exit code and all that it prints.
    async fn run(&self, words: &str) -> (i32, String) {
        let words: Vec<&str> = words.split(' ').collect();
        self.run_words(&words).await
    }

    async fn run_words(&self, words: &[&str]) -> (i32, String) {
        let output = Command::new("kubectl")
            .args(words)
            .env("HOME", self.home)
            .env("KUBECONFIG", self.home.join("config"))
            .current_dir(self.home)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = in_time(&words.join(" "), output).await.unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }

    /// Expects that a command succeeds and prints exactly this.
    #[track_caller]
    fn says(&self, words: &str, expected: &str) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let (code, text) = self.run(words).await;
            assert_eq!((code, text.trim_end()), (0, expected), "{words} at {at}");
        }
    }

    /// Expects that a command succeeds, and returns what it prints.
    async fn prints(&self, words: &str) -> String {
        let (code, text) = self.run(words).await;
        assert_eq!(code, 0, "{words}: {text}");
        text
    }
}

/// The columns of a table without the widths, which depend on ages.
fn table(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines();
    rows.map(|row| row.split_whitespace().collect()).collect()
}

pub(crate) async fn a_session_works_without_a_flag(world: &World) {
    let home = tempfile::tempdir().unwrap();
    let kubectl = Kubectl { home: home.path() };
    let probe = Command::new("kubectl")
        .args(["version", "--client"])
        .env("HOME", home.path())
        .output();
    if probe.await.is_err() {
        println!("SKIPPED a kubectl session: there is no kubectl on this machine");
        return;
    }
    let config = gangline_local_cluster::kubeconfig(world.address, TOKEN);
    std::fs::write(home.path().join("config"), config).unwrap();
    let go = home.path().join("go");
    let manifest = MANIFEST.replace("GO", &go.to_string_lossy());
    std::fs::write(home.path().join("wq.yaml"), &manifest).unwrap();
    let bad = manifest.replace("parallelism", "paralelism");
    std::fs::write(home.path().join("bad.yaml"), bad).unwrap();

    kubectl
        .says(
            "config set-context --current --namespace=demo",
            "Context \"gangline\" modified.",
        )
        .await;
    kubectl
        .says("create namespace demo", "namespace/demo created")
        .await;
    finds_its_way(&kubectl).await;
    writes_and_reads(&kubectl, &go).await;
    cleans_up(&kubectl).await;
    println!("ok a kubectl session works without a flag");
}

async fn finds_its_way(kubectl: &Kubectl<'_>) {
    let resources = kubectl.prints("api-resources --no-headers").await;
    let jobs = table(&resources).into_iter().find(|row| row[0] == "jobs");
    assert_eq!(jobs, Some(vec!["jobs", "batch/v1", "true", "Job"]));
    kubectl.says("auth can-i create jobs", "yes").await;
    let (code, text) = kubectl.run("get nothing").await;
    assert_eq!(code, 1);
    assert_eq!(
        text.trim_end(),
        "error: the server doesn't have a resource type \"nothing\""
    );
    let (code, text) = kubectl.run("get job nope").await;
    assert_eq!(code, 1);
    assert_eq!(
        text.trim_end(),
        "Error from server (NotFound): jobs.batch \"nope\" not found"
    );
}

async fn writes_and_reads(kubectl: &Kubectl<'_>, go: &Path) {
    let (code, text) = kubectl.run("create -f bad.yaml").await;
    assert_eq!(code, 1);
    assert_eq!(
        text.trim_end(),
        "Error from server (BadRequest): error when creating \"bad.yaml\": Job in version \"v1\" cannot be handled as a Job: strict decoding error: unknown field \"spec.paralelism\""
    );
    kubectl
        .says("apply -f wq.yaml", "job.batch/wq created")
        .await;
    kubectl
        .says("apply -f wq.yaml", "job.batch/wq unchanged")
        .await;
    kubectl
        .says(
            "wait --for=jsonpath={.status.ready}=2 job/wq",
            "job.batch/wq condition met",
        )
        .await;
    let jobs = kubectl.prints("get jobs").await;
    let rows = table(&jobs);
    assert_eq!(
        rows[0],
        ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
    );
    assert_eq!(rows[1][..5], ["wq", "Running", "0/1", "of", "2"]);
    let pods = kubectl.prints("get pods -l job-name=wq").await;
    let rows = table(&pods);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1][1..4], ["1/1", "Running", "0"]);
    let described = kubectl.prints("describe job wq").await;
    assert!(described.contains("Pods Statuses:    2 Active (2 Ready) / 0 Succeeded / 0 Failed"));
    assert!(described.contains("SuccessfulCreate"), "{described}");

    kubectl
        .says(
            "apply -f wq.yaml --server-side",
            "job.batch/wq serverside-applied",
        )
        .await;
    kubectl
        .says("label job wq tier=one", "job.batch/wq labeled")
        .await;
    kubectl
        .says("annotate job wq note=hi", "job.batch/wq annotated")
        .await;
    kubectl
        .says(
            r#"patch job wq --type=merge -p {"spec":{"activeDeadlineSeconds":100}}"#,
            "job.batch/wq patched",
        )
        .await;
    kubectl
        .says(
            r#"patch job wq --type=json -p [{"op":"replace","path":"/spec/activeDeadlineSeconds","value":90}]"#,
            "job.batch/wq patched",
        )
        .await;
    kubectl
        .says(
            r#"patch job wq -p {"metadata":{"labels":{"x":"y"}}}"#,
            "job.batch/wq patched",
        )
        .await;
    kubectl
        .says("scale --replicas=3 jobs/wq", "job.batch/wq scaled")
        .await;
    kubectl
        .says(
            "get job wq -o jsonpath={.spec.parallelism},{.metadata.labels.tier},{.spec.activeDeadlineSeconds}",
            "3,one,90",
        )
        .await;
    let (code, text) = kubectl
        .run(r#"patch job wq --type=merge -p {"spec":{"completions":5}}"#)
        .await;
    assert_eq!(code, 1);
    assert_eq!(
        text.trim_end(),
        "The Job \"wq\" is invalid: spec.completions: Invalid value: 5: field is immutable"
    );
    std::fs::create_dir(go).unwrap();
    kubectl
        .says(
            "wait --for=condition=complete job/wq --timeout=60s",
            "job.batch/wq condition met",
        )
        .await;
    let logs = kubectl.prints("logs -l job-name=wq --tail=1").await;
    assert!(logs.lines().all(|line| line == "hello"), "{logs}");
}

async fn cleans_up(kubectl: &Kubectl<'_>) {
    let create = [
        "create",
        "job",
        "direct",
        "--image=none",
        "--",
        "sh",
        "-c",
        "echo direct",
    ];
    let (code, text) = kubectl.run_words(&create).await;
    assert_eq!((code, text.trim_end()), (0, "job.batch/direct created"));
    kubectl
        .says(
            "wait --for=condition=complete job/direct --timeout=60s",
            "job.batch/direct condition met",
        )
        .await;
    kubectl.says("logs -f job/direct", "direct").await;
    let events = kubectl
        .prints("get events --field-selector involvedObject.name=direct")
        .await;
    assert!(
        events.contains("job/direct   Created pod: direct-"),
        "{events}"
    );
    kubectl
        .says(
            "delete job direct --cascade=orphan",
            "job.batch \"direct\" deleted",
        )
        .await;
    let deleted = kubectl.prints("delete pods -l job-name=direct").await;
    assert!(deleted.starts_with("pod \"direct-"), "{deleted}");
    kubectl
        .says("delete job wq", "job.batch \"wq\" deleted")
        .await;
    kubectl
        .says("get jobs,pods", "No resources found in demo namespace.")
        .await;
    kubectl
        .says(
            "create configmap settings --from-literal=a=b",
            "configmap/settings created",
        )
        .await;
    kubectl
        .says("delete namespace demo", "namespace \"demo\" deleted")
        .await;
    kubectl
        .says("get configmaps", "No resources found in demo namespace.")
        .await;
}
