//! Which Pods belong to a Job.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::names::{JOB_API_VERSION, JOB_KIND, TRACKING_FINALIZER};
use crate::api::{Job, LabelSelector, OwnerReference, Pod};

/// The Pods of a Job, and what has to be written so that they are.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// The Job's Pods, as they are once the adoptions are written.
    pub pods: Vec<Arc<Pod>>,
    /// Pods that get the Job as their owner, and the finalizer.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods that lose both.
    pub release: Vec<Arc<Pod>>,
}

/// Sorts `candidates` into the Job's own, those to adopt, those to release and the rest.
#[must_use]
pub fn claim(job: &Job, candidates: &[Arc<Pod>], may_adopt: bool) -> Claim {
    let mut claim = Claim::default();
    let may_adopt = may_adopt && !job.is_deleting();
    for pod in candidates {
        let matches = selects(job.spec.selector.as_ref(), pod);
        match pod.controller() {
            Some(owner) if !is_owner(job, owner) => {}
            Some(_) if matches => claim.pods.push(Arc::clone(pod)),
            Some(_) => {
                if !job.is_deleting() {
                    claim.release.push(Arc::clone(pod));
                }
            }
            None => {
                if matches && may_adopt && !pod.is_deleting() {
                    claim.adopt.push(Arc::clone(pod));
                    claim.pods.push(Arc::new(adopted(job, pod)));
                }
            }
        }
    }
    claim
}

/// Returns the owner reference that makes a Pod the Job's own.
#[must_use]
pub fn owner_reference(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: JOB_API_VERSION.into(),
        kind: JOB_KIND.into(),
        name: job.name().into(),
        uid: job.uid().into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Tells whether `owner` is this very Job.
#[must_use]
pub fn is_owner(job: &Job, owner: &OwnerReference) -> bool {
    owner.kind == JOB_KIND && owner.name == job.name() && owner.uid == job.uid()
}

/// Tells whether `selector` matches the labels of `pod`. No selector matches nothing.
#[must_use]
pub fn selects(selector: Option<&LabelSelector>, pod: &Pod) -> bool {
    let Some(selector) = selector else {
        return false;
    };
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let exact = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    exact
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && expressions.into_iter().all(|expression| {
            let value = labels.get(&expression.key);
            let listed = value.is_some_and(|value| {
                expression
                    .values
                    .as_ref()
                    .is_some_and(|values| values.contains(value))
            });
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

fn adopted(job: &Job, pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    pod.metadata
        .owner_references
        .get_or_insert_default()
        .push(owner_reference(job));
    if !pod.is_tracked() {
        pod.metadata
            .finalizers
            .get_or_insert_default()
            .push(TRACKING_FINALIZER.into());
    }
    pod
}
