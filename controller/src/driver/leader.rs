//! One controller of several at a time: whoever holds a Lease.
//!
//! Times of other machines are never compared: a Lease is stale when it has not changed for its
//! whole duration by the clock of the one who looks.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::complaint::Complaint;

/// Who takes part in the election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub lease: String,
    /// What nobody else is called.
    pub identity: String,
    /// How long a Lease that is not renewed holds.
    pub duration: Duration,
    /// How often it is renewed, and looked at.
    pub period: Duration,
}

impl Candidate {
    /// Returns a candidate with the times of Kubernetes' own controllers.
    #[must_use]
    pub fn new(namespace: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            lease: "gangline-controller".into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            period: Duration::from_secs(2),
        }
    }
}

/// A candidate in an election.
pub(crate) struct Election {
    candidate: Candidate,
    api: Api<Lease>,
    /// The version of the Lease that was seen last, and since when.
    seen: Option<(Option<String>, Instant)>,
    renewed: Option<Instant>,
}

impl Election {
    pub(crate) fn new(client: &Client, candidate: Candidate) -> Self {
        Self {
            api: Api::namespaced(client.clone(), &candidate.namespace),
            candidate,
            seen: None,
            renewed: None,
        }
    }

    /// Waits until this candidate leads; returns false at shutdown.
    pub(crate) async fn win(&mut self, shutdown: &CancellationToken) -> bool {
        let mut ticks = tokio::time::interval(self.candidate.period);
        loop {
            let leads = async {
                ticks.tick().await;
                self.try_once().await
            };
            tokio::select! {
                () = shutdown.cancelled() => return false,
                leads = leads => if leads { break },
            }
        }
        tracing::info!(
            leader.identity = self.candidate.identity,
            "this controller leads"
        );
        true
    }

    /// Leads until it cannot be sure any more that nobody else does.
    ///
    /// That is two thirds of the Lease's duration after the last renewal, to the moment, even if a
    /// call hangs: what is left is for writes that are on their way.
    pub(crate) async fn hold(&mut self) {
        let mut ticks = tokio::time::interval(self.candidate.period);
        let patience = self.candidate.duration.mul_f64(2.0 / 3.0);
        while let Some(renewed) = self.renewed {
            let renewal = async {
                ticks.tick().await;
                let _ = tokio::time::timeout(patience / 2, self.try_once()).await;
            };
            if tokio::time::timeout_at(renewed + patience, renewal)
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Lets the next one lead at once.
    pub(crate) async fn release(&mut self) {
        let Ok(Some(lease)) = self.api.get_opt(&self.candidate.lease).await else {
            return;
        };
        if holder(&lease) == Some(self.candidate.identity.as_str()) {
            let version = lease.metadata.resource_version.as_deref();
            let patch = on_top_of(version, &json!({ "holderIdentity": "" }));
            let params = PatchParams::default();
            let _ = self.api.patch(&self.candidate.lease, &params, &patch).await;
        }
    }

    /// Takes or renews the Lease if it can be had.
    async fn try_once(&mut self) -> bool {
        let asked = Instant::now();
        match self.take().await {
            Ok(true) => {
                self.renewed = Some(asked);
                true
            }
            Ok(false) => {
                self.renewed = None;
                false
            }
            Err(error) => {
                let why = Complaint::from(&error);
                tracing::warn!("the Lease of the leader cannot be had: {why}");
                false
            }
        }
    }

    async fn take(&mut self) -> kube::Result<bool> {
        let name = self.candidate.lease.clone();
        let Some(lease) = self.api.get_opt(&name).await? else {
            return self.create().await;
        };
        let is_mine = holder(&lease) == Some(self.candidate.identity.as_str());
        if !is_mine && holder(&lease).is_some() && !self.is_stale(&lease) {
            return Ok(false);
        }
        let now = MicroTime(Timestamp::now());
        let mut spec = json!({
            "holderIdentity": self.candidate.identity,
            "leaseDurationSeconds": self.candidate.duration.as_secs().max(1),
            "renewTime": now,
        });
        if !is_mine {
            let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
            let transitions = transitions.unwrap_or(0);
            spec["leaseTransitions"] = transitions.saturating_add(1).into();
            spec["acquireTime"] = json!(now);
        }
        let patch = on_top_of(lease.metadata.resource_version.as_deref(), &spec);
        match self.api.patch(&name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(true),
            // Somebody was faster, which the next look shows.
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create(&mut self) -> kube::Result<bool> {
        let now = MicroTime(Timestamp::now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": self.candidate.lease, "namespace": self.candidate.namespace },
            "spec": {
                "holderIdentity": self.candidate.identity,
                "leaseDurationSeconds": self.candidate.duration.as_secs().max(1),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        });
        let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
        match self.api.create(&PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_stale(&mut self, lease: &Lease) -> bool {
        let version = &lease.metadata.resource_version;
        let seconds = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.candidate.duration, Duration::from_secs);
        match &self.seen {
            Some((seen, since)) if seen == version => since.elapsed() >= duration,
            Some(_) | None => {
                self.seen = Some((version.clone(), Instant::now()));
                false
            }
        }
    }
}

/// Returns the patch that changes the spec of this very version.
fn on_top_of(version: Option<&str>, spec: &Value) -> Patch<Value> {
    Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "spec": spec }))
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}
