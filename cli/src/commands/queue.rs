//! Clients of a queue: seal, pause, stop, results.

mod cancel;
mod explain;
mod redrive;
mod results;

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use gangline_worker::Client;
use gangline_worker::protocol::{QueueName, StopOutcome};

use super::connect::ConnectArgs;
use super::examples;
use super::shown::ShownArgs;
use crate::error::Error;
use crate::output;

/// Commands on one queue.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say that no more items come from outside
    #[command(after_help = examples::SEAL)]
    Seal {
        #[command(flatten)]
        shown: ShownArgs,
        #[command(flatten)]
        target: Target,
    },
    /// Hand out no more items for now
    #[command(after_help = examples::PAUSE)]
    Pause {
        #[command(flatten)]
        shown: ShownArgs,
        #[command(flatten)]
        target: Target,
    },
    /// Hand out items again
    #[command(after_help = examples::RESUME)]
    Resume {
        #[command(flatten)]
        shown: ShownArgs,
        #[command(flatten)]
        target: Target,
    },
    /// Cancel items; a worker that has one is told to drop it
    Cancel(cancel::Args),
    /// Make dead items ready again, or copy them into another queue
    Redrive(redrive::Args),
    /// End a queue before it is drained; what is left is abandoned
    #[command(after_help = examples::STOP)]
    Stop {
        /// Whether the job is a success
        #[arg(long, value_enum, default_value = "failure")]
        outcome: Outcome,
        /// Why, for whoever reads the certificate
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        shown: ShownArgs,
        #[command(flatten)]
        target: Target,
    },
    /// Say why a queue is not over yet, and what helps
    Explain(explain::Args),
    /// Write results as lines of JSON, in the order of recording
    Results(results::Args),
}

/// The queue and its service.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The queue, as in images or team-a.images
    #[arg(help_heading = None::<&str>)]
    queue: QueueName,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Whether a stop is a success.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Outcome {
    /// What was wanted has been found or done
    Success,
    /// The job has failed
    Failure,
}

impl Target {
    pub(crate) fn open(self) -> Result<(Client, QueueName), Error> {
        Ok((self.connect.client()?, self.queue))
    }
}

impl Command {
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        match self {
            Self::Seal { shown, target } => {
                let (client, queue) = target.open()?;
                shown.status(&client.seal(&queue).await?)?;
            }
            Self::Pause { shown, target } => {
                let (client, queue) = target.open()?;
                shown.status(&client.pause(&queue).await?)?;
            }
            Self::Resume { shown, target } => {
                let (client, queue) = target.open()?;
                shown.status(&client.resume(&queue).await?)?;
            }
            Self::Cancel(args) => args.run().await?,
            Self::Redrive(args) => args.run().await?,
            Self::Stop {
                target,
                outcome,
                reason,
                shown,
            } => {
                let (client, queue) = target.open()?;
                let outcome = match outcome {
                    Outcome::Success => StopOutcome::Success,
                    Outcome::Failure => StopOutcome::Failure,
                };
                let stopped =
                    client.stop(&queue, outcome, reason.as_deref(), Some("gangline stop"));
                shown.status(&stopped.await?)?;
            }
            Self::Explain(args) => args.run().await?,
            Self::Results(args) => args.run().await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(crate) fn show(value: &impl serde::Serialize) -> Result<(), Error> {
    output::line(serde_json::to_string_pretty(value).map_err(Error::disk)?);
    Ok(())
}
