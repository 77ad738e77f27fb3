//! A client that knows paths and JSON only, so that the tests see what is on the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// How long an answer may take before another replica is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before a call is sent again.
const AGAIN: Duration = Duration::from_millis(20);

/// One service, called over HTTP; by turns at each of its replicas.
#[derive(Debug, Clone)]
pub struct Api {
    http: Client,
    /// Where the service listens; its first replica, if it has more.
    pub url: String,
    urls: Arc<[String]>,
    turn: Arc<AtomicUsize>,
    token: Option<String>,
}

/// A queue of a service that no other test uses.
#[derive(Debug, Clone)]
pub struct Queue {
    /// The service.
    pub api: Api,
    /// The queue's name.
    pub name: String,
}

/// Status and body of a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when it is no JSON.
    pub body: Value,
}

impl Answer {
    /// Returns the body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// Returns the code of an error of this status.
    #[track_caller]
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["status"], status);
        assert!(!self.body["detail"].as_str().expect("a detail").is_empty());
        self.body["code"].as_str().expect("a code").to_owned()
    }
}

/// Makes a client that trusts these CAs, in PEM form, and no others.
#[must_use]
pub fn http_client(ca: &[u8]) -> Client {
    // It fails when another test was first, with the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem_bundle(ca).expect("certificates");
    let client = Client::builder().tls_certs_only(ca);
    client.build().expect("a client")
}

impl Api {
    /// Makes a client of a service.
    #[must_use]
    pub fn new(url: &str, token: Option<&str>) -> Self {
        Self::of_replicas(&[url], token)
    }

    /// Makes a client of all replicas of a service.
    #[must_use]
    pub fn of_replicas(urls: &[&str], token: Option<&str>) -> Self {
        let urls: Arc<[String]> = urls
            .iter()
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        Self {
            http: http_client(&[]),
            url: urls[0].clone(),
            urls,
            turn: Arc::default(),
            token: token.map(str::to_owned),
        }
    }

    fn next_url(&self) -> &str {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.urls[turn % self.urls.len()]
    }

    /// Returns a queue with a name that was not used before.
    #[must_use]
    pub fn fresh_queue(&self) -> Queue {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        Queue {
            api: self.clone(),
            name: format!("t{}-{number}", std::process::id()),
        }
    }

    /// Sends a request as it is.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response {
        let sent = self.request(method, path, headers, body).send().await;
        sent.expect("an answer")
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> RequestBuilder {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.next_url()));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body)
    }

    /// Sends JSON, or nothing, until there is an answer of a service that is neither away nor
    /// busy, at each replica by turns.
    pub async fn insist(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let (status, bytes) = self.insist_bytes(method, path, body).await;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status, body }
    }

    /// The same, with the body as it is.
    pub async fn insist_bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Vec<u8>) {
        let headers = [("content-type", "application/json")];
        let headers = if body.is_some() { &headers[..] } else { &[] };
        loop {
            let bytes = body.map_or(Vec::new(), |body| body.to_string().into_bytes());
            let request = self.request(method.clone(), path, headers, bytes);
            let sent = request.timeout(PATIENCE).send().await;
            if let Ok(response) = sent {
                let status = response.status().as_u16();
                if let (false, Ok(bytes)) = (matches!(status, 429 | 503), response.bytes().await) {
                    return (status, bytes.to_vec());
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Sends JSON, or nothing, and reads the answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let headers: &[_] = match &body {
            Some(_) => &[("content-type", "application/json")],
            None => &[],
        };
        let body = body.map_or(Vec::new(), |body| body.to_string().into_bytes());
        answer(self.send(method, path, headers, body).await).await
    }
}

/// Reads a reply.
pub async fn answer(response: Response) -> Answer {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.expect("a whole body");
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status, body }
}

impl Queue {
    fn path(&self, rest: &str) -> String {
        format!("/v1/queues/{}{rest}", self.name)
    }

    /// GETs a path under the queue.
    pub async fn get(&self, rest: &str) -> Answer {
        self.api.call(Method::GET, &self.path(rest), None).await
    }

    /// POSTs JSON to a path under the queue.
    pub async fn post(&self, rest: &str, body: Value) -> Answer {
        self.api
            .call(Method::POST, &self.path(rest), Some(body))
            .await
    }

    /// Calls a path under the queue without a body.
    pub async fn bare(&self, method: Method, rest: &str) -> Answer {
        self.api.call(method, &self.path(rest), None).await
    }

    /// Puts settings.
    pub async fn put(&self, settings: Value) -> Answer {
        self.api
            .call(Method::PUT, &self.path(""), Some(settings))
            .await
    }

    /// Pushes raw bytes with headers.
    pub async fn push_raw(&self, query: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let path = self.path(&format!("/items{query}"));
        answer(
            self.api
                .send(Method::POST, &path, headers, body.into())
                .await,
        )
        .await
    }

    /// Pushes payloads and returns their ids.
    pub async fn push(&self, payloads: &[Value]) -> Vec<u64> {
        let items: Vec<Value> = payloads
            .iter()
            .map(|payload| json!({"payload": payload}))
            .collect();
        let reply = self.post("/items", json!({"items": items})).await.ok();
        let items = reply["items"].as_array().expect("items").iter();
        items
            .map(|item| item["id"].as_u64().expect("an id"))
            .collect()
    }

    /// Sends an exchange.
    pub async fn exchange(&self, body: Value) -> Answer {
        self.post("/exchange", body).await
    }

    /// Opens a session with a lease request for `max` items.
    pub async fn open(&self, worker: &str, max: u32) -> Session {
        let reply = self
            .exchange(json!({"worker": worker, "lease": {"number": 1, "max": max}}))
            .await
            .ok();
        Session {
            queue: self.clone(),
            worker: worker.to_owned(),
            id: reply["session"].clone(),
            uid: reply["uid"].clone(),
            number: 1,
            items: reply["lease"]["items"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// Returns the counts that are not zero.
    pub async fn counts(&self) -> Value {
        let mut counts = self.get("").await.ok()["counts"].take();
        let fields = counts.as_object_mut().expect("counts");
        fields.retain(|_, count| *count != 0);
        counts
    }

    /// Returns the recorded results as lines.
    pub async fn results(&self, query: &str) -> Vec<String> {
        let path = self.path(&format!("/results{query}"));
        let response = self.api.send(Method::GET, &path, &[], Vec::new()).await;
        assert_eq!(response.status().as_u16(), 200);
        let text = response.text().await.expect("text");
        text.lines().map(str::to_owned).collect()
    }
}

/// An open session and what it got first.
#[derive(Debug, Clone)]
pub struct Session {
    /// The queue.
    pub queue: Queue,
    /// The worker's name.
    pub worker: String,
    /// The session's id.
    pub id: Value,
    /// The queue's uid.
    pub uid: Value,
    /// Number of the last lease request.
    pub number: u64,
    /// What the last lease request got.
    pub items: Vec<Value>,
}

impl Session {
    /// Adds the session to a request and sends it.
    pub async fn say(&self, mut body: Value) -> Answer {
        body["worker"] = json!(self.worker);
        body["session"] = self.id.clone();
        body["uid"] = self.uid.clone();
        self.queue.exchange(body).await
    }

    /// Asks for more items with the next number.
    pub async fn lease(&mut self, max: u32) -> Value {
        self.number += 1;
        let lease = json!({"number": self.number, "max": max});
        let reply = self.say(json!({"lease": lease})).await.ok();
        self.items = reply["lease"]["items"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        reply
    }

    /// Settles the `nth` item with these fields and returns the whole answer.
    pub async fn settle(&self, nth: usize, mut fields: Value) -> Value {
        fields["id"] = self.items[nth]["id"].clone();
        fields["lease"] = self.items[nth]["lease"].clone();
        self.say(json!({"settles": [fields]})).await.ok()
    }
}
