//! The subcommands, one file each.

mod bench;
mod cluster;
mod connect;
mod controller;
mod documents;
mod examples;
mod exec;
mod generate;
mod get;
mod input;
mod local;
mod objects;
mod progress;
mod push;
mod queue;
mod run;
mod server;
mod shown;
mod table;
mod target;
mod token;
mod up;
mod wait;
mod work;

use std::process::ExitCode;

use clap::Subcommand;
use tokio::runtime::{Builder, Runtime};

use crate::error::Error;
pub(crate) use examples::GANGLINE as EXAMPLES;
pub(crate) use local::SUPERVISE;

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program for every item, with parallel workers on this machine
    Run(Box<run::Args>),
    /// Run the queue service, a local cluster and the Job controller, until stopped
    Up(up::Args),
    /// Run the queue service
    Server(server::Args),
    /// Run Jobs on a Kubernetes cluster, with or without queues
    Controller(controller::Args),
    /// Be a worker: run a program for the items of a queue
    Work(work::Args),
    /// Measure a live queue service
    Bench(bench::Args),
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Push items to a queue; makes the queue if there is none
    Push(push::Args),
    /// Wait until a queue is over or a Job has ended; exit 0 only when all of it is done
    Wait(wait::Args),
    /// Show queues, Jobs, Pods, and the workers and items of a queue
    Get(get::Args),
    /// Stop and remove queues, or delete Jobs and Pods
    Delete(objects::DeleteArgs),
    /// Make or change what a manifest says is to be there
    Apply(objects::ApplyArgs),
    /// Change how many Pods of a Job may run at a time
    Scale(objects::ScaleArgs),
    /// Show what Pods have written
    Logs(objects::LogsArgs),
    #[command(flatten)]
    Queue(queue::Command),
    /// Write what makes a shell complete these commands
    #[command(visible_alias = "completion")]
    Completions(generate::CompletionsArgs),
    /// Write manual pages
    Man(generate::ManArgs),
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode, Error> {
        match self {
            Self::Run(args) => {
                let runtime = runtime()?;
                let ended = runtime.block_on(run::run(*args));
                // Whoever reads an input that does not end, or writes to a pipe that nobody
                // reads, is not waited for.
                runtime.shutdown_background();
                ended
            }
            Self::Up(args) => runtime()?.block_on(up::run(args)),
            Self::Server(args) => runtime()?.block_on(server::run(args)),
            Self::Controller(args) => runtime()?.block_on(controller::run(args)),
            Self::Work(args) => {
                // With one program at a time one thread does it all: handing over to another
                // would cost more than it does. With more, each start blocks a thread for as long
                // as the program takes to be loaded, and the others go on meanwhile.
                let runtime = started(if args.jobs() == 1 {
                    Builder::new_current_thread()
                } else {
                    Builder::new_multi_thread()
                })?;
                // As a task, since waking the future that a runtime blocks on takes a system call.
                let work = runtime.spawn(work::run(args));
                runtime.block_on(work).map_err(Error::disk)?
            }
            Self::Bench(args) => runtime()?.block_on(bench::run(args)),
            Self::Push(args) => {
                let runtime = runtime()?;
                let ended = runtime.block_on(push::run(args));
                // Whoever reads an input that does not end is not waited for.
                runtime.shutdown_background();
                ended
            }
            Self::Wait(args) => runtime()?.block_on(wait::run(args)),
            Self::Get(args) => runtime()?.block_on(get::run(args)),
            Self::Delete(args) => runtime()?.block_on(objects::delete(args)),
            Self::Apply(args) => runtime()?.block_on(objects::apply(args)),
            Self::Scale(args) => runtime()?.block_on(objects::scale(args)),
            Self::Logs(args) => runtime()?.block_on(objects::logs(args)),
            Self::Token(command) => runtime()?.block_on(command.run()),
            Self::Queue(command) => runtime()?.block_on(command.run()),
            Self::Completions(args) => generate::completions(&args),
            Self::Man(args) => generate::man(&args),
        }
    }
}

fn runtime() -> Result<Runtime, Error> {
    started(Builder::new_multi_thread())
}

fn started(mut builder: Builder) -> Result<Runtime, Error> {
    builder
        .enable_all()
        .build()
        .map_err(|error| Error::disk(format!("cannot start threads: {error}")))
}
