//! `gangline results`: what was recorded, and whether a copy of it is whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use futures::TryStreamExt;
use gangline_worker::protocol::digest::Digest;
use gangline_worker::protocol::item::ResultView;
use gangline_worker::protocol::{ItemId, QueueName};
use gangline_worker::{Client, ClientError};
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio_util::io::StreamReader;

use super::{Target, examples};
use crate::error::{Error, Kind};
use crate::output;

/// Differences that are named one by one; how many more there are is said.
const DIFFERENCES_SHOWN: usize = 10;

/// Arguments of `gangline results`
#[derive(Debug, clap::Args)]
#[command(after_help = examples::RESULTS)]
pub(crate) struct Args {
    /// Go on until the queue is over
    #[arg(long)]
    follow: bool,
    /// Skip so many results; with --order push, those up to this item
    #[arg(long, default_value_t = 0, value_name = "N")]
    cursor: u64,
    /// In which order
    #[arg(long, value_enum, default_value = "recorded")]
    order: Order,
    /// Write nothing, but compute the digest of the results and compare it with the queue's
    /// certificate; exit 1 when they differ
    #[arg(long, conflicts_with_all = ["follow", "cursor", "order"])]
    verify: bool,
    /// With --verify: the copy of the results to look at, instead of those that the service has;
    /// lines as this command has written them, in any order
    #[arg(long, value_name = "FILE", requires = "verify")]
    file: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// In which order results come.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// As they were recorded
    Recorded,
    /// As their items were pushed: with --follow it waits at each item that may still get a result,
    /// without it is complete once the queue is over
    Push,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), Error> {
        let Self {
            target,
            follow,
            cursor,
            order,
            verify,
            file,
        } = self;
        let (client, queue) = target.open()?;
        if verify {
            return check(&client, &queue, file.as_deref()).await;
        }
        let mut results = match order {
            Order::Recorded => client.results(&queue, cursor, follow).await?,
            Order::Push => {
                let cursor = ItemId(cursor);
                client.results_as_pushed(&queue, cursor, follow).await?
            }
        };
        while let Some(part) = results.chunk().await.map_err(ClientError::from)? {
            output::data(&part).map_err(|error| Error::disk(format!("stdout: {error}")))?;
        }
        Ok(())
    }
}

/// Compares results with the certificate of their queue.
async fn check(client: &Client, queue: &QueueName, file: Option<&Path>) -> Result<(), Error> {
    let status = client.status(queue).await?;
    let Some(certificate) = status.certificate else {
        let text = format!("{queue} is not over: it has no certificate yet");
        return Err(
            Error::new(Kind::Failed, text).hint(format!("wait for its end: gangline wait {queue}"))
        );
    };
    let (mut results, mut digest) = (0, Digest::default());
    let mut lines = Lines::open(client, queue, file).await?;
    while let Some(view) = lines.next().await? {
        results += 1;
        digest.add(view.id, view.result.get());
    }
    let (of, expected) = (&lines.name, &certificate.digest);
    let (digest, done) = (digest.to_hex(), certificate.counts.done);
    if digest == *expected {
        // Two sets of results with one sum would be a broken hash, not another count.
        output::line(format_args!(
            "{of}: the {results} results of {queue}, digest {digest}"
        ));
        return Ok(());
    }
    output::note(format_args!(
        "{of}: {results} results with the digest {digest}\n\
         {queue}: {done} results with the digest {expected}, by its certificate"
    ));
    let uid = certificate.uid;
    let text = format!("{of} does not have the results of {queue} (uid {uid})");
    let error = Error::new(Kind::Failed, text);
    let Some(file) = file else { return Err(error) };
    tell_apart(client, queue, file).await?;
    Err(error.hint(format!("a whole copy: gangline results {queue} > FILE")))
}

/// Says which results of a file are not those that the service has.
async fn tell_apart(client: &Client, queue: &QueueName, file: &Path) -> Result<(), Error> {
    let mut differences = Differences::default();
    let mut copied: HashMap<ItemId, [u8; 32]> = HashMap::new();
    let mut lines = Lines::open(client, queue, Some(file)).await?;
    while let Some(view) = lines.next().await? {
        let hash = Digest::of(view.id, view.result.get());
        if copied.insert(view.id, hash).is_some() {
            differences.note(view.id, "is there more than once");
        }
    }
    let mut lines = Lines::open(client, queue, None).await?;
    while let Some(view) = lines.next().await? {
        match copied.remove(&view.id) {
            None => differences.note(view.id, "is missing"),
            Some(hash) if hash != Digest::of(view.id, view.result.get()) => {
                differences.note(view.id, "has another result");
            }
            Some(_) => {}
        }
    }
    let mut others: Vec<ItemId> = copied.into_keys().collect();
    others.sort_unstable();
    for id in others {
        differences.note(id, "has no result in the queue");
    }
    differences.tell_rest();
    Ok(())
}

#[derive(Default)]
struct Differences(usize);

impl Differences {
    fn note(&mut self, id: ItemId, what: &str) {
        self.0 += 1;
        if self.0 <= DIFFERENCES_SHOWN {
            output::note(format_args!("item {id} {what}"));
        }
    }

    fn tell_rest(&self) {
        if let Some(more @ 1..) = self.0.checked_sub(DIFFERENCES_SHOWN) {
            output::note(format_args!("and {more} more"));
        }
    }
}

/// Results, one a line.
struct Lines {
    /// What people call the place that they come from.
    name: String,
    lines: tokio::io::Lines<Box<dyn AsyncBufRead + Send + Unpin>>,
    number: u64,
    is_file: bool,
}

impl Lines {
    /// Opens a file, or the results that the service has.
    async fn open(client: &Client, queue: &QueueName, file: Option<&Path>) -> Result<Self, Error> {
        let (name, reader): (_, Box<dyn AsyncBufRead + Send + Unpin>) = match file {
            Some(path) => {
                let file = File::open(path).await.map_err(|error| {
                    Error::usage(format!("--file: cannot read {}: {error}", path.display()))
                })?;
                (path.display().to_string(), Box::new(BufReader::new(file)))
            }
            None => {
                let response = client.results(queue, 0, false).await?;
                let parts = response.bytes_stream().map_err(std::io::Error::other);
                let reader = StreamReader::new(Box::pin(parts));
                (client.url().to_owned(), Box::new(reader))
            }
        };
        Ok(Self {
            name,
            lines: reader.lines(),
            number: 0,
            is_file: file.is_some(),
        })
    }

    async fn next(&mut self) -> Result<Option<ResultView>, Error> {
        let line = self.lines.next_line().await.map_err(|error| {
            let kind = if self.is_file {
                Kind::Disk
            } else {
                Kind::ServiceLost
            };
            Error::new(kind, format!("cannot read {}: {error}", self.name))
        })?;
        let Some(line) = line else { return Ok(None) };
        self.number += 1;
        serde_json::from_str(&line).map(Some).map_err(|error| {
            let (name, number) = (&self.name, self.number);
            let text = format!("{name}, line {number}: this is no result of a queue: {error}");
            Error::new(Kind::Failed, text)
        })
    }
}
