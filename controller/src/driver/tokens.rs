//! The tokens of Jobs' workers: registered while a Job runs, revoked when it does no more.
//!
//! What is remembered here can be lost: a token that nobody registers again ends by itself.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use gangline_protocol::QueueName;
use k8s_openapi::api::core::v1::Secret;
use tokio::time::Instant;

use super::cache::Key;
use super::cluster::lock;
use super::service::QueueService;
use super::sync::{SyncError, Syncer, kubernetes, queue};
use crate::api::{Job, ObjectMeta, Uid};
use crate::plan::claim;
use crate::plan::queue::{QueueSpec, TokenSecret, WorkerSettings};

/// How often the token of a Job that runs is registered again. A small part of its life.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
const SECRET_KEY: &str = "token";

/// A token that the service knows.
#[derive(Debug)]
pub(crate) struct Registered {
    job: Uid,
    queue: QueueName,
    at: Instant,
}

/// Tokens that the service knows, by the names of their Jobs: of one that runs, and perhaps of
/// older ones.
pub(crate) type Tokens = HashMap<Key, Vec<Registered>>;

impl<Q: QueueService> Syncer<Q> {
    /// Returns what the Pods of a Job need to know, once there is the Secret that they refer to.
    pub(super) async fn worker_settings(
        &self,
        job: &Job,
        spec: &QueueSpec,
    ) -> Result<WorkerSettings, SyncError> {
        let registered = self.register_token(job, &spec.queue).await?;
        let token = match registered {
            None => None,
            Some(token) => {
                let secret = token_secret(job, token);
                let made = self.cluster.put_secret(job.namespace(), &secret).await;
                made.map_err(kubernetes("make the Secret with the token"))?;
                Some(TokenSecret {
                    name: secret.metadata.name.unwrap_or_default(),
                    key: SECRET_KEY.into(),
                })
            }
        };
        Ok(WorkerSettings {
            url: self.settings.queue_url.clone(),
            token,
            wrapper: self.settings.wrapper.clone(),
        })
    }

    /// Registers the token of a Job that has Pods again, if that was long ago.
    ///
    /// There is much time for it, so it is no reason to do nothing else.
    pub(super) async fn renew_token(&self, job: &Job, spec: &QueueSpec) {
        let is_fresh = lock(&self.tokens).get(&Key::of(job)).is_some_and(|known| {
            let mut known = known.iter();
            known.any(|token| token.job == job.uid() && token.at.elapsed() < RENEW_AFTER)
        });
        if !is_fresh && let Err(error) = self.register_token(job, &spec.queue).await {
            tracing::warn!(job.name = job.name(), "{}", error.chain());
        }
    }

    async fn register_token(
        &self,
        job: &Job,
        name: &QueueName,
    ) -> Result<Option<String>, SyncError> {
        let token = self.service.register_token(name, job).await;
        let token = token.map_err(queue("register a token for"))?;
        if token.is_some() {
            let mut tokens = lock(&self.tokens);
            let known = tokens.entry(Key::of(job)).or_default();
            known.retain(|token| token.job != job.uid() || token.queue != *name);
            known.push(Registered {
                job: job.uid().to_owned(),
                queue: name.clone(),
                at: Instant::now(),
            });
        }
        Ok(token)
    }

    /// Revokes the tokens of Jobs of this name that run no more: of all but `running`. One whose
    /// Pods are still on their way out may use its token until they are gone. Returns when to try
    /// again.
    pub(super) async fn revoke_tokens(&self, key: &Key, running: Option<&str>) -> Option<Duration> {
        let known = lock(&self.tokens).remove(key)?;
        let (mut kept, mut again) = (Vec::new(), None);
        for token in known {
            if running == Some(&*token.job) || self.has_live_pods(key, &token.job) {
                kept.push(token);
                continue;
            }
            let revoked = self.service.revoke_token(&token.queue, &token.job).await;
            if let Err(error) = revoked {
                tracing::warn!(%error, job.name = key.name, "a token was not revoked");
                kept.push(token);
                again = Some(self.settings.retry_cap);
            }
        }
        if !kept.is_empty() {
            let mut tokens = lock(&self.tokens);
            tokens.entry(key.clone()).or_default().extend(kept);
        }
        again
    }

    fn has_live_pods(&self, key: &Key, job: &str) -> bool {
        let pods = lock(&self.cluster.pods).owned(key);
        let mut of_job = pods
            .iter()
            .filter(|pod| pod.controller().is_some_and(|owner| owner.uid == job));
        of_job.any(|pod| !pod.is_terminal())
    }
}

fn token_secret(job: &Job, token: String) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(format!("gangline-worker-{}", job.uid())),
            namespace: job.metadata.namespace.clone(),
            owner_references: Some(vec![claim::owner_reference(job)]),
            ..ObjectMeta::default()
        },
        string_data: Some(BTreeMap::from([(SECRET_KEY.to_owned(), token)])),
        ..Secret::default()
    }
}
