//! Everything on one machine: the queue service, the local cluster and the controller.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use gangline_controller::plan::RetryDelay;
use gangline_controller::plan::queue::{QueueSpec, Wrapper};
use gangline_controller::{Controller, HttpQueueService, Settings as ControllerSettings};
use gangline_local_cluster::{Config as ClusterConfig, FieldError, LocalCluster, kubelet};
use gangline_server::{Config, LimitsConfig, Server, StoreConfig};
use gangline_worker::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, chain};

/// The hidden role of this binary that keeps the process of a container.
pub(crate) const SUPERVISE: &str = "supervise";
/// Nobody waits for anything but the worker that was lost, so it is replaced soon.
const RUN_RETRY_DELAY: RetryDelay = RetryDelay {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(10),
};
/// How long the parts may take to stop.
const STOP_TIME: Duration = Duration::from_secs(3);

/// What the parts are to be.
pub(crate) struct Settings<'a> {
    /// Where they keep their state.
    pub(crate) dir: &'a Path,
    /// What callers must show.
    pub(crate) token: &'a str,
    /// Where the queue service listens.
    pub(crate) listen: SocketAddr,
    /// How long Pods live.
    pub(crate) pods: PodLife,
    /// What stands for the entrypoints of images.
    pub(crate) images: ImagesArgs,
}

/// What stands for the entrypoints of images, as an argument.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ImagesArgs {
    /// Table of the commands of this machine that stand for the entrypoints of images, as TOML
    #[arg(long, value_name = "FILE", env = "GANGLINE_IMAGES")]
    images: Option<PathBuf>,
}

impl ImagesArgs {
    fn read(&self) -> Result<kubelet::Images, Error> {
        let read = self.images.as_deref().map(kubelet::read_images);
        let read = read
            .transpose()
            .map_err(|error| Error::usage(chain(&error)));
        Ok(read?.unwrap_or_default())
    }
}

/// How long Pods live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodLife {
    /// They are part of this process: they have its environment, are replaced at once when they
    /// are lost, and end with it.
    Run,
    /// They are the cluster's, as with Kubernetes.
    Cluster,
}

/// The running parts.
pub(crate) struct Local {
    /// The queue service.
    pub(crate) queues: Client,
    /// The cluster's API.
    pub(crate) cluster: kube::Client,
    local_cluster: Arc<LocalCluster>,
    /// What has to go on, and why it has stopped by itself.
    failures: Failures,
    /// Stops before the others: what it is about to ask of them is still answered.
    controller: (CancellationToken, JoinHandle<()>),
    parts: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Local {
    /// Starts the parts.
    pub(crate) async fn start(settings: Settings<'_>) -> Result<Self, Error> {
        let Settings {
            dir,
            token,
            listen,
            pods,
            images,
        } = settings;
        let images = images.read()?;
        let server = Server::bind(Config {
            listen,
            token: Some(token.to_owned()),
            store: StoreConfig::Embedded {
                data_dir: dir.join("queue"),
            },
            limits: LimitsConfig::default(),
            tls: None,
        })
        .await?;
        let url = format!("http://{}", server.address());
        let queues = Client::new(&url, Some(token.to_owned()))?;
        let binary = binary()?;
        let local_cluster = Arc::new(open_cluster(dir, &binary, pods, images)?);
        let cluster = kube::Client::new(local_cluster.service(), "default");
        let controller = Controller::new(
            cluster.clone(),
            HttpQueueService::new(queues.clone(), Some(token)),
            controller_settings(url, binary, pods),
        );
        let stop = CancellationToken::new();
        let mut failures = Failures::default();
        let failed = failures.of("the queue service");
        let serving = server.run(stop.clone());
        let running = (Arc::clone(&local_cluster), stop.clone());
        let stop_controller = CancellationToken::new();
        let controlling = controller.start(stop_controller.clone());
        let parts = vec![
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    // Nobody may be left to hear it.
                    let _ = failed.send(error.into());
                }
            }),
            tokio::spawn(async move { running.0.run(running.1).await }),
        ];
        let controlling = tokio::spawn(async move {
            // Without an election there is no leadership to lose.
            let _ = controlling.await;
        });
        Ok(Self {
            queues,
            cluster,
            local_cluster,
            failures,
            controller: (stop_controller, controlling),
            parts,
            stop,
        })
    }

    /// Serves the cluster's API on `listener` to whoever shows `token`.
    pub(crate) fn serve_cluster(&mut self, listener: TcpListener, token: String) {
        let (cluster, stop) = (Arc::clone(&self.local_cluster), self.stop.clone());
        let failed = self.failures.of("the cluster's API");
        self.parts.push(tokio::spawn(async move {
            if let Err(error) = cluster.serve(listener, token, stop).await {
                let text = format!("the cluster's API is served no more: {error}");
                let _ = failed.send(Error::new(Kind::ServiceLost, text));
            }
        }));
    }

    /// Waits until a part has stopped by itself, and says why.
    pub(crate) async fn failed(&mut self) -> Error {
        self.failures.first().await
    }

    /// Stops the parts.
    pub(crate) async fn stop(self) {
        let (stop_controller, controller) = self.controller;
        for (stop, parts) in [(stop_controller, vec![controller]), (self.stop, self.parts)] {
            stop.cancel();
            for part in parts {
                // A part that hangs goes with the process.
                let _ = tokio::time::timeout(STOP_TIME, part).await;
            }
        }
    }
}

/// Parts that have to go on.
#[derive(Default)]
struct Failures(Vec<(&'static str, oneshot::Receiver<Error>)>);

impl Failures {
    /// Returns where a part says why it has stopped.
    fn of(&mut self, part: &'static str) -> oneshot::Sender<Error> {
        let (sender, receiver) = oneshot::channel();
        self.0.push((part, receiver));
        sender
    }

    /// Waits for the first part that stops; one that panics cannot say why.
    async fn first(&mut self) -> Error {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let (said, index, _) = select_all(self.0.iter_mut().map(|(_, said)| said)).await;
        let (part, _) = self.0.swap_remove(index);
        said.unwrap_or_else(|_| Error::new(Kind::ServiceLost, format!("{part} has stopped")))
    }
}

fn open_cluster(
    dir: &Path,
    binary: &str,
    pods: PodLife,
    images: kubelet::Images,
) -> Result<LocalCluster, Error> {
    let root = dir.join("pods");
    if pods == PodLife::Run {
        // What the Pods of an earlier run have left is of no use to this one.
        let _ = std::fs::remove_dir_all(&root);
    }
    let kubelet = kubelet::Config {
        inherit: pods == PodLife::Run,
        bound: pods == PodLife::Run,
        images,
        ..kubelet::Config::new(root, vec![binary.to_owned(), SUPERVISE.to_owned()])
    };
    let objects = (pods != PodLife::Run).then(|| dir.join("objects"));
    let config = ClusterConfig {
        kubelet,
        objects,
        judge_job: Some(judge_job),
    };
    LocalCluster::open(config)
        .map_err(|error| Error::disk(format!("cannot open the cluster: {error}")))
}

/// What a Job says about its queue is judged before there is such a Job.
fn judge_job(job: &Value) -> Option<FieldError> {
    let error = QueueSpec::check(job).err()?;
    let key = error.annotation();
    Some(FieldError {
        field: format!("metadata.annotations[{key}]"),
        value: job["metadata"]["annotations"][key].clone(),
        why: error.rule(),
    })
}

fn controller_settings(url: String, binary: String, pods: PodLife) -> ControllerSettings {
    let settings = ControllerSettings::local(url, Wrapper::Path(binary.replace('$', "$$")));
    match pods {
        PodLife::Cluster => settings,
        PodLife::Run => ControllerSettings {
            pod_retry_delay: RUN_RETRY_DELAY,
            ..settings
        },
    }
}

/// Returns the path of this binary, as a Pod can name it.
pub(crate) fn binary() -> Result<String, Error> {
    let path = std::env::current_exe()
        .map_err(|error| Error::disk(format!("cannot tell where this program lies: {error}")))?;
    path.into_os_string().into_string().map_err(|path| {
        let text = format!("the path {} of this program is not UTF-8", path.display());
        Error::disk(text)
    })
}

#[cfg(test)]
mod tests {
    use super::{Error, Failures, Kind};

    #[tokio::test]
    async fn the_first_part_that_stops_is_heard_whether_it_says_why_or_not() {
        let mut failures = Failures::default();
        let (queues, cluster) = (failures.of("the queues"), failures.of("the cluster"));
        cluster.send(Error::new(Kind::Disk, "no room")).unwrap();
        assert_eq!(failures.first().await.to_string(), "no room");
        drop(queues);
        assert_eq!(failures.first().await.to_string(), "the queues has stopped");
    }
}
