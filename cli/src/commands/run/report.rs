//! What a run leaves: results on stdout or in a file, and last lines that say what happened.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use gangline_worker::protocol::item::ResultView;
use gangline_worker::protocol::{Certificate, ItemId, Json, QueueName};
use gangline_worker::{Client, ClientError};
use tokio::task::JoinHandle;

use crate::commands::shown::items;
use crate::error::Error;
use crate::output;

/// What the results file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultsFormat {
    /// What the programs wrote, one after the other
    Raw,
    /// Lines of JSON with id, key, result, attempt and time
    Ndjson,
}

/// How long the results that are there may take to be written when a run ends early.
const REST_TIME: Duration = Duration::from_secs(3);
/// Kinds of errors that the summary names.
const KINDS_SHOWN: usize = 3;

/// Results on their way to stdout.
pub(super) struct Results {
    client: Client,
    queue: QueueName,
    /// How many results of the queue are out, those of earlier runs included.
    shown: Arc<AtomicU64>,
    task: Option<JoinHandle<Result<(), Error>>>,
}

impl Results {
    pub(super) fn start(client: &Client, queue: &QueueName, show: bool, cursor: u64) -> Self {
        let shown = Arc::new(AtomicU64::new(cursor));
        let task = show.then(|| {
            let (client, queue, shown) = (client.clone(), queue.clone(), shown.clone());
            tokio::spawn(async move { print(&client, &queue, &shown, true).await })
        });
        Self {
            client: client.clone(),
            queue: queue.clone(),
            shown,
            task,
        }
    }

    /// Waits until all results are out; the queue must be over.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        match self.task.take() {
            Some(task) => task.await.map_err(Error::disk)?,
            None => Ok(()),
        }
    }

    /// Prints what is recorded and not out yet, although the queue is not over.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        let Some(task) = self.task.take() else {
            return Ok(());
        };
        task.abort();
        let rest = async {
            match task.await {
                Ok(printed) => printed,
                // Aborted between two results, never within one.
                Err(_) => print(&self.client, &self.queue, &self.shown, false).await,
            }
        };
        // A reader of stdout that does not read must not keep the process.
        tokio::time::timeout(REST_TIME, rest)
            .await
            .unwrap_or(Ok(()))
    }
}

async fn print(
    client: &Client,
    queue: &QueueName,
    shown: &AtomicU64,
    follow: bool,
) -> Result<(), Error> {
    let cursor = shown.load(Ordering::Relaxed);
    each_result(client, queue, cursor, follow, |result, _| {
        shown.fetch_add(1, Ordering::Relaxed);
        output::data(&bytes_of(&result.result))
            .map_err(|error| Error::disk(format!("cannot write to stdout: {error}")))
    })
    .await
}

/// Calls `act` with each result and its line.
async fn each_result(
    client: &Client,
    queue: &QueueName,
    cursor: u64,
    follow: bool,
    mut act: impl FnMut(&ResultView, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut response = client.results(queue, cursor, follow).await?;
    let mut rest = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(ClientError::from)? {
        rest.extend_from_slice(&chunk);
        let end = rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in rest[..end].split_inclusive(|byte| *byte == b'\n') {
            let result = serde_json::from_slice(line)
                .map_err(|error| ClientError::Protocol(format!("a result: {error}")))?;
            act(&result, line)?;
        }
        rest.drain(..end);
    }
    Ok(())
}

/// Returns what the program wrote.
fn bytes_of(result: &Json) -> Vec<u8> {
    match serde_json::from_str::<String>(result.get()) {
        Ok(text) => text.into_bytes(),
        Err(_) => gangline_worker::exec::bytes_of(result).unwrap_or_else(|| result.get().into()),
    }
}

/// Writes the results in the order of the items; returns how many there are.
///
/// They come in the order of recording. What they hold goes through a file without a name in
/// `spill`, so that only their places are in memory.
pub(super) async fn write_results(
    client: &Client,
    queue: &QueueName,
    spill: &Path,
    path: &Path,
    format: ResultsFormat,
) -> Result<usize, Error> {
    let cannot_spill =
        |error| Error::disk(format!("cannot write into {}: {error}", spill.display()));
    let spilled = tempfile::tempfile_in(spill).map_err(cannot_spill)?;
    let mut spilling = BufWriter::new(&spilled);
    let mut places: Vec<(ItemId, u64, usize)> = Vec::new();
    let mut end = 0;
    each_result(client, queue, 0, false, |result, line| {
        let raw;
        let bytes = match format {
            ResultsFormat::Raw => {
                raw = bytes_of(&result.result);
                &raw
            }
            ResultsFormat::Ndjson => line,
        };
        places.push((result.id, end, bytes.len()));
        end += bytes.len() as u64;
        spilling.write_all(bytes).map_err(cannot_spill)
    })
    .await?;
    spilling.flush().map_err(cannot_spill)?;
    drop(spilling);
    places.sort_unstable();
    let cannot = |error| Error::disk(format!("cannot write {}: {error}", path.display()));
    let mut file = BufWriter::new(File::create(path).map_err(cannot)?);
    let mut bytes = Vec::new();
    for (_, start, length) in &places {
        bytes.resize(*length, 0);
        spilled
            .read_exact_at(&mut bytes, *start)
            .map_err(cannot_spill)?;
        file.write_all(&bytes).map_err(cannot)?;
    }
    file.flush().map_err(cannot)?;
    Ok(places.len())
}

/// Returns how many items were done at a later attempt than their first.
pub(super) async fn done_again(client: &Client, queue: &QueueName) -> Result<u64, Error> {
    let mut again = 0;
    each_result(client, queue, 0, false, |result, _| {
        again += u64::from(result.attempt > 1);
        Ok(())
    })
    .await?;
    Ok(again)
}

/// Says what happened, in a few lines.
pub(super) async fn summary(
    client: &Client,
    queue: &QueueName,
    certificate: &Certificate,
    done_before: u64,
) {
    let counts = &certificate.counts;
    let took = certificate
        .ended_at
        .0
        .saturating_sub(certificate.created_at.0);
    let took = humantime::format_duration(Duration::from_millis(took));
    let mut parts = vec![format!("{} done", counts.done)];
    for (count, what) in [
        (counts.dead, "dead"),
        (counts.cancelled, "cancelled"),
        (counts.abandoned, "abandoned"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if done_before > 0 {
        parts.push(format!("{done_before} of them before this run"));
    }
    output::note(format_args!(
        "{} in {took}: {}",
        items(counts.total()),
        parts.join(", ")
    ));
    if counts.dead == 0 {
        return;
    }
    // The errors are a help; the counts above are what is to be known.
    let Ok(dead) = client.dead(queue).await else {
        return;
    };
    for group in dead.groups.iter().take(KINDS_SHOWN) {
        let error = group.error.as_deref().unwrap_or("no error was given");
        let like = if group.same { "" } else { " and the like" };
        let (count, example) = (group.count, group.example);
        output::note(format_args!(
            "  {count} × {error}{like} (first: item {example})"
        ));
    }
    match dead.groups.len().saturating_sub(KINDS_SHOWN) {
        0 => {}
        more => output::note(format_args!("  and {more} kinds of error more")),
    }
}
