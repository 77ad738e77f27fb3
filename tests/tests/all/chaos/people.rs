//! Who uses a queue while things break: a producer, workers, an observer. All that they ask and
//! hear is taken down.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gangline_protocol::item::ResultView;
use gangline_protocol::{
    Certificate, ExchangeReply, ExchangeRequest, HeartbeatRequest, ItemId, ItemView, Json,
    LeaseReply, LeaseRequest, LeasedItem, NewItem, PushReply, QueueStatus, QueueUid, SessionId,
    Settle, SettleOutcome,
};
use gangline_tests::history::{Asked, Call, Ending, Heard, Leased, Recorder, Shown};
use gangline_tests::{Api, Dice};
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Rows of a page of items.
const PAGE: usize = 1_000;

/// How long a lease request is held.
const WAIT_MS: u64 = 300;

/// A queue on which everything is taken down.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) api: Api,
    pub(super) queue: String,
    pub(super) recorder: Recorder,
}

impl Scene {
    pub(super) fn new(api: Api) -> Self {
        Self {
            queue: api.fresh_queue().name,
            recorder: Recorder::default(),
            api,
        }
    }

    /// Calls a path under the queue until there is an answer, which must be a success.
    pub(super) async fn get(&self, method: Method, rest: &str, body: Option<Value>) -> Value {
        let path = format!("/v1/queues/{}{rest}", self.queue);
        self.api.insist(method, &path, body.as_ref()).await.ok()
    }

    async fn exchange(&self, request: &ExchangeRequest) -> ExchangeReply {
        let body = serde_json::to_value(request).unwrap();
        let reply = self.get(Method::POST, "/exchange", Some(body)).await;
        serde_json::from_value(reply).unwrap()
    }

    /// Pushes batches until told to stop, some items twice; then seals.
    pub(super) async fn produce(self, mut dice: Dice, stop: CancellationToken) {
        let mut next = 0;
        while !stop.is_cancelled() {
            let mut keys = Vec::new();
            for _ in 0..=dice.below(16) {
                if next > 0 && dice.one_in(8) {
                    keys.push(format!("k{}", dice.below(next)));
                } else {
                    keys.push(format!("k{next}"));
                    next += 1;
                }
            }
            self.push(keys).await;
            sleep(Duration::from_millis(dice.below(60))).await;
        }
        let asked = self.recorder.ask("producer", Call::Seal);
        self.get(Method::POST, "/seal", None).await;
        asked.hear(Heard::default());
    }

    pub(super) async fn push(&self, keys: Vec<String>) {
        let items: Vec<Value> = keys
            .iter()
            .map(|key| json!({"key": key, "payload": key}))
            .collect();
        let asked = self.recorder.ask("producer", Call::Push(keys));
        let body = json!({"items": items});
        let reply = self.get(Method::POST, "/items", Some(body)).await;
        let reply: PushReply = serde_json::from_value(reply).unwrap();
        let pushed = reply.items.iter().map(|item| (item.id, !item.duplicate));
        asked.hear(Heard {
            pushed: pushed.collect(),
            ..Heard::default()
        });
    }

    /// Looks at the queue until it is over.
    pub(super) async fn observe(self) -> Certificate {
        loop {
            let asked = self.recorder.ask("observer", Call::Look);
            let status = self.get(Method::GET, "", None).await;
            let status: QueueStatus = serde_json::from_value(status).unwrap();
            asked.hear(Heard {
                status: Some(Shown {
                    phase: status.phase,
                    total: status.counts.total(),
                    done: status.counts.done,
                }),
                over: status.certificate.clone(),
                ..Heard::default()
            });
            if let Some(certificate) = status.certificate {
                return certificate;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Says that a worker is gone.
    pub(super) async fn revoke(&self, worker: &str) {
        let rest = format!("/workers/{worker}/revoke");
        self.get(Method::POST, &rest, Some(json!({"counted": true})))
            .await;
    }

    /// Looks at everything, once.
    pub(super) async fn ending(&self, certificate: Option<Certificate>) -> Ending {
        let mut ending = Ending {
            certificate,
            ..Ending::default()
        };
        let mut cursor = ItemId(0);
        loop {
            let rest = format!("/items?max={PAGE}&cursor={cursor}");
            let page = self.get(Method::GET, &rest, None).await;
            let items: Vec<ItemView> = serde_json::from_value(page["items"].clone()).unwrap();
            for item in items {
                cursor = item.id;
                ending.items.push((item.id, item.state));
                let key = item.key.map(|key| (item.id, key.as_str().to_owned()));
                ending.keys.extend(key);
            }
            if page["next"].is_null() {
                break;
            }
        }
        let path = format!("/v1/queues/{}/results", self.queue);
        let (status, bytes) = self.api.insist_bytes(Method::GET, &path, None).await;
        assert_eq!(status, 200);
        for line in String::from_utf8(bytes).unwrap().lines() {
            let result: ResultView = serde_json::from_str(line).unwrap();
            let text = result.result.get().to_owned();
            ending.results.push((result.id, text));
            let key = result.key.map(|key| (result.id, key.as_str().to_owned()));
            ending.keys.extend(key);
        }
        ending.keys.sort();
        ending.keys.dedup();
        ending
    }
}

/// A worker that can die.
pub(super) struct Worker {
    pub(super) name: String,
    scene: Scene,
    /// The session that it knows to have.
    session: Arc<Mutex<Option<SessionId>>>,
    /// For how long it is to sleep with what it holds next.
    naps: mpsc::Sender<Duration>,
    task: JoinHandle<()>,
}

impl Worker {
    pub(super) fn start(scene: &Scene, name: &str, dice: Dice) -> Self {
        let session = Arc::<Mutex<Option<SessionId>>>::default();
        let (naps, to_sleep) = mpsc::channel(1);
        let life = Life {
            scene: scene.clone(),
            name: name.to_owned(),
            known: session.clone(),
            dice,
            to_sleep,
            session: None,
            uid: None,
            number: 0,
        };
        Self {
            name: name.to_owned(),
            scene: scene.clone(),
            session,
            naps,
            task: tokio::spawn(life.work()),
        }
    }

    /// Lets it sleep as soon as it holds something; returns when it does, or after as long.
    pub(super) async fn put_to_sleep(&self, nap: Duration) {
        if self.naps.try_send(nap).is_ok() {
            // There is room for another once it has taken this one.
            let _ = timeout(nap, self.naps.reserve()).await;
        }
    }

    /// Waits until it has heard that the queue is over.
    pub(super) async fn end(self) {
        self.task.await.unwrap();
    }

    /// Kills it, whatever it is doing.
    pub(super) async fn kill(self) {
        self.task.abort();
        let ended = self.task.await;
        // It may have heard of the end before.
        if ended.is_err() {
            let session = *self.session.lock().unwrap();
            let _ = self.scene.recorder.ask(&self.name, Call::Crash(session));
        }
    }
}

struct Life {
    scene: Scene,
    name: String,
    known: Arc<Mutex<Option<SessionId>>>,
    dice: Dice,
    to_sleep: mpsc::Receiver<Duration>,
    session: Option<SessionId>,
    uid: Option<QueueUid>,
    number: u64,
}

fn heard_in(reply: &ExchangeReply) -> Heard {
    Heard {
        session: reply.session,
        lost: reply.lost.iter().copied().collect(),
        session_end: reply.session_end,
        over: reply.over.clone(),
        ..Heard::default()
    }
}

impl Life {
    async fn work(mut self) {
        let mut nonce = self.dice.roll();
        loop {
            self.number += 1;
            let mut request = self.request();
            request.nonce = Some(nonce);
            request.lease = Some(LeaseRequest {
                number: self.number,
                max: 1 + u32::try_from(self.dice.below(8)).unwrap(),
                starting: None,
                wait_ms: WAIT_MS,
            });
            let asked = self.scene.recorder.ask(&self.name, Call::Lease);
            let reply = self.scene.exchange(&request).await;
            let mut heard = heard_in(&reply);
            let items = match reply.lease {
                Some(LeaseReply::Items(items)) => items,
                Some(LeaseReply::Wait(_)) | None => Vec::new(),
            };
            heard.leased = items.iter().map(leased).collect();
            asked.hear(heard);
            if reply.over.is_some() {
                return;
            }
            self.uid = reply.uid;
            self.know(reply.session);
            if reply.session_end.is_some() {
                nonce = self.dice.roll();
                self.number = 0;
                continue;
            }
            if items.is_empty() {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
            sleep(Duration::from_millis(self.dice.below(20))).await;
            if let Ok(nap) = self.to_sleep.try_recv() {
                sleep(nap).await;
            }
            if self.dice.one_in(3) {
                self.heartbeat().await;
            }
            let at_once = 1 + usize::try_from(self.dice.below(8)).unwrap();
            for some in items.chunks(at_once) {
                if self.settle(some).await {
                    return;
                }
                sleep(Duration::from_millis(self.dice.below(5))).await;
            }
        }
    }

    fn know(&mut self, session: Option<SessionId>) {
        self.session = session;
        *self.known.lock().unwrap() = session;
    }

    fn request(&self) -> ExchangeRequest {
        let mut request = ExchangeRequest::new(self.name.parse().unwrap());
        request.session = self.session;
        request.uid = self.uid;
        request
    }

    async fn heartbeat(&self) {
        let mut request = self.request();
        request.heartbeat = Some(HeartbeatRequest { hold_ms: 0 });
        let asked = self.scene.recorder.ask(&self.name, Call::Say);
        let reply = self.scene.exchange(&request).await;
        asked.hear(heard_in(&reply));
    }

    /// Settles some items in one exchange; tells whether the queue is over.
    async fn settle(&mut self, items: &[LeasedItem]) -> bool {
        let mut request = self.request();
        let mut all_asked: Vec<Asked> = Vec::new();
        for item in items {
            let settle = self.settle_of(item);
            let keys = settle.spawn.iter().filter_map(|item| item.key.as_ref());
            let call = Call::Settle {
                id: settle.id,
                lease: settle.lease,
                outcome: settle.outcome,
                result: settle.result.as_ref().map(|json| json.get().to_owned()),
                spawn: keys.map(|key| key.as_str().to_owned()).collect(),
            };
            all_asked.push(self.scene.recorder.ask(&self.name, call));
            request.settles.push(settle);
        }
        let reply = self.scene.exchange(&request).await;
        for (asked, settled) in all_asked.into_iter().zip(&reply.settled) {
            let mut heard = heard_in(&reply);
            heard.settled = Some(settled.status);
            asked.hear(heard);
        }
        reply.over.is_some()
    }

    fn settle_of(&mut self, item: &LeasedItem) -> Settle {
        let outcome = match self.dice.below(50) {
            0..=2 => SettleOutcome::Retry,
            3..=4 => SettleOutcome::Release,
            5 => SettleOutcome::Dead,
            _ => SettleOutcome::Done,
        };
        let is_done = outcome == SettleOutcome::Done;
        let mut spawn = Vec::new();
        if is_done && self.dice.one_in(20) {
            let mut child = NewItem::new(quoted("child"));
            child.key = Some(format!("{}-{}", item.id, item.lease).parse().unwrap());
            spawn.push(child);
        }
        Settle {
            id: item.id,
            lease: item.lease,
            outcome,
            result: is_done.then(|| quoted(&format!("{} by {}", item.lease, self.name))),
            error: None,
            delay_ms: (outcome == SettleOutcome::Retry).then(|| self.dice.below(200)),
            spawn,
            stop: None,
        }
    }
}

fn leased(item: &LeasedItem) -> Leased {
    Leased {
        id: item.id,
        lease: item.lease,
        attempt: item.attempt,
    }
}

fn quoted(text: &str) -> Json {
    RawValue::from_string(json!(text).to_string())
        .unwrap()
        .into()
}
