//! Clients of a queue: push, seal, stop, look, wait.

mod explain;
mod redrive;

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Subcommand, ValueEnum};
use gangline_worker::Client;
use gangline_worker::protocol::{Certificate, ItemId, QueueName, QueueStatus, StopOutcome};

use super::connect::ConnectArgs;
use super::input::{InputArgs, Items};
use crate::error::Error;
use crate::output;

/// How long one held request waits for the end.
const WAIT_STEP: Duration = Duration::from_secs(30);

/// Commands on one queue.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push items to a queue; makes the queue if there is none
    Push {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        input: InputArgs,
        /// Seal the queue in the step that takes the last item
        #[arg(long)]
        seal: bool,
    },
    /// Say that no more items come from outside
    Seal(Target),
    /// Hand out no more items for now
    Pause(Target),
    /// Hand out items again
    Resume(Target),
    /// Make dead items ready again, or copy them into another queue
    Redrive(redrive::Args),
    /// End a queue before it is drained; what is left is abandoned
    Stop {
        #[command(flatten)]
        target: Target,
        /// Whether the job is a success
        #[arg(long, value_enum, default_value = "failure")]
        outcome: Outcome,
        /// Why, for whoever reads the certificate
        #[arg(long)]
        reason: Option<String>,
    },
    /// Say why a queue is not over yet, and what helps
    Explain(explain::Args),
    /// Write results as lines of JSON, in the order of recording
    Results {
        #[command(flatten)]
        target: Target,
        /// Go on until the queue is over
        #[arg(long)]
        follow: bool,
        /// Skip so many results; with --order push, those up to this item
        #[arg(long, default_value_t = 0)]
        cursor: u64,
        /// In which order
        #[arg(
            long,
            value_enum,
            default_value = "recorded",
            conflicts_with = "follow"
        )]
        order: Order,
    },
    /// Wait until a queue is over; exit 0 only when all of it is done
    Wait {
        #[command(flatten)]
        target: Target,
        /// Dead items that are still a success
        #[arg(long, default_value_t = 0)]
        max_dead_items: u64,
    },
    /// Stop a queue and remove it
    Delete(Target),
}

/// The queue and its service.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The queue, as in images or team-a.images
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

/// In which order results come.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Order {
    /// As they were recorded
    Recorded,
    /// As their items were pushed; complete once the queue is over
    Push,
}

impl Target {
    fn open(self) -> Result<(Client, QueueName), Error> {
        Ok((self.connect.client()?, self.queue))
    }
}

impl Command {
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        match self {
            Self::Push {
                target,
                input,
                seal,
            } => {
                let (client, queue) = target.open()?;
                push(&client, &queue, input.open()?, seal).await?;
            }
            Self::Seal(target) => {
                let (client, queue) = target.open()?;
                show(&client.seal(&queue).await?)?;
            }
            Self::Pause(target) => {
                let (client, queue) = target.open()?;
                show(&client.pause(&queue).await?)?;
            }
            Self::Resume(target) => {
                let (client, queue) = target.open()?;
                show(&client.resume(&queue).await?)?;
            }
            Self::Redrive(args) => args.run().await?,
            Self::Stop {
                target,
                outcome,
                reason,
            } => {
                let (client, queue) = target.open()?;
                let outcome = match outcome {
                    Outcome::Success => StopOutcome::Success,
                    Outcome::Failure => StopOutcome::Failure,
                };
                let stopped =
                    client.stop(&queue, outcome, reason.as_deref(), Some("gangline stop"));
                show(&stopped.await?)?;
            }
            Self::Explain(args) => args.run().await?,
            Self::Results {
                target,
                follow,
                cursor,
                order,
            } => {
                let (client, queue) = target.open()?;
                let mut results = match order {
                    Order::Recorded => client.results(&queue, cursor, follow).await?,
                    Order::Push => client.results_as_pushed(&queue, ItemId(cursor)).await?,
                };
                while let Some(part) = results
                    .chunk()
                    .await
                    .map_err(gangline_worker::ClientError::from)?
                {
                    output::data(&part).map_err(|error| Error::disk(format!("stdout: {error}")))?;
                }
            }
            Self::Wait {
                target,
                max_dead_items,
            } => {
                let (client, queue) = target.open()?;
                let certificate = wait(&client, &queue).await?;
                show(&certificate)?;
                return Ok(judge(&certificate, max_dead_items));
            }
            Self::Delete(target) => {
                let (client, queue) = target.open()?;
                show(&client.delete(&queue).await?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(crate) fn show(value: &impl serde::Serialize) -> Result<(), Error> {
    output::line(serde_json::to_string_pretty(value).map_err(Error::disk)?);
    Ok(())
}

/// Pushes as one stream; a key of its own makes it safe to continue within this call.
async fn push(client: &Client, queue: &QueueName, items: Items, seal: bool) -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "a push names itself once, here")]
    let key = uuid::Uuid::new_v4().to_string();
    let (lines, received) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    let read = tokio::task::spawn_blocking(move || feed(items, &lines));
    let stream = futures::stream::unfold(received, |mut received| async move {
        received.recv().await.map(|chunk| (chunk, received))
    });
    let stream = SyncStream(std::sync::Mutex::new(Box::pin(stream)));
    let pushed = client.push_stream(queue, stream, &key, seal).await;
    // What was wrong with the input says more than the stream that broke off because of it.
    read.await.map_err(Error::disk)??;
    let reply = pushed?;
    let sealed = if reply.sealed { ", sealed" } else { "" };
    output::note(format_args!(
        "{queue}: {} items added, {} were there before{sealed}",
        reply.added, reply.duplicates
    ));
    Ok(())
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
    lines: &tokio::sync::mpsc::Sender<Result<Bytes, std::io::Error>>,
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
        if chunk.len() >= 60_000
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

async fn wait(client: &Client, queue: &QueueName) -> Result<Certificate, Error> {
    loop {
        let status: QueueStatus = client.wait(queue, WAIT_STEP).await?;
        if let Some(certificate) = status.certificate {
            return Ok(certificate);
        }
    }
}

/// An end that leaves items dead or abandoned is no success.
pub(crate) fn judge(certificate: &Certificate, max_dead_items: u64) -> ExitCode {
    let counts = &certificate.counts;
    let good = certificate.outcome == StopOutcome::Success
        && counts.dead <= max_dead_items
        && counts.abandoned == 0;
    ExitCode::from(u8::from(!good))
}
