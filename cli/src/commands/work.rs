//! `gangline work`: a worker around any program.

use std::process::ExitCode;

use gangline_worker::{End, Worker, exec};

use super::examples;
use super::exec::ExecArgs;
use crate::error::Error;
use crate::output;

/// Arguments of `gangline work`. The queue comes from `GANGLINE_URL`, `GANGLINE_QUEUE`,
/// `GANGLINE_TOKEN`, `GANGLINE_WORKER` and `GANGLINE_GRACE_SECONDS`
#[derive(Debug, clap::Args)]
#[command(after_help = examples::WORK)]
pub(crate) struct Args {
    /// Programs to run at a time
    #[arg(short, long, env = "GANGLINE_JOBS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    jobs: u16,
    /// Failed runs of the program after which an item is dead; the queue's setting when absent
    #[arg(long, env = "GANGLINE_ATTEMPTS", value_parser = clap::value_parser!(u16).range(1..=100), value_name = "N")]
    attempts: Option<u16>,
    #[command(flatten)]
    exec: ExecArgs,
}

impl Args {
    /// Returns how many programs may run at a time.
    pub(crate) fn jobs(&self) -> u16 {
        self.jobs
    }
}

fn said(end: &End, hint: &str) {
    // The exit code is the end's own.
    output::error(&Error::usage(end).hint(hint));
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let Args {
        jobs,
        attempts,
        exec: program,
    } = args;
    program.check()?;
    let mut worker = Worker::from_env().concurrency(jobs.into());
    if let Some(attempts) = attempts {
        worker = worker.attempts(attempts);
    }
    let end = exec::run(worker, program.options()).await;
    match &end {
        End::Over(_) | End::Terminated | End::Interrupted => {}
        End::ServiceLost(_) => said(&end, "is it running? GANGLINE_URL says where it is"),
        End::CredentialsRefused(_) => said(&end, "GANGLINE_TOKEN has the token of a worker"),
        End::Misconfigured(_) => said(
            &end,
            "GANGLINE_URL and GANGLINE_QUEUE say where the work is, as in http://127.0.0.1:4264 and images",
        ),
    }
    Ok(end.into())
}
