//! The queue API as methods. One request a call: [`until_answered`](crate::retry::until_answered)
//! repeats one that was not answered.

use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use gangline_protocol::queue::{RevokeRequest, StopRequest};
use gangline_protocol::{
    CreatedToken, DeadItems, ExchangeReply, ExchangeRequest, Explanation, ItemId, ItemState,
    ItemView, JobReport, NewItem, PushReply, QueueName, QueueStatus, RedriveRequest, Redriven,
    SettingsPatch, StopOutcome, TokenId, TokenRequest, TokenView, WorkerName, WorkerRecord,
    WorkerView,
};
use reqwest::{Method, RequestBuilder, Response};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{ClientError, check};
use crate::tls::{self, Roots};
use crate::transport::hold_of;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take beyond the time for which it was asked to be held.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

type Result<T> = std::result::Result<T, ClientError>;

/// A queue service, seen from outside. Cloning it shares the connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
    tls: ClientConfig,
}

/// A [`PushRequest`](gangline_protocol::PushRequest) of items that somebody else keeps.
#[derive(Serialize)]
struct Push<'a> {
    items: &'a [NewItem],
}

#[derive(Deserialize)]
struct QueueList {
    queues: Vec<QueueStatus>,
}

#[derive(Deserialize)]
struct WorkerList {
    workers: Vec<WorkerView>,
}

#[derive(Deserialize)]
struct TokenList {
    tokens: Vec<TokenView>,
}

/// One page of items.
#[derive(Debug, Deserialize)]
pub struct ItemPage {
    /// The items.
    pub items: Vec<ItemView>,
    /// Where the next page begins; absent at the end.
    pub next: Option<ItemId>,
}

impl Client {
    /// Makes a client of the service at `url`, as in `http://127.0.0.1:4264`. One at a `https`
    /// address is trusted when a CA vouches for it that the system trusts, or that is in
    /// `SSL_CERT_FILE`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Protocol`] when `url` is none.
    pub fn new(url: &str, token: Option<String>) -> Result<Self> {
        Self::trusting(url, token, Roots::System)
    }

    /// Makes a client that trusts the service only when one of these CAs vouches for it: their
    /// certificates, in PEM form. It changes nothing at a `http` address.
    ///
    /// # Errors
    ///
    /// [`ClientError::Protocol`] when `url` is none, or `ca` has no certificate.
    pub fn with_ca(url: &str, token: Option<String>, ca: &[u8]) -> Result<Self> {
        Self::trusting(url, token, Roots::Pem(ca))
    }

    fn trusting(url: &str, token: Option<String>, roots: Roots<'_>) -> Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&url)
            .ok()
            .filter(reqwest::Url::has_host);
        let roots = match parsed.as_ref().map(reqwest::Url::scheme) {
            Some("http") => Roots::Nobody,
            Some("https") => roots,
            _ => {
                let text = format!(
                    "{url:?} is no address of the form http://HOST:PORT or https://HOST:PORT"
                );
                return Err(ClientError::Protocol(text));
            }
        };
        Self::open(
            url,
            token,
            tls::config(roots).map_err(ClientError::Protocol)?,
        )
    }

    fn open(url: String, token: Option<String>, tls: ClientConfig) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            // The service is named by its address; a proxy of the environment is for the web.
            .no_proxy()
            .tls_backend_preconfigured(tls.clone())
            .build()?;
        Ok(Self {
            http,
            url,
            token,
            tls,
        })
    }

    /// Returns the same client with connections of its own, for use on another runtime.
    ///
    /// # Errors
    ///
    /// None that [`Client::new`] has not had.
    pub fn separate(&self) -> Result<Self> {
        Self::open(self.url.clone(), self.token.clone(), self.tls.clone())
    }

    /// Returns the address of the service.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn request(&self, method: Method, path: &str, hold: Duration) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .timeout(hold + ANSWER_TIMEOUT);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let body = check(request.send().await?).await?.bytes().await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    async fn post<T: DeserializeOwned>(&self, queue: &QueueName, call: &str) -> Result<T> {
        let path = format!("/v1/queues/{queue}/{call}");
        self.call(self.request(Method::POST, &path, Duration::ZERO))
            .await
    }

    /// Makes the queue if there is none, and changes its settings.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; so for all calls.
    pub async fn configure(&self, queue: &QueueName, patch: &SettingsPatch) -> Result<QueueStatus> {
        let request = self.request(Method::PUT, &format!("/v1/queues/{queue}"), Duration::ZERO);
        self.call(request.json(patch)).await
    }

    /// Returns the status of a queue.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn status(&self, queue: &QueueName) -> Result<QueueStatus> {
        let path = format!("/v1/queues/{queue}");
        self.call(self.request(Method::GET, &path, Duration::ZERO))
            .await
    }

    /// Returns why a queue is not over yet, term by term.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn explain(&self, queue: &QueueName) -> Result<Explanation> {
        let path = format!("/v1/queues/{queue}/explain");
        self.call(self.request(Method::GET, &path, Duration::ZERO))
            .await
    }

    /// Returns all queues, by name.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn queues(&self) -> Result<Vec<QueueStatus>> {
        let request = self.request(Method::GET, "/v1/queues", Duration::ZERO);
        Ok(self.call::<QueueList>(request).await?.queues)
    }

    /// Stops a queue, cause `deleted`, and removes it.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn delete(&self, queue: &QueueName) -> Result<QueueStatus> {
        let path = format!("/v1/queues/{queue}");
        self.call(self.request(Method::DELETE, &path, Duration::ZERO))
            .await
    }

    /// Pushes at most [`PUSH_ITEMS_MAX`](gangline_protocol::limits::PUSH_ITEMS_MAX) items.
    /// Under an idempotency key the call may be repeated.
    ///
    /// # Errors
    ///
    /// Refused with `queue_sealed`, `queue_over`, `idempotency_mismatch`, or what is out of bounds.
    pub async fn push(
        &self,
        queue: &QueueName,
        items: &[NewItem],
        idempotency_key: Option<&str>,
        seal: bool,
    ) -> Result<PushReply> {
        let path = format!("/v1/queues/{queue}/items?seal={seal}");
        let mut request = self.request(Method::POST, &path, Duration::ZERO);
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.call(request.json(&Push { items })).await
    }

    /// Pushes a stream of lines, each a [`NewItem`]; there is no bound on its length or time.
    /// Sent again under the same key it goes on where it broke off.
    ///
    /// # Errors
    ///
    /// As [`Client::push`]; the detail names the line.
    pub async fn push_stream<S, E>(
        &self,
        queue: &QueueName,
        lines: S,
        idempotency_key: &str,
        seal: bool,
    ) -> Result<PushReply>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Send + Sync + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let request = self
            .http
            .post(format!("{}/v1/queues/{queue}/items?seal={seal}", self.url))
            .header("content-type", "application/x-ndjson")
            .header("idempotency-key", idempotency_key)
            .body(reqwest::Body::wrap_stream(lines));
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        self.call(request).await
    }

    /// Says that no more items come from outside.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn seal(&self, queue: &QueueName) -> Result<QueueStatus> {
        self.post(queue, "seal").await
    }

    /// Keeps leases back.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found` or `queue_over`.
    pub async fn pause(&self, queue: &QueueName) -> Result<QueueStatus> {
        self.post(queue, "pause").await
    }

    /// Gives leases again.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found` or `queue_over`.
    pub async fn resume(&self, queue: &QueueName) -> Result<QueueStatus> {
        self.post(queue, "resume").await
    }

    /// Returns what items died of, by the kind of their error.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn dead(&self, queue: &QueueName) -> Result<DeadItems> {
        let path = format!("/v1/queues/{queue}/dead");
        self.call(self.request(Method::GET, &path, Duration::ZERO))
            .await
    }

    /// Makes dead items ready again, or copies them into another queue: all of them, or those
    /// that the request chooses. Very many take several calls: go on with the answer's `next`.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`; in place with `queue_over`; into another queue with what
    /// refuses a push there.
    pub async fn redrive(&self, queue: &QueueName, which: &RedriveRequest) -> Result<Redriven> {
        let path = format!("/v1/queues/{queue}/redrive");
        let request = self.request(Method::POST, &path, Duration::ZERO);
        self.call(request.json(which)).await
    }

    /// Ends a queue before it is drained.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn stop(
        &self,
        queue: &QueueName,
        outcome: StopOutcome,
        reason: Option<&str>,
        by: Option<&str>,
    ) -> Result<QueueStatus> {
        let path = format!("/v1/queues/{queue}/stop");
        let body = StopRequest {
            outcome,
            reason: reason.map(Into::into),
            by: by.map(Into::into),
        };
        self.call(
            self.request(Method::POST, &path, Duration::ZERO)
                .json(&body),
        )
        .await
    }

    /// Returns items after `cursor`, in the order of their ids.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn items(
        &self,
        queue: &QueueName,
        state: Option<ItemState>,
        cursor: ItemId,
        max: usize,
    ) -> Result<ItemPage> {
        let state = state.map_or(String::new(), |state| {
            let name = serde_json::to_value(state).unwrap_or_default();
            format!("&state={}", name.as_str().unwrap_or_default())
        });
        let path = format!("/v1/queues/{queue}/items?cursor={cursor}&max={max}{state}");
        self.call(self.request(Method::GET, &path, Duration::ZERO))
            .await
    }

    /// Returns results as a stream of lines, after the first `cursor` ones; with `follow` until
    /// the queue is over.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn results(&self, queue: &QueueName, cursor: u64, follow: bool) -> Result<Response> {
        let path = format!("/v1/queues/{queue}/results?cursor={cursor}&follow={follow}");
        let request = self.request(Method::GET, &path, Duration::from_secs(30 * 24 * 3600));
        check(request.send().await?).await
    }

    /// Returns results as a stream of lines in the order of pushing, after the item `cursor`.
    /// They are complete once the queue is over; with `follow` the stream waits at each item that
    /// may still get a result, until then.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn results_as_pushed(
        &self,
        queue: &QueueName,
        cursor: ItemId,
        follow: bool,
    ) -> Result<Response> {
        let path = format!("/v1/queues/{queue}/results?cursor={cursor}&follow={follow}&order=push");
        let request = self.request(Method::GET, &path, Duration::from_secs(30 * 24 * 3600));
        check(request.send().await?).await
    }

    /// Returns one item, with its result if it is done.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found` or `item_not_found`.
    pub async fn item(&self, queue: &QueueName, id: ItemId) -> Result<ItemView> {
        let path = format!("/v1/queues/{queue}/items/{id}");
        self.call(self.request(Method::GET, &path, Duration::ZERO))
            .await
    }

    /// Cancels one item, and returns how it is: one that was done keeps its result.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`, `item_not_found` or `queue_over`.
    pub async fn cancel(&self, queue: &QueueName, id: ItemId) -> Result<ItemView> {
        let path = format!("/v1/queues/{queue}/items/{id}");
        self.call(self.request(Method::DELETE, &path, Duration::ZERO))
            .await
    }

    /// Waits until the queue is over, or for `hold`; returns its status.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn wait(&self, queue: &QueueName, hold: Duration) -> Result<QueueStatus> {
        let path = format!(
            "/v1/queues/{queue}/wait?until=over&waitMs={}",
            hold.as_millis()
        );
        self.call(self.request(Method::GET, &path, hold)).await
    }

    /// Returns the open sessions, by worker name.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn workers(&self, queue: &QueueName) -> Result<Vec<WorkerView>> {
        let path = format!("/v1/queues/{queue}/workers");
        let request = self.request(Method::GET, &path, Duration::ZERO);
        Ok(self.call::<WorkerList>(request).await?.workers)
    }

    /// Returns what is known of one worker of a queue.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`; a name that was never heard of is no error.
    pub async fn worker(&self, queue: &QueueName, worker: &WorkerName) -> Result<WorkerRecord> {
        let path = self.worker_path(queue, worker, None)?;
        self.call(self.request(Method::GET, &path, Duration::ZERO))
            .await
    }

    /// Worker names may hold what means something in a path.
    fn worker_path(
        &self,
        queue: &QueueName,
        worker: &WorkerName,
        call: Option<&str>,
    ) -> Result<String> {
        let mut url = reqwest::Url::parse(&format!("{}/v1/queues/{queue}/workers", self.url))
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(worker.as_str()).extend(call);
        }
        Ok(url.path().to_owned())
    }

    /// Says that a worker is gone: its session ends, and its items are ready again.
    ///
    /// # Errors
    ///
    /// Refused with `queue_not_found`.
    pub async fn revoke(
        &self,
        queue: &QueueName,
        worker: &WorkerName,
        counted: bool,
    ) -> Result<()> {
        let path = self.worker_path(queue, worker, Some("revoke"))?;
        let request = self.request(Method::POST, &path, Duration::ZERO);
        let reply: serde_json::Value = self.call(request.json(&RevokeRequest { counted })).await?;
        tracing::debug!(worker = %worker, %reply, "revoked");
        Ok(())
    }

    /// Says how the Job is whose Pods work on a queue, in the place of what was said before.
    ///
    /// # Errors
    ///
    /// Unauthorized, unless the client's token has the role admin.
    pub async fn report_job(&self, queue: &QueueName, report: &JobReport) -> Result<()> {
        let path = format!("/v1/queues/{queue}/job");
        let request = self.request(Method::PUT, &path, Duration::ZERO);
        check(request.json(report).send().await?).await?;
        Ok(())
    }

    /// Makes a token, or registers the hash of one.
    ///
    /// # Errors
    ///
    /// Unauthorized, unless the client's own token has the role admin for all of the new scope.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<CreatedToken> {
        let call = self.request(Method::POST, "/v1/tokens", Duration::ZERO);
        self.call(call.json(request)).await
    }

    /// Returns the tokens of the client's scope, oldest first.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn tokens(&self) -> Result<Vec<TokenView>> {
        let call = self.request(Method::GET, "/v1/tokens", Duration::ZERO);
        Ok(self.call::<TokenList>(call).await?.tokens)
    }

    /// Revokes a token.
    ///
    /// # Errors
    ///
    /// Refused with `token_not_found`.
    pub async fn revoke_token(&self, id: TokenId) -> Result<TokenView> {
        let path = format!("/v1/tokens/{id}");
        self.call(self.request(Method::DELETE, &path, Duration::ZERO))
            .await
    }

    /// Says what a worker says: settles, heartbeat and lease in one call.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn exchange(
        &self,
        queue: &QueueName,
        request: &ExchangeRequest,
    ) -> Result<ExchangeReply> {
        let hold = hold_of(request);
        let path = format!("/v1/queues/{queue}/exchange");
        self.call(self.request(Method::POST, &path, hold).json(request))
            .await
    }
}
