//! The queue service over HTTP.

use bytes::Bytes;
use futures::stream;
use gangline_protocol::limits::PUSH_ITEMS_MAX;
use gangline_protocol::{
    ErrorCode, JobReport, Json, NewItem, QueueName, QueueStatus, Role, SettingsPatch, StopOutcome,
    TokenRequest, WorkerName, WorkerView,
};
use gangline_worker::{Client, ClientError};
use serde_json::value::RawValue;

use super::token::TokenKey;
use super::{Answer, Fill, QueueService, ServiceError, TOKEN_LIFE};
use crate::api::Job;

/// Who ends a queue that a Job's first success stops.
const STOPPED_BY: &str = "controller";

/// A queue service that is reached over HTTP.
#[derive(Debug, Clone)]
pub struct HttpQueueService {
    client: Client,
    /// What the tokens of workers are derived from; without it they need none.
    key: Option<TokenKey>,
}

impl HttpQueueService {
    /// Makes it of a client and the token that this one shows. Without a token the service is
    /// taken to ask for none; else the token has to be an admin's, and the workers of each Job get
    /// one of their own, which is derived from it.
    #[must_use]
    pub fn new(client: Client, token: Option<&str>) -> Self {
        Self {
            client,
            key: token.map(TokenKey::new),
        }
    }
}

impl From<ClientError> for ServiceError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(_) | ClientError::Unauthorized(_) => {
                Self::Refused(error.to_string())
            }
            ClientError::Unavailable(outage) => Self::Unavailable(outage.text),
            ClientError::Protocol(text) => Self::Unavailable(text),
        }
    }
}

/// Makes nothing of a queue that is not there, or over already: then there is nothing to do.
fn unless(codes: &[ErrorCode], result: Result<QueueStatus, ClientError>) -> Answer<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.code().is_some_and(|code| codes.contains(&code)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The items of a push. Each has a key, so that a Job of the same name goes on with a queue that
/// an earlier one has begun to fill.
fn items_of(items: Fill) -> Box<dyn Iterator<Item = NewItem> + Send + Sync> {
    match items {
        Fill::Range { first, last } => Box::new((first..=last).map(|number| {
            let json = RawValue::from_string(number.to_string()).expect("a number is JSON");
            keyed(number, Json::from(json))
        })),
        Fill::Payloads(payloads) => Box::new(
            (1..)
                .zip(payloads)
                .map(|(place, payload)| keyed(place, payload)),
        ),
    }
}

fn keyed(key: u64, payload: Json) -> NewItem {
    let mut item = NewItem::new(payload);
    item.key = Some(key.to_string().parse().expect("digits are a key"));
    item
}

fn chunk(items: &mut dyn Iterator<Item = NewItem>) -> Option<Result<Bytes, serde_json::Error>> {
    let mut bytes = Vec::new();
    for item in items.take(PUSH_ITEMS_MAX) {
        if let Err(error) = serde_json::to_writer(&mut bytes, &item) {
            return Some(Err(error));
        }
        bytes.push(b'\n');
    }
    (!bytes.is_empty()).then(|| Ok(bytes.into()))
}

impl QueueService for HttpQueueService {
    async fn status(&self, queue: &QueueName) -> Answer<Option<QueueStatus>> {
        match self.client.status(queue).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.code() == Some(ErrorCode::QueueNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn workers(&self, queue: &QueueName) -> Answer<Vec<WorkerView>> {
        Ok(self.client.workers(queue).await?)
    }

    async fn create(&self, queue: &QueueName) -> Answer<()> {
        let made = self
            .client
            .configure(queue, &SettingsPatch::default())
            .await;
        unless(&[ErrorCode::QueueOver], made)
    }

    async fn fill(&self, queue: &QueueName, items: Fill, once: &str) -> Answer<()> {
        let items = items_of(items);
        let body = stream::unfold(items, async |mut items| {
            chunk(&mut *items).map(|chunk| (chunk, items))
        });
        let pushed = self.client.push_stream(queue, Box::pin(body), once, true);
        pushed.await?;
        Ok(())
    }

    async fn pause(&self, queue: &QueueName) -> Answer<()> {
        unless(&[ErrorCode::QueueOver], self.client.pause(queue).await)
    }

    async fn stop(&self, queue: &QueueName, outcome: StopOutcome, reason: &str) -> Answer<()> {
        let by = Some(STOPPED_BY);
        let stopped = self.client.stop(queue, outcome, Some(reason), by);
        unless(&[ErrorCode::QueueOver], stopped.await)
    }

    async fn revoke(&self, queue: &QueueName, worker: &WorkerName, counted: bool) -> Answer<()> {
        match self.client.revoke(queue, worker, counted).await {
            // What has no queue has no session.
            Err(error) if error.code() != Some(ErrorCode::QueueNotFound) => Err(error.into()),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    async fn had_session(&self, queue: &QueueName, worker: &WorkerName) -> Answer<Option<bool>> {
        Ok(self.client.worker(queue, worker).await?.had_session)
    }

    async fn register_token(&self, queue: &QueueName, job: &Job) -> Answer<Option<String>> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let (token, hash) = key.derive(queue, job.uid());
        let note = format!("workers of Job {}/{}", job.namespace(), job.name());
        let life = u64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(u64::MAX);
        let request = TokenRequest {
            roles: vec![Role::Worker],
            namespace: None,
            queue: Some(queue.clone()),
            expires_in_ms: Some(life),
            note: Some(note.into()),
            hash: Some(hash),
        };
        self.client.create_token(&request).await?;
        Ok(Some(token))
    }

    async fn revoke_token(&self, queue: &QueueName, job_uid: &str) -> Answer<()> {
        let Some(key) = &self.key else {
            return Ok(());
        };
        let (_, hash) = key.derive(queue, job_uid);
        match self.client.revoke_token(hash.id()).await {
            Err(error) if error.code() != Some(ErrorCode::TokenNotFound) => Err(error.into()),
            Err(_) | Ok(_) => Ok(()),
        }
    }

    async fn report(&self, queue: &QueueName, report: &JobReport) -> Answer<()> {
        Ok(self.client.report_job(queue, report).await?)
    }
}
