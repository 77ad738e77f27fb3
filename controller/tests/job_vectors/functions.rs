//! Vectors of single decisions.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use gangline_controller::api::{Job, JobCondition, OwnerReference, Pod, PodFailurePolicy, Time};
use gangline_controller::plan::failure_policy::{self, Match};
use gangline_controller::plan::indexes::Indexes;
use gangline_controller::plan::orphan::{OwnerJob, must_lose_finalizer};
use gangline_controller::plan::per_index::{self, FailureCounts};
use gangline_controller::plan::{
    BackoffRecord, RetryDelay, backoff, claim, conditions, create, deletion_order as order, size,
    success_policy, tally,
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::same;

type Verdict = Result<(), String>;

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|why| panic!("{why}: {value}"))
}

fn read_or_default<T: DeserializeOwned + Default>(value: &Value) -> T {
    if value.is_null() {
        T::default()
    } else {
        read(value)
    }
}

fn pods(given: &Value) -> Vec<Arc<Pod>> {
    read(&given["pods"])
}

fn times(values: &Value) -> Vec<Timestamp> {
    read(values)
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs_f64(value.as_f64().unwrap())
}

fn uids(value: &Value) -> HashSet<String> {
    read_or_default(value)
}

pub(crate) fn backoff_record(given: &Value, expect: &Value) -> Verdict {
    let previous = match &given["previous"] {
        Value::Null => BackoffRecord::default(),
        record => read_record(record),
    };
    let record = previous.after(
        &times(&given["newSucceededFinishTimes"]),
        &times(&given["newFailedFinishTimes"]),
    );
    same(
        "record",
        &json!(format!("{:?}", read_record(expect))),
        &json!(format!("{record:?}")),
    )
}

pub(crate) fn read_record(record: &Value) -> BackoffRecord {
    BackoffRecord {
        failures_after_last_success: read(&record["failuresAfterLastSuccess"]),
        last_failure: read(&record["lastFailureTime"]),
    }
}

fn retry_delay(given: &Value) -> RetryDelay {
    RetryDelay {
        base: seconds(&given["baseSeconds"]),
        cap: seconds(&given["capSeconds"]),
    }
}

pub(crate) fn backoff_remaining(given: &Value, expect: &Value) -> Verdict {
    let left = retry_delay(given).left(
        given["failures"].as_u64().unwrap(),
        read(&given["lastFailureTime"]),
        read(&given["now"]),
    );
    same(
        "seconds",
        &expect["remainingSeconds"],
        &json!(left.as_secs_f64()),
    )
}

pub(crate) fn backoff_remaining_per_index(given: &Value, expect: &Value) -> Verdict {
    let pod: Option<Pod> = read(&given["lastFailedPod"]);
    let left = retry_delay(given).left_of_index(pod.as_ref(), read(&given["now"]));
    same(
        "seconds",
        &expect["remainingSeconds"],
        &json!(left.as_secs_f64()),
    )
}

pub(crate) fn claim_pods(given: &Value, expect: &Value) -> Verdict {
    let mut job: Job = read(&given["job"]);
    if given["jobDeletingInCache"] == true {
        job.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    }
    let may_adopt = given["jobDeletingInApi"] == false;
    let claim = claim::claim(&job, &pods(given), may_adopt);
    let names = |pods: &mut dyn Iterator<Item = &Arc<Pod>>| -> Value {
        pods.map(|pod| pod.name()).collect()
    };
    same(
        "pods",
        &expect["managedPods"],
        &names(&mut claim.pods.iter()),
    )?;
    let tracked = &mut claim.pods.iter().filter(|pod| pod.is_tracked());
    same(
        "tracked",
        &expect["managedPodsWithFinalizer"],
        &names(tracked),
    )
}

pub(crate) fn completed_indexes(given: &Value, expect: &Value) -> Verdict {
    let mut job = Job::default();
    job.spec.completions = read(&given["completions"]);
    job.status.completed_indexes = read(&given["completedIndexes"]);
    let (before, completed) = tally::completed_indexes(&job, &pods(given));
    same(
        "before",
        &expect["previousIntervals"],
        &json!(before.runs()),
    )?;
    same("intervals", &expect["intervals"], &json!(completed.runs()))?;
    same(
        "text",
        &expect["completedIndexes"],
        &json!(completed.to_string()),
    )?;
    same("succeeded", &expect["succeeded"], &json!(completed.len()))
}

pub(crate) fn condition_upsert(given: &Value, expect: &Value) -> Verdict {
    let mut list: Vec<JobCondition> = read(&given["conditions"]);
    let mut condition: JobCondition = read(&given["set"]);
    condition.last_probe_time = None;
    let changed = conditions::upsert(&mut list, condition);
    same("changed", &expect["changed"], &json!(changed))?;
    same("conditions", &expect["conditions"], &json!(list))
}

pub(crate) fn count_finished_pods(given: &Value, expect: &Value) -> Verdict {
    let job: Job = read(&given["job"]);
    let in_flight = uids(&given["finalizerRemovalsAlreadyInFlight"]);
    let (succeeded, failed) = tally::newly_finished(&job, &pods(given), &in_flight);
    let (succeeded, failed) = tally::effective_counts(&job, &succeeded, &failed);
    same(
        "succeeded",
        &expect["effectiveSucceeded"],
        &json!(succeeded),
    )?;
    same("failed", &expect["effectiveFailed"], &json!(failed))
}

pub(crate) fn delayed_pod_removal(given: &Value, expect: &Value) -> Verdict {
    let job: Job = read(&given["job"]);
    let in_flight = uids(&given["finalizerRemovalsAlreadyInFlight"]);
    let (_, completed) = tally::completed_indexes(&job, &pods(given));
    let settled = completed.union(&per_index::failed_indexes(&job, &pods(given)));
    let kept = per_index::kept_for_replacement(&job, &pods(given), &in_flight, &settled);
    let kept: Value = kept.values().map(|pod| pod.uid()).collect();
    same("kept", &expect["keepFinalizerUids"], &kept)
}

pub(crate) fn deletion_order(given: &Value, expect: &Value) -> Verdict {
    let mut pods = pods(given);
    order::sort(&mut pods);
    let names: Value = pods.iter().map(|pod| pod.name()).collect();
    same("order", &expect["firstDeletedFirst"], &names)
}

pub(crate) fn duplicate_index_removal(given: &Value, expect: &Value) -> Verdict {
    let completions = read(&given["completions"]);
    let (remove, keep) = size::without_right_to_index(&pods(given), completions);
    let shown = |pods: &[Arc<Pod>]| -> BTreeMap<String, usize> {
        let mut shown = BTreeMap::new();
        for pod in pods {
            let index = pod.annotation("batch.kubernetes.io/job-completion-index");
            let text = json!({"index": index, "phase": pod.status.phase}).to_string();
            *shown.entry(text).or_default() += 1;
        }
        shown
    };
    let expected = |list: &Value| -> BTreeMap<String, usize> {
        let mut expected = BTreeMap::new();
        for entry in list.as_array().unwrap() {
            *expected.entry(entry.to_string()).or_default() += 1;
        }
        expected
    };
    same(
        "remove",
        &json!(expected(&expect["remove"])),
        &json!(shown(&remove)),
    )?;
    same(
        "keep",
        &json!(expected(&expect["keep"])),
        &json!(shown(&keep)),
    )
}

pub(crate) fn failed_indexes(given: &Value, expect: &Value) -> Verdict {
    let job: Job = read(&given["job"]);
    let failed = per_index::failed_indexes(&job, &pods(given));
    same("intervals", &expect["intervals"], &json!(failed.runs()))?;
    same("text", &expect["failedIndexes"], &json!(failed.to_string()))
}

pub(crate) fn finished_condition(given: &Value, expect: &Value) -> Verdict {
    let list: Vec<JobCondition> = read(&given["conditions"]);
    let finished = conditions::finished(&list);
    same("finished", &expect["finished"], &json!(finished.is_some()))?;
    same(
        "type",
        &expect["type"],
        &json!(finished.map(|condition| &condition.type_)),
    )
}

pub(crate) fn first_pending_indexes(given: &Value, expect: &Value) -> Verdict {
    let completions = read(&given["completions"]);
    let active: Vec<u32> = read(&given["activeIndexes"]);
    let text = |key: &str| given[key].as_str().unwrap_or_default();
    let taken = Indexes::parse(text("completedIndexes"), completions)
        .union(&Indexes::parse(text("failedIndexes"), completions))
        .with(active);
    let pending = size::lowest_pending(&taken, read(&given["count"]), completions);
    same("indexes", &expect["indexes"], &json!(pending))
}

pub(crate) fn index_failure_count_annotations(given: &Value, expect: &Value) -> Verdict {
    let replaced: Option<Pod> = read(&given["replacedPod"]);
    let counts = FailureCounts::of_replacement(&read(&given["job"]), replaced.as_ref());
    same(
        "counted",
        &expect["indexFailureCount"],
        &json!(counts.counted),
    )?;
    same(
        "ignored",
        &expect["indexIgnoredFailureCount"],
        &json!(counts.ignored),
    )
}

pub(crate) fn index_failure_count_parse(given: &Value, expect: &Value) -> Verdict {
    let count = per_index::parse_count(given["annotation"].as_str());
    same("count", &expect["count"], &json!(count))
}

pub(crate) fn index_is_failed(given: &Value, expect: &Value) -> Verdict {
    let failed = per_index::index_has_failed(&read(&given["job"]), &read(&given["pod"]));
    same("failed", &expect["indexFailed"], &json!(failed))
}

pub(crate) fn interval_contains(given: &Value, expect: &Value) -> Verdict {
    let indexes = Indexes::from_runs(read(&given["intervals"]));
    let contains = indexes.contains(read(&given["index"]));
    same("contains", &expect["contains"], &json!(contains))
}

pub(crate) fn orphan_finalizer(given: &Value, expect: &Value) -> Verdict {
    let owner: Option<OwnerReference> = read(&given["podOwnerReference"]);
    let controller = owner
        .as_ref()
        .filter(|owner| owner.controller == Some(true));
    let job = &given["jobInCache"];
    let manager = job["managedBy"]
        .as_str()
        .or(job["spec"]["managedBy"].as_str());
    let known = match job["metadata"]["uid"].as_str() {
        None => OwnerJob::Missing,
        Some(uid) => OwnerJob::Found {
            uid,
            finished: job["finished"] == true,
            managed_elsewhere: manager.is_some(),
        },
    };
    let must = must_lose_finalizer(controller, known);
    same("remove", &expect["removeFinalizer"], &json!(must))
}

pub(crate) fn per_index_creation_delay(given: &Value, expect: &Value) -> Verdict {
    let candidates: Vec<u32> = read(&given["candidateIndexes"]);
    let last_failed: BTreeMap<u32, Arc<Pod>> = read(&given["lastFailedPodByIndex"]);
    let (due, wait) = per_index::past_their_delay(
        &candidates,
        &last_failed,
        RetryDelay::default(),
        read(&given["now"]),
    );
    same("due", &expect["createIndexesNow"], &json!(due))?;
    let wait = wait.unwrap_or_default().as_secs_f64();
    same("wait", &expect["requeueAfterSeconds"], &json!(wait))
}

pub(crate) fn pod_failure_policy_match(given: &Value, expect: &Value) -> Verdict {
    let policy: Option<PodFailurePolicy> = read(&given["podFailurePolicy"]);
    let matched = failure_policy::matched(policy.as_ref(), &read(&given["pod"]));
    let action = match &matched {
        Match::None => Value::Null,
        Match::Rule { action, .. } => json!(action),
    };
    same("action", &expect["action"], &action)?;
    same(
        "counts",
        &expect["countsAsFailure"],
        &json!(matched.counts()),
    )?;
    same(
        "message",
        &expect["jobFailureMessage"],
        &json!(matched.job_failure()),
    )
}

pub(crate) fn pod_finish_time(given: &Value, expect: &Value) -> Verdict {
    let end = backoff::finish_time(&read(&given["pod"]));
    same(
        "end",
        &json!(read::<Timestamp>(&expect["finishTime"])),
        &json!(end),
    )
}

pub(crate) fn pod_generate_name(given: &Value, expect: &Value) -> Verdict {
    let name = create::generate_name(given["jobName"].as_str().unwrap(), read(&given["index"]));
    same("name", &expect["generateName"], &json!(name))
}

pub(crate) fn success_policy_match(given: &Value, expect: &Value) -> Verdict {
    let completions = read(&given["completions"]);
    let completed = Indexes::parse(given["completedIndexes"].as_str().unwrap(), completions);
    let policy: Option<_> = read(&given["successPolicy"]);
    let message = success_policy::matched(policy.as_ref(), completions, &completed);
    same("met", &expect["met"], &json!(message.is_some()))?;
    same(
        "message",
        &expect["message"],
        &json!(message.unwrap_or_default()),
    )
}
