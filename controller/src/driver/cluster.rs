//! Calls of the Kubernetes API. Replies go into the cache before anybody plans again.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use super::cache::{Key, Pods, Source, Store};
use super::complaint::{Complaint, NoAnswer};
use super::patch;
use crate::api::names::QUEUE_UID;
use crate::api::{Job, JobStatus, Pod};
use crate::plan::{GonePod, NewPod, queue};

/// How often a creation whose outcome is unknown is repeated, with the same name.
const CREATE_TRIES: usize = 3;
/// How often the removal of a finalizer is tried against a Pod that changes meanwhile.
const UNTRACK_TRIES: usize = 4;

/// The API and what is known of its objects.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) jobs: Arc<Mutex<Store<Job>>>,
    pub(crate) pods: Arc<Mutex<Pods>>,
    call_timeout: Duration,
}

/// What became of a creation.
#[derive(Debug)]
pub(crate) enum Creation {
    /// The Pod is there.
    Created,
    /// It was refused because its namespace is going: nothing to complain about.
    NamespaceTerminating,
    /// It was refused.
    Refused(Complaint),
    /// Nobody knows whether it is there.
    Unknown(Complaint),
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking task leaves behind is whole: each change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(crate) fn new(client: Client, call_timeout: Duration) -> Self {
        Self {
            client,
            call_timeout,
            jobs: Arc::default(),
            pods: Arc::default(),
        }
    }

    fn api<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(
        &self,
        namespace: &str,
    ) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits for a call no longer than it may take.
    async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        tokio::time::timeout(self.call_timeout, call)
            .await
            .unwrap_or_else(|_| {
                let error = NoAnswer(self.call_timeout);
                Err(kube::Error::Service(Box::new(error)))
            })
    }

    fn learn(&self, mut pod: Pod, source: Source) -> Arc<Pod> {
        pod.metadata.managed_fields = None;
        let pod = Arc::new(pod);
        lock(&self.pods).apply(Arc::clone(&pod), source);
        pod
    }

    /// Takes in what became of `before`: others may have changed it in between.
    fn learn_change(&self, before: &Pod, pod: Pod) {
        let is_ours = before.status == pod.status;
        self.learn(pod, if is_ours { Source::Reply } else { Source::Read });
    }

    fn learn_job(&self, mut job: Job, source: Source) -> Arc<Job> {
        job.metadata.managed_fields = None;
        let job = Arc::new(job);
        lock(&self.jobs).apply(Arc::clone(&job), source);
        job
    }

    fn learn_gone(&self, pod: &Pod) {
        let uid = pod.metadata.uid.as_ref();
        lock(&self.pods).remove(&Key::of(pod), uid, Source::Reply);
    }

    /// Reads the Job as the API has it now.
    pub(crate) async fn read_job(&self, key: &Key) -> kube::Result<Option<Arc<Job>>> {
        let api = self.api::<Job>(&key.namespace);
        let job = self.call(api.get_opt(&key.name)).await?;
        Ok(job.map(|job| self.learn_job(job, Source::Read)))
    }

    /// Makes a Pod. The same name is used in each try, so that there is never a second Pod.
    pub(crate) async fn create(&self, job: &Job, new: &NewPod) -> Creation {
        let mut failure = None;
        for _ in 0..CREATE_TRIES {
            let error = match self.post_pod(job.namespace(), &new.manifest).await {
                Ok(pod) => {
                    self.learn(pod, Source::Reply);
                    return Creation::Created;
                }
                Err(error) => error,
            };
            let complaint = Complaint::from(&error);
            let kube::Error::Api(status) = &error else {
                failure = Some(complaint);
                continue;
            };
            let causes = status.details.iter().flat_map(|details| &details.causes);
            if causes
                .into_iter()
                .any(|cause| cause.reason == "NamespaceTerminating")
            {
                return Creation::NamespaceTerminating;
            }
            // A server that gives up may still have made the Pod.
            if status.code >= 500 {
                failure = Some(complaint);
                continue;
            }
            // A refusal, by a quota say, tells nothing of a try before it that was not answered.
            if failure.is_none() && !status.is_already_exists() {
                return Creation::Refused(complaint);
            }
            return match self.find_created(job, &new.name).await {
                Ok(true) => Creation::Created,
                Ok(false) => Creation::Refused(complaint),
                Err(error) => Creation::Unknown((&error).into()),
            };
        }
        failure.map_or(Creation::Created, Creation::Unknown)
    }

    async fn post_pod(&self, namespace: &str, manifest: &Value) -> kube::Result<Pod> {
        let request = Request::new(Pod::url_path(&(), Some(namespace)))
            .create(&PostParams::default(), manifest.to_string().into_bytes())
            .map_err(kube::Error::BuildRequest)?;
        self.call(self.client.request(request)).await
    }

    /// Tells whether the Pod `name` is there and the Job's own.
    pub(crate) async fn find_created(&self, job: &Job, name: &str) -> kube::Result<bool> {
        let api = self.api::<Pod>(job.namespace());
        let pod = self.call(api.get_opt(name)).await?;
        let Some(pod) = pod.map(|pod| self.learn(pod, Source::Read)) else {
            return Ok(false);
        };
        Ok(pod.controller().is_some_and(|owner| owner.uid == job.uid()))
    }

    /// Deletes a Pod; one that is gone already counts as deleted.
    pub(crate) async fn delete(&self, pod: &Pod) -> kube::Result<()> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = self.api::<Pod>(pod.namespace());
        match self.call(api.delete(pod.name(), &params)).await {
            Ok(reply) => {
                match reply.left() {
                    Some(now) => self.learn_change(pod, now),
                    None => self.learn_gone(pod),
                }
                Ok(())
            }
            // Another Pod of that name: this one is gone.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                self.learn_gone(pod);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the tracking finalizer off a Pod; one that is gone has none.
    pub(crate) async fn untrack(&self, pod: &Pod) -> kube::Result<()> {
        let api = self.api::<Pod>(pod.namespace());
        let mut newest = None;
        let mut failure = None;
        for _ in 0..UNTRACK_TRIES {
            let Some(operations) = patch::untrack(newest.as_deref().unwrap_or(pod)) else {
                return Ok(());
            };
            let operations = serde_json::from_value(operations).map_err(kube::Error::SerdeError)?;
            let patch = Patch::Json::<()>(operations);
            let params = PatchParams::default();
            match self.call(api.patch(pod.name(), &params, &patch)).await {
                Ok(reply) => {
                    self.learn_change(pod, reply);
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => {
                    self.learn_gone(pod);
                    return Ok(());
                }
                // The finalizers have moved, or this is another Pod.
                Err(kube::Error::Api(status)) if status.is_invalid() || status.is_conflict() => {
                    failure = Some(kube::Error::Api(status));
                }
                Err(error) => return Err(error),
            }
            match self.call(api.get_opt(pod.name())).await? {
                Some(now) if now.metadata.uid == pod.metadata.uid => {
                    newest = Some(self.learn(now, Source::Read));
                }
                Some(_) | None => {
                    self.learn_gone(pod);
                    return Ok(());
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    pub(crate) async fn adopt(&self, job: &Job, pod: &Pod) -> kube::Result<()> {
        self.merge(pod, &patch::adoption(job, pod)).await
    }

    pub(crate) async fn release(&self, job: &Job, pod: &Pod) -> kube::Result<()> {
        self.merge(pod, &patch::release(job, pod)).await
    }

    async fn merge(&self, pod: &Pod, patch: &Value) -> kube::Result<()> {
        let api = self.api::<Pod>(pod.namespace());
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        match self.call(api.patch(pod.name(), &params, &patch)).await {
            Ok(reply) => {
                self.learn(reply, Source::Reply);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                self.learn_gone(pod);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a Job's status, on top of the version that `job` was read at.
    pub(crate) async fn write_status(
        &self,
        job: &Arc<Job>,
        status: &JobStatus,
    ) -> kube::Result<Arc<Job>> {
        let Some(patch) = patch::status(job, status) else {
            return Ok(Arc::clone(job));
        };
        let api = self.api::<Job>(job.namespace());
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        let reply = self
            .call(api.patch_status(job.name(), &params, &patch))
            .await?;
        Ok(self.learn_job(reply, Source::Reply))
    }

    /// Writes the uid of its queue into a Job.
    pub(crate) async fn latch(&self, job: &Arc<Job>, uid: impl ToString) -> kube::Result<Arc<Job>> {
        let patch = Patch::Merge(json!({ "metadata": {
            "resourceVersion": job.metadata.resource_version,
            "annotations": { QUEUE_UID: uid.to_string() },
        } }));
        self.patch_job(job, &patch, Source::Reply).await
    }

    /// Writes an annotation into a Job, whatever else has changed in it.
    pub(crate) async fn annotate(
        &self,
        job: &Arc<Job>,
        key: &str,
        value: &str,
    ) -> kube::Result<Arc<Job>> {
        let patch = Patch::Merge(json!({ "metadata": {
            "uid": job.uid(),
            "annotations": { key: value },
        } }));
        self.patch_job(job, &patch, Source::Read).await
    }

    async fn patch_job(
        &self,
        job: &Job,
        patch: &Patch<Value>,
        source: Source,
    ) -> kube::Result<Arc<Job>> {
        let api = self.api::<Job>(job.namespace());
        let params = PatchParams::default();
        let reply = self.call(api.patch(job.name(), &params, patch)).await?;
        Ok(self.learn_job(reply, source))
    }

    /// Makes a Secret, or gives one that is there already the same content.
    pub(crate) async fn put_secret(&self, namespace: &str, secret: &Secret) -> kube::Result<()> {
        let api = self.api::<Secret>(namespace);
        match self.call(api.create(&PostParams::default(), secret)).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            answer => return answer.map(drop),
        }
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(json!({ "stringData": secret.string_data }));
        let params = PatchParams::default();
        self.call(api.patch(name, &params, &patch)).await.map(drop)
    }
}

/// Returns what is to be remembered of a Pod whose object is gone.
///
/// One that had not ended was deleted by somebody, this controller perhaps: it did nothing wrong.
pub(crate) fn gone(pod: &Pod) -> GonePod {
    GonePod {
        uid: pod.uid().to_owned(),
        counted: pod.is_terminal() && !queue::workers::is_not_its_fault(pod),
    }
}
