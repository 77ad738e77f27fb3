//! The loop of a worker: one session, its leases, its handlers, its settles.
//!
//! At most two calls are out at a time: one that asks for items, which the service may hold, and
//! beside it one that settles. A call that was not answered is sent again as it was, which the
//! service takes for the same one.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use gangline_protocol::limits::{SESSION_LEASES_MAX, SETTLES_MAX};
use gangline_protocol::{
    ExchangeReply, ExchangeRequest, ItemId, LeaseNumber, LeaseReply, LeaseRequest, LeasedItem,
    QueueUid, SessionId, Settle, Wait,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::end::end_of;
use super::handling::{self, CANCEL_TIME, Finished};
use super::heartbeat::{Beat, Heart, News};
use super::signals::Signals;
use super::{Config, End, Handler};
use crate::error::ClientError;
use crate::item::Context;
use crate::retry::{Backoff, random};

/// Items are leased ahead only if they start within this time.
const AHEAD: Duration = Duration::from_millis(100);

/// Nothing is leased ahead when handlers take longer than this.
const AHEAD_HANDLER_MAX: Duration = Duration::from_secs(1);

/// How long results of fast handlers wait for others to go with, while there is more to start:
/// a call for each would cost more than the work.
const LINGER: Duration = Duration::from_millis(25);

/// Results that go without waiting for more.
const LINGER_SETTLES: usize = 64;

/// How long a call for items may be held.
const HOLD_MS: u64 = 20_000;

/// Bytes of results after which a call takes no more settles; the rest goes with the next.
const CALL_BYTES: usize = 8 << 20;

/// How much of the grace period is left for the last settles and the leave.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// First and longest bound of the wait after a call that was not answered.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

type Call =
    Pin<Box<dyn Future<Output = (ExchangeRequest, Result<ExchangeReply, ClientError>)> + Send>>;

struct Running {
    /// The newest lease of the item: when a session was lost, its items may come back to the
    /// next one while their handlers still run.
    lease: LeaseNumber,
    context: Context,
}

struct Pump {
    config: Config,
    handler: Handler,
    heart: Heart,
    session: Option<SessionId>,
    uid: Option<QueueUid>,
    interval: Duration,
    nonce: u64,
    /// Number of the next lease request.
    number: u64,
    ready: VecDeque<LeasedItem>,
    running: HashMap<ItemId, Running>,
    finished: FuturesUnordered<Pin<Box<dyn Future<Output = Finished> + Send>>>,
    settles: VecDeque<Settle>,
    /// Items leased ahead that have been started since the last call.
    started: Vec<ItemId>,
    asking: Option<Call>,
    settling: Option<Call>,
    /// Running mean of what a handler takes.
    handler_time: Option<Duration>,
    /// When the last call for items was sent.
    asked_at: Instant,
    /// When the service wants to be asked again, and after failures the wait before it.
    ask_at: Option<Instant>,
    settle_at: Option<Instant>,
    /// Until when the results in hand wait for others.
    linger_until: Option<Instant>,
    backoff: Backoff,
    silent_since: Option<Instant>,
    leaving: Option<Leaving>,
}

/// A worker that was told to go.
struct Leaving {
    end: End,
    /// When handlers that still run are told to stop.
    cancel_at: Instant,
    /// When to go whatever still runs.
    go_at: Instant,
}

pub(super) async fn run(config: Config, handler: Handler) -> End {
    let (news, mut heard) = mpsc::unbounded_channel();
    let heart = Heart::start(
        &*config.transport,
        config.queue.clone(),
        config.name.clone(),
        news,
    );
    let heart = match heart {
        Ok(heart) => heart,
        Err(error) => return End::Misconfigured(error.to_string()),
    };
    let mut pump = Pump {
        config,
        handler,
        heart,
        session: None,
        uid: None,
        interval: Duration::from_secs(5),
        nonce: random(),
        number: 1,
        ready: VecDeque::new(),
        running: HashMap::new(),
        finished: FuturesUnordered::new(),
        settles: VecDeque::new(),
        started: Vec::new(),
        asking: None,
        settling: None,
        handler_time: None,
        asked_at: Instant::now(),
        ask_at: None,
        settle_at: None,
        linger_until: None,
        backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
        silent_since: None,
        leaving: None,
    };
    let mut signals = Signals::listen();
    loop {
        pump.start_ready();
        pump.send_calls();
        pump.beat();
        if let Some(end) = pump.is_at_end() {
            return pump.finish(end).await;
        }
        let wake_at = pump.wake_at();
        let end = tokio::select! {
            (request, reply) = answer(&mut pump.asking) => pump.asked(request, reply),
            (request, reply) = answer(&mut pump.settling) => pump.settled(request, reply),
            Some(finished) = pump.finished.next() => {
                pump.note(finished);
                None
            }
            Some(news) = heard.recv() => pump.hear(news),
            end = signals.told_to_go(), if pump.leaving.is_none() => {
                pump.leave(end);
                None
            }
            () = until(wake_at) => {
                pump.wake();
                None
            }
        };
        if let Some(end) = end {
            return pump.finish(end).await;
        }
    }
}

async fn answer(call: &mut Option<Call>) -> (ExchangeRequest, Result<ExchangeReply, ClientError>) {
    match call {
        Some(running) => {
            let answer = running.await;
            *call = None;
            answer
        }
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Pump {
    /// Starts what has been leased, while there are hands for it.
    fn start_ready(&mut self) {
        while self.running.len() < self.config.concurrency && self.leaving.is_none() {
            let Some(item) = self.ready.pop_front() else {
                return;
            };
            self.start(item);
        }
    }

    fn start(&mut self, item: LeasedItem) {
        let context = Context {
            board: self.heart.board.clone(),
            ..Context::default()
        };
        let running = Running {
            lease: item.lease,
            context: context.clone(),
        };
        self.running.insert(item.id, running);
        self.started.push(item.id);
        let handler = self.handler.clone();
        self.finished
            .push(Box::pin(handling::run(handler, item, context)));
    }

    /// Puts down what a handler made of its item.
    fn note(&mut self, finished: Finished) {
        let Some(Running { lease, .. }) = self.running.remove(&finished.id) else {
            return;
        };
        self.heart.board.forget(finished.id);
        let took = finished.took;
        // A quarter of the newest and three of the older ones: follows a change in a few items.
        let mean = self.handler_time.map_or(took, |mean| (mean * 3 + took) / 4);
        self.handler_time = Some(mean);
        let settle = finished.settle(lease, self.config.attempts, self.leaving.is_some());
        if settle.stop.is_some() {
            self.linger_until = None;
        } else if self.settles.is_empty() {
            self.linger_until = (mean < LINGER).then(|| Instant::now() + LINGER);
        }
        self.settles.push_back(settle);
    }

    /// How many items to have in hand beyond those that run.
    fn ahead(&self) -> usize {
        let Some(mean) = self.handler_time.filter(|mean| *mean < AHEAD_HANDLER_MAX) else {
            return 0;
        };
        let a_hand = AHEAD.as_micros() / mean.as_micros().max(50);
        let most = SESSION_LEASES_MAX - self.config.concurrency;
        usize::try_from(a_hand)
            .unwrap_or(most)
            .saturating_mul(self.config.concurrency)
            .min(most)
    }

    /// Sends what there is to say, at most one call of each kind at a time.
    fn send_calls(&mut self) {
        let now = Instant::now();
        let ahead = self.ahead();
        let free = self.config.concurrency - self.running.len().min(self.config.concurrency);
        let wanted = (free + ahead).saturating_sub(self.ready.len());
        // Asking for a few at a time would cost a call each; half of the store is early enough.
        let low = free > self.ready.len() || self.ready.len() * 2 <= ahead && ahead > 0;
        let may_ask = self.leaving.is_none() && self.ask_at.is_none_or(|at| at <= now);
        if self.asking.is_none() && wanted > 0 && low && may_ask {
            let mut request = self.request();
            if self.settling.is_none() && self.settle_at.is_none_or(|at| at <= now) {
                self.add_settles(&mut request);
            }
            request.lease = Some(LeaseRequest {
                number: self.number,
                max: u32::try_from(wanted).unwrap_or(u32::MAX),
                starting: Some(u32::try_from(free).unwrap_or(u32::MAX)),
                wait_ms: HOLD_MS,
            });
            self.asked_at = now;
            self.asking = Some(self.call(request));
        }
        let lingers = !self.ready.is_empty()
            && self.settles.len() < LINGER_SETTLES
            && self.linger_until.is_some_and(|until| until > now);
        let may_settle = self.settle_at.is_none_or(|at| at <= now) && !lingers;
        if self.settling.is_none() && !self.settles.is_empty() && may_settle {
            let mut request = self.request();
            self.add_settles(&mut request);
            self.settling = Some(self.call(request));
        }
    }

    fn request(&self) -> ExchangeRequest {
        let mut request = ExchangeRequest::new(self.config.name.clone());
        request.session = self.session;
        request.uid = self.uid;
        request.nonce = Some(self.nonce);
        request
    }

    fn add_settles(&mut self, request: &mut ExchangeRequest) {
        let mut bytes = 0;
        while request.settles.len() < SETTLES_MAX
            && bytes < CALL_BYTES
            && let Some(settle) = self.settles.pop_front()
        {
            bytes += settle
                .result
                .as_ref()
                .map_or(0, |result| result.get().len());
            let spawned = settle.spawn.iter().map(|item| item.payload.get().len());
            bytes += spawned.sum::<usize>();
            request.settles.push(settle);
        }
        request.started = std::mem::take(&mut self.started);
    }

    fn call(&self, request: ExchangeRequest) -> Call {
        let transport = self.config.transport.clone();
        let queue = self.config.queue.clone();
        Box::pin(async move {
            let reply = transport.exchange(&queue, &request).await;
            (request, reply)
        })
    }

    /// Says to the heart which session to keep alive.
    fn beat(&self) {
        let holds = !self.running.is_empty() || !self.ready.is_empty() || !self.settles.is_empty();
        let beat = self.session.filter(|_| holds).map(|session| Beat {
            session,
            uid: self.uid,
            interval: self.interval,
        });
        self.heart.set(beat);
    }

    fn asked(
        &mut self,
        request: ExchangeRequest,
        reply: Result<ExchangeReply, ClientError>,
    ) -> Option<End> {
        let lease = match reply.map(|reply| self.absorb(request.session, reply)) {
            Ok(Ok(lease)) => lease,
            Ok(Err(end)) => return Some(end),
            Err(error) => {
                self.ask_at = Some(Instant::now() + self.backoff.after(&error));
                return self.unanswered(request, &error);
            }
        };
        match lease {
            Some(LeaseReply::Items(items)) => {
                self.number += 1;
                self.ask_at = None;
                for item in items {
                    match self.running.get_mut(&item.id) {
                        Some(running) => {
                            running.lease = item.lease;
                            running.context.said().lease = Some(item.lease);
                        }
                        None => self.ready.push_back(item),
                    }
                }
            }
            // A call that settles is not held; the next one is.
            Some(LeaseReply::Wait(_)) if !request.settles.is_empty() => self.ask_at = None,
            Some(LeaseReply::Wait(wait)) => self.ask_at = self.ask_after(wait),
            None => self.ask_at = None,
        }
        None
    }

    /// Returns when to ask again after a call that brought nothing. One that was held may be
    /// followed at once; one that was not, at the time that the answer names, or once this worker
    /// has settled something.
    fn ask_after(&self, wait: Wait) -> Option<Instant> {
        let held = self.asked_at.elapsed() >= Duration::from_millis(HOLD_MS / 2);
        let pause = Duration::from_millis(wait.retry_ms).max(RETRY_FIRST);
        (!held).then(|| Instant::now() + pause)
    }

    fn settled(
        &mut self,
        request: ExchangeRequest,
        reply: Result<ExchangeReply, ClientError>,
    ) -> Option<End> {
        match reply.map(|reply| self.absorb(request.session, reply)) {
            Ok(answer) => {
                self.settle_at = None;
                self.ask_at = None;
                answer.err()
            }
            Err(error) => {
                self.settle_at = Some(Instant::now() + self.backoff.after(&error));
                self.unanswered(request, &error)
            }
        }
    }

    /// Takes in what any answer may say; returns its lease part, or the end.
    fn absorb(
        &mut self,
        asked_as: Option<SessionId>,
        reply: ExchangeReply,
    ) -> Result<Option<LeaseReply>, End> {
        self.silent_since = None;
        self.backoff.answered();
        if let Some(certificate) = reply.over {
            return Err(End::Over(Box::new(certificate)));
        }
        if let Some(interval) = reply.heartbeat_ms {
            self.interval = Duration::from_millis(interval);
        }
        // An answer to an older session says nothing about the present one.
        if asked_as != self.session {
            return Ok(None);
        }
        self.uid = reply.uid.or(self.uid);
        if let Some(end) = reply.session_end {
            self.lose_session(&end);
            return Ok(None);
        }
        self.session = reply.session.or(self.session);
        self.lose(&reply.lost);
        Ok(reply.lease)
    }

    /// The handlers run on, and settle late under the next session.
    fn lose_session(&mut self, end: &gangline_protocol::SessionEnd) {
        tracing::warn!(?end, "the session has ended; opening a new one");
        self.session = None;
        self.nonce = random();
        self.number = 1;
        self.ready.clear();
        self.started.clear();
    }

    /// These items are somebody else's, or nobody's, by now.
    fn lose(&mut self, lost: &[ItemId]) {
        for id in lost {
            if let Some(running) = self.running.get(id) {
                running.context.cancelled.cancel();
            } else if let Some(at) = self.ready.iter().position(|item| item.id == *id)
                && let Some(item) = self.ready.remove(at)
            {
                // Says that we know; nothing else comes of it.
                self.settles
                    .push_back(handling::release(item.id, item.lease));
            }
        }
    }

    fn hear(&mut self, news: News) -> Option<End> {
        match news {
            News::Over(certificate) => return Some(End::Over(certificate)),
            News::Ended(session, end) if self.session == Some(session) => self.lose_session(&end),
            News::Ended(..) => {}
            News::Lost(lost) => self.lose(&lost),
        }
        None
    }

    /// Keeps what the call was to say, for the next one.
    fn unanswered(&mut self, request: ExchangeRequest, error: &ClientError) -> Option<End> {
        for settle in request.settles.into_iter().rev() {
            self.settles.push_front(settle);
        }
        self.started.extend(request.started);
        if let Some(end) = end_of(error) {
            return Some(end);
        }
        if self.silent_since.is_none() {
            tracing::warn!(%error, "the queue service does not answer; trying again");
            self.silent_since = Some(Instant::now());
        }
        None
    }

    /// Stops taking items; those not started are given back by the leave.
    fn leave(&mut self, end: End) {
        let now = Instant::now();
        let cancel_at = now + self.config.grace.saturating_sub(LEAVE_TIME);
        self.leaving = Some(Leaving {
            end,
            cancel_at,
            go_at: cancel_at + LEAVE_TIME / 2,
        });
        self.ready.clear();
        // The leave ends the session that this call may still open: it has the same nonce.
        self.asking = None;
    }

    fn wake_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let leaving = self.leaving.as_ref();
        let lost_at = self
            .silent_since
            .map(|since| since + self.config.service_deadline);
        [
            self.ask_at,
            self.settle_at,
            self.linger_until,
            leaving.map(|leaving| leaving.cancel_at),
            leaving.map(|leaving| leaving.go_at),
            lost_at,
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }

    fn wake(&mut self) {
        let now = Instant::now();
        if self
            .leaving
            .as_ref()
            .is_some_and(|leaving| leaving.cancel_at <= now)
        {
            self.cancel_all();
        }
    }

    fn cancel_all(&self) {
        for running in self.running.values() {
            running.context.cancelled.cancel();
        }
    }

    fn is_at_end(&self) -> Option<End> {
        let now = Instant::now();
        let nothing_in_hand =
            self.running.is_empty() && self.settles.is_empty() && self.settling.is_none();
        if let Some(leaving) = &self.leaving
            && (nothing_in_hand || leaving.go_at <= now)
        {
            return Some(leaving.end.clone());
        }
        let lost = self.silent_since.filter(|_| nothing_in_hand)?;
        let gone = now - lost >= self.config.service_deadline;
        gone.then(|| {
            let seconds = self.config.service_deadline.as_secs();
            End::ServiceLost(format!(
                "{} did not answer for {seconds} s",
                self.config.transport.peer()
            ))
        })
    }

    async fn finish(mut self, end: End) -> End {
        self.asking = None;
        let end = match end {
            End::Terminated | End::Interrupted => self.say_leave(end).await,
            End::Over(_)
            | End::ServiceLost(_)
            | End::CredentialsRefused(_)
            | End::Misconfigured(_) => end,
        };
        self.cancel_all();
        let ended = async { while self.finished.next().await.is_some() {} };
        if tokio::time::timeout(CANCEL_TIME, ended).await.is_err() {
            tracing::warn!("handlers that do not heed their cancellation are left behind");
        }
        end
    }

    /// Delivers what is left and gives back the rest. Hearing that the queue is over makes this
    /// the better end.
    async fn say_leave(&mut self, end: End) -> End {
        let mut request = self.request();
        self.add_settles(&mut request);
        request.leave = true;
        let left = tokio::time::timeout(LEAVE_TIME / 2, self.call(request)).await;
        match left {
            Ok((_, Ok(reply))) => match reply.over {
                Some(certificate) => End::Over(Box::new(certificate)),
                None => end,
            },
            Ok((_, Err(error))) => {
                tracing::warn!(%error, "could not take leave; the session ends by its deadline");
                end
            }
            Err(_) => end,
        }
    }
}
