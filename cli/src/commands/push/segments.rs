//! A stream of any length in segments, each under an `Idempotency-Key` of its own.
//!
//! A segment is kept until the service has answered for all of it, and sent again when a connection
//! breaks or the service restarts: what it has of the segment already is skipped there. So no more
//! than three segments are in memory, and each line is taken once.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use gangline_worker::Client;
use gangline_worker::error::{ClientError, Outage};
use gangline_worker::protocol::item::PushReply;
use gangline_worker::protocol::{ErrorCode, QueueName};
use gangline_worker::retry::until_answered;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::Error;
use crate::output;

/// Bytes with which a segment goes at once: many durable steps, and little to send again.
const SEGMENT_BYTES: usize = 1 << 20;

/// How long a segment that is not full waits for more lines: what somebody types is there at once.
const LINGER: Duration = Duration::from_millis(20);

/// … and how long after the one before it: the service remembers the key of each for a day, so that
/// lines that come one by one for days must not have one each.
const PAUSE: Duration = Duration::from_secs(1);

/// How many lines are put into a segment at a time.
const AT_ONCE: usize = 1_024;

/// How long the service may be away, once it has been there.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the answer to a segment may take: a peer that has gone without a word is noticed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// The input is broken; what is wrong with it is said elsewhere.
#[derive(Debug)]
pub(super) struct BrokenInput;

/// An item as a line.
pub(super) type Line = Result<Vec<u8>, BrokenInput>;

/// Lines that go together.
#[derive(Debug)]
pub(super) struct Segment {
    lines: Bytes,
    is_last: bool,
}

/// What has become of the items.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Report {
    /// Those that were taken.
    pub(super) added: u64,
    /// Those that were there before, by their keys.
    pub(super) duplicates: u64,
}

/// Cuts lines into segments, of which the last is marked; without an end of the lines there is none.
pub(super) async fn cut(
    mut lines: mpsc::Receiver<Line>,
    segments: mpsc::Sender<Segment>,
) -> Infallible {
    let mut earliest = Instant::now();
    while let Some(segment) = next(&mut lines, earliest).await {
        earliest = Instant::now() + PAUSE;
        let is_last = segment.is_last;
        if segments.send(segment).await.is_err() || is_last {
            break;
        }
    }
    drop(segments);
    pending().await
}

/// Returns the next segment, which is full or goes no earlier than this.
async fn next(lines: &mut mpsc::Receiver<Line>, earliest: Instant) -> Option<Segment> {
    let mut segment = Vec::new();
    let mut received = Vec::with_capacity(AT_ONCE);
    let mut count = lines.recv_many(&mut received, AT_ONCE).await;
    let until = earliest.max(Instant::now() + LINGER);
    loop {
        for line in received.drain(..) {
            segment.extend_from_slice(&line.ok()?);
        }
        let is_last = count == 0;
        if !is_last
            && segment.len() < SEGMENT_BYTES
            && let Ok(more) = timeout_at(until, lines.recv_many(&mut received, AT_ONCE)).await
        {
            count = more;
            continue;
        }
        return Some(Segment {
            lines: segment.into(),
            is_last,
        });
    }
}

/// Where segments go.
#[derive(Debug)]
pub(super) struct Segments<'a> {
    client: &'a Client,
    queue: &'a QueueName,
    seal: bool,
    /// What the keys of this push begin with.
    name: String,
    report: Report,
    /// Whether the service has answered yet.
    is_there: bool,
}

impl<'a> Segments<'a> {
    pub(super) fn new(client: &'a Client, queue: &'a QueueName, seal: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a push names itself once, here")]
        let name = uuid::Uuid::new_v4().to_string();
        Self {
            client,
            queue,
            seal,
            name,
            report: Report::default(),
            is_there: false,
        }
    }

    /// Pushes one segment after the other; the last one seals the queue, if that is wanted.
    pub(super) async fn push(
        mut self,
        mut segments: mpsc::Receiver<Segment>,
    ) -> Result<Report, Error> {
        for number in 1_u64.. {
            let Some(segment) = segments.recv().await else {
                break;
            };
            let key = format!("{}-{number}", self.name);
            let reply = self.deliver(&segment, &key).await;
            let reply = reply.map_err(|error| self.failed(&error))?;
            self.is_there = true;
            self.report.added += reply.added;
            self.report.duplicates += reply.duplicates;
        }
        Ok(self.report)
    }

    /// Sends a segment until it is answered. A service that was never there is not waited for.
    async fn deliver(&self, segment: &Segment, key: &str) -> Result<PushReply, ClientError> {
        match self.send(segment, key).await {
            Err(error) if error.is_retryable() && (self.is_there || is_from_there(&error)) => {
                output::note(format_args!("{error}; trying again"));
                until_answered(PATIENCE, || self.send(segment, key)).await
            }
            answered => answered,
        }
    }

    async fn send(&self, segment: &Segment, key: &str) -> Result<PushReply, ClientError> {
        let lines = stream::iter([Ok::<_, Infallible>(segment.lines.clone())]);
        let seal = self.seal && segment.is_last;
        let answer = self.client.push_stream(self.queue, lines, key, seal);
        let outage = |text| {
            Err(ClientError::Unavailable(Outage {
                text,
                retry_after: None,
                arrived: true,
            }))
        };
        match timeout(ANSWER_TIMEOUT, answer).await {
            Err(_) => outage(format!("no answer within {ANSWER_TIMEOUT:?}")),
            // Lost on its way: something in between has ended it properly.
            Ok(Err(ClientError::Refused(problem)))
                if problem.code == ErrorCode::IncompleteStream =>
            {
                outage(problem.detail)
            }
            Ok(answer) => answer,
        }
    }

    /// Says what was taken before, and that the rest can be added to it.
    fn failed(&self, error: &ClientError) -> Error {
        let taken = self.report.added + self.report.duplicates;
        if taken == 0 {
            return Error::from_call(error, error);
        }
        let text = format!("{error}; {} had taken {taken} items before", self.queue);
        let failed = Error::from_call(error, text);
        match error.is_retryable() {
            true => failed.hint("the same command again adds the rest, and nothing twice"),
            false => failed,
        }
    }
}

/// Tells whether there is a service at the other end, though this call did not succeed.
fn is_from_there(error: &ClientError) -> bool {
    error.may_have_taken_effect() || error.retry_after().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_that_come_one_by_one_do_not_have_a_segment_each() {
        const LINES: usize = 20;
        let (lines, received) = mpsc::channel(1);
        let (segments, mut cut_off) = mpsc::channel(1);
        let began = Instant::now();
        let write = async move {
            for _ in 0..LINES {
                lines.send(Ok(b"1\n".to_vec())).await.unwrap();
                tokio::time::sleep(LINGER * 2).await;
            }
        };
        let read = async {
            let mut all = Vec::new();
            while let Some(Segment { lines, .. }) = cut_off.recv().await {
                all.push(lines.len() / 2);
            }
            all
        };
        let all = tokio::select! {
            ((), all) = async { tokio::join!(write, read) } => all,
            never = cut(received, segments) => match never {},
        };
        assert_eq!(all.iter().sum::<usize>(), LINES);
        // The first, the last, and one for each pause, however slow the machine is.
        let pauses = began.elapsed().as_secs() as usize;
        assert!(all.len() <= 2 + pauses, "{all:?} in {pauses} s");
    }
}
