//! Heartbeats, from a thread of their own that no busy handler can starve.
//!
//! One call is always held by the service while the session has leases, so that news (the end,
//! a cancelled item) arrive at once.

use std::time::Duration;

use gangline_protocol::exchange::HeartbeatRequest;
use gangline_protocol::{
    Certificate, ExchangeRequest, ItemId, QueueName, QueueUid, SessionEnd, SessionId, WorkerName,
};
use tokio::sync::{mpsc, watch};

use crate::error::ClientError;
use crate::progress::Board;
use crate::retry::Backoff;
use crate::transport::Transport;

/// How long after news the next heartbeat goes out, unless the worker has acted on them before.
const AFTER_NEWS: Duration = Duration::from_millis(200);

/// First and longest bound of the wait after a heartbeat that was not answered: several fit into
/// the shortest session.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_millis(400);

/// What the heartbeats are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) session: SessionId,
    pub(super) uid: Option<QueueUid>,
    pub(super) interval: Duration,
}

/// What a heartbeat has heard.
#[derive(Debug)]
pub(super) enum News {
    Over(Box<Certificate>),
    Ended(SessionId, SessionEnd),
    Lost(Vec<ItemId>),
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Heart {
    beat: watch::Sender<Option<Beat>>,
    /// What the heartbeats take along.
    pub(super) board: Board,
}

impl Heart {
    pub(super) fn start(
        transport: &dyn Transport,
        queue: QueueName,
        worker: WorkerName,
        news: mpsc::UnboundedSender<News>,
    ) -> Result<Self, ClientError> {
        let transport = transport.separate()?;
        let (beat, wanted) = watch::channel(None);
        let board = Board::default();
        let said = board.clone();
        let failed = |error: std::io::Error| {
            ClientError::Protocol(format!("cannot start the heartbeat's thread: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        std::thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || {
                runtime.block_on(run(&*transport, &queue, &worker, wanted, &news, &said));
            })
            .map_err(failed)?;
        Ok(Self { beat, board })
    }

    /// Says for which session to send heartbeats; none while it holds nothing.
    pub(super) fn set(&self, beat: Option<Beat>) {
        self.beat.send_if_modified(|current| {
            let changed = *current != beat;
            *current = beat;
            changed
        });
    }
}

async fn run(
    transport: &dyn Transport,
    queue: &QueueName,
    worker: &WorkerName,
    mut wanted: watch::Receiver<Option<Beat>>,
    news: &mpsc::UnboundedSender<News>,
    board: &Board,
) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
    loop {
        let beat = *wanted.borrow_and_update();
        let Some(beat) = beat else {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut request = ExchangeRequest::new(worker.clone());
        request.session = Some(beat.session);
        request.uid = beat.uid;
        request.progress = board.take();
        request.heartbeat = Some(HeartbeatRequest {
            hold_ms: u64::try_from(beat.interval.as_millis()).unwrap_or(u64::MAX),
        });
        // A session that has changed wants its own heartbeat now.
        let reply = tokio::select! {
            reply = transport.exchange(queue, &request) => reply,
            changed = wanted.changed() => match changed {
                Ok(()) => {
                    board.put_back(request.progress);
                    continue;
                }
                Err(_) => return,
            },
        };
        match reply {
            Ok(reply) => {
                backoff.answered();
                let mut heard = Vec::new();
                if let Some(certificate) = reply.over {
                    heard.push(News::Over(Box::new(certificate)));
                } else if let Some(end) = reply.session_end {
                    heard.push(News::Ended(beat.session, end));
                } else if !reply.lost.is_empty() {
                    heard.push(News::Lost(reply.lost));
                }
                let quiet = heard.is_empty();
                if heard.into_iter().any(|one| news.send(one).is_err()) {
                    return;
                }
                if !quiet {
                    // The worker acts on it and sets the next beat; until then once a moment.
                    pause(&mut wanted, AFTER_NEWS).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a heartbeat was not answered");
                board.put_back(request.progress);
                pause(&mut wanted, backoff.after(&error)).await;
            }
        }
    }
}

/// Waits until another session is to be kept alive, or for so long.
async fn pause(wanted: &mut watch::Receiver<Option<Beat>>, time: Duration) {
    // Gone, the loop sees that at its top.
    let _ = tokio::time::timeout(time, wanted.changed()).await;
}
