//! `gangline push`: items into a queue, in segments that are sent again when they get no answer.

mod segments;

use std::convert::Infallible;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gangline_worker::Client;
use gangline_worker::protocol::QueueName;
use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::examples;
use super::input::{InputArgs, Items};
use super::queue::Target;
use super::shown::{items, state};
use crate::error::Error;
use crate::output;
use segments::{BrokenInput, Line, Report, Segments};

/// How many lines may wait to be put into segments.
const LINES_MAX: usize = 4_096;
/// How often a terminal shows how far it is, and how often a line does elsewhere.
const TICK: Duration = Duration::from_millis(200);
const LINE_STEP: Duration = Duration::from_secs(5);

/// Arguments of `gangline push`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::PUSH)]
pub(crate) struct Args {
    /// Seal the queue in the step that takes the last item
    #[arg(long)]
    seal: bool,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let Args {
        target,
        input,
        seal,
    } = args;
    let (client, queue) = target.open()?;
    let reply = push(&client, &queue, input.open()?, seal).await?;
    let before = match reply.duplicates {
        0 => String::new(),
        count => format!(", {count} were there before"),
    };
    output::note(format_args!(
        "{queue}: {} added{before}",
        items(reply.added)
    ));
    // The items are in, whether or not the queue can be looked at.
    match client.status(&queue).await {
        Ok(status) => output::note(state(&status)),
        Err(error) => tracing::debug!(%error, "the queue is not shown"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Pushes in segments while more is read.
async fn push(
    client: &Client,
    queue: &QueueName,
    items: Items,
    seal: bool,
) -> Result<Report, Error> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let (lines, received) = mpsc::channel(LINES_MAX);
    let read = tokio::task::spawn_blocking(move || feed(items, &lines, &counted));
    let (segments, cut) = mpsc::channel(1);
    let pushed = tokio::select! {
        pushed = Segments::new(client, queue, seal).push(cut) => pushed?,
        never = segments::cut(received, segments) => match never {},
        never = show_progress(&count) => match never {},
    };
    // Without an end of the input there was no last segment; what is wrong with it is said here.
    read.await.map_err(Error::disk)??;
    Ok(pushed)
}

/// Shows how many items have been read, for as long as it is polled.
async fn show_progress(count: &AtomicU64) -> Infallible {
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::no_length();
        bar.set_draw_target(ProgressDrawTarget::stderr());
        Cleared(bar)
    });
    let mut line_at = Instant::now() + LINE_STEP;
    loop {
        tokio::time::sleep(TICK).await;
        let text = format!("{} read", items(count.load(Ordering::Relaxed)));
        match &bar {
            Some(Cleared(bar)) => {
                bar.set_message(text);
                bar.tick();
            }
            None if Instant::now() >= line_at => {
                line_at = Instant::now() + LINE_STEP;
                output::note(text);
            }
            None => {}
        }
    }
}

/// A bar that leaves no trace.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn feed(items: Items, lines: &mpsc::Sender<Line>, count: &AtomicU64) -> Result<(), Error> {
    for item in items {
        let line = item.and_then(|item| {
            let mut line = serde_json::to_vec(&item).map_err(Error::disk)?;
            line.push(b'\n');
            Ok(line)
        });
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                // An input that is broken has no end, so that nothing is sealed.
                let _ = lines.blocking_send(Err(BrokenInput));
                return Err(error);
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        if lines.blocking_send(Ok(line)).is_err() {
            // The push has ended early, and says why.
            return Ok(());
        }
    }
    Ok(())
}
