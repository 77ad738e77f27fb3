//! A kubelet with an API in memory, and Pods to give it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use gangline_local_cluster::kubelet::{
    BackOff, Config, ConfigData, ConfigKind, Kubelet, LogOptions, PodApi, PodEvent, Run,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Fake {
    pods: Mutex<HashMap<String, Pod>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<PodEvent>>>,
    /// Every status that was written, by Pod.
    written: Mutex<HashMap<String, Vec<PodStatus>>>,
    warnings: Mutex<HashMap<String, Vec<(String, String)>>>,
    configs: Mutex<BTreeMap<(ConfigKind, String), ConfigData>>,
    changed: watch::Sender<()>,
}

impl Fake {
    pub(crate) fn apply(&self, pod: Pod) {
        self.put(&mut self.pods.lock().unwrap(), pod);
    }

    /// The lock is held meanwhile, so that a watch that begins just now misses nothing.
    fn put(&self, pods: &mut HashMap<String, Pod>, pod: Pod) {
        pods.insert(pod.metadata.uid.clone().unwrap(), pod.clone());
        let event = || PodEvent::Applied(Arc::new(pod.clone()));
        self.watchers
            .lock()
            .unwrap()
            .retain(|w| w.send(event()).is_ok());
        self.changed.send_replace(());
    }

    /// Has the Pod's object gone without a word to the kubelet.
    pub(crate) fn forget(&self, uid: &str) {
        self.pods.lock().unwrap().remove(uid);
    }

    pub(crate) fn delete(&self, uid: &str, grace: i64) {
        self.edit(uid, |pod| {
            pod.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
        });
    }

    pub(crate) fn edit(&self, uid: &str, change: impl FnOnce(&mut Pod)) {
        let mut pods = self.pods.lock().unwrap();
        let mut pod = pods[uid].clone();
        change(&mut pod);
        self.put(&mut pods, pod);
    }

    pub(crate) fn set_config(&self, kind: ConfigKind, name: &str, data: &[(&str, &str)]) {
        let data = data
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()));
        self.configs
            .lock()
            .unwrap()
            .insert((kind, name.to_owned()), data.collect());
    }

    pub(crate) fn written(&self, uid: &str) -> Vec<PodStatus> {
        self.written
            .lock()
            .unwrap()
            .get(uid)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until the Pod's status is so; `None` stands for a Pod that is gone.
    pub(crate) async fn until(
        &self,
        uid: &str,
        what: impl Fn(Option<&PodStatus>) -> bool,
    ) -> Option<PodStatus> {
        let mut changed = self.changed.subscribe();
        let met = async {
            loop {
                let pod = self.pods.lock().unwrap().get(uid).cloned();
                let status = pod.map(|pod| pod.status.unwrap_or_default());
                if what(status.as_ref()) {
                    return status;
                }
                changed.changed().await.unwrap();
            }
        };
        let result = tokio::time::timeout(DEADLINE, met).await;
        result
            .unwrap_or_else(|_| panic!("{uid} does not get there: {:#?}", self.written(uid).last()))
    }

    pub(crate) async fn over(&self, uid: &str) -> PodStatus {
        let over = |s: &PodStatus| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed"));
        self.until(uid, |s| s.is_some_and(over)).await.unwrap()
    }

    /// Phase of the Pod, and exit code and reason of its first container, once it is over.
    pub(crate) async fn ended(&self, uid: &str) -> (String, i32, String) {
        let status = self.over(uid).await;
        let ended = main(&status).state.clone().unwrap().terminated.unwrap();
        (
            status.phase.unwrap(),
            ended.exit_code,
            ended.reason.unwrap(),
        )
    }

    pub(crate) async fn running(&self, uid: &str) -> PodStatus {
        let ready = |s: &PodStatus| s.container_statuses.as_ref().is_some_and(|c| c[0].ready);
        self.until(uid, |s| s.is_some_and(ready)).await.unwrap()
    }

    /// The first container runs, ready or not.
    pub(crate) async fn running_at_all(&self, uid: &str) -> PodStatus {
        let runs = |s: &PodStatus| {
            let first = s
                .container_statuses
                .as_ref()
                .map(|all| all[0].state.clone());
            first.flatten().is_some_and(|state| state.running.is_some())
        };
        self.until(uid, |s| s.is_some_and(runs)).await.unwrap()
    }

    /// Reasons and messages.
    pub(crate) fn warnings(&self, uid: &str) -> Vec<(String, String)> {
        self.warnings
            .lock()
            .unwrap()
            .get(uid)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) async fn gone(&self, uid: &str) {
        self.until(uid, |s| s.is_none()).await;
    }
}

/// The first container.
pub(crate) fn main(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

pub(crate) fn waiting(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

pub(crate) fn condition<'a>(status: &'a PodStatus, kind: &str) -> (&'a str, &'a str) {
    let all = status.conditions.as_ref().unwrap();
    let found = all.iter().find(|c| c.type_ == kind).unwrap();
    (&found.status, found.reason.as_deref().unwrap_or_default())
}

impl PodApi for Fake {
    fn watch(&self) -> BoxStream<'static, PodEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let pods = self.pods.lock().unwrap();
        for pod in pods.values() {
            let event = PodEvent::Applied(Arc::new(pod.clone()));
            sender.send(event).unwrap();
        }
        sender.send(PodEvent::Listed).unwrap();
        self.watchers.lock().unwrap().push(sender);
        let next =
            |mut r: mpsc::UnboundedReceiver<_>| async { r.recv().await.map(|event| (event, r)) };
        futures::stream::unfold(receiver, next).boxed()
    }

    fn patch_status(&self, pod: &Pod, mut status: PodStatus) -> BoxFuture<'_, io::Result<()>> {
        let uid = pod.metadata.uid.clone().unwrap();
        if let Some(known) = self.pods.lock().unwrap().get_mut(&uid) {
            let ours = status.conditions.get_or_insert_default();
            let before = known.status.take().and_then(|before| before.conditions);
            for theirs in before.into_iter().flatten() {
                if ours.iter().all(|own| own.type_ != theirs.type_) {
                    ours.push(theirs);
                }
            }
            known.status = Some(status.clone());
            self.written
                .lock()
                .unwrap()
                .entry(uid)
                .or_default()
                .push(status);
        }
        self.changed.send_replace(());
        async { Ok(()) }.boxed()
    }

    fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        let uid = pod.metadata.uid.clone().unwrap();
        let warning = (reason.to_owned(), message.to_owned());
        self.warnings
            .lock()
            .unwrap()
            .entry(uid)
            .or_default()
            .push(warning);
    }

    fn remove(&self, pod: &Pod) -> BoxFuture<'_, io::Result<()>> {
        self.pods
            .lock()
            .unwrap()
            .remove(pod.metadata.uid.as_ref().unwrap());
        self.changed.send_replace(());
        async { Ok(()) }.boxed()
    }

    fn config(
        &self,
        _namespace: &str,
        kind: ConfigKind,
        name: &str,
    ) -> BoxFuture<'_, io::Result<Option<ConfigData>>> {
        let found = self
            .configs
            .lock()
            .unwrap()
            .get(&(kind, name.to_owned()))
            .cloned();
        async { Ok(found) }.boxed()
    }

    fn services(&self, _namespace: &str) -> BoxFuture<'_, io::Result<Vec<(String, String)>>> {
        async { Ok(vec![("WEB_SERVICE_PORT".to_owned(), "80".to_owned())]) }.boxed()
    }
}

/// Is a server whose programs end with it: runs this Pod until it is killed.
pub(crate) async fn serve(root: PathBuf, pod: &str) {
    let world = World::at(root, |config| config.bound = true);
    world.api.apply(serde_json::from_str(pod).unwrap());
    std::future::pending::<()>().await;
}

/// A server in a process of its own, started by `wrapper`; killed when it is dropped.
pub(crate) struct Server(std::process::Child);

impl Server {
    pub(crate) fn start(wrapper: &[&str], root: &std::path::Path, pod: &Pod) -> Self {
        let me = std::env::current_exe().unwrap();
        let mut argv = wrapper
            .iter()
            .map(std::ffi::OsString::from)
            .collect::<Vec<_>>();
        argv.extend([me.into(), "serve".into(), root.into()]);
        argv.push(serde_json::to_string(pod).unwrap().into());
        let child = std::process::Command::new(&argv[0])
            .args(&argv[1..])
            .spawn();
        Self(child.unwrap())
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory, an API and the kubelets that run on it one after the other.
pub(crate) struct World {
    pub(crate) api: Arc<Fake>,
    pub(crate) root: PathBuf,
    temporary: Option<tempfile::TempDir>,
    config: Config,
    kubelet: Arc<Kubelet>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut world = Self::at(temporary.path().to_owned(), change);
        world.temporary = Some(temporary);
        world
    }

    fn at(root: PathBuf, change: impl FnOnce(&mut Config)) -> Self {
        let me = std::env::current_exe()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let mut config = Config::new(root.join("pods"), vec![me, "supervise".into()]);
        config.back_off = BackOff {
            base: Duration::from_millis(10),
            cap: Duration::from_millis(40),
            reset: Duration::from_secs(60),
        };
        change(&mut config);
        let api = Arc::new(Fake::default());
        let kubelet = kubelet(&config, &api);
        let (stop, task) = begin(&kubelet);
        Self {
            api,
            root,
            temporary: None,
            config,
            kubelet,
            stop,
            task,
        }
    }

    /// Replaces the kubelet by another one, after `between`.
    pub(crate) async fn restart(&mut self, between: impl AsyncFnOnce()) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
        // Dropping it closes the links, as the end of its process would.
        self.kubelet = kubelet(&self.config, &self.api);
        between().await;
        (self.stop, self.task) = begin(&self.kubelet);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The state of all Pods.
    pub(crate) fn state(&self) -> PathBuf {
        self.config.root.clone()
    }

    /// A file's content, once it is there: written elsewhere and moved to its place.
    pub(crate) async fn file(&self, name: &str) -> String {
        let path = self.path(name);
        poll(|| std::fs::read_to_string(&path).ok(), name)
            .await
            .trim()
            .to_owned()
    }

    pub(crate) fn run_of(&self, uid: &str, number: u32) -> Run {
        Run::new(self.config.root.join(uid).join(format!("c.{number}")))
    }

    /// How many processes the kernel lets a running container have, where its supervisor may see to that.
    pub(crate) fn fence(&self, uid: &str) -> Option<usize> {
        let program = self.run_of(uid, 0).program()?;
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", program.pid)).ok()?;
        let mut paths = groups.lines().filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let hierarchy = if controllers == "pids" { "pids" } else { "" };
            let is_own = path.rsplit('/').next()?.starts_with("gangline-");
            is_own.then(|| format!("/sys/fs/cgroup/{hierarchy}{path}/pids.max"))
        });
        let max = std::fs::read_to_string(paths.next()?).ok()?;
        max.trim().parse().ok()
    }

    pub(crate) async fn log(&self, uid: &str, options: LogOptions) -> String {
        let pieces: Vec<_> = self
            .kubelet
            .logs(uid, "c", options)
            .unwrap()
            .collect()
            .await;
        String::from_utf8(pieces.concat()).unwrap()
    }

    pub(crate) fn kubelet(&self) -> &Kubelet {
        &self.kubelet
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn kubelet(config: &Config, api: &Arc<Fake>) -> Arc<Kubelet> {
    let api = Arc::clone(api) as Arc<dyn PodApi>;
    Arc::new(Kubelet::new(config.clone(), api))
}

fn begin(kubelet: &Arc<Kubelet>) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let (runner, token) = (Arc::clone(kubelet), stop.clone());
    let task = tokio::spawn(async move { runner.run(token).await });
    (stop, task)
}

/// Waits for what no event tells of.
pub(crate) async fn poll<T>(mut what: impl FnMut() -> Option<T>, name: &str) -> T {
    let found = async {
        loop {
            if let Some(found) = what() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, found).await;
    found.unwrap_or_else(|_| panic!("{name} does not come in time"))
}

/// A Pod whose one container runs a shell script; `more` replaces fields of its spec.
pub(crate) fn script(uid: &str, script: &str, more: Value) -> Pod {
    let container = json!({"name": "c", "command": ["sh", "-c", script]});
    pod(
        uid,
        json!({"restartPolicy": "Never", "containers": [container]}),
        more,
    )
}

/// A Pod whose one container is this one.
pub(crate) fn single(uid: &str, mut container: Value, more: Value) -> Pod {
    container["name"] = json!("c");
    pod(
        uid,
        json!({"restartPolicy": "Never", "containers": [container]}),
        more,
    )
}

fn pod(uid: &str, mut spec: Value, more: Value) -> Pod {
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let meta = json!({"name": uid, "namespace": "space", "uid": uid, "labels": {"team": "dogs"}});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}
