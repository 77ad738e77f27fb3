//! The work queues of the Kubernetes documentation, and Gangline's own beside them.
//!
//! The manifests of `examples/` ask for what those of the documentation ask for, in words of our own. Whoever has a checkout of
//! github.com/kubernetes/website names it in `GANGLINE_KUBERNETES_DOCS`, and its own manifests are run as well.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use gangline_tests::TestRedis;
use gangline_tests::gangline::{Left, gangline, run};
use gangline_tests::redis::Keeping;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// How long RabbitMQ may take to start on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const FRUIT: [&str; 8] = [
    "apple", "banana", "cherry", "date", "fig", "grape", "lemon", "melon",
];

fn examples(folder: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().join("examples").join(folder)
}

/// A manifest of the documentation by its path in `content/en/examples`, where there is a checkout.
fn original(path: &str) -> Option<String> {
    let checkout = PathBuf::from(std::env::var_os("GANGLINE_KUBERNETES_DOCS")?);
    let path = checkout.join("content/en/examples").join(path);
    assert!(path.exists(), "{} is not there", path.display());
    Some(path.to_str().unwrap().to_owned())
}

/// Runs a manifest where it lies, as its README says.
async fn run_file(folder: &str, manifest: &str, more: &[&str]) -> Left {
    let state = tempfile::tempdir().unwrap();
    let mut command = gangline(&["run", "-f", manifest]);
    command.args(more).current_dir(examples(folder));
    run(command.env("XDG_STATE_HOME", state.path())).await
}

/// The example's images, with the broker at another address.
fn images(dir: &Path, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(examples("kubernetes-queues/images.toml")).unwrap();
    assert!(text.contains(from), "{text}");
    let path = dir.join("images.toml");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn check_fruit(left: &Left, doing: &str) {
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let mut worked: Vec<&str> = left
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix(doing))
        .collect();
    worked.sort_unstable();
    assert_eq!(worked, FRUIT, "{}", left.stdout);
}

/// A RabbitMQ on free ports; it ends with this value.
struct Rabbit {
    url: String,
    children: [Child; 2],
    dir: tempfile::TempDir,
}

impl Rabbit {
    async fn start() -> Option<Self> {
        let server = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<String> = {
            let free = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
            free.iter().map(|free| port(free).to_string()).collect()
        };
        let [names, port, peers] = ports.as_slice() else {
            unreachable!("three ports");
        };
        let none = dir.path().join("none");
        let start = |program: &Path, arguments: &[&str]| {
            Command::new(program)
                .args(arguments)
                .env("HOME", dir.path())
                .env("ERL_EPMD_PORT", names)
                .env("ERL_EPMD_ADDRESS", "127.0.0.1")
                .env("RABBITMQ_NODENAME", "gangline@localhost")
                .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
                .env("RABBITMQ_NODE_PORT", port)
                .env("RABBITMQ_DIST_PORT", peers)
                .env("RABBITMQ_MNESIA_BASE", dir.path().join("state"))
                .env("RABBITMQ_LOGS", "-")
                .env("RABBITMQ_ENABLED_PLUGINS_FILE", &none)
                .env("RABBITMQ_CONF_ENV_FILE", &none)
                .env("RABBITMQ_CONFIG_FILE", &none)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
        };
        let mut rabbit = Self {
            url: format!("amqp://guest:guest@127.0.0.1:{port}"),
            children: [
                start(Path::new("epmd"), &["-port", names]).ok()?,
                start(server, &[]).ok()?,
            ],
            dir,
        };
        let is_up = async {
            while !rabbit
                .client("amqp-declare-queue", &["-q", "job1", "-d"])
                .await?
            {
                let server = rabbit.children[1].try_wait().unwrap();
                assert!(server.is_none(), "RabbitMQ ended: {server:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Some(())
        };
        let is_up = tokio::time::timeout(PATIENCE, is_up).await;
        is_up.expect("RabbitMQ answers").map(|()| rabbit)
    }

    /// Whether a program of amqp-tools succeeds; nothing when there is no such program.
    async fn client(&self, program: &str, arguments: &[&str]) -> Option<bool> {
        let mut command = Command::new(program);
        command.arg(format!("--url={}", self.url)).args(arguments);
        let output = command.stdin(Stdio::null()).output().await.ok()?;
        Some(output.status.success())
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        for child in &self.children {
            if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
                let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
            }
        }
    }
}

#[tokio::test]
async fn the_coarse_work_queue_with_rabbitmq_runs_as_it_stands() {
    let Some(rabbit) = Rabbit::start().await else {
        eprintln!("SKIPPED: no rabbitmq-server and amqp-tools here; apt-get install brings them");
        return;
    };
    let address = rabbit.url.rsplit_once('@').unwrap().1;
    let images = images(rabbit.dir.path(), "127.0.0.1:5672", address);
    let theirs = original("application/job/rabbitmq/job.yaml");
    for manifest in [Some("coarse.yaml"), theirs.as_deref()]
        .into_iter()
        .flatten()
    {
        for item in FRUIT {
            let publish = ["-r", "job1", "-p", "-b", item];
            assert_eq!(rabbit.client("amqp-publish", &publish).await, Some(true));
        }
        let left = run_file("kubernetes-queues", manifest, &["--images", &images]).await;
        check_fruit(&left, "Processing ");
        assert_eq!(left.stdout.lines().count(), FRUIT.len(), "{}", left.stdout);
    }
}

#[tokio::test]
async fn the_fine_work_queue_with_redis_runs_as_it_stands() {
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start(Keeping::Memory);
    let dir = tempfile::tempdir().unwrap();
    let images = images(dir.path(), "redis://127.0.0.1:6379", &redis.url);
    let theirs = original("application/job/redis/job.yaml");
    for manifest in [Some("fine.yaml"), theirs.as_deref()].into_iter().flatten() {
        let push = [&["RPUSH", "job2"], FRUIT.as_slice()].concat();
        assert_eq!(redis.ask(&push).trim(), "8");
        let left = run_file("kubernetes-queues", manifest, &["--images", &images]).await;
        check_fruit(&left, "Working on ");
        let out = &left.stdout;
        assert!(out.contains("Queue empty, exiting"), "{out}");
        assert_eq!(redis.ask(&["DBSIZE"]).trim(), "0");
    }
}

/// The file, what to add, the exit code, the lines of its output in order, and what is said of its end.
type Original = (
    &'static str,
    &'static [&'static str],
    i32,
    Vec<&'static str>,
    &'static str,
);

#[tokio::test]
async fn the_manifests_of_the_documentation_run_as_they_stand() {
    let policy = "PodFailurePolicy: Container main for pod default/";
    let indexes = "FailedIndexes: Job has failed indexes";
    let table: [Original; 8] = [
        (
            "controllers/job-backoff-limit-per-index-example.yaml",
            &[],
            1,
            vec!["Hello world"; 15],
            indexes,
        ),
        (
            "controllers/job-backoff-limit-per-index-failindex.yaml",
            &[],
            1,
            vec![],
            indexes,
        ),
        (
            "controllers/job-pod-failure-policy-example.yaml",
            &[],
            1,
            vec!["Hello world!"; 3],
            policy,
        ),
        (
            "controllers/job-success-policy.yaml",
            &["-j", "3"],
            0,
            vec![],
            "",
        ),
        (
            "application/job/indexed-job.yaml",
            &[],
            0,
            vec!["oof", "rab", "xuq", "zab", "zyx"],
            "",
        ),
        (
            "application/job/indexed-job-vol.yaml",
            &[],
            0,
            vec!["0", "1", "2", "3", "4"],
            "",
        ),
        ("application/job/job-sidecar.yaml", &[], 0, vec![], ""),
        ("controllers/job.yaml", &[], 0, vec![], ""),
    ];
    if original(table[0].0).is_none() {
        eprintln!("SKIPPED: GANGLINE_KUBERNETES_DOCS names no checkout of kubernetes/website");
        return;
    }
    for (file, more, code, lines, said) in table {
        let left = run_file(".", &original(file).unwrap(), more).await;
        assert_eq!(left.code, Some(code), "{file}: {}", left.stderr);
        assert!(left.stderr.contains(said), "{file}: {}", left.stderr);
        let mut out: Vec<&str> = left.stdout.lines().collect();
        out.sort_unstable();
        match file {
            // What the sidecar sees of its file depends on who is first.
            "application/job/job-sidecar.yaml" => {
                assert!(out.iter().all(|line| line.starts_with("[logshipper] ")));
            }
            "controllers/job.yaml" => assert!(
                left.stdout.starts_with("3.14159265358979"),
                "{}",
                left.stdout
            ),
            _ => assert_eq!(out, lines, "{file}"),
        }
    }
    let template = original("application/job/job-tmpl.yaml").unwrap();
    let text = std::fs::read_to_string(template).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("job-apple.yaml");
    std::fs::write(&file, text.replace("$ITEM", "apple")).unwrap();
    let left = run_file(".", file.to_str().unwrap(), &[]).await;
    assert_eq!(left.stdout, "Processing item apple\n", "{}", left.stderr);
}

#[tokio::test]
async fn the_same_with_gangline_needs_nothing_beside_the_job() {
    let left = run_file("kubernetes-queues", "gangline.yaml", &["-a", "fruit.txt"]).await;
    check_fruit(&left, "Working on ");
    assert!(left.stderr.contains("8 done"), "{}", left.stderr);
}
