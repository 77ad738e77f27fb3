//! `batch/v1` Job.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Uid;

/// A Job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Job {
    /// Name, uid, annotations, times.
    pub metadata: ObjectMeta,
    /// What the user wants.
    pub spec: JobSpec,
    /// What the controller has seen and done.
    pub status: JobStatus,
}

impl Job {
    /// Returns the name, empty when there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the namespace, empty when there is none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Returns the uid, empty when there is none.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Tells whether the Job is on its way out.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Returns the annotation `key`.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(key))
            .map(String::as_str)
    }

    /// Tells whether the Job has one Pod an index.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode == Some(CompletionMode::Indexed)
    }

    /// Tells whether the Job is suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// Tells whether failures are limited index by index.
    #[must_use]
    pub fn has_backoff_limit_per_index(&self) -> bool {
        self.spec.backoff_limit_per_index.is_some()
    }

    /// Tells whether a Pod is replaced only once it has reached a terminal phase.
    ///
    /// A failure policy needs the Pod's exit codes, so its mere presence means the same.
    #[must_use]
    pub fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy == Some(PodReplacementPolicy::Failed)
            || self.spec.pod_failure_policy.is_some()
    }

    /// Returns how many Pods may run at a time.
    #[must_use]
    pub fn parallelism(&self) -> i64 {
        self.spec.parallelism.map_or(1, i64::from)
    }

    /// Returns how many failures the Job bears.
    #[must_use]
    pub fn backoff_limit(&self) -> i64 {
        let absent = if self.has_backoff_limit_per_index() {
            i32::MAX
        } else {
            6
        };
        self.spec.backoff_limit.unwrap_or(absent).into()
    }
}

/// What the user wants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobSpec {
    /// How many Pods may run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<i32>,
    /// How many successes end the Job; absent for a work queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completions: Option<i32>,
    /// Whether Pods have an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_mode: Option<CompletionMode>,
    /// How many failures are borne.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,
    /// How many failures of one index are borne.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_limit_per_index: Option<i32>,
    /// How many indexes may fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failed_indexes: Option<i32>,
    /// How long the Job may be active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// How long the finished Job is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Whether the Job has no Pods for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Who runs the Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// Which Pods belong to the Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// What each kind of failure means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_failure_policy: Option<PodFailurePolicy>,
    /// When the Job is a success before all indexes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,
    /// When a Pod is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_replacement_policy: Option<PodReplacementPolicy>,
    /// What Pods are made from.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub template: Value,
}

/// Whether Pods have an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompletionMode {
    /// Any success counts.
    NonIndexed,
    /// One success an index.
    Indexed,
    /// A mode that this controller does not know.
    #[serde(untagged)]
    Unknown(String),
}

/// When a Pod is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodReplacementPolicy {
    /// As soon as it is on its way out, or has failed.
    TerminatingOrFailed,
    /// Only once it has failed.
    Failed,
    /// A policy that this controller does not know.
    #[serde(other)]
    Unknown,
}

/// What each kind of failure means. The first rule that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodFailurePolicy {
    /// The rules, in order.
    pub rules: Vec<FailurePolicyRule>,
}

/// One rule of a failure policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicyRule {
    /// What a match means.
    pub action: FailurePolicyAction,
    /// Matches by exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exit_codes: Option<OnExitCodes>,
    /// Matches by Pod condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_pod_conditions: Vec<OnPodCondition>,
}

/// What a matching rule means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailurePolicyAction {
    /// The failure is not counted.
    Ignore,
    /// The failure is counted, as without a rule.
    Count,
    /// The index has failed.
    FailIndex,
    /// The Job has failed.
    FailJob,
    /// An action that this controller does not know; its rule is passed over.
    #[serde(untagged)]
    Unknown(String),
}

/// A match by exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnExitCodes {
    /// Only this container; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Whether the code has to be among the values.
    pub operator: ExitCodeOperator,
    /// The codes.
    #[serde(default)]
    pub values: Vec<i32>,
}

/// How an exit code is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCodeOperator {
    /// One of the values.
    In,
    /// None of the values.
    NotIn,
    /// An operator that this controller does not know; it matches nothing.
    #[serde(untagged)]
    Unknown(String),
}

/// A match by Pod condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnPodCondition {
    /// The condition's type.
    #[serde(rename = "type")]
    pub type_: String,
    /// The condition's status.
    #[serde(default)]
    pub status: ConditionStatus,
}

/// The status of a condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    #[default]
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    #[serde(other)]
    Unknown,
}

/// When the Job is a success before all indexes are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SuccessPolicy {
    /// The rules, in order.
    pub rules: Vec<SuccessPolicyRule>,
}

/// One rule of a success policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SuccessPolicyRule {
    /// Of which indexes; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded_indexes: Option<String>,
    /// How many; all of the indexes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded_count: Option<i32>,
}

/// What the controller has seen and done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobStatus {
    /// Conditions in the order of their appearance; foreign types stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<JobCondition>,
    /// When the Job was started, or resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it became Complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Pods that run or wait to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<i32>,
    /// Active Pods that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,
    /// Pods on their way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<i32>,
    /// Pods, or indexes, that succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<i32>,
    /// Pods that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<i32>,
    /// Indexes that succeeded, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_indexes: Option<String>,
    /// Indexes that failed, as text; present as soon as failures are limited index by index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_indexes: Option<String>,
    /// Finished Pods whose finalizer is being removed and that are in no counter yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncounted_terminated_pods: Option<UncountedTerminatedPods>,
}

/// Finished Pods that are in no counter yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UncountedTerminatedPods {
    /// Uids of Pods that succeeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub succeeded: Vec<Uid>,
    /// Uids of Pods that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Uid>,
}

impl UncountedTerminatedPods {
    /// Returns how many Pods are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.succeeded.len() + self.failed.len()
    }

    /// Tells whether no Pod is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A condition of a Job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// When it was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// Why, in one word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}
