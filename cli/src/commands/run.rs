//! `gangline run`: one job on this machine, from its items to its exit code.
//!
//! The queue service, the local cluster and the controller live in this process. What is to be
//! done becomes a Job; its queue is kept in a directory that a later run can resume, its Pods are
//! processes that end with the run.

mod demo;
mod dry_run;
mod feed;
mod job;
mod log;
mod manifest;
mod queue;
mod report;
mod state;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use super::examples;
use super::exec::ExecArgs;
use super::input::InputArgs;
use super::local::{ImagesArgs, Local, PodLife, Settings};
use crate::error::{Error, Kind};
use crate::signals;
use dry_run::DryRun;
pub(super) use job::selector;
use job::{Logs, Running};
use manifest::ManifestFormat;
use queue::Wanted;
use report::ResultsFormat;
use state::RunDir;
use work::Work;

/// Arguments of `gangline run`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::RUN)]
pub(crate) struct Args {
    /// Manifest with the Job to run instead of a program; - is stdin
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "FILE",
        conflicts_with_all = ["workers", "program", "replace", "stdin", "dead_codes", "timeout", "joblog", "attempts"]
    )]
    manifest: Option<PathBuf>,
    /// Programs to run at a time, as many as there are cores when absent; with -f the Job's
    /// parallelism
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    jobs: Option<u16>,
    /// Worker Pods that the jobs are spread over
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    workers: Option<u16>,
    /// Failed runs of the program after which an item is dead; a lost worker is no failed run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100), value_name = "N")]
    attempts: u16,
    /// File for the results, byte for byte, in the order of the items; without it they go to
    /// stdout as they come
    #[arg(short, long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// What the results file holds
    #[arg(
        long,
        value_enum,
        default_value = "raw",
        requires = "results",
        value_name = "FORMAT"
    )]
    results_format: ResultsFormat,
    /// Stop the job at its first dead item; what is left is abandoned, and the exit code is 1
    #[arg(long)]
    fail_fast: bool,
    /// Print the commands that would run, one a line, and run nothing; with =client print the run
    /// as a Job for a Kubernetes cluster
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "commands",
        conflicts_with = "manifest"
    )]
    dry_run: Option<DryRun>,
    /// Format of the Job that --dry-run=client prints
    #[arg(
        short,
        long,
        value_enum,
        default_value = "yaml",
        requires = "dry_run",
        value_name = "FORMAT"
    )]
    output: ManifestFormat,
    /// Image of the Job that --dry-run=client prints; it has the program
    #[arg(long, requires = "dry_run")]
    image: Option<String>,
    /// Directory that keeps the job; a run with the same directory resumes it
    #[arg(long, env = "GANGLINE_RUN_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Show what this does on 200 made-up items; one worker is killed on the way, on purpose
    #[arg(long, conflicts_with_all = [
        "manifest", "jobs", "workers", "attempts", "results", "results_format", "fail_fast", "dry_run", "output",
        "image", "data_dir", "ImagesArgs", "InputArgs", "ExecArgs",
    ])]
    demo: bool,
    /// Keep the dashboard after the end, until ^C; while it runs it is there anyway, at the address
    /// that is printed first
    #[arg(long, conflicts_with = "dry_run")]
    dashboard: bool,
    #[command(flatten)]
    images: ImagesArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    exec: ExecArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let (args, demo) = demo::prepare(args)?;
    let Args {
        input,
        manifest,
        jobs,
        workers,
        attempts,
        results,
        results_format,
        fail_fast,
        dry_run,
        output,
        image,
        data_dir,
        demo: _,
        dashboard,
        images,
        exec,
    } = args;
    match dry_run {
        None => {}
        Some(DryRun::Commands) => return dry_run::print_commands(&exec, input),
        Some(DryRun::Client) => {
            let wanted = manifest::Wanted {
                exec: &exec,
                input,
                jobs: jobs.unwrap_or_else(cores),
                workers,
                attempts,
                fail_fast,
                image,
            };
            return manifest::print(wanted, output);
        }
    }
    let work = match &manifest {
        Some(path) => Work::of_manifest(path, jobs, fail_fast)?,
        None => {
            let jobs = jobs.unwrap_or_else(cores);
            Work::of_program(&exec, jobs, workers, attempts, fail_fast)?
        }
    };
    if dashboard && work.queue.is_none() {
        let text = "the Job has no annotation gangline.dev/queue, and the dashboard shows queues";
        return Err(Error::usage(text).hint("leave --dashboard out"));
    }
    check_input(&work, &input, manifest.as_deref() == Some("-".as_ref()))?;
    let dir = RunDir::open(data_dir, work.record.clone())?;
    if let Err(error) = exec.begin_joblog(dir.is_resumed) {
        dir.forget_if_new();
        dir.close();
        return Err(error);
    }
    let mut local = Local::start(Settings {
        dir: &dir.path,
        token: &dir.token,
        listen: ([127, 0, 0, 1], 0).into(),
        pods: PodLife::Run,
        images,
    })
    .await?;
    let code = match &work.queue {
        None => run_plain(&mut local, &work).await,
        Some(spec) => {
            let wanted = Wanted {
                input,
                results: results.map(|path| (path, results_format)),
                demo,
                dashboard,
            };
            queue::run(&mut local, &work, spec, wanted, &dir).await
        }
    };
    local.stop().await;
    if work.queue.is_none() {
        // Nothing of such a Job can be resumed.
        dir.forget_if_new();
    }
    dir.close();
    code
}

/// Items go into the queue of the Job, if it has one that nothing else fills.
fn check_input(work: &Work, input: &InputArgs, stdin_is_manifest: bool) -> Result<(), Error> {
    let is_fed = match &work.queue {
        None => {
            if input.is_given() {
                let text = "the Job has no annotation gangline.dev/queue, so it takes no items";
                return Err(Error::usage(text));
            }
            false
        }
        Some(spec) if spec.items.is_some() => {
            if input.is_given() {
                let text = "the Job's annotation gangline.dev/items fills its queue already";
                return Err(Error::usage(text));
            }
            false
        }
        Some(_) => true,
    };
    if is_fed && stdin_is_manifest && !input.is_given() {
        let text = "the manifest comes from stdin, so the items cannot";
        return Err(Error::usage(text).hint("-a FILE, --glob or --range"));
    }
    Ok(())
}

/// Runs a Job as Kubernetes knows it: what its Pods write is its result.
async fn run_plain(local: &mut Local, work: &Work) -> Result<ExitCode, Error> {
    let mut interrupts = signals::interrupts()?;
    let job = work.create(&local.cluster).await?;
    let mut running = Running::follow(&local.cluster, &job, Logs::Stdout);
    let ended = tokio::select! {
        ended = running.ended() => ended?,
        failed = local.failed() => return Err(failed),
        Some(code) = interrupts.recv() => {
            running.end(&mut interrupts).await;
            return Ok(ExitCode::from(code));
        }
    };
    running.finish().await;
    if ended.success {
        return Ok(ExitCode::SUCCESS);
    }
    let text = format!("Job {} has failed: {}", job.name(), ended.why);
    Err(Error::new(Kind::Failed, text))
}

fn cores() -> u16 {
    std::thread::available_parallelism()
        .map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}
