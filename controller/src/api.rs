//! The Kubernetes objects as this controller reads and writes them.
//!
//! Views with Kubernetes' own field names: what no decision needs is left out, and a Job's Pod
//! template stays opaque JSON, so that fields of newer versions pass through untouched. Nothing
//! here decides anything.

pub mod job;
pub mod names;
pub mod pod;

pub use job::{
    CompletionMode, ConditionStatus, ExitCodeOperator, FailurePolicyAction, FailurePolicyRule, Job,
    JobCondition, JobSpec, JobStatus, OnExitCodes, OnPodCondition, PodFailurePolicy,
    PodReplacementPolicy, SuccessPolicy, SuccessPolicyRule, UncountedTerminatedPods,
};
pub use pod::{
    Container, ContainerState, ContainerStatus, Pod, PodCondition, PodPhase, PodSpec, PodStatus,
    Terminated,
};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference, Time,
};

/// The identity of an object, as Kubernetes gives it.
pub type Uid = String;
