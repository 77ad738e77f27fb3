//! `gangline get`: objects of the queue service and of the cluster, as they are now.

mod objects;
mod queues;

use std::collections::HashMap;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use gangline_worker::protocol::{ItemState, QueueName};

use super::cluster::ClusterArgs;
use super::connect::ConnectArgs;
use super::examples;
use super::table::{Format, Printer, Row, View};
use crate::error::Error;
use crate::output;
pub(crate) use objects::encoded;

/// How often objects are looked at again with --watch.
const WATCH_STEP: Duration = Duration::from_secs(1);

/// Arguments of `gangline get`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::GET)]
pub(crate) struct Args {
    /// queues, jobs, pods, or the workers, items, dead (items) of a queue, the errors that these
    /// died of, or the attempts at its items, unless they were done at the first
    kind: Kind,
    /// Of queues, jobs and pods the one to show, all of them when absent; of workers, items and
    /// dead items their queue
    name: Option<String>,
    /// How to write them
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    output: Format,
    /// Go on, and write what has changed
    #[arg(short, long)]
    watch: bool,
    /// Only items in this state
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// At most so many items
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    limit: u64,
    /// Jobs and Pods with these labels, as in app=resize
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Jobs and Pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Accepted as kubectl has it: Pods that have ended are always shown
    #[arg(short = 'a', long, hide = true)]
    show_all: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Queues,
    Jobs,
    Pods,
    Workers,
    Items,
    Dead,
    Errors,
    Attempts,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "queues" | "queue" | "q" => Self::Queues,
            "jobs" | "job" | "jobs.batch" => Self::Jobs,
            "pods" | "pod" | "po" => Self::Pods,
            "workers" | "worker" => Self::Workers,
            "items" | "item" => Self::Items,
            "dead" => Self::Dead,
            "errors" | "error" => Self::Errors,
            "attempts" | "attempt" => Self::Attempts,
            name => {
                return Err(format!(
                    "there are queues, jobs, pods, workers, items, dead, errors and attempts; \
                     a queue of this name is shown by: gangline get queue {name}"
                ));
            }
        })
    }
}

/// The state of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateArg {
    /// Waits for a worker
    Ready,
    /// Waits for its time
    Delayed,
    /// A worker has it
    Leased,
    /// Finished with a result
    Done,
    /// Given up
    Dead,
    /// Taken back
    Cancelled,
    /// Left behind by a stop
    Abandoned,
}

impl From<StateArg> for ItemState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Ready => Self::Ready,
            StateArg::Delayed => Self::Delayed,
            StateArg::Leased => Self::Leased,
            StateArg::Done => Self::Done,
            StateArg::Dead => Self::Dead,
            StateArg::Cancelled => Self::Cancelled,
            StateArg::Abandoned => Self::Abandoned,
        }
    }
}

/// Where the objects come from.
enum Source {
    Queues(queues::Source),
    Objects(objects::Source),
}

impl Source {
    async fn look(&self) -> Result<View, Error> {
        match self {
            Self::Queues(source) => source.look().await,
            Self::Objects(source) => source.look().await,
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let (kind, format, watch) = (args.kind, args.output, args.watch);
    let source = source(args).await?;
    let mut printer = Printer::new(format);
    let mut seen = HashMap::new();
    let view = source.look().await?;
    if view.rows.is_empty() && matches!(format, Format::Table | Format::Wide) {
        output::note(format_args!("gangline: there are no {}", kind.title()));
    } else {
        printer.print(&view)?;
    }
    changed(&view, &mut seen);
    if !watch {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::time::sleep(WATCH_STEP).await;
        let view = source.look().await?;
        let rows = changed(&view, &mut seen);
        printer.print_changes(&view.columns, &rows)?;
    }
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Queues => "queues",
            Self::Jobs => "jobs",
            Self::Pods => "pods",
            Self::Workers => "workers",
            Self::Items => "items",
            Self::Dead => "dead items",
            Self::Errors => "errors",
            Self::Attempts => "attempts",
        }
    }
}

async fn source(args: Args) -> Result<Source, Error> {
    let Args {
        kind,
        name,
        output: _,
        watch: _,
        state,
        limit,
        selector,
        all_namespaces,
        show_all: _,
        cluster,
        connect,
    } = args;
    if state.is_some() && !matches!(kind, Kind::Items | Kind::Attempts) {
        return Err(Error::usage("--state is for items and attempts")
            .hint("gangline get items QUEUE --state ready"));
    }
    let queue = |name: Option<String>| -> Result<QueueName, Error> {
        let name = name.ok_or_else(|| {
            let title = kind.title();
            Error::usage(format!("{title} are those of a queue, and none is named")).hint(format!(
                "gangline get {} QUEUE",
                title.split(' ').next().unwrap_or(title)
            ))
        })?;
        name.parse().map_err(Error::usage)
    };
    let what = match kind {
        Kind::Jobs | Kind::Pods => {
            let path = if kind == Kind::Jobs {
                objects::JOBS
            } else {
                objects::PODS
            };
            let cluster = cluster.open().await?;
            let source = objects::Source::new(cluster, path, name, selector, all_namespaces);
            return Ok(Source::Objects(source));
        }
        Kind::Queues => queues::What::Queues {
            name: name
                .map(|name| name.parse())
                .transpose()
                .map_err(Error::usage)?,
            namespace: cluster.namespace().map(str::to_owned),
        },
        Kind::Workers => queues::What::Workers(queue(name)?),
        Kind::Items => queues::What::Items(queue(name)?, state.map(Into::into), limit),
        Kind::Dead => queues::What::Items(queue(name)?, Some(ItemState::Dead), limit),
        Kind::Errors => queues::What::Errors(queue(name)?),
        Kind::Attempts => queues::What::Attempts(queue(name)?, state.map(Into::into), limit),
    };
    let client = connect.client()?;
    Ok(Source::Queues(queues::Source { client, what }))
}

/// Returns the objects that are not as they were seen before.
fn changed<'a>(view: &'a View, seen: &mut HashMap<String, String>) -> Vec<&'a Row> {
    view.rows
        .iter()
        .filter(|row| {
            let before = seen.insert(row.name.clone(), row.version.clone());
            before.as_ref() != Some(&row.version)
        })
        .collect()
}
