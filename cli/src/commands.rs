//! The subcommands, one file each.

mod server;

use std::process::ExitCode;

use clap::Subcommand;
use tokio::runtime::{Builder, Runtime};

use crate::error::Error;

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the queue service
    Server(server::Args),
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode, Error> {
        match self {
            Self::Server(args) => runtime()?.block_on(server::run(args)),
        }
    }
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::disk(format!("cannot start threads: {error}")))
}
