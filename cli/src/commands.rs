//! The subcommands, one file each.

mod connect;
mod exec;
mod input;
mod queue;
mod run;
mod server;
mod token;
mod work;

use std::process::ExitCode;

use clap::Subcommand;
use tokio::runtime::{Builder, Runtime};

use crate::error::Error;

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program for every item, with parallel workers on this machine
    Run(Box<run::Args>),
    /// Run the queue service
    Server(server::Args),
    /// Be a worker: run a program for the items of a queue
    Work(work::Args),
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(token::Command),
    #[command(flatten)]
    Queue(queue::Command),
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode, Error> {
        match self {
            Self::Run(args) => runtime()?.block_on(run::run(*args)),
            Self::Server(args) => runtime()?.block_on(server::run(args)),
            Self::Work(args) => {
                work::die_with_parent(&args)?;
                runtime()?.block_on(work::run(args))
            }
            Self::Token(command) => runtime()?.block_on(command.run()),
            Self::Queue(command) => runtime()?.block_on(command.run()),
        }
    }
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::disk(format!("cannot start threads: {error}")))
}
