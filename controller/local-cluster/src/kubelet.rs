//! The kubelet of the local cluster: runs the containers of a Pod as processes and reports their state.
//!
//! It speaks to the API through [`PodApi`] only, and holds no state that is not in its directory: after a restart it finds
//! the supervisors of running containers again. It must not decide which Pods exist.

mod pod;
pub mod supervisor;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A change to a Pod of this node.
#[derive(Debug, Clone)]
pub enum PodEvent {
    /// The Pod exists in this form. The first events list all Pods.
    Applied(Box<Pod>),
    /// The Pod's object is gone.
    Deleted(String),
}

/// What the kubelet needs of the API server.
pub trait PodApi: Send + Sync + 'static {
    /// All Pods of this node, then every change; `Deleted` carries the uid.
    fn watch(&self) -> BoxStream<'static, PodEvent>;
    /// Replaces the status of this Pod.
    fn patch_status(&self, pod: &Pod, status: PodStatus) -> BoxFuture<'_, io::Result<()>>;
    /// Removes the object of a Pod whose containers have terminated.
    fn remove(&self, pod: &Pod) -> BoxFuture<'_, io::Result<()>>;
}

/// Settings of the kubelet.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where Pods keep their state: `UID/CONTAINER/RUN/`.
    pub root: PathBuf,
    /// The command that becomes [`supervisor::main`]; the run's directory is appended.
    pub supervisor: Vec<String>,
    /// Containers see the server's whole environment.
    pub inherit: bool,
    /// Bytes of log kept a run.
    pub log_max: u64,
}

/// Runs the Pods of this node.
pub struct Kubelet {
    config: Arc<Config>,
    api: Arc<dyn PodApi>,
}

impl Kubelet {
    /// A kubelet that keeps its state below `config.root`.
    #[must_use]
    pub fn new(config: Config, api: Arc<dyn PodApi>) -> Self {
        Self {
            config: Arc::new(config),
            api,
        }
    }

    /// Runs until `shutdown`; containers go on running after it.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut pods: HashMap<String, watch::Sender<Option<Pod>>> = HashMap::new();
        let mut tasks = tokio::task::JoinSet::new();
        let mut events = self.api.watch();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = tasks.join_next() => continue,
                event = events.next() => event,
            };
            match event {
                None => break,
                Some(PodEvent::Applied(pod)) => {
                    let uid = pod.metadata.uid.clone().unwrap_or_default();
                    if let Some(known) = pods.get(&uid) {
                        known.send_replace(Some(*pod));
                    } else if !uid.is_empty() {
                        let (sender, receiver) = watch::channel(Some(*pod));
                        pods.insert(uid, sender);
                        tasks.spawn(pod::run(
                            Arc::clone(&self.config),
                            Arc::clone(&self.api),
                            receiver,
                        ));
                    }
                }
                Some(PodEvent::Deleted(uid)) => {
                    if let Some(known) = pods.remove(&uid) {
                        known.send_replace(None);
                    }
                }
            }
        }
    }

    /// The log of a container's newest run, as CRI lines; `tail` keeps the last lines only.
    ///
    /// # Errors
    /// When there is no such run.
    pub fn logs(&self, uid: &str, container: &str, tail: Option<usize>) -> io::Result<Vec<String>> {
        let dir = self.config.root.join(uid).join(container);
        let run = pod::newest_run(&dir).ok_or(io::ErrorKind::NotFound)?;
        let bytes = std::fs::read(dir.join(run.to_string()).join("log"))?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let from = tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        Ok(lines.into_iter().skip(from).collect())
    }
}
