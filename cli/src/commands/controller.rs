//! `gangline controller`: runs Jobs on a Kubernetes cluster.

use std::process::ExitCode;

use gangline_controller::driver::Candidate;
use gangline_controller::plan::queue::Wrapper;
use gangline_controller::{Controller, HttpQueueService, Settings};
use gangline_worker::Client as QueueClient;
use kube::Client;
use nix::unistd::gethostname;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::cluster::configuration;
use super::connect::ConnectArgs;
use super::examples;
use crate::error::{Error, Kind, chain};
use crate::{output, signals};

/// The first Kubernetes that can be told that a Job has another controller, in every cluster.
const KUBERNETES_MIN: (u32, u32) = (1, 33);
/// Where the image has its binary.
const BINARY: &str = "/usr/local/bin/gangline";

/// Arguments of `gangline controller`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CONTROLLER)]
pub(crate) struct Args {
    /// Context of the kubeconfig; without one its current context, or the account of the Pod that
    /// this runs in
    #[arg(long, env = "GANGLINE_CONTEXT")]
    context: Option<String>,
    /// The only namespace to run Jobs in; all of them when absent
    #[arg(long, short, env = "GANGLINE_NAMESPACE")]
    namespace: Option<String>,
    /// Run Jobs without spec.managedBy too, on a cluster whose own Job controller is off; normally
    /// only those with `managedBy: gangline.dev/controller`
    #[arg(long, env = "GANGLINE_TAKE_UNMANAGED_JOBS")]
    take_unmanaged_jobs: bool,
    /// Address of the queue service as Pods reach it, where that is not --url
    #[arg(long, env = "GANGLINE_WORKER_URL", value_name = "URL")]
    worker_url: Option<String>,
    /// Image with this binary, for Jobs whose commands are to be wrapped; without one their images
    /// must have it in the PATH
    #[arg(long, env = "GANGLINE_IMAGE")]
    image: Option<String>,
    /// Let one of several controllers lead, by a Lease
    #[arg(
        long,
        env = "GANGLINE_LEADER_ELECT",
        default_value_t = true,
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    leader_elect: bool,
    /// Namespace of that Lease; the one of the context or the Pod when absent
    #[arg(
        long,
        env = "GANGLINE_LEADER_ELECT_NAMESPACE",
        value_name = "NAMESPACE"
    )]
    leader_elect_namespace: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let Args {
        context,
        namespace,
        take_unmanaged_jobs,
        connect,
        worker_url,
        image,
        leader_elect,
        leader_elect_namespace,
    } = args;
    let (queues, token) = connect.parts()?;
    let url = queues.url().to_owned();
    if let Some(worker_url) = &worker_url {
        QueueClient::new(worker_url, None)
            .map_err(|error| Error::usage(format!("--worker-url: {error}")))?;
    }
    let service = HttpQueueService::new(queues, token.as_deref());
    let config = configuration(context).await?;
    let lease_namespace = leader_elect_namespace.unwrap_or(config.default_namespace.clone());
    let cluster = config.cluster_url.to_string();
    let client = Client::try_from(config)
        .map_err(|error| Error::usage(format!("the kubeconfig: {}", chain(&error))))?;
    check_version(&client, &cluster).await?;

    let wrapper = image.map_or_else(Wrapper::default, |image| Wrapper::Image {
        image,
        path: BINARY.into(),
    });
    let candidate = leader_elect.then(|| Candidate::new(lease_namespace, identity()));
    let settings = Settings {
        namespace,
        unmanaged: take_unmanaged_jobs,
        candidate,
        ..Settings::cluster(worker_url.unwrap_or(url), wrapper)
    };
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone())?;
    output::note(format_args!("gangline: running Jobs of {cluster}"));
    loop {
        let controller = Controller::new(client.clone(), service.clone(), settings.clone());
        match controller.start(shutdown.clone()).await {
            Ok(()) => return Ok(ExitCode::SUCCESS),
            // What it knew may be past: the next one begins with a list, once it leads.
            Err(lost) => tracing::warn!("{lost}"),
        }
    }
}

/// Refuses a cluster whose own controller would run the same Jobs.
async fn check_version(client: &Client, cluster: &str) -> Result<(), Error> {
    let version = client.apiserver_version().await.map_err(|error| {
        Error::new(
            Kind::ServiceLost,
            format!("cannot ask {cluster} for its version: {}", chain(&error)),
        )
        .hint("is the cluster running? kubectl version asks the same")
    })?;
    let (major, minor) = (
        leading_number(&version.major),
        leading_number(&version.minor),
    );
    let Some(found) = major.zip(minor) else {
        tracing::warn!(cluster.version = version.git_version, "an unknown version");
        return Ok(());
    };
    if found < KUBERNETES_MIN {
        let (major, minor) = KUBERNETES_MIN;
        return Err(Error::usage(format!(
            "{cluster} runs Kubernetes {}, and gangline controller needs {major}.{minor} or later: \
             before that a cluster may run Jobs itself whatever their spec.managedBy says",
            version.git_version
        )));
    }
    Ok(())
}

/// Reads the number that a version begins with: some clusters call their minor version `33+`.
fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit());
    text[..digits.unwrap_or(text.len())].parse().ok()
}

/// Returns a name that no other controller has, and that tells people where this one runs.
#[expect(
    clippy::disallowed_methods,
    reason = "it is made once, and nothing is decided by it"
)]
fn identity() -> String {
    let host = gethostname().ok().and_then(|host| host.into_string().ok());
    format!(
        "{}_{}",
        host.as_deref().unwrap_or("unknown"),
        Uuid::new_v4()
    )
}
