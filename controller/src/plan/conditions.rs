//! The conditions of a Job: their reasons and messages, and how they change.

use jiff::Timestamp;

use crate::api::{ConditionStatus, Job, JobCondition, Time};

/// The Job has no Pods for now.
pub const SUSPENDED: &str = "Suspended";
/// The Job will be Failed when its Pods are gone.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// The Job will be Complete when its Pods are gone.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// The Job has failed.
pub const FAILED: &str = "Failed";
/// The Job has succeeded.
pub const COMPLETE: &str = "Complete";

/// Why a Job ends, and what its conditions say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How it ends.
    pub success: bool,
    /// The reason of its conditions.
    pub reason: String,
    /// Their message.
    pub message: String,
}

impl Verdict {
    /// Returns the verdict of a Job that fails.
    #[must_use]
    pub fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self {
            success: false,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// Returns the verdict of a Job that succeeds.
    #[must_use]
    pub fn success(reason: &str, message: impl Into<String>) -> Self {
        Self {
            success: true,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// Returns the condition that announces the end.
    #[must_use]
    pub fn interim(&self, now: Timestamp) -> JobCondition {
        let type_ = if self.success {
            SUCCESS_CRITERIA_MET
        } else {
            FAILURE_TARGET
        };
        new(
            type_,
            ConditionStatus::True,
            &self.reason,
            &self.message,
            now,
        )
    }

    /// Returns the condition that ends the Job.
    #[must_use]
    pub fn terminal(&self, now: Timestamp) -> JobCondition {
        let type_ = if self.success { COMPLETE } else { FAILED };
        new(
            type_,
            ConditionStatus::True,
            &self.reason,
            &self.message,
            now,
        )
    }
}

/// Returns the end that is written down already, if one is: no later test changes it.
#[must_use]
pub fn announced(job: &Job) -> Option<(Verdict, &JobCondition)> {
    [(SUCCESS_CRITERIA_MET, true), (FAILURE_TARGET, false)]
        .into_iter()
        .find_map(|(type_, success)| {
            let condition = find_true(&job.status.conditions, type_)?;
            let verdict = Verdict {
                success,
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            };
            Some((verdict, condition))
        })
}

/// Returns a condition that changes now.
#[must_use]
pub fn new(
    type_: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> JobCondition {
    JobCondition {
        type_: type_.into(),
        status,
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
        reason: reason.into(),
        message: message.into(),
    }
}

/// Puts `condition` into the list and tells whether that changes anything.
///
/// An entry of the same type is changed where it stands; one that would be False is not begun.
pub fn upsert(conditions: &mut Vec<JobCondition>, condition: JobCondition) -> bool {
    match conditions
        .iter_mut()
        .find(|has| has.type_ == condition.type_)
    {
        Some(has) => {
            let differs = has.status != condition.status
                || has.reason != condition.reason
                || has.message != condition.message;
            if differs {
                *has = condition;
            }
            differs
        }
        None if condition.status == ConditionStatus::False => false,
        None => {
            conditions.push(condition);
            true
        }
    }
}

/// Returns the condition `type_` if it holds.
#[must_use]
pub fn find_true<'list>(
    conditions: &'list [JobCondition],
    type_: &str,
) -> Option<&'list JobCondition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == type_ && condition.status == ConditionStatus::True)
}

/// Returns the condition that made the Job finished, if it is.
#[must_use]
pub fn finished(conditions: &[JobCondition]) -> Option<&JobCondition> {
    conditions.iter().find(|condition| {
        matches!(condition.type_.as_str(), COMPLETE | FAILED)
            && condition.status == ConditionStatus::True
    })
}
