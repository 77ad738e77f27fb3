//! Pushes of any length: one item a line, taken in chunks, each one durable step.
//!
//! Memory is bounded by one chunk. Under an `Idempotency-Key` a stream that broke off is sent
//! again from its beginning: what was taken is skipped, after its hash has been compared.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt;
use gangline_protocol::limits::{
    BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, PUSH_ITEMS_MAX, STREAM_IDLE_MS_MAX,
};
use gangline_protocol::{ErrorCode, NewItem, PushReply, QueueName};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::body::parse;
use super::problem::Failure;
use super::push::{PushParams, execute, incomplete};
use crate::queue::command::{Batch, BatchPart, StreamState};
use crate::queue::{Command, Query, Reply};
use crate::service::{Service, unexpected};

/// Longest line, in bytes: the longest payload and what may stand beside it.
const LINE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 8 * 1024;

/// Most bytes of a stream without a key, which is one chunk: it must fit in memory.
const CHUNK_BYTES: usize = BODY_BYTES_MAX / 8;

/// Bytes after which a chunk is taken although it has fewer lines and more may follow: a commit's
/// worth, so that no other waits for long.
const STEP_BYTES: usize = 1 << 20;

/// Bytes of lines after which others have their turn: some 100 µs.
const TURN_BYTES: usize = 32 << 10;

struct Stream<'a> {
    service: &'a Service,
    queue: QueueName,
    key: Option<Box<str>>,
    /// What an earlier request has sent under the same key.
    taken: Option<StreamState>,
    /// Over all lines so far, each with its line break.
    hash: Sha256,
    /// Lines so far, those of the chunk included.
    lines: u64,
    chunk: Vec<NewItem>,
    chunk_bytes: usize,
    /// Bytes of lines since others had their turn.
    turn_bytes: usize,
    total: Option<PushReply>,
}

pub(super) async fn push(
    service: &Service,
    queue: QueueName,
    params: PushParams,
    key: Option<Box<str>>,
    body: Body,
) -> Result<PushReply, Failure> {
    let taken = match &key {
        Some(key) => taken(service, &queue, key.clone()).await?,
        None => None,
    };
    let mut stream = Stream {
        service,
        queue,
        key,
        taken,
        hash: Sha256::new(),
        lines: 0,
        chunk: Vec::new(),
        chunk_bytes: 0,
        turn_bytes: 0,
        total: None,
    };
    let mut parts = body.into_data_stream();
    let mut rest: Vec<u8> = Vec::new();
    let silence = Duration::from_millis(STREAM_IDLE_MS_MAX);
    while let Some(part) = timeout(silence, parts.next()).await.map_err(|_| {
        let progress = stream.progress();
        let detail = format!("the stream was silent for {STREAM_IDLE_MS_MAX} ms; {progress}");
        Failure::new(ErrorCode::RequestTimeout, detail)
    })? {
        let part: Bytes = part.map_err(|error| {
            let detail = format!("the stream broke off: {error}; {}", stream.progress());
            Failure::new(ErrorCode::IncompleteStream, detail)
        })?;
        stream.take_part(&mut rest, &part).await?;
    }
    if !rest.is_empty() {
        stream.line(&rest).await?;
    }
    stream.end(params).await
}

async fn taken(
    service: &Service,
    queue: &QueueName,
    key: Box<str>,
) -> Result<Option<StreamState>, Failure> {
    let queue = queue.clone();
    match service.query(Query::Stream { queue, key }).await? {
        Reply::Stream(state) => Ok(state),
        other => Err(unexpected(&other).into()),
    }
}

impl Stream<'_> {
    /// Cuts a part of the body into lines; what is no whole line yet goes to `rest`.
    async fn take_part(&mut self, rest: &mut Vec<u8>, part: &[u8]) -> Result<(), Failure> {
        let mut part = part;
        while let Some(end) = part.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&part[..end], &part[end + 1..]);
            if rest.is_empty() {
                self.line(line).await?;
            } else {
                rest.extend_from_slice(line);
                self.line(rest).await?;
                rest.clear();
            }
            part = after;
        }
        rest.extend_from_slice(part);
        if rest.len() > LINE_BYTES_MAX {
            return Err(self.too_long(rest.len()));
        }
        Ok(())
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(self.too_long(line.len()));
        }
        self.turn_bytes += line.len();
        if self.turn_bytes >= TURN_BYTES {
            self.turn_bytes = 0;
            tokio::task::yield_now().await;
        }
        self.lines += 1;
        self.hash.update(line);
        self.hash.update(b"\n");
        let before = self.taken.as_ref().map_or(0, |taken| taken.lines);
        if self.lines <= before {
            return if self.lines == before {
                self.compare()
            } else {
                Ok(())
            };
        }
        let item: NewItem = match parse(line) {
            Ok(item) => item,
            Err(failure) => return Err(self.in_line(failure)),
        };
        if let Some(bound) = item.out_of_bounds() {
            return Err(self.in_line(Failure::out_of_bounds("", bound)));
        }
        self.chunk.push(item);
        self.chunk_bytes += line.len();
        let bytes_max = match self.key {
            Some(_) => STEP_BYTES,
            None => CHUNK_BYTES,
        };
        let full = self.chunk.len() >= PUSH_ITEMS_MAX || self.chunk_bytes >= bytes_max;
        match (full, self.key.is_some()) {
            (false, _) => Ok(()),
            (true, true) => self.send(false, false).await,
            // One chunk may be full; it is the next line that is too much.
            (true, false)
                if self.chunk.len() <= PUSH_ITEMS_MAX && self.chunk_bytes < 2 * CHUNK_BYTES =>
            {
                Ok(())
            }
            (true, false) => {
                let detail = format!(
                    "without an Idempotency-Key a stream is all or nothing and has at most \
                     {PUSH_ITEMS_MAX} lines and {CHUNK_BYTES} bytes; nothing was taken"
                );
                Err(Failure::new(ErrorCode::BodyTooLarge, detail))
            }
        }
    }

    /// Compares what was taken before with what has come now.
    fn compare(&self) -> Result<(), Failure> {
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        match &self.taken {
            Some(taken) if taken.hash != hash => Err(Failure::new(
                ErrorCode::IdempotencyMismatch,
                format!(
                    "Idempotency-Key {:?} was used before with another body: the first {} lines \
                     differ",
                    self.key.as_deref().unwrap_or_default(),
                    taken.lines
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    async fn send(&mut self, last: bool, seal: bool) -> Result<(), Failure> {
        let items = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        let lines = items.len() as u64;
        let batch = self.key.clone().map(|key| Batch {
            key,
            part: BatchPart::Chunk {
                lines_before: self.lines - lines,
                lines,
                hash: self.hash.clone().finalize().into(),
                last,
            },
        });
        let command = Command::Push {
            queue: self.queue.clone(),
            items,
            batch,
            seal,
        };
        // The counts are those of the stream so far, whoever sent its begin.
        let mut reply = execute(self.service, command).await?;
        reply.items.clear();
        self.total = Some(reply);
        Ok(())
    }

    /// The body has ended properly.
    async fn end(mut self, params: PushParams) -> Result<PushReply, Failure> {
        let before = self.taken.as_ref().map_or(0, |taken| taken.lines);
        if self.lines < before {
            let detail = format!(
                "Idempotency-Key {:?} was used before with a longer body: {before} lines, now {}",
                self.key.as_deref().unwrap_or_default(),
                self.lines
            );
            return Err(Failure::new(ErrorCode::IdempotencyMismatch, detail));
        }
        if let Some(count) = params.count
            && count != self.lines
        {
            let progress = self.progress();
            return Err(incomplete(
                self.lines,
                count,
                &format!("not sealed; {progress}"),
            ));
        }
        self.send(true, params.seal).await?;
        Ok(self.total.expect("a chunk was sent a line above"))
    }

    /// Says what a broken stream has left behind.
    fn progress(&self) -> String {
        let taken = self.taken.as_ref().map_or(0, |taken| taken.lines);
        let sent = self.lines - (self.chunk.len() as u64).min(self.lines);
        let lines = taken.max(if self.key.is_some() { sent } else { 0 });
        match lines {
            0 => "nothing was taken".into(),
            lines => format!("{lines} lines were taken; the same stream again continues there"),
        }
    }

    fn too_long(&self, bytes: usize) -> Failure {
        let detail = format!(
            "line {}: must be at most {LINE_BYTES_MAX} bytes, got {bytes}; {}",
            self.lines + 1,
            self.progress()
        );
        Failure::new(ErrorCode::BodyTooLarge, detail)
    }

    /// Puts the number of the line before a failure, and says what was taken.
    fn in_line(&mut self, failure: Failure) -> Failure {
        // The line at fault was counted, but is not in the chunk.
        self.lines -= 1;
        let progress = self.progress();
        self.lines += 1;
        failure.in_line(self.lines, &progress)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::hub::Hub;
    use crate::queue::{Effects, Input, Queues};
    use crate::store::{Answer, Store};

    /// A store in which another request with the same stream is always one chunk ahead.
    #[derive(Default)]
    struct Raced(Mutex<Queues>);

    impl Store for Raced {
        fn execute(&self, command: Command) -> Answer<'_> {
            let input = Input {
                now_us: 1,
                random: 1,
            };
            let mut effects = Effects::default();
            let mut queues = self.0.lock().unwrap();
            let first = queues.apply(input, command.clone(), &mut effects);
            let reply = first.and_then(|_| queues.apply(input, command, &mut effects));
            Box::pin(std::future::ready(reply.map_err(Into::into)))
        }

        fn query(&self, query: Query) -> Answer<'_> {
            let reply = self.0.lock().unwrap().read(0, query);
            Box::pin(std::future::ready(reply.map_err(Into::into)))
        }

        fn trouble(&self) -> Option<String> {
            None
        }

        fn durability(&self) -> gangline_protocol::Durability {
            gangline_protocol::Durability::Memory
        }
    }

    #[tokio::test]
    async fn chunks_that_another_request_takes_meanwhile_are_counted_once() {
        for lines in [0, 1, 2_000, 2_500] {
            let service = Service::new(Arc::new(Raced::default()), Hub::default());
            let body = || Body::from("{\"payload\":1}\n".repeat(lines));
            let params = PushParams {
                seal: true,
                count: None,
            };
            for _ in 0..2 {
                let (queue, key) = ("q".parse().unwrap(), Some("s".into()));
                let reply = push(&service, queue, params, key, body()).await.unwrap();
                assert_eq!((reply.added, reply.duplicates), (lines as u64, 0));
                assert!(reply.sealed);
            }
        }
    }
}
