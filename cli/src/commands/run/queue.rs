//! A run of a Job that empties a queue: items in, results out, until the queue is over.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use gangline_controller::plan::queue::QueueSpec;
use gangline_worker::Client;
use gangline_worker::protocol::{
    Certificate, ErrorCode, Phase, QueueName, QueueStatus, SettingsPatch,
};
use tokio::task::JoinHandle;

use super::demo::Demo;
use super::feed;
use super::job::{Interrupts, Logs, Running};
use super::report::{self, Results, ResultsFormat};
use super::state::RunDir;
use super::work::Work;
use crate::commands::input::InputArgs;
use crate::commands::local::Local;
use crate::commands::progress::{Progress, Watched};
use crate::commands::wait::judge;
use crate::error::{Error, Kind};
use crate::{output, signals};

/// How often the status is looked at.
const STEP: Duration = Duration::from_millis(100);
/// How long the last Pods may take to be gone, beyond the time that the Job gives them.
const GONE_TIME: Duration = Duration::from_secs(10);

/// What ends a pipeline by a signal ends its producer first, and then the input looks complete.
const SIGNAL_TIME: Duration = Duration::from_millis(50);
/// How long a service that is going away may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What goes in and out, beside the Job.
pub(super) struct Wanted {
    pub(super) input: InputArgs,
    pub(super) results: Option<(PathBuf, ResultsFormat)>,
    pub(super) demo: Option<Demo>,
    /// Whether the dashboard stays when the queue is over.
    pub(super) dashboard: bool,
}

/// How a run has ended.
enum Ended {
    Over(Box<Certificate>),
    Interrupted(u8),
}

/// What a run consists of while it goes on.
struct QueueRun {
    client: Client,
    queue: QueueName,
    /// The Job, unless the queue was over before.
    running: Option<Running>,
    feed: Option<JoinHandle<Result<(), Error>>>,
    from_stdin: bool,
    results: Results,
    progress: Progress,
}

pub(super) async fn run(
    local: &mut Local,
    work: &Work,
    spec: &QueueSpec,
    wanted: Wanted,
    dir: &RunDir,
) -> Result<ExitCode, Error> {
    let Wanted {
        input,
        results,
        demo,
        dashboard,
    } = wanted;
    let (client, queue) = (local.queues.clone(), spec.queue.clone());
    let before = prepare(&client, &queue).await?;
    let is_fed = before.phase == Phase::Open && spec.items.is_none();
    if is_fed && let Some(error) = input.missing() {
        dir.forget_if_new();
        return Err(error);
    }
    if !is_fed && before.phase != Phase::Open && spec.items.is_none() {
        output::note("gangline: the items were read to their end before, and are not read again");
    }
    let from_stdin = !input.is_given();
    let mut interrupts = signals::interrupts()?;
    output::note(format_args!(
        "gangline: watch at {}/dashboard#token={}",
        client.url(),
        dir.token
    ));
    let mut running = None;
    if !before.phase.is_over() {
        let job = work.create(&local.cluster).await;
        let job = job.inspect_err(|_| dir.forget_if_new())?;
        running = Some(Running::follow(&local.cluster, &job, Logs::Stderr));
    }
    let mut run = QueueRun {
        feed: is_fed.then(|| tokio::spawn(feed::feed(client.clone(), queue.clone(), input))),
        results: Results::start(&client, &queue, results.is_none(), before.counts.done),
        progress: Progress::start(Watched::Own {
            ended_before: before.counts.done,
        }),
        from_stdin,
        running,
        client,
        queue,
    };
    let mut ended = run.drive(local, &mut interrupts).await;
    if let Some(feed) = run.feed.take() {
        feed.abort();
    }
    if let Err(error) = &mut ended
        && error.is_service_lost()
        && let Ok(cause) = tokio::time::timeout(LAST_WORDS, local.failed()).await
    {
        // The service knows better why it went away than those who miss it.
        *error = cause;
    }
    run.progress.finish();
    if let Some(running) = run.running.take() {
        match &ended {
            Ok(Ended::Over(_)) => gone(running, spec.drain + GONE_TIME, &mut interrupts).await,
            Ok(Ended::Interrupted(_)) | Err(_) => running.end(&mut interrupts).await,
        }
    }
    let kept = || {
        // A demonstration is not gone on with.
        if demo.is_none() {
            dir.note();
        }
    };
    match ended {
        Ok(Ended::Over(certificate)) => {
            let shown = run.conclude(dir, results.as_ref(), &certificate, before.counts.done);
            shown.await.inspect_err(|_| kept())?;
            if let Some(demo) = demo {
                demo.conclude(&run.client, &run.queue, &certificate).await?;
            }
            let code = judge(&certificate, spec.max_dead_items);
            if dashboard {
                output::note("gangline: the dashboard stays until ^C");
                tokio::select! {
                    _ = interrupts.recv() => {}
                    failure = local.failed() => return Err(failure),
                }
            }
            if code == ExitCode::SUCCESS {
                dir.forget_if_new();
            } else {
                output::note(format_args!("the job is kept in {}", dir.path.display()));
            }
            Ok(code)
        }
        Ok(Ended::Interrupted(code)) => {
            run.results.stop().await?;
            run.keep_results(dir, results.as_ref()).await;
            kept();
            Ok(ExitCode::from(code))
        }
        Err(error) => {
            // What is wrong comes last, where it is seen; what the results say of it comes first.
            if let Err(error) = run.results.stop().await {
                output::note(error);
            }
            run.keep_results(dir, results.as_ref()).await;
            kept();
            Err(error)
        }
    }
}

/// Makes the queue, or finds it as an earlier run has left it.
async fn prepare(client: &Client, queue: &QueueName) -> Result<QueueStatus, Error> {
    let status = match client.configure(queue, &SettingsPatch::default()).await {
        Ok(status) => status,
        // A run that was over before is shown again.
        Err(_) => client.status(queue).await?,
    };
    // Workers of an earlier run went with it: that is no failure of what they had in hand.
    for worker in client.workers(queue).await? {
        client.revoke(queue, &worker.worker, false).await?;
    }
    Ok(status)
}

/// Waits until the Job, whose queue is over, has seen its Pods leave.
async fn gone(mut running: Running, patience: Duration, interrupts: &mut Interrupts) {
    let ended = tokio::select! {
        ended = tokio::time::timeout(patience, running.ended()) => ended.is_ok_and(|ended| ended.is_ok()),
        _ = interrupts.recv() => false,
    };
    if ended {
        running.finish().await;
    } else {
        running.end(interrupts).await;
    }
}

impl QueueRun {
    /// Brings out the rest of the results, and says what happened.
    async fn conclude(
        &mut self,
        dir: &RunDir,
        file: Option<&(PathBuf, ResultsFormat)>,
        certificate: &Certificate,
        done_before: u64,
    ) -> Result<(), Error> {
        self.results.finish().await?;
        let (client, queue) = (&self.client, &self.queue);
        if let Some((path, format)) = file {
            report::write_results(client, queue, &dir.path, path, *format).await?;
        }
        report::summary(client, queue, certificate, done_before).await;
        Ok(())
    }

    /// Writes the results that there are although the job is not over.
    async fn keep_results(&self, dir: &RunDir, file: Option<&(PathBuf, ResultsFormat)>) {
        let Some((path, format)) = file else { return };
        let (client, queue) = (&self.client, &self.queue);
        match report::write_results(client, queue, &dir.path, path, *format).await {
            Ok(count) => output::note(format_args!(
                "{} has the {count} results so far; going on with the job writes it anew",
                path.display()
            )),
            Err(error) => output::note(format_args!(
                "{} is not written; the job has its results: {error}",
                path.display()
            )),
        }
    }

    /// Says that all items are there; a queue that is over needs no such word.
    async fn seal(&self) -> Result<(), Error> {
        match self.client.seal(&self.queue).await {
            Err(error) if error.code() != Some(ErrorCode::QueueOver) => Err(error.into()),
            Err(_) | Ok(_) => Ok(()),
        }
    }

    async fn drive(
        &mut self,
        local: &mut Local,
        interrupts: &mut Interrupts,
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
                    if self.from_stdin
                        && let Ok(Some(code)) =
                            tokio::time::timeout(SIGNAL_TIME, interrupts.recv()).await
                    {
                        return Ok(Ended::Interrupted(code));
                    }
                    self.seal().await?;
                }
                failure = job_failure(&mut self.running) => {
                    // The Job sees the end of its queue, too, and perhaps sooner.
                    let status = self.client.status(&self.queue).await?;
                    let Some(certificate) = status.certificate else {
                        return Err(failure);
                    };
                    return Ok(Ended::Over(Box::new(certificate)));
                }
                failure = local.failed() => return Err(failure),
                Some(code) = interrupts.recv() => return Ok(Ended::Interrupted(code)),
            }
        }
    }
}

async fn fed(feed: &mut Option<JoinHandle<Result<(), Error>>>) -> Result<(), Error> {
    match feed {
        Some(task) => task.await.map_err(Error::disk)?,
        None => std::future::pending().await,
    }
}

/// Waits until the Job has ended, which leaves nobody to empty the queue.
async fn job_failure(running: &mut Option<Running>) -> Error {
    match running {
        Some(job) => match job.ended().await {
            Ok(ended) => Error::new(Kind::Failed, format!("the Job has ended: {}", ended.why)),
            Err(error) => error,
        },
        None => std::future::pending().await,
    }
}
