//! A cluster with the real controller and the real kubelet, for the tests of this program.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gangline_controller::driver::NoService;
use gangline_controller::plan::queue::Wrapper;
use gangline_controller::{Controller, Settings};
use gangline_local_cluster::kubelet::{self, BackOff};
use gangline_local_cluster::{Config, FieldError, LocalCluster};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for `future`, not for ever.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("never: {what}"),
    }
}

/// What runs of a cluster.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<()>,
    controlling: JoinHandle<()>,
    serving: JoinHandle<io::Result<()>>,
}

fn no_forbidden_annotation(job: &Value) -> Option<FieldError> {
    let value = job["metadata"]["annotations"].get("forbidden")?;
    Some(FieldError {
        field: "metadata.annotations[forbidden]".into(),
        value: value.clone(),
        why: "must not be there".into(),
    })
}

pub(crate) const TOKEN: &str = "open-sesame";

impl World {
    /// Starts a cluster that keeps its state in `root`.
    pub(crate) async fn start(root: &Path) -> Self {
        let me = std::env::current_exe().unwrap();
        let me = me.to_string_lossy().into_owned();
        let quick = Duration::from_millis(10);
        let config = Config {
            kubelet: kubelet::Config {
                inherit: true,
                back_off: BackOff {
                    base: quick,
                    cap: quick,
                    reset: quick,
                },
                ..kubelet::Config::new(root.join("pods"), vec![me, "supervise".into()])
            },
            objects: Some(root.join("objects")),
            judge_job: Some(no_forbidden_annotation),
        };
        // Requests to an earlier cluster in this process let its objects go in their own time.
        let opened = async {
            loop {
                match LocalCluster::open(config.clone()) {
                    Ok(local) => break Arc::new(local),
                    Err(error) if error.to_string().contains("another server") => {
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let local = in_time("the objects are free", opened).await;
        let cluster = Cluster::new(Client::new(local.service(), "default"));
        let stop = CancellationToken::new();
        let running = (Arc::clone(&local), stop.clone());
        let running = tokio::spawn(async move { running.0.run(running.1).await });
        let settings = Settings::local("http://nowhere", Wrapper::default());
        let controller = Controller::new(cluster.client.clone(), NoService, settings);
        let controller = controller.run(stop.clone());
        let controlling = tokio::spawn(async move { controller.await.unwrap() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = stop.clone();
        let serving =
            tokio::spawn(async move { local.serve(listener, TOKEN.to_owned(), end).await });
        Self {
            cluster,
            address,
            stop,
            running,
            controlling,
            serving,
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        in_time("the cluster ends", self.running).await.unwrap();
        in_time("the controller ends", self.controlling)
            .await
            .unwrap();
        in_time("the server ends", self.serving)
            .await
            .unwrap()
            .unwrap();
    }
}

pub(crate) fn job(name: &str, script: &str, spec: &Value) -> Job {
    let mut job = json!({
        "metadata": { "name": name },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [
            { "name": "main", "image": "none", "command": ["sh", "-c", script] },
        ] } } },
    });
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key.as_str()] = value.clone();
    }
    serde_json::from_value(job).unwrap()
}

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) jobs: Api<Job>,
    pub(crate) pods: Api<Pod>,
}

impl Cluster {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            jobs: Api::default_namespaced(client.clone()),
            pods: Api::default_namespaced(client.clone()),
            client,
        }
    }

    pub(crate) async fn create(&self, name: &str, script: &str, spec: Value) -> Job {
        let job = job(name, script, &spec);
        self.jobs
            .create(&PostParams::default(), &job)
            .await
            .unwrap()
    }

    /// Waits until a Job has a condition, and returns its status then.
    pub(crate) async fn until(&self, name: &str, type_: &'static str) -> JobStatus {
        let has = move |job: Option<&Job>| {
            let status = job.and_then(|job| job.status.as_ref());
            let mut conditions = status
                .into_iter()
                .flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
        };
        let seen = await_condition(self.jobs.clone(), name, has);
        if let Ok(seen) = tokio::time::timeout(DEADLINE, seen).await {
            return seen.unwrap().unwrap().status.unwrap();
        }
        let job = self.jobs.get(name).await.unwrap();
        panic!(
            "never: {name} {type_}; {}, {}",
            json!(job),
            json!(self.pods_of(name).await)
        );
    }

    pub(crate) async fn pods_of(&self, name: &str) -> Vec<Pod> {
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        self.pods.list(&of_job).await.unwrap().items
    }
}
