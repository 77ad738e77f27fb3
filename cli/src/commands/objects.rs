//! `gangline apply`, `delete`, `scale` and `logs`: a little of kubectl, for Jobs and Pods.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use futures::AsyncBufReadExt;
use gangline_controller::api::{Job, Pod};
use http::Request;
use kube::Api;
use kube::api::{ListParams, LogParams};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::cluster::{Cluster, ClusterArgs};
use super::connect::ConnectArgs;
use super::documents::{self, collection};
use super::examples;
use super::get::encoded;
use super::target::{self, Target};
use crate::error::{Error, Kind};
use crate::output;

/// Who the cluster notes as the author of what is applied.
const FIELD_MANAGER: &str = "gangline";

/// Arguments of `gangline apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::APPLY)]
pub(crate) struct ApplyArgs {
    /// Manifest with what is to be there; - is stdin
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Arguments of `gangline delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::DELETE)]
pub(crate) struct DeleteArgs {
    /// A queue, job/NAME or pod/NAME
    #[arg(
        required_unless_present = "filename",
        value_name = "QUEUE|job/NAME|pod/NAME"
    )]
    targets: Vec<Target>,
    /// Delete what is in a manifest; - is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "targets")]
    filename: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Arguments of `gangline scale`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::SCALE)]
pub(crate) struct ScaleArgs {
    /// The Job, as in job/resize
    #[arg(value_name = "job/NAME")]
    target: Target,
    /// How many Pods may run at a time
    #[arg(long, visible_alias = "replicas", value_parser = clap::value_parser!(i32).range(0..), value_name = "N")]
    parallelism: i32,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Arguments of `gangline logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::LOGS)]
pub(crate) struct LogsArgs {
    /// A Pod, or all Pods of a Job, as in pod/resize-x7k2p or job/resize
    #[arg(value_name = "pod/NAME|job/NAME")]
    target: Target,
    /// Go on until the Pods end
    #[arg(short, long)]
    follow: bool,
    /// The container, for Pods with several
    #[arg(short, long)]
    container: Option<String>,
    /// Only so many lines from the end
    #[arg(long, value_name = "N")]
    tail: Option<i64>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) async fn apply(args: ApplyArgs) -> Result<ExitCode, Error> {
    let ApplyArgs { filename, cluster } = args;
    let cluster = cluster.open().await?;
    for (path, object) in places(&filename, &cluster)? {
        let address = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict");
        // Its own answer for an object that has no earlier version tells what has happened.
        let before = cluster.client.request::<Value>(get(&path)?).await;
        let existed = match before {
            Ok(before) => Some(before["metadata"]["resourceVersion"].clone()),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(cluster.complaint(&error)),
        };
        let request =
            Request::patch(address).header("content-type", "application/apply-patch+yaml");
        let applied = cluster.call(request, Some(&object)).await?;
        let what = match existed {
            None => "created",
            Some(version) if version == applied["metadata"]["resourceVersion"] => "unchanged",
            Some(_) => "configured",
        };
        output::line(format_args!("{} {what}", title(&object)));
    }
    Ok(ExitCode::SUCCESS)
}

fn get(path: &str) -> Result<Request<Vec<u8>>, Error> {
    Request::get(path).body(Vec::new()).map_err(Error::usage)
}

/// Returns the objects of a manifest, each with its address.
fn places(file: &Path, cluster: &Cluster) -> Result<Vec<(String, Value)>, Error> {
    let name = file.display();
    let objects = documents::read(file)?.objects;
    if objects.is_empty() {
        return Err(Error::usage(format!("{name} holds nothing"))
            .hint("a manifest has apiVersion, kind, metadata and spec"));
    }
    let place = |object: Value| {
        let Some(own) = object["metadata"]["name"].as_str() else {
            let text = format!("{name}: an object has no metadata.name");
            return Err(Error::usage(text).hint("apply and delete know objects by their names"));
        };
        let path = collection(&object, &cluster.namespace)?;
        Ok((format!("{path}/{}", encoded(own)), object))
    };
    objects.into_iter().map(place).collect()
}

/// Names an object as kubectl does.
fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = match text(&object["kind"]).to_lowercase() {
        kind if kind == "job" => "job.batch".into(),
        kind => kind,
    };
    format!("{kind}/{}", text(&object["metadata"]["name"]))
}

pub(crate) async fn delete(args: DeleteArgs) -> Result<ExitCode, Error> {
    let DeleteArgs {
        targets,
        filename,
        cluster,
        connect,
    } = args;
    if let Some(file) = filename {
        let cluster = cluster.open().await?;
        for (path, object) in places(&file, &cluster)? {
            delete_object(&cluster, &path, &title(&object)).await?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let is_queue = |target: &Target| matches!(target, Target::Queue(_));
    // Both are asked for only where they are needed.
    let service = match targets.iter().any(is_queue) {
        true => Some(connect.client()?),
        false => None,
    };
    let cluster = match targets.iter().all(is_queue) {
        true => None,
        false => Some(cluster.open().await?),
    };
    for target in &targets {
        match (target, &service, &cluster) {
            (Target::Queue(name), Some(service), _) => {
                let status = service.delete(&target::queue(name)?).await?;
                super::queue::show(&status)?;
            }
            (Target::Job(name), _, Some(cluster)) => {
                let path = path_of(cluster, "/apis/batch/v1", "jobs", name);
                delete_object(cluster, &path, &format!("job.batch/{name}")).await?;
            }
            (Target::Pod(name), _, Some(cluster)) => {
                let path = path_of(cluster, "/api/v1", "pods", name);
                delete_object(cluster, &path, &format!("pod/{name}")).await?;
            }
            (Target::Queue(_), None, _) | (Target::Job(_) | Target::Pod(_), _, None) => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path_of(cluster: &Cluster, group: &str, plural: &str, name: &str) -> String {
    let namespace = encoded(&cluster.namespace);
    format!("{group}/namespaces/{namespace}/{plural}/{}", encoded(name))
}

async fn delete_object(cluster: &Cluster, path: &str, title: &str) -> Result<(), Error> {
    let request = Request::delete(path).header("content-type", "application/json");
    // Without this the Pods of a Job would stay.
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
    });
    cluster.call(request, Some(&options)).await?;
    output::line(format_args!("{title} deleted"));
    Ok(())
}

pub(crate) async fn scale(args: ScaleArgs) -> Result<ExitCode, Error> {
    let ScaleArgs {
        target,
        parallelism,
        cluster,
    } = args;
    let Target::Job(name) = target else {
        let text = format!("{target} has no number of Pods");
        return Err(Error::usage(text).hint("gangline scale job/NAME --parallelism 5"));
    };
    let cluster = cluster.open().await?;
    let path = path_of(&cluster, "/apis/batch/v1", "jobs", &name);
    let request = Request::patch(path).header("content-type", "application/merge-patch+json");
    let patch = json!({ "spec": { "parallelism": parallelism } });
    cluster.call(request, Some(&patch)).await?;
    output::line(format_args!("job.batch/{name} scaled"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn logs(args: LogsArgs) -> Result<ExitCode, Error> {
    let LogsArgs {
        target,
        follow,
        container,
        tail,
        cluster,
    } = args;
    let cluster = cluster.open().await?;
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), &cluster.namespace);
    let names = match target {
        Target::Pod(name) => vec![name],
        Target::Job(name) => pods_of(&cluster, &pods, &name).await?,
        Target::Queue(name) => {
            let text = format!("{name} is a queue, and queues have no logs");
            return Err(Error::usage(text).hint(format!(
                "gangline logs job/{name} or pod/{name}; gangline results {name} for results"
            )));
        }
    };
    let params = LogParams {
        follow,
        container,
        tail_lines: tail,
        ..LogParams::default()
    };
    if !follow {
        for name in names {
            show(&pods, &name, &params)
                .await
                .map_err(|error| trouble(&cluster, error))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown = JoinSet::new();
    for name in names {
        let (pods, params) = (pods.clone(), params.clone());
        shown.spawn(async move { show(&pods, &name, &params).await });
    }
    while let Some(ended) = shown.join_next().await {
        ended
            .map_err(Error::disk)?
            .map_err(|error| trouble(&cluster, error))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn pods_of(cluster: &Cluster, pods: &Api<Pod>, job: &str) -> Result<Vec<String>, Error> {
    let jobs = Api::<Job>::namespaced(cluster.client.clone(), &cluster.namespace);
    let found = jobs
        .get(job)
        .await
        .map_err(|error| cluster.complaint(&error))?;
    let selector = super::run::selector(&found);
    let list = pods.list(&ListParams::default().labels(&selector)).await;
    let list = list.map_err(|error| cluster.complaint(&error))?;
    let names: Vec<String> = list.items.iter().map(|pod| pod.name().to_owned()).collect();
    if names.is_empty() {
        let text = format!("job/{job} has no Pods");
        return Err(Error::new(Kind::Failed, text)
            .hint(format!("gangline get jobs {job} -o yaml says how it is")));
    }
    Ok(names)
}

/// Why a log is not shown.
enum Trouble {
    Cluster(kube::Error),
    Io(std::io::Error),
}

fn trouble(cluster: &Cluster, trouble: Trouble) -> Error {
    match trouble {
        Trouble::Cluster(error) => cluster.complaint(&error),
        Trouble::Io(error) => Error::disk(format!("the log: {error}")),
    }
}

/// Writes a log line by line, so that the lines of several Pods stay whole.
async fn show(pods: &Api<Pod>, name: &str, params: &LogParams) -> Result<(), Trouble> {
    let log = pods
        .log_stream(name, params)
        .await
        .map_err(Trouble::Cluster)?;
    let mut log = Box::pin(log);
    let mut line = Vec::new();
    while log
        .read_until(b'\n', &mut line)
        .await
        .map_err(Trouble::Io)?
        > 0
    {
        output::data(&line).map_err(Trouble::Io)?;
        line.clear();
    }
    Ok(())
}
