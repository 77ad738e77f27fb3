//! `gangline wait`: until a queue is over, or a Job has ended.

use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt;
use gangline_controller::api::Job;
use gangline_controller::plan::conditions;
use gangline_worker::Client;
use gangline_worker::protocol::{Certificate, QueueName, StopOutcome};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use tokio::time::Instant;

use super::cluster::{Cluster, ClusterArgs};
use super::connect::ConnectArgs;
use super::examples;
use super::progress::{Progress, Watched};
use super::shown::ShownArgs;
use super::target::{self, Target};
use crate::error::{Error, Kind};
use crate::{output, signals};

/// How long one held request waits for the end.
const STEP: Duration = Duration::from_secs(1);
/// For how long a service that is away is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to leave it alone meanwhile.
const AGAIN: Duration = Duration::from_millis(500);

/// Arguments of `gangline wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::WAIT)]
pub(crate) struct Args {
    /// A queue, or job/NAME
    #[arg(value_name = "QUEUE|job/NAME")]
    target: Target,
    /// Dead items of a queue that are still a success
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_dead_items: u64,
    #[command(flatten)]
    shown: ShownArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let Args {
        target,
        max_dead_items,
        shown,
        cluster,
        connect,
    } = args;
    let mut interrupts = signals::interrupts()?;
    let again = format!(
        "gangline wait {}",
        target.to_string().trim_start_matches("queue/")
    );
    let mut progress = Progress::start(Watched::Others);
    let waited = async {
        match &target {
            Target::Queue(name) => {
                let (client, queue) = (connect.client()?, target::queue(name)?);
                let certificate = until_over(&client, &queue, &mut progress).await?;
                progress.finish();
                shown.certificate(&certificate)?;
                Ok(judge(&certificate, max_dead_items))
            }
            Target::Job(name) if shown.is_given() => {
                let text = format!("--output is for queues, and job/{name} is none");
                Err(Error::usage(text).hint(format!("gangline get job {name} -o yaml")))
            }
            Target::Job(name) => until_ended(&cluster.open().await?, name).await,
            Target::Pod(name) => {
                let text = format!("pod/{name} is not waited for");
                Err(Error::usage(text).hint("gangline wait QUEUE, or gangline wait job/NAME"))
            }
        }
    };
    let code = tokio::select! {
        ended = waited => return ended,
        Some(code) = interrupts.recv() => code,
    };
    progress.finish();
    output::note(format_args!(
        "gangline: it goes on without being waited for; to wait again: {again}"
    ));
    Ok(ExitCode::from(code))
}

async fn until_over(
    client: &Client,
    queue: &QueueName,
    progress: &mut Progress,
) -> Result<Certificate, Error> {
    let (mut heard, mut is_away) = (Instant::now(), false);
    loop {
        match client.wait(queue, STEP).await {
            Ok(status) => {
                (heard, is_away) = (Instant::now(), false);
                progress.show(&status);
                if let Some(certificate) = status.certificate {
                    return Ok(certificate);
                }
            }
            // A service that is started anew goes on with its queues.
            Err(error) if error.is_retryable() && heard.elapsed() < PATIENCE => {
                if !is_away {
                    let seconds = PATIENCE.as_secs();
                    output::note(format_args!(
                        "gangline: {error}; it is asked again for {seconds} s"
                    ));
                }
                is_away = true;
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// An end that leaves items dead or abandoned is no success.
pub(crate) fn judge(certificate: &Certificate, max_dead_items: u64) -> ExitCode {
    let counts = &certificate.counts;
    let good = certificate.outcome == StopOutcome::Success
        && counts.dead <= max_dead_items
        && counts.abandoned == 0;
    ExitCode::from(u8::from(!good))
}

async fn until_ended(cluster: &Cluster, name: &str) -> Result<ExitCode, Error> {
    let jobs = Api::<Job>::namespaced(cluster.client.clone(), &cluster.namespace);
    // Says at once what a watch would try again for ever.
    jobs.get(name)
        .await
        .map_err(|error| cluster.complaint(&error))?;
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(jobs, config).default_backoff().boxed();
    let mut heard = Instant::now();
    let mut said = String::new();
    let gone = || {
        Error::new(
            Kind::Failed,
            format!("job/{name} was deleted before it had ended"),
        )
        .hint("its queue, if it had one, is as it was: gangline get queues")
    };
    let mut is_there = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) => {
                (is_there, heard) = (true, Instant::now());
                if let Some(condition) = conditions::finished(&job.status.conditions) {
                    let message = [&*condition.reason, &*condition.message].join(": ");
                    let message = message.trim_matches([':', ' ']);
                    output::line(format_args!("job.batch/{name} {}", condition.type_));
                    if !message.is_empty() {
                        output::note(format_args!("gangline: {message}"));
                    }
                    let failed = condition.type_ != conditions::COMPLETE;
                    return Ok(ExitCode::from(u8::from(failed)));
                }
                let status = &job.status;
                let now = format!(
                    "job/{name}: {} Pods active, {} succeeded, {} failed",
                    status.active.unwrap_or(0),
                    status.succeeded.unwrap_or(0),
                    status.failed.unwrap_or(0)
                );
                if now != said {
                    output::note(&now);
                    said = now;
                }
            }
            Ok(watcher::Event::Delete(_)) => return Err(gone()),
            Ok(watcher::Event::Init) => is_there = false,
            Ok(watcher::Event::InitDone) if !is_there => return Err(gone()),
            Ok(watcher::Event::InitDone) => heard = Instant::now(),
            Err(error) if heard.elapsed() < PATIENCE => {
                tracing::debug!(%error, "watching again");
            }
            Err(error) => {
                let text = format!(
                    "the cluster does not answer: {}",
                    crate::error::chain(&error)
                );
                return Err(Error::new(Kind::ServiceLost, text)
                    .hint("the Job goes on without being waited for"));
            }
        }
    }
    Err(gone())
}
