//! The kubelet of the local cluster: runs the containers of a Pod as processes and reports their state.
//!
//! It speaks to the API through [`PodApi`] only, and holds no state that is not in its directory: after a restart it finds
//! the supervisors of running containers again. It must not decide which Pods exist.

mod back_off;
mod care;
mod container;
mod environment;
mod exec;
mod expansion;
mod families;
mod identity;
mod images;
mod leftovers;
mod log_file;
mod logs;
mod pod;
mod probe;
pub(crate) mod quantity;
mod refuse;
mod run;
mod status;
pub mod supervisor;
mod supervisors;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use back_off::BackOff;
use families::{Families, Programs};
pub use identity::Identity;
pub(crate) use identity::boot_id;
pub use images::{Image, Images, ImagesError, read_images};
pub use logs::{LogError, LogOptions};
pub use run::{Exit, Run};
use supervisors::Supervisors;

/// A change to a Pod of this node.
#[derive(Debug, Clone)]
pub enum PodEvent {
    /// The Pod exists in this form. The first events list all Pods.
    Applied(Arc<Pod>),
    /// All Pods of the first list have come: what else there is of state on this machine belongs to no Pod any more.
    Listed,
    /// The Pod's object is gone.
    Deleted(String),
}

/// Where values for a container's environment and files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigKind {
    /// A `ConfigMap`: its `data` and `binaryData`.
    ConfigMap,
    /// A `Secret`: its `data`, decoded.
    Secret,
}

impl fmt::Display for ConfigKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        })
    }
}

/// The values of a config map or secret by key.
pub type ConfigData = BTreeMap<String, Vec<u8>>;

/// What the kubelet needs of the API server.
pub trait PodApi: Send + Sync + 'static {
    /// All Pods of this node, `Listed`, then every change; `Deleted` carries the uid. Without a `Listed`, nothing is cleaned
    /// up that an earlier kubelet left of Pods which are gone.
    fn watch(&self) -> BoxStream<'static, PodEvent>;
    /// Replaces the status of this Pod, save conditions of types that `status` does not name: others may have written those
    /// since the kubelet saw the Pod. [`io::ErrorKind::NotFound`] says that there is no such Pod any more; after any other error
    /// the kubelet tries again.
    fn patch_status(&self, pod: &Pod, status: PodStatus) -> BoxFuture<'_, io::Result<()>>;
    /// Removes the object of a Pod whose containers have terminated.
    fn remove(&self, pod: &Pod) -> BoxFuture<'_, io::Result<()>>;
    /// Tells whoever is responsible for the Pod of something that has gone wrong, as a Warning event would.
    fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        tracing::warn!(
            pod.namespace = namespace,
            pod.name = name,
            reason,
            "{message}"
        );
    }
    /// The values in a config map or secret, or `None` if there is none of that name.
    fn config(
        &self,
        namespace: &str,
        kind: ConfigKind,
        name: &str,
    ) -> BoxFuture<'_, io::Result<Option<ConfigData>>> {
        let _ = (namespace, kind, name);
        async { Ok(None) }.boxed()
    }
    /// Variables that tell a container of the namespace's services: `NAME_SERVICE_HOST` and its like.
    fn services(&self, namespace: &str) -> BoxFuture<'_, io::Result<Vec<(String, String)>>> {
        let _ = namespace;
        async { Ok(Vec::new()) }.boxed()
    }
}

/// Settings of the kubelet.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where Pods keep their state: files `UID/CONTAINER.RUN`.
    pub root: PathBuf,
    /// The command that becomes [`supervisor::main`].
    pub supervisor: Vec<String>,
    /// Containers see the server's whole environment, and not just its `PATH` and `HOME`.
    pub inherit: bool,
    /// Bytes of log kept a run; the oldest go first.
    pub log_max: u64,
    /// What stands for the entrypoints of images.
    pub images: Images,
    /// How long a container waits before it is run again.
    pub back_off: BackOff,
    /// Containers are told to end when this process is gone, however it went.
    pub bound: bool,
    /// Most processes of a Pod; one that has more is ended.
    pub processes_max: usize,
}

impl Config {
    /// Kubernetes' own defaults, and no images.
    #[must_use]
    pub fn new(root: PathBuf, supervisor: Vec<String>) -> Self {
        Self {
            root,
            supervisor,
            inherit: false,
            log_max: 10 << 20,
            images: Images::new(),
            back_off: BackOff::default(),
            bound: false,
            processes_max: families::PROCESSES_MAX,
        }
    }
}

/// What all Pods share.
struct Node {
    config: Config,
    api: Arc<dyn PodApi>,
    supervisors: Supervisors,
    /// Who is whose child, whenever a Pod might have too many processes.
    families: watch::Sender<Arc<Families>>,
    programs: Programs,
}

/// Runs the Pods of this node.
pub struct Kubelet {
    node: Arc<Node>,
}

impl Kubelet {
    /// A kubelet that keeps its state below `config.root`.
    #[must_use]
    pub fn new(config: Config, api: Arc<dyn PodApi>) -> Self {
        let supervisors = Supervisors::new(config.supervisor.clone());
        Self {
            node: Arc::new(Node {
                config,
                api,
                supervisors,
                families: watch::Sender::default(),
                programs: Programs::default(),
            }),
        }
    }

    /// Runs until `shutdown`; containers go on running after it.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut pods: HashMap<String, watch::Sender<Option<Arc<Pod>>>> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut events = self.node.api.watch();
        let max = self.node.config.processes_max;
        let mut look = pin!(families::look(
            max,
            &self.node.programs,
            self.node.families.clone()
        ));
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => break,
                () = &mut look => break,
                Some(_) = tasks.join_next() => continue,
                event = events.next() => event,
            };
            match event {
                None => break,
                Some(PodEvent::Applied(pod)) => {
                    let uid = pod.metadata.uid.clone().unwrap_or_default();
                    if let Some(known) = pods.get(&uid) {
                        known.send_replace(Some(pod));
                    } else if !uid.is_empty() {
                        let (sender, receiver) = watch::channel(Some(pod));
                        pods.insert(uid, sender);
                        tasks.spawn(pod::run(Arc::clone(&self.node), receiver));
                    }
                }
                Some(PodEvent::Listed) => {
                    let is_known = |uid: &str| pods.contains_key(uid);
                    for leftover in leftovers::find(&self.node.config.root, is_known) {
                        tasks.spawn(leftover.clear());
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

    /// The log of a container's newest run, or of the one before: the lines of both streams, as the program wrote them.
    ///
    /// # Errors
    /// When there is no such run.
    pub fn logs(
        &self,
        uid: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Bytes>, LogError> {
        let runs = run::Runs::of(&self.node.config.root, uid, container);
        let newest = runs.newest();
        let number = if let Some(asked) = options.restart_count {
            let newest = newest.filter(|newest| asked <= *newest);
            let newest = newest.ok_or_else(|| LogError::NotStarted(container.to_owned()))?;
            // Of the earlier ones, only the last is kept.
            if asked + 1 < newest {
                return Err(LogError::NoPrevious(container.to_owned()));
            }
            asked
        } else if options.previous {
            let before = newest.and_then(|newest| newest.checked_sub(1));
            before.ok_or_else(|| LogError::NoPrevious(container.to_owned()))?
        } else {
            newest.ok_or_else(|| LogError::NotStarted(container.to_owned()))?
        };
        Ok(logs::read(runs.get(number), options))
    }
}
