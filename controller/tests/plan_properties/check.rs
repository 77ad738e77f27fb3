//! What must be true of one Job and its Pods at any time.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use gangline_controller::api::names::FIRST_SUCCESS;
use gangline_controller::api::{Pod, PodPhase};
use gangline_controller::plan::conditions;
use gangline_controller::plan::tally::{Tally, completions, has_valid_index};
use gangline_controller::plan::{Plan, QueueView};

use super::World;
use crate::queue::Queue;

impl World {
    /// Holds the counts that every decision is made on against the truth.
    fn check_tally(&self, tally: &Tally) {
        let list = self.job.status.uncounted_terminated_pods.clone();
        let list = list.unwrap_or_default();
        let holds = |uids: &[String], pod: &Pod| uids.iter().any(|uid| uid == pod.uid());
        let tracked = || self.pods.iter().filter(|pod| pod.is_tracked());
        let succeeds = |pod: &&Pod| {
            let is_success = pod.has_succeeded() && self.is_true_success(pod);
            holds(&list.succeeded, pod) || (is_success && !holds(&list.failed, pod))
        };
        let fails = |pod: &&Pod| {
            let is_failure = self.has_failed(pod) || self.is_false_success(pod, &list.succeeded);
            let counts = is_failure && !self.is_ignored(pod) && has_valid_index(&self.job, pod);
            holds(&list.failed, pod) || counts
        };
        if !self.job.is_indexed() {
            let succeeded =
                usize::try_from(self.succeeded).unwrap() + tracked().filter(succeeds).count();
            assert_eq!(
                tally.succeeded, succeeded as u64,
                "successes: tally and truth"
            );
        }
        let failed = usize::try_from(self.failed).unwrap() + tracked().filter(fails).count();
        assert_eq!(tally.failed, failed as u64, "failures: tally and truth");
    }

    /// Tells whether a Pod that exited 0 is known to have worked, where that matters.
    fn is_true_success(&self, pod: &Pod) -> bool {
        let Some(queue) = &self.queue else {
            return true;
        };
        match queue.view(&self.pods) {
            QueueView::Unavailable(_) => conditions::announced(&self.job).is_some(),
            QueueView::Seen(seen) => !seen.never_worked.contains(pod.uid()),
            QueueView::Unread | QueueView::Missing => true,
        }
    }

    fn is_false_success(&self, pod: &Pod, listed: &[String]) -> bool {
        let is_listed = listed.iter().any(|uid| uid == pod.uid());
        let is_away = self.queue.as_ref().is_some_and(Queue::is_away);
        pod.has_succeeded() && !is_listed && !is_away && !self.is_true_success(pod)
    }

    pub(super) fn has_failed(&self, pod: &Pod) -> bool {
        let only_failed = self.job.replaces_only_failed();
        pod.status.phase == Some(PodPhase::Failed) || (!only_failed && pod.is_terminating())
    }

    pub(super) fn is_ignored(&self, pod: &Pod) -> bool {
        self.job.spec.pod_failure_policy.is_some()
            && pod.status.container_statuses.iter().any(|container| {
                let ended = container.state.terminated.as_ref();
                ended.is_some_and(|ended| ended.exit_code == 42)
            })
    }

    pub(super) fn check_plan(&self, plan: &Plan) {
        if plan.skip.is_none() {
            self.check_tally(&plan.basis.tally);
        }
        if let Some(queue) = &self.queue {
            queue.check_plan(&self.job, &self.pods, plan);
        }
        let created = plan.create.iter().map(Vec::len).sum::<usize>();
        assert!(
            created == 0 || plan.delete.is_empty(),
            "Pods are made and deleted at once"
        );
        if created == 0 {
            return;
        }
        assert!(!self.job.is_suspended() && plan.end.is_none());
        let tally = &plan.basis.tally;
        let after = i64::try_from(tally.active.len() + created).unwrap();
        assert!(
            after <= self.job.parallelism(),
            "more Pods than parallelism allows"
        );
        match self.job.spec.completions {
            Some(completions) if self.queue.is_none() => {
                let all = after + i64::try_from(tally.succeeded).unwrap();
                assert!(all <= i64::from(completions), "more Pods than completions");
            }
            Some(_) | None => assert!(
                tally.succeeded == 0 || self.replaces_successes(),
                "a Pod is made after the first success"
            ),
        }
        let indexes = plan
            .create
            .iter()
            .flatten()
            .filter_map(|new| new.slot.index);
        // Where only failed Pods are replaced, one on its way out holds its index too.
        let holds = |pod: &&Arc<Pod>| {
            pod.is_active() || (self.job.replaces_only_failed() && pod.is_terminating())
        };
        let taken: Vec<u32> = tally
            .pods
            .iter()
            .filter(holds)
            .filter_map(|pod| pod.completion_index())
            .chain(indexes)
            .collect();
        let distinct: HashSet<&u32> = taken.iter().collect();
        assert_eq!(distinct.len(), taken.len(), "two Pods of one index");
    }

    /// Tells whether a Pod that leaves before its queue is over has left too early.
    fn replaces_successes(&self) -> bool {
        self.job.annotation(FIRST_SUCCESS) == Some("continue")
    }

    /// The books and the status agree after every step, whatever was stopped where.
    pub(crate) fn check(&self) {
        let status = &self.job.status;
        let list = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let is_tracked = |uid: &&String| {
            self.pods
                .iter()
                .any(|pod| pod.uid() == uid.as_str() && pod.is_tracked())
        };
        let released = |uids: &[String]| {
            i32::try_from(uids.iter().filter(|uid| !is_tracked(uid)).count()).unwrap()
        };
        assert_eq!(
            status.failed.unwrap_or(0) + released(&list.failed),
            self.failed,
            "failures: status and truth"
        );
        if self.job.is_indexed() {
            let completions = completions(&self.job);
            let text = status.completed_indexes.as_deref().unwrap_or_default();
            let completed = gangline_controller::plan::indexes::Indexes::parse(text, completions);
            let known = || {
                self.succeeded_indexes
                    .iter()
                    .filter(|index| **index < completions)
            };
            for index in known() {
                assert!(completed.contains(*index), "index {index} is forgotten");
            }
            let tracked = self
                .pods
                .iter()
                .filter(|pod| pod.is_tracked() && pod.has_succeeded());
            let known = known().copied();
            let true_ones: BTreeSet<u32> = known
                .chain(tracked.filter_map(|pod| pod.completion_index()))
                .collect();
            assert!(
                completed.len() <= true_ones.len() as u64,
                "an index is made up"
            );
        } else {
            assert_eq!(
                status.succeeded.unwrap_or(0) + released(&list.succeeded),
                self.succeeded,
                "successes: status and truth"
            );
        }
    }
}
