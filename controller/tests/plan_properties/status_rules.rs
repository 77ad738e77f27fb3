//! What an API server asks of a status update, rule by rule.
//!
//! Written from the rules alone, and held to the vectors of `validate-status-update`; the plan must
//! never write what this refuses, or the write would be refused again and again.

use std::collections::HashSet;

use gangline_controller::api::{ConditionStatus, Job, JobStatus};
use gangline_controller::plan::indexes::Indexes;
use gangline_controller::plan::tally::completions;

/// Returns the fields that make an API server refuse `new` as the next state of `old`.
pub(crate) fn refused(old: &Job, new: &Job) -> Vec<&'static str> {
    let mut rules = Rules {
        old,
        new,
        refused: Vec::new(),
    };
    rules.counters();
    rules.uncounted();
    rules.conditions();
    rules.times();
    rules.end();
    rules.indexes();
    rules.refused
}

struct Rules<'a> {
    old: &'a Job,
    new: &'a Job,
    refused: Vec<&'static str>,
}

fn has(status: &JobStatus, type_: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|condition| condition.type_ == type_ && condition.status == ConditionStatus::True)
}

fn is_finished(status: &JobStatus) -> bool {
    has(status, "Complete") || has(status, "Failed")
}

impl Rules<'_> {
    fn refuse(&mut self, field: &'static str, when: bool) {
        if when {
            self.refused.push(field);
        }
    }

    fn counters(&mut self) {
        let (old, new) = (&self.old.status, &self.new.status);
        let negative = |counter: Option<i32>| counter.is_some_and(|n| n < 0);
        let less = |new: Option<i32>, old: Option<i32>| new.unwrap_or(0) < old.unwrap_or(0);
        let is_elastic = self.new.is_indexed()
            && self.new.spec.completions.is_some()
            && self.new.spec.completions == self.new.spec.parallelism;
        self.refuse("status.active", negative(new.active));
        self.refuse("status.ready", negative(new.ready));
        self.refuse("status.terminating", negative(new.terminating));
        self.refuse("status.succeeded", negative(new.succeeded));
        self.refuse("status.failed", negative(new.failed));
        let changed = (old.ready, old.active) != (new.ready, new.active);
        self.refuse("status.ready", changed && less(new.active, new.ready));
        self.refuse("status.failed", less(new.failed, old.failed));
        self.refuse(
            "status.succeeded",
            !is_elastic && less(new.succeeded, old.succeeded),
        );
    }

    fn uncounted(&mut self) {
        let list = self.new.status.uncounted_terminated_pods.clone();
        let list = list.unwrap_or_default();
        let mut seen = HashSet::new();
        let all = list.succeeded.iter().chain(&list.failed);
        let is_sound = all
            .into_iter()
            .all(|uid| !uid.is_empty() && seen.insert(uid));
        self.refuse("status.uncountedTerminatedPods", !is_sound);
    }

    fn conditions(&mut self) {
        let (old, new) = (&self.old.status, &self.new.status);
        let field = "status.conditions";
        for final_one in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
            self.refuse(field, has(old, final_one) && !has(new, final_one));
        }
        let comes = |type_: &str| has(new, type_) && !has(old, type_);
        let [complete, failed, met, target] =
            ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"]
                .map(|type_| has(new, type_));
        self.refuse(field, comes("Complete") && !met);
        self.refuse(field, comes("Failed") && !target);
        self.refuse(field, complete && (failed || target));
        self.refuse(field, met && (failed || target));
        self.refuse(field, comes("SuccessCriteriaMet") && has(old, "Complete"));
    }

    fn times(&mut self) {
        let (old, new) = (&self.old.status, &self.new.status);
        let suspended = |job: &Job| job.is_suspended();
        let resumes = has(old, "Suspended") && !has(new, "Suspended");
        self.refuse(
            "status.startTime",
            old.start_time.is_some()
                && old.start_time != new.start_time
                && !suspended(self.new)
                && !resumes,
        );
        let complete = has(new, "Complete");
        let before_start = new
            .completion_time
            .as_ref()
            .zip(new.start_time.as_ref())
            .is_some_and(|(end, start)| end.0 < start.0);
        let field = "status.completionTime";
        let moved = old.completion_time != new.completion_time;
        if moved || complete != has(old, "Complete") {
            self.refuse(field, complete && new.completion_time.is_none());
            self.refuse(field, !complete && new.completion_time.is_some());
        }
        self.refuse(
            field,
            (moved || old.start_time != new.start_time) && before_start,
        );
        self.refuse(field, moved && complete && old.completion_time.is_some());
    }

    fn end(&mut self) {
        let (old, status) = (&self.old.status, &self.new.status);
        if !is_finished(status) {
            return;
        }
        let ends = !is_finished(old);
        let list = status.uncounted_terminated_pods.clone();
        let is_empty_job = self.new.is_suspended() && self.new.spec.completions == Some(0);
        let (active, terminating) = (status.active, status.terminating);
        let has_no_start = status.start_time.is_none() && !is_empty_job;
        self.refuse(
            "status.active",
            (ends || old.active != active) && active.unwrap_or(0) > 0,
        );
        self.refuse(
            "status.terminating",
            (ends || old.terminating != terminating) && terminating.unwrap_or(0) > 0,
        );
        self.refuse(
            "status.uncountedTerminatedPods",
            (ends || old.uncounted_terminated_pods != status.uncounted_terminated_pods)
                && !list.unwrap_or_default().is_empty(),
        );
        self.refuse(
            "status.startTime",
            (ends || old.start_time != status.start_time) && has_no_start,
        );
    }

    fn indexes(&mut self) {
        let (old, new) = (&self.old.status, &self.new.status);
        let all = completions(self.new);
        let completed = new.completed_indexes.as_deref().unwrap_or_default();
        let changed = old.completed_indexes != new.completed_indexes
            || old.failed_indexes != new.failed_indexes;
        if !changed {
            return;
        }
        let is_sound = |text: &str| Indexes::parse(text, all).to_string() == text;
        let is_completed_sound = is_sound(completed);
        self.refuse(
            "status.completedIndexes",
            !(completed.is_empty() || self.new.is_indexed() && is_completed_sound),
        );
        if let Some(failed) = new.failed_indexes.as_deref() {
            let common = Indexes::parse(failed, all).common(&Indexes::parse(completed, all));
            let is_allowed = self.new.has_backoff_limit_per_index();
            self.refuse(
                "status.failedIndexes",
                !is_allowed || !is_sound(failed) || common > 0,
            );
        }
    }
}
