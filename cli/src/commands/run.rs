//! `gangline run`: one job on this machine, from its items to its exit code.
//!
//! The queue service lives in this process, its queue in a directory that a later run can resume.
//! Workers are processes; one that is lost is replaced, and its items go to the others at once.

mod feed;
mod progress;
mod report;
mod state;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use gangline_server::{Config, LimitsConfig, Server, StoreConfig};
use gangline_worker::Client;
use gangline_worker::protocol::{Certificate, Phase, QueueName, SettingsPatch};
use tokio_util::sync::CancellationToken;

use super::exec::ExecArgs;
use super::input::InputArgs;
use crate::error::{Error, Kind};
use crate::{output, signals};
use report::{Results, ResultsFormat};
use state::RunDir;
use workers::Workers;

/// How often the status is looked at.
const STEP: Duration = Duration::from_millis(100);

/// Arguments of `gangline run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Programs to run at a time; as many as there are cores when absent
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Worker processes that the jobs are spread over
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Failed runs of the program after which an item is dead; a lost worker is no failed run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    attempts: u16,
    /// File for the results, byte for byte, in the order of the items; without it they go to
    /// stdout as they come
    #[arg(short, long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// What the results file holds
    #[arg(long, value_enum, default_value = "raw", requires = "results")]
    results_format: ResultsFormat,
    /// Directory that keeps the job; a run with the same directory resumes it
    #[arg(long, env = "GANGLINE_RUN_DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    exec: ExecArgs,
}

/// How the loop of a run has ended.
enum Ended {
    Over(Box<Certificate>),
    Interrupted(u8),
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let Args {
        input,
        jobs,
        workers,
        attempts,
        results,
        results_format,
        data_dir,
        exec,
    } = args;
    exec.check()?;
    let jobs = jobs.map_or_else(cores, usize::from);
    let dir = RunDir::open(data_dir, &exec)?;
    let server = Server::bind(Config {
        listen: ([127, 0, 0, 1], 0).into(),
        token: Some(dir.token.clone()),
        store: StoreConfig::Embedded {
            data_dir: dir.path.join("queue"),
        },
        limits: LimitsConfig::default(),
    })
    .await?;
    let url = format!("http://{}", server.address());
    let stop_server = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop_server.clone()));
    let client = Client::new(&url, Some(dir.token.clone()))?;
    let queue: QueueName = "run".parse().map_err(Error::usage)?;
    let before = client.configure(&queue, &SettingsPatch::default()).await;
    let before = match before {
        Ok(status) => status,
        // A run that was over before is shown again.
        Err(_) => client.status(&queue).await?,
    };
    if before.phase == Phase::Open && input.is_terminal() {
        dir.forget_if_new();
        return Err(input
            .open()
            .err()
            .unwrap_or_else(|| Error::usage("there are no items")));
    }
    // Workers of an earlier run went with it: that is no failure of what they had in hand.
    for worker in client.workers(&queue).await? {
        client.revoke(&queue, &worker.worker, false).await?;
    }
    let interrupts = signals::interrupts()?;
    output::note(format_args!(
        "gangline: watch at {url}/dashboard#token={}",
        dir.token
    ));
    let per_worker = spread(jobs, workers.map_or(jobs.min(2), usize::from));
    let mut job = Job {
        workers: Workers::new(&client, &queue, &dir.token, attempts, &exec, per_worker),
        feed: (before.phase == Phase::Open)
            .then(|| tokio::spawn(feed::feed(client.clone(), queue.clone(), input))),
        results: Results::start(&client, &queue, results.is_none(), before.counts.done),
        progress: progress::Progress::start(before.counts.done),
        client,
        queue,
    };
    let ended = job.drive(interrupts, serving).await;
    job.workers.end(ended.is_ok()).await;
    job.progress.finish();
    let code = match ended {
        Ok(Ended::Over(certificate)) => {
            job.results.finish().await?;
            if let Some(path) = &results {
                report::write_results(&job.client, &job.queue, path, results_format).await?;
            }
            report::summary(&job.client, &job.queue, &certificate, before.counts.done).await;
            let code = super::queue::judge(&certificate, 0);
            if code == ExitCode::SUCCESS {
                dir.forget_if_new();
            } else {
                output::note(format_args!("the job is kept in {}", dir.path.display()));
            }
            code
        }
        Ok(Ended::Interrupted(code)) => {
            job.results.stop().await?;
            dir.note();
            ExitCode::from(code)
        }
        Err(error) => {
            // What is wrong comes last, where it is seen; what the results say of it comes first.
            if let Err(error) = job.results.stop().await {
                output::note(error);
            }
            dir.note();
            return Err(error);
        }
    };
    stop_server.cancel();
    Ok(code)
}

/// What a run consists of while it goes on.
struct Job {
    client: Client,
    queue: QueueName,
    workers: Workers,
    feed: Option<tokio::task::JoinHandle<Result<(), Error>>>,
    results: Results,
    progress: progress::Progress,
}

type Serving = tokio::task::JoinHandle<Result<(), gangline_server::ServeError>>;

impl Job {
    async fn drive(
        &mut self,
        mut interrupts: tokio::sync::mpsc::UnboundedReceiver<u8>,
        mut serving: Serving,
    ) -> Result<Ended, Error> {
        loop {
            tokio::select! {
                status = self.client.wait(&self.queue, STEP) => {
                    let status = status?;
                    self.progress.show(&status);
                    if let Some(certificate) = status.certificate {
                        return Ok(Ended::Over(Box::new(certificate)));
                    }
                }
                fed = fed(&mut self.feed) => {
                    self.feed = None;
                    fed?;
                }
                worker = self.workers.lost() => worker?,
                served = &mut serving => {
                    let served = served.map_err(|error| Error::new(Kind::ServiceLost, error))?;
                    served?;
                    return Err(Error::new(Kind::ServiceLost, "the queue service has stopped"));
                }
                Some(code) = interrupts.recv() => return Ok(Ended::Interrupted(code)),
            }
        }
    }
}

async fn fed(feed: &mut Option<tokio::task::JoinHandle<Result<(), Error>>>) -> Result<(), Error> {
    match feed {
        Some(task) => task.await.map_err(Error::disk)?,
        None => std::future::pending().await,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Spreads jobs over workers, as evenly as it goes.
fn spread(jobs: usize, workers: usize) -> Vec<usize> {
    let workers = workers.clamp(1, jobs);
    (0..workers)
        .map(|nth| jobs / workers + usize::from(nth < jobs % workers))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn jobs_are_spread_over_workers_and_none_is_lost() {
        assert_eq!(spread(8, 3), [3, 3, 2]);
        assert_eq!(spread(1, 2), [1]);
        assert_eq!(spread(2, 2), [1, 1]);
    }
}
