//! What a Job controller says of the Job whose Pods work on a queue.
//!
//! Words and names are those of Kubernetes (`batch/v1` Job, `v1` Pod). Nothing depends on it: it
//! is for whoever looks at a queue and wants to see what stands behind it.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::item::OutOfBounds;
use crate::limits::{JOB_CONDITIONS_MAX, JOB_PODS_MAX, JOB_TEXT_BYTES_MAX};

/// Body of `PUT /v1/queues/{queue}/job`: all that there is to say, each time anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobReport {
    /// The Job's namespace.
    pub namespace: Box<str>,
    /// The Job's name.
    pub name: Box<str>,
    /// The Job's uid.
    pub uid: Box<str>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// How many Pods may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// Whether it has no Pods for now.
    #[serde(default)]
    pub suspended: bool,
    /// Pods that run or wait to run.
    #[serde(default)]
    pub active: u32,
    /// Pods that succeeded.
    #[serde(default)]
    pub succeeded: u32,
    /// Pods that failed.
    #[serde(default)]
    pub failed: u32,
    /// Its conditions.
    #[serde(default)]
    pub conditions: Vec<ConditionReport>,
    /// Its newest Pods, the oldest of them first; at most [`JOB_PODS_MAX`].
    #[serde(default)]
    pub pods: Vec<PodReport>,
    /// Older Pods that are left out.
    #[serde(default)]
    pub pods_omitted: u64,
}

/// A condition of a Job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConditionReport {
    /// Its type, as in `Complete`.
    #[serde(rename = "type")]
    pub type_: Box<str>,
    /// `True`, `False` or `Unknown`.
    pub status: Box<str>,
    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<str>>,
}

/// A Pod of a Job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodReport {
    /// Its name.
    pub name: Box<str>,
    /// Its uid, with which the names of its workers begin.
    pub uid: Box<str>,
    /// Its phase, as in `Running`.
    pub phase: Box<str>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When its first container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When its last container ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When it was told to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// The exit code of the container that failed, else of the one that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it waits or has failed, in one word, as in `ImagePullBackOff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
}

impl JobReport {
    /// Returns the first part that is longer than it may be.
    #[must_use]
    pub fn out_of_bounds(&self) -> Option<OutOfBounds> {
        let bound = |field, len: usize, max: usize, unit| {
            (len > max).then_some(OutOfBounds {
                field,
                value: len as u64,
                min: 0,
                max: max as u64,
                unit,
            })
        };
        let texts = [&self.namespace, &self.name, &self.uid].into_iter();
        let of_conditions = self.conditions.iter().flat_map(|condition| {
            let optional = [&condition.reason, &condition.message];
            let optional = optional.into_iter().flatten();
            [&condition.type_, &condition.status]
                .into_iter()
                .chain(optional)
        });
        let of_pods = self.pods.iter().flat_map(|pod| {
            [&pod.name, &pod.uid, &pod.phase]
                .into_iter()
                .chain(&pod.reason)
        });
        let longest = |texts: &mut dyn Iterator<Item = &Box<str>>| {
            texts.map(|text| text.len()).max().unwrap_or(0)
        };
        let (job, conditions, pods) = (
            longest(&mut texts.into_iter()),
            longest(&mut of_conditions.into_iter()),
            longest(&mut of_pods.into_iter()),
        );
        bound("pods", self.pods.len(), JOB_PODS_MAX, "Pods")
            .or_else(|| {
                let len = self.conditions.len();
                bound("conditions", len, JOB_CONDITIONS_MAX, "conditions")
            })
            .or_else(|| bound("name", job, JOB_TEXT_BYTES_MAX, "bytes"))
            .or_else(|| bound("conditions", conditions, JOB_TEXT_BYTES_MAX, "bytes a text"))
            .or_else(|| bound("pods", pods, JOB_TEXT_BYTES_MAX, "bytes a text"))
    }
}
