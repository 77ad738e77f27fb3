//! Each promise about Jobs with queues, and the difference that it makes.

mod annotations;
mod demand;
mod ends;

use gangline_protocol::{Certificate, Counts, EndCause, EndPhase, QueueSettings};
use serde_json::{Value, json};

use super::*;
use crate::plan::account::Outcome;
use crate::plan::{FinalizerFirst, Observed, Plan, Scope, account, plan};

const NOW: &str = "2026-01-01T12:00:00Z";
const UID: QueueUid = QueueUid(7);

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - jiff::SignedDuration::from_secs(seconds)
}

fn wire(time: Timestamp) -> gangline_protocol::Timestamp {
    gangline_protocol::Timestamp(time.as_millisecond() as u64)
}

/// A started Job of parallelism 3 that names queue `images` and has latched it.
fn job(changes: Value) -> Job {
    let mut job = json!({
        "metadata": {
            "name": "resize", "namespace": "default", "uid": "job-uid",
            "creationTimestamp": "2026-01-01T11:00:00Z",
            "annotations": { QUEUE: "images", QUEUE_UID: UID.to_string() },
        },
        "spec": {
            "parallelism": 3, "backoffLimit": 6,
            "managedBy": GANGLINE_CONTROLLER,
            "selector": { "matchLabels": { "app": "resize" } },
            "template": {
                "metadata": { "labels": { "app": "resize" } },
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{ "name": "main", "image": "resize", "command": ["resize"] }],
                },
            },
        },
        "status": { "startTime": "2026-01-01T11:00:00Z" },
    });
    merge(&mut job, changes);
    serde_json::from_value(job).unwrap()
}

fn merge(into: &mut Value, changes: Value) {
    match changes {
        Value::Object(changes) if into.is_object() => {
            for (key, value) in changes {
                if value.is_null() {
                    into.as_object_mut().unwrap().remove(&key);
                } else {
                    merge(&mut into[key.as_str()], value);
                }
            }
        }
        value => *into = value,
    }
}

fn annotated(annotations: Value) -> Job {
    job(json!({ "metadata": { "annotations": annotations } }))
}

/// A tracked Pod of the Job in `phase`, changed.
fn pod(name: &str, phase: &str, changes: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": name,
            "labels": { "app": "resize" },
            "creationTimestamp": "2026-01-01T11:30:00Z",
            "finalizers": ["batch.kubernetes.io/job-tracking"],
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "Job", "name": "resize", "uid": "job-uid",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": { "containers": [{ "name": "main" }], "nodeName": "node" },
        "status": { "phase": phase },
    });
    merge(&mut pod, changes);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn running(name: &str) -> Arc<Pod> {
    pod(name, "Running", json!({}))
}

fn exited(name: &str, code: i32, when: Timestamp) -> Arc<Pod> {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let terminated = json!({ "exitCode": code, "finishedAt": when });
    pod(
        name,
        phase,
        json!({ "status": { "containerStatuses": [
            { "name": "main", "state": { "terminated": terminated } },
        ] } }),
    )
}

fn snapshot(phase: Phase, counts: Counts) -> QueueSnapshot {
    QueueSnapshot {
        status: QueueStatus {
            queue: "images".parse().unwrap(),
            uid: UID,
            phase,
            paused: false,
            counts,
            retried: 0,
            sessions: 0,
            created_at: wire(ago(3_600)),
            first_lease_at: None,
            last_done_at: None,
            rate: None,
            eta_ms: None,
            durability: None,
            settings: QueueSettings::default(),
            certificate: None,
        },
        workers: Vec::new(),
        never_worked: HashSet::new(),
        outlived_a_job: false,
    }
}

fn ready(ready: u64) -> Counts {
    Counts {
        ready,
        ..Counts::default()
    }
}

/// A queue that ended a second ago.
fn over(phase: EndPhase, outcome: StopOutcome, counts: Counts) -> QueueSnapshot {
    let (seen, cause) = match phase {
        EndPhase::Drained => (Phase::Drained, EndCause::Drained),
        EndPhase::Stopped => (Phase::Stopped, EndCause::Stop),
    };
    let mut snapshot = snapshot(seen, counts);
    snapshot.status.certificate = Some(Certificate {
        queue: "images".parse().unwrap(),
        uid: UID,
        phase,
        cause,
        outcome,
        reason: None,
        ended_by: None,
        created_at: wire(ago(3_600)),
        ended_at: wire(ago(1)),
        counts,
        digest: "d1".into(),
        history_uncertain: false,
        durability: None,
    });
    snapshot
}

fn drained() -> QueueSnapshot {
    let counts = Counts {
        done: 9,
        ..Counts::default()
    };
    over(EndPhase::Drained, StopOutcome::Success, counts)
}

fn worker(name: &str, holds: u32, idle_since: Option<Timestamp>) -> WorkerView {
    WorkerView {
        worker: format!("{name}.main").parse().unwrap(),
        session: gangline_protocol::SessionId(1),
        holds,
        done: 0,
        opened_at: wire(ago(900)),
        idle_since: idle_since.map(wire),
    }
}

fn observed(job: Job, pods: Vec<Arc<Pod>>, queue: QueueView) -> Observed {
    Observed {
        job: Arc::new(job),
        pods,
        scope: Scope {
            managed_by: GANGLINE_CONTROLLER,
            unmanaged: false,
        },
        may_adopt: true,
        expectations_met: true,
        removals_in_flight: HashSet::new(),
        backoff: super::super::BackoffRecord::default(),
        retry_delay: super::super::RetryDelay::default(),
        queue,
        gone: Vec::new(),
        forgiven: Forgiven::default(),
        workers: WorkerSettings {
            url: "http://queue:4264".into(),
            token: Some(TokenSecret {
                name: "the-secret".into(),
                key: "token".into(),
            }),
            wrapper: Wrapper::Path("/bin/gangline".into()),
        },
        seed: 1,
    }
}

fn seen(snapshot: QueueSnapshot) -> QueueView {
    QueueView::Seen(Box::new(snapshot))
}

fn planned(job: Job, pods: Vec<Arc<Pod>>, queue: QueueView) -> Plan {
    plan(&observed(job, pods, queue), now())
}

fn created(plan: &Plan) -> usize {
    plan.create.iter().map(Vec::len).sum()
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.events
        .iter()
        .map(|event| event.reason.as_str())
        .collect()
}

fn end_reason(plan: &Plan) -> Option<(bool, &str)> {
    let verdict = &plan.end.as_ref()?.verdict;
    Some((verdict.success, &verdict.reason))
}

fn deleted(plan: &Plan) -> Vec<&str> {
    plan.delete
        .iter()
        .map(|deletion| deletion.pod.name())
        .collect()
}
