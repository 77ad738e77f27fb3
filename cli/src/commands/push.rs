//! `gangline push`: items into a queue, as one stream.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gangline_worker::Client;
use gangline_worker::protocol::item::PushReply;
use gangline_worker::protocol::{Phase, QueueName, QueueStatus};
use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::examples;
use super::input::{InputArgs, Items};
use super::queue::Target;
use crate::error::Error;
use crate::output;

/// How many bytes go out at a time.
const CHUNK_BYTES: usize = 60_000;
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
    output::note(format_args!("{queue}: {} items added{before}", reply.added));
    // The items are in, whether or not the queue can be looked at.
    match client.status(&queue).await {
        Ok(status) => output::note(state(&status)),
        Err(error) => tracing::debug!(%error, "the queue is not shown"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Says how a queue is, and what is to be done next.
fn state(status: &QueueStatus) -> String {
    let (queue, counts) = (&status.queue, &status.counts);
    let parts: Vec<String> = [
        (counts.ready, "ready"),
        (counts.delayed, "delayed"),
        (counts.leased, "leased"),
        (counts.done, "done"),
        (counts.dead, "dead"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    let items = match parts.as_slice() {
        [] => "no items".to_owned(),
        parts => parts.join(", "),
    };
    match status.phase {
        Phase::Open => {
            format!("{queue} is open: {items}; when no more come, seal it: gangline seal {queue}")
        }
        Phase::Sealed => {
            format!("{queue} is sealed: {items}; to wait for it: gangline wait {queue}")
        }
        Phase::Drained => format!("{queue} is drained: {items}"),
        Phase::Stopped => format!("{queue} is stopped: {items}"),
    }
}

/// Pushes as one stream; a key of its own makes it safe to continue within this call.
async fn push(
    client: &Client,
    queue: &QueueName,
    items: Items,
    seal: bool,
) -> Result<PushReply, Error> {
    #[expect(clippy::disallowed_methods, reason = "a push names itself once, here")]
    let key = uuid::Uuid::new_v4().to_string();
    let (lines, received) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let read = tokio::task::spawn_blocking(move || feed(items, &lines, &counted));
    let stream = futures::stream::unfold(received, |mut received| async move {
        received.recv().await.map(|chunk| (chunk, received))
    });
    let stream = SyncStream(std::sync::Mutex::new(Box::pin(stream)));
    let pushed = tokio::select! {
        pushed = client.push_stream(queue, stream, &key, seal) => pushed,
        never = show_progress(&count) => match never {},
    };
    // What was wrong with the input says more than the stream that broke off because of it.
    read.await.map_err(Error::disk)??;
    Ok(pushed?)
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
        let text = format!("{} items read", count.load(Ordering::Relaxed));
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

type Chunks = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Bytes, std::io::Error>> + Send>>;

/// Request bodies must be `Sync`; nobody shares this one.
struct SyncStream(std::sync::Mutex<Chunks>);

impl futures::Stream for SyncStream {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let stream = self.get_mut().0.get_mut();
        stream
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .as_mut()
            .poll_next(context)
    }
}

fn feed(
    items: Items,
    lines: &mpsc::Sender<Result<Bytes, std::io::Error>>,
    count: &AtomicU64,
) -> Result<(), Error> {
    let mut chunk = Vec::with_capacity(1 << 16);
    for item in items {
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                // Breaks the stream off, so that it is not taken for a whole one and sealed.
                let broken = std::io::Error::other("the input is broken");
                let _ = lines.blocking_send(Err(broken));
                return Err(error);
            }
        };
        serde_json::to_writer(&mut chunk, &item).map_err(Error::disk)?;
        chunk.push(b'\n');
        count.fetch_add(1, Ordering::Relaxed);
        if chunk.len() >= CHUNK_BYTES
            && lines
                .blocking_send(Ok(std::mem::take(&mut chunk).into()))
                .is_err()
        {
            // The service has answered early; its answer says why.
            return Ok(());
        }
    }
    let _ = lines.blocking_send(Ok(chunk.into()));
    Ok(())
}
