//! The kubelet against an API in memory. Without the usual harness, since this executable is also the supervisor.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

use std::collections::HashMap;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use gangline_local_cluster::kubelet::{Config, Kubelet, PodApi, PodEvent, supervisor};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Fake {
    pods: Mutex<HashMap<String, Pod>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<PodEvent>>>,
    changed: watch::Sender<()>,
}

impl Fake {
    fn apply(&self, pod: Pod) {
        self.pods
            .lock()
            .unwrap()
            .insert(pod.metadata.uid.clone().unwrap(), pod.clone());
        self.watchers
            .lock()
            .unwrap()
            .retain(|w| w.send(PodEvent::Applied(Box::new(pod.clone()))).is_ok());
        self.changed.send_replace(());
    }

    fn delete(&self, uid: &str, grace: i64) {
        let mut pod = self.pods.lock().unwrap()[uid].clone();
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.apply(pod);
    }

    async fn until(
        &self,
        uid: &str,
        what: impl Fn(Option<&PodStatus>) -> bool,
    ) -> Option<PodStatus> {
        let mut changed = self.changed.subscribe();
        let met = async {
            loop {
                let status = self
                    .pods
                    .lock()
                    .unwrap()
                    .get(uid)
                    .map(|p| p.status.clone().unwrap_or_default());
                if what(status.as_ref()) {
                    return status;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), met)
            .await
            .expect("the Pod gets there in time")
    }

    async fn ended(&self, uid: &str) -> (String, i32, String) {
        let over = |s: Option<&PodStatus>| {
            s.is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")))
        };
        let status = self.until(uid, over).await.unwrap();
        let ended = status.container_statuses.unwrap()[0]
            .state
            .clone()
            .unwrap()
            .terminated
            .unwrap();
        (
            status.phase.unwrap(),
            ended.exit_code,
            ended.reason.unwrap(),
        )
    }
}

impl PodApi for Fake {
    fn watch(&self) -> BoxStream<'static, PodEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for pod in self.pods.lock().unwrap().values() {
            sender
                .send(PodEvent::Applied(Box::new(pod.clone())))
                .unwrap();
        }
        self.watchers.lock().unwrap().push(sender);
        futures::stream::unfold(receiver, |mut r| async {
            r.recv().await.map(|event| (event, r))
        })
        .boxed()
    }

    fn patch_status(&self, pod: &Pod, status: PodStatus) -> BoxFuture<'_, io::Result<()>> {
        if let Some(known) = self
            .pods
            .lock()
            .unwrap()
            .get_mut(pod.metadata.uid.as_ref().unwrap())
        {
            known.status = Some(status);
        }
        self.changed.send_replace(());
        async { Ok(()) }.boxed()
    }

    fn remove(&self, pod: &Pod) -> BoxFuture<'_, io::Result<()>> {
        self.pods
            .lock()
            .unwrap()
            .remove(pod.metadata.uid.as_ref().unwrap());
        self.changed.send_replace(());
        async { Ok(()) }.boxed()
    }
}

fn pod(uid: &str, script: &str, more: &serde_json::Value) -> Pod {
    let mut spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["sh", "-c", script]}]});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid}, "spec": spec})).unwrap()
}

async fn all() {
    let root = tempfile::tempdir().unwrap();
    let me = std::env::current_exe()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let config = Config {
        root: root.path().into(),
        supervisor: vec![me, "supervise".into()],
        inherit: false,
        log_max: 1 << 20,
    };
    let api = Arc::new(Fake::default());
    let begin = || {
        let stop = CancellationToken::new();
        let (kubelet, token) = (
            Arc::new(Kubelet::new(config.clone(), api.clone())),
            stop.clone(),
        );
        let runner = kubelet.clone();
        (
            kubelet,
            stop,
            tokio::spawn(async move { runner.run(token).await }),
        )
    };
    let (kubelet, stop, task) = begin();
    let none = json!({});
    let is = |phase: &str, code, reason: &str| (phase.to_owned(), code, reason.to_owned());

    api.apply(pod("ok", "echo one; echo two >&2", &none));
    assert_eq!(api.ended("ok").await, is("Succeeded", 0, "Completed"));
    let log = kubelet.logs("ok", "c", None).unwrap();
    assert!(
        log.iter().any(|l| l.ends_with("stdout F one"))
            && log.iter().any(|l| l.ends_with("stderr F two")),
        "{log:?}"
    );
    println!("ok exit 0 and log");

    api.apply(pod("three", "exit 3", &none));
    assert_eq!(api.ended("three").await, is("Failed", 3, "Error"));
    api.apply(pod("signal", "kill -SEGV $$", &none));
    assert_eq!(api.ended("signal").await, is("Failed", 139, "Error"));
    api.apply(pod(
        "none",
        "",
        &json!({"containers": [{"name": "c", "image": "busybox"}]}),
    ));
    assert_eq!(api.ended("none").await, is("Failed", 128, "StartError"));
    println!("ok exit codes, signal, no command");

    api.apply(pod(
        "late",
        "exec sleep 1000",
        &json!({"activeDeadlineSeconds": 1}),
    ));
    assert_eq!(api.ended("late").await.1, 143);
    println!("ok deadline");

    let ready = |s: Option<&PodStatus>| {
        s.is_some_and(|s| s.container_statuses.as_ref().is_some_and(|c| c[0].ready))
    };
    let daemon = root.path().join("daemon");
    let script = format!(
        "setsid sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; trap '' TERM; while :; do sleep 1; done",
        daemon.display()
    );
    api.apply(pod("deaf", &script, &none));
    api.until("deaf", ready).await;
    let written = async {
        while !daemon.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written)
        .await
        .unwrap();
    let pid: i32 = std::fs::read_to_string(&daemon)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    api.delete("deaf", 1);
    api.until("deaf", |s| s.is_none()).await;
    assert!(
        supervisor::Identity::of(pid).is_none(),
        "what left the session is killed too"
    );
    println!("ok delete, grace, descendants");

    let identity = root.path().join("killed/c/0/supervisor.json");
    let program = identity.with_file_name("program.json");
    for uid in ["killed", "kept"] {
        api.apply(pod(
            uid,
            "",
            &json!({"containers": [{"name": "c", "workingDir": root.path(),
            "command": ["sh", "-c", "mkfifo $0; read x < $0; exit 7", format!("{uid}.fifo")]}]}),
        ));
        api.until(uid, ready).await;
    }
    let fifo = root.path().join("kept.fifo");
    let written = async {
        while !(program.exists() && fifo.exists()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written)
        .await
        .unwrap();
    let known: supervisor::Identity =
        serde_json::from_slice(&std::fs::read(&identity).unwrap()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(known.pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(
        api.ended("killed").await,
        is("Failed", 137, "ContainerStatusUnknown")
    );
    let program: supervisor::Identity =
        serde_json::from_slice(&std::fs::read(&program).unwrap()).unwrap();
    let gone = async {
        while program.alive() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
    println!("ok killed supervisor");

    stop.cancel();
    task.await.unwrap();
    let (_second, stop, task) = begin();
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "x\n"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(api.ended("kept").await, is("Failed", 7, "Error"));
    println!("ok found again after a restart");
    stop.cancel();
    task.await.unwrap();
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == "supervise").is_some() {
        return supervisor::main(args);
    }
    tokio::runtime::Runtime::new().unwrap().block_on(all());
    ExitCode::SUCCESS
}
