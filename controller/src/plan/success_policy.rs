//! When an Indexed Job is a success before all its indexes are (`successPolicy`).

use super::indexes::Indexes;
use crate::api::{SuccessPolicy, SuccessPolicyRule};

/// Returns why the Job is a success, if a rule says so.
#[must_use]
pub fn matched(
    policy: Option<&SuccessPolicy>,
    completions: u32,
    completed: &Indexes,
) -> Option<String> {
    if completed.is_empty() {
        return None;
    }
    let position = policy?
        .rules
        .iter()
        .position(|rule| holds(rule, completions, completed))?;
    Some(format!("Matched rules at index {position}"))
}

fn holds(rule: &SuccessPolicyRule, completions: u32, completed: &Indexes) -> bool {
    let count = rule
        .succeeded_count
        .map(|count| u64::try_from(count).unwrap_or(0));
    match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            !wanted.is_empty() && completed.common(&wanted) >= count.unwrap_or_else(|| wanted.len())
        }
        None => count.is_some_and(|count| completed.len() >= count),
    }
}
