//! What a Pod's failure means (`podFailurePolicy`).

use crate::api::{
    ExitCodeOperator, FailurePolicyAction, FailurePolicyRule, OnExitCodes, Pod, PodFailurePolicy,
};

/// The verdict of a failure policy on one failed Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// No rule applies.
    None,
    /// A rule applies.
    Rule {
        /// What the rule says.
        action: FailurePolicyAction,
        /// Why, for an action that fails the Job.
        message: String,
    },
}

impl Match {
    /// Tells whether the failure counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        !matches!(
            self,
            Self::Rule {
                action: FailurePolicyAction::Ignore,
                ..
            }
        )
    }

    /// Returns why the Job fails, if it does.
    #[must_use]
    pub fn job_failure(self) -> Option<String> {
        match self {
            Self::Rule {
                action: FailurePolicyAction::FailJob,
                message,
            } => Some(message),
            Self::Rule { .. } | Self::None => None,
        }
    }
}

/// Applies `policy` to a failed Pod: the first rule that matches decides.
#[must_use]
pub fn matched(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Match {
    let Some(policy) = policy else {
        return Match::None;
    };
    policy
        .rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| !matches!(rule.action, FailurePolicyAction::Unknown(_)))
        .find_map(|(position, rule)| {
            let because = reason_to_match(rule, pod)?;
            Some(Match::Rule {
                action: rule.action.clone(),
                message: format!("{because} matching FailJob rule at index {position}"),
            })
        })
        .unwrap_or(Match::None)
}

fn reason_to_match(rule: &FailurePolicyRule, pod: &Pod) -> Option<String> {
    let (namespace, name) = (pod.namespace(), pod.name());
    if let Some(on) = &rule.on_exit_codes {
        let (container, code) = matching_container(on, pod)?;
        return Some(format!(
            "Container {container} for pod {namespace}/{name} failed with exit code {code}"
        ));
    }
    let condition = rule.on_pod_conditions.iter().find(|wanted| {
        pod.status
            .conditions
            .iter()
            .any(|has| has.type_ == wanted.type_ && has.status == wanted.status)
    })?;
    Some(format!(
        "Pod {namespace}/{name} has condition {}",
        condition.type_
    ))
}

fn matching_container<'pod>(on: &OnExitCodes, pod: &'pod Pod) -> Option<(&'pod str, i32)> {
    let status = &pod.status;
    status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .filter(|container| {
            on.container_name
                .as_ref()
                .is_none_or(|name| *name == container.name)
        })
        .filter_map(|container| {
            let ended = container.state.terminated.as_ref()?;
            Some((container.name.as_str(), ended.exit_code))
        })
        .find(|(_, code)| {
            let is_listed = on.values.contains(code);
            *code != 0
                && match on.operator {
                    ExitCodeOperator::In => is_listed,
                    ExitCodeOperator::NotIn => !is_listed,
                    ExitCodeOperator::Unknown(_) => false,
                }
        })
}
