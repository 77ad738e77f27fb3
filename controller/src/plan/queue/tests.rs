//! Each promise about Jobs with queues, and the difference that it makes.

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
            settings: QueueSettings::default(),
            certificate: None,
        },
        workers: Vec::new(),
        never_worked: HashSet::new(),
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
        queue,
        gone: Vec::new(),
        forgiven: Forgiven::default(),
        workers: WorkerSettings {
            url: "http://queue:4264".into(),
            token: Some(TokenSource::Value("secret".into())),
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

#[track_caller]
fn refused(annotations: Value, complaint: &str) {
    let error = QueueSpec::of(&annotated(annotations)).unwrap_err();
    assert_eq!(error.to_string(), complaint);
}

#[test]
fn annotations_that_mean_nothing_are_refused_by_name() {
    refused(
        json!({ "gangline.dev/drain-seconds": "soon" }),
        r#"annotation gangline.dev/drain-seconds must be a whole number of seconds, not "soon""#,
    );
    refused(
        json!({ "gangline.dev/first-success": "maybe" }),
        r#"annotation gangline.dev/first-success must be stop or continue, not "maybe""#,
    );
    refused(
        json!({ "gangline.dev/stop-at-dead-items": "0" }),
        r#"annotation gangline.dev/stop-at-dead-items must be a whole number above 0, not "0""#,
    );
    refused(
        json!({ "gangline.dev/items": "9..1" }),
        r#"annotation gangline.dev/items must be FIRST..LAST or configmap/NAME, not "9..1""#,
    );
    refused(
        json!({ "gangline.dev/queue": "other.images" }),
        r#"annotation gangline.dev/queue names a queue in namespace "other", but the Job is in "default""#,
    );
    refused(
        json!({ "gangline.dev/queue": "Images" }),
        "annotation gangline.dev/queue does not name a queue",
    );
    let indexed = job(json!({ "spec": { "completionMode": "Indexed", "completions": 3 } }));
    assert_eq!(QueueSpec::of(&indexed), Err(AnnotationError::Kind));
    let many = job(json!({ "spec": { "completions": 2 } }));
    assert_eq!(QueueSpec::of(&many), Err(AnnotationError::Kind));
}

#[test]
fn annotations_have_defaults_and_the_name_of_the_job_can_be_the_queue() {
    let spec = QueueSpec::of(&annotated(json!({ QUEUE: "$(job)-work" })))
        .unwrap()
        .unwrap();
    assert_eq!(spec.queue.full(), "default.resize-work");
    assert_eq!(spec.first_success, FirstSuccess::Stop);
    assert_eq!((spec.drain.as_secs(), spec.idle.as_secs()), (30, 60));
    assert_eq!((spec.max_dead_items, spec.stop_at_dead_items), (0, None));
    assert!(spec.scale_to_items && !spec.wrap && spec.items.is_none());
    let filled = annotated(json!({ "gangline.dev/items": "1..1000" }));
    let items = QueueSpec::of(&filled).unwrap().unwrap().items;
    assert_eq!(
        items,
        Some(ItemsSource::Range {
            first: 1,
            last: 1_000
        })
    );
}

#[test]
fn a_job_whose_annotations_mean_nothing_is_left_as_it_is() {
    let job = annotated(json!({ "gangline.dev/idle-seconds": "x" }));
    let plan = planned(
        job,
        vec![exited("a", 0, ago(5)), running("b")],
        QueueView::Unread,
    );
    assert_eq!(reasons(&plan), ["InvalidQueueAnnotation"]);
    assert_eq!((created(&plan), plan.delete.len(), plan.end), (0, 0, None));
}

#[test]
fn a_queue_that_is_missing_is_made_before_any_pod() {
    let fresh = annotated(json!({ QUEUE_UID: null }));
    let plan = planned(fresh.clone(), vec![], QueueView::Missing);
    assert_eq!(plan.queue_actions, [QueueAction::Create]);
    assert_eq!(created(&plan), 0);
    let plan = planned(fresh, vec![], seen(snapshot(Phase::Open, ready(9))));
    assert_eq!(plan.queue_actions, [QueueAction::Latch(UID)]);
    assert_eq!(created(&plan), 3);
}

#[test]
fn an_open_queue_is_filled_from_the_annotation_and_a_sealed_one_is_not() {
    let job = annotated(json!({ "gangline.dev/items": "1..4" }));
    let items = ItemsSource::Range { first: 1, last: 4 };
    let plan = planned(job.clone(), vec![], seen(snapshot(Phase::Open, ready(0))));
    assert_eq!(plan.queue_actions, [QueueAction::Fill(items)]);
    assert_eq!(reasons(&plan), [""; 0], "it is about to be filled");
    let plan = planned(job, vec![], seen(snapshot(Phase::Sealed, ready(4))));
    assert_eq!(plan.queue_actions, []);
}

#[test]
fn no_more_pods_are_made_than_items_are_left_unless_told_so() {
    let queue = || seen(snapshot(Phase::Sealed, ready(2)));
    assert_eq!(created(&planned(job(json!({})), vec![], queue())), 2);
    let eager = annotated(json!({ "gangline.dev/scale-to-items": "false" }));
    assert_eq!(created(&planned(eager, vec![], queue())), 3);
    // The cap is on creation: Pods that are there stay.
    let pods = vec![running("a"), running("b"), running("c")];
    let plan = planned(
        job(json!({})),
        pods,
        seen(snapshot(Phase::Sealed, ready(1))),
    );
    assert_eq!(deleted(&plan), [""; 0]);
}

#[test]
fn an_unavailable_service_stops_creation_and_ends_nothing() {
    let view = || QueueView::Unavailable("connection refused".into());
    let failed: Vec<_> = (0..9)
        .map(|n| exited(&format!("f{n}"), 1, ago(5)))
        .collect();
    let plan = planned(job(json!({})), failed.clone(), view());
    assert_eq!(reasons(&plan), ["QueueUnavailable"]);
    assert_eq!((created(&plan), plan.delete.len(), plan.end), (0, 0, None));
    // The same failures end the Job when they are known to be since the last done item.
    let plan = planned(
        job(json!({})),
        failed,
        seen(snapshot(Phase::Sealed, ready(9))),
    );
    assert_eq!(end_reason(&plan), Some((false, "BackoffLimitExceeded")));
}

#[test]
fn a_drained_queue_ends_the_job_before_any_deletion() {
    let observed = observed(
        job(json!({})),
        vec![running("a"), exited("b", 0, ago(1))],
        seen(drained()),
    );
    let plan = plan(&observed, now());
    assert_eq!(end_reason(&plan), Some((true, "QueueDrained")));
    assert_eq!((plan.delete.len(), created(&plan)), (0, 0));
    assert_eq!(plan.requeue_after.unwrap().as_secs(), 30);
    let accounting = account(&observed, &plan, &Outcome::default(), now()).unwrap();
    let condition = &accounting.first.as_ref().unwrap().conditions[0];
    assert_eq!(condition.type_, "SuccessCriteriaMet");
    assert!(
        condition
            .message
            .contains("9 done, 0 dead, 0 cancelled, 0 abandoned; digest d1")
    );
    // The Pod that still runs keeps its finalizer, and the Job waits for it.
    let counted: Vec<&str> = accounting
        .remove_finalizers
        .iter()
        .map(|pod| pod.name())
        .collect();
    assert_eq!(counted, ["b"]);
    let conclusion = accounting.conclude(&HashSet::from(["b".to_owned()]));
    assert_eq!(conclusion.finished, None);
    assert_eq!(conclusion.second.unwrap().succeeded, Some(1));
}

#[test]
fn a_queue_that_is_over_completes_a_job_without_pods_and_a_suspended_one() {
    for changes in [
        json!({}),
        json!({ "spec": { "suspend": true }, "status": { "startTime": null } }),
    ] {
        let observed = observed(job(changes), vec![], seen(drained()));
        let plan = plan(&observed, now());
        let accounting = account(&observed, &plan, &Outcome::default(), now()).unwrap();
        let conclusion = accounting.conclude(&HashSet::new());
        assert_eq!(conclusion.finished.unwrap().type_, "Complete");
        let status = conclusion.second.unwrap();
        assert!(status.completion_time.is_some() && status.start_time.is_some());
    }
}

fn announced(type_: &str, reason: &str, seconds_ago: i64) -> Value {
    json!({ "status": { "conditions": [{
        "type": type_, "status": "True", "reason": reason,
        "lastTransitionTime": ago(seconds_ago),
    }] } })
}

#[test]
fn pods_past_the_drain_time_are_deleted_and_counted_nowhere() {
    let end = |seconds| job(announced("SuccessCriteriaMet", "QueueDrained", seconds));
    let early = planned(end(29), vec![running("a")], seen(drained()));
    assert_eq!(
        (early.delete.len(), early.requeue_after.unwrap().as_secs()),
        (0, 1)
    );
    // Even with the service away: the end stands.
    let late = planned(
        end(30),
        vec![running("a")],
        QueueView::Unavailable("gone".into()),
    );
    assert_eq!(deleted(&late), ["a"]);
    assert_eq!(late.delete[0].finalizer, FinalizerFirst::Remove);
}

#[test]
fn no_exit_of_a_peer_fails_a_job_whose_queue_is_over() {
    let failed: Vec<_> = (0..9)
        .map(|n| exited(&format!("f{n}"), 1, ago(0)))
        .collect();
    let plan = planned(job(json!({})), failed.clone(), seen(drained()));
    assert_eq!(end_reason(&plan), Some((true, "QueueDrained")));
    let ending = job(announced("SuccessCriteriaMet", "QueueDrained", 3));
    let plan = planned(ending, failed, QueueView::Unavailable("gone".into()));
    assert_eq!(end_reason(&plan), Some((true, "QueueDrained")));
}

#[test]
fn dead_items_are_judged_when_the_queue_is_over() {
    let counts = Counts {
        done: 7,
        dead: 2,
        ..Counts::default()
    };
    let queue = || seen(over(EndPhase::Drained, StopOutcome::Success, counts));
    let plan = planned(job(json!({})), vec![], queue());
    assert_eq!(end_reason(&plan), Some((false, "DeadItems")));
    let lenient = annotated(json!({ "gangline.dev/max-dead-items": "2" }));
    let plan = planned(lenient, vec![], queue());
    assert_eq!(end_reason(&plan), Some((true, "QueueDrained")));
    // Before it is over they may still be redriven.
    let plan = planned(
        job(json!({})),
        vec![],
        seen(snapshot(Phase::Sealed, counts)),
    );
    assert_eq!(end_reason(&plan), None);
}

#[test]
fn a_queue_with_too_many_dead_items_is_stopped_early() {
    let counts = Counts {
        dead: 2,
        ready: 5,
        ..Counts::default()
    };
    let job = |limit: &str| annotated(json!({ "gangline.dev/stop-at-dead-items": limit }));
    let plan = planned(job("2"), vec![], seen(snapshot(Phase::Sealed, counts)));
    assert_eq!(
        plan.queue_actions,
        [QueueAction::Stop {
            outcome: StopOutcome::Failure,
            reason: "2 items are dead".into(),
        }]
    );
    assert_eq!(created(&plan), 0);
    let plan = planned(job("3"), vec![], seen(snapshot(Phase::Sealed, counts)));
    assert_eq!((plan.queue_actions.len(), created(&plan)), (0, 3));
}

#[test]
fn a_stopped_queue_ends_the_job_as_it_was_stopped_and_says_what_it_left_behind() {
    let counts = Counts {
        done: 1,
        abandoned: 4,
        ..Counts::default()
    };
    let success = over(EndPhase::Stopped, StopOutcome::Success, counts);
    let plan = planned(job(json!({})), vec![], seen(success));
    assert_eq!(end_reason(&plan), Some((true, "QueueStopped")));
    assert_eq!(reasons(&plan), ["AbandonedItems"]);
    assert!(plan.end.unwrap().verdict.message.contains("4 abandoned"));
    let failure = over(EndPhase::Stopped, StopOutcome::Failure, counts);
    let plan = planned(job(json!({})), vec![], seen(failure));
    assert_eq!(end_reason(&plan), Some((false, "QueueStopped")));
}

#[test]
fn a_queue_that_was_replaced_or_deleted_fails_the_job() {
    let mut other = snapshot(Phase::Open, ready(3));
    other.status.uid = QueueUid(8);
    let plan = planned(job(json!({})), vec![], seen(other));
    assert_eq!(end_reason(&plan), Some((false, "QueueReplaced")));
    let plan = planned(job(json!({})), vec![], QueueView::Missing);
    assert_eq!(end_reason(&plan), Some((false, "QueueDeleted")));
    let mut deleted = over(EndPhase::Stopped, StopOutcome::Success, ready(0));
    deleted.status.certificate.as_mut().unwrap().cause = EndCause::Deleted;
    let plan = planned(job(json!({})), vec![], seen(deleted));
    assert_eq!(end_reason(&plan), Some((false, "QueueDeleted")));
}

#[test]
fn a_queue_that_was_over_before_the_job_was_created_fails_it_at_once() {
    let created = |at: Timestamp| {
        job(json!({ "metadata": {
            "creationTimestamp": at, "annotations": { QUEUE_UID: null },
        } }))
    };
    let plan = planned(created(now()), vec![], seen(drained()));
    assert_eq!(end_reason(&plan), Some((false, "QueueAlreadyOver")));
    let message = plan.end.unwrap().verdict.message;
    assert!(message.contains("`gangline delete queue/images`, or name another queue"));
    // It ended after the Job had been created, before the controller saw it.
    let plan = planned(created(ago(60)), vec![], seen(drained()));
    assert_eq!(end_reason(&plan), Some((true, "QueueDrained")));
    // The Job has seen it alive.
    let plan = planned(job(json!({})), vec![], seen(drained()));
    assert_eq!(end_reason(&plan), Some((true, "QueueDrained")));
    // It was made for the Job, and empty: over within the second of the Job's creation.
    let mut quick = drained();
    quick.status.created_at = wire(now());
    quick.status.certificate.as_mut().unwrap().ended_at = wire(now());
    let plan = planned(created(now()), vec![], seen(quick));
    assert_eq!(end_reason(&plan), Some((true, "QueueDrained")));
}

#[test]
fn the_first_success_stops_creation_and_the_queue_once_the_others_have_settled() {
    let pods = || vec![exited("a", 0, ago(3)), running("b")];
    let leased = |leased| Counts {
        leased,
        ready: 4,
        ..Counts::default()
    };
    let plan = planned(
        job(json!({})),
        pods(),
        seen(snapshot(Phase::Sealed, leased(1))),
    );
    assert_eq!(plan.queue_actions, [QueueAction::Pause]);
    assert_eq!((created(&plan), plan.delete.len()), (0, 0));
    assert_eq!(plan.requeue_after.unwrap().as_secs(), 27);
    let mut settled = snapshot(Phase::Sealed, leased(0));
    settled.status.paused = true;
    let plan = planned(job(json!({})), pods(), seen(settled));
    let stop = QueueAction::Stop {
        outcome: StopOutcome::Success,
        reason: "a exited 0 before the queue was over".into(),
    };
    assert_eq!(plan.queue_actions, [stop]);
    // Those that do not settle are waited for until the drain time is over.
    let late = vec![exited("a", 0, ago(30)), running("b")];
    let plan = planned(
        job(json!({})),
        late,
        seen(snapshot(Phase::Sealed, leased(1))),
    );
    assert!(matches!(plan.queue_actions[1], QueueAction::Stop { .. }));
}

#[test]
fn the_first_success_is_replaced_where_it_means_too_early() {
    let job = annotated(json!({ "gangline.dev/first-success": "continue" }));
    let pods = vec![exited("a", 0, ago(3)), running("b")];
    let plan = planned(
        job.clone(),
        pods.clone(),
        seen(snapshot(Phase::Sealed, ready(9))),
    );
    assert_eq!(reasons(&plan), ["LeftTooEarly"]);
    assert_eq!((created(&plan), plan.queue_actions.len()), (2, 0));
    let last = Counts {
        leased: 1,
        ..Counts::default()
    };
    let plan = planned(job, pods, seen(snapshot(Phase::Sealed, last)));
    assert_eq!(created(&plan), 0, "no item is left for another Pod");
}

#[test]
fn a_success_without_a_worker_is_a_failure() {
    let pods = vec![exited("a", 0, ago(3))];
    let mut queue = snapshot(Phase::Sealed, ready(9));
    let honest = planned(job(json!({})), pods.clone(), seen(queue.clone()));
    assert_eq!(honest.queue_actions[0], QueueAction::Pause);
    queue.never_worked.insert("a".into());
    let observed = observed(job(json!({})), pods, seen(queue));
    let plan = plan(&observed, now());
    assert_eq!(reasons(&plan), ["SuccessWithoutWorker"]);
    assert_eq!(plan.queue_actions, [], "the queue goes on");
    let accounting = account(&observed, &plan, &Outcome::default(), now()).unwrap();
    let lists = accounting.first.unwrap().uncounted_terminated_pods.unwrap();
    assert_eq!((lists.failed.len(), lists.succeeded.len()), (1, 0));
    // A Pod that came when all was done has left rightly.
    let mut late = drained();
    late.never_worked.insert("a".into());
    let plan = planned(job(json!({})), vec![exited("a", 0, ago(3))], seen(late));
    assert_eq!(plan.basis.tally.succeeded, 1);
}

#[test]
fn failures_before_the_last_done_item_do_not_count() {
    let pods = || {
        (0..9)
            .map(|n| exited(&format!("f{n}"), 1, ago(20)))
            .collect::<Vec<_>>()
    };
    let mut queue = snapshot(Phase::Sealed, ready(9));
    queue.status.last_done_at = Some(wire(ago(30)));
    let plan = planned(job(json!({})), pods(), seen(queue.clone()));
    assert_eq!(end_reason(&plan), Some((false, "BackoffLimitExceeded")));
    queue.status.last_done_at = Some(wire(ago(10)));
    let plan = planned(job(json!({})), pods(), seen(queue));
    assert_eq!(end_reason(&plan), None);
    assert_eq!(created(&plan), 3, "and do not delay either");
}

#[test]
fn failures_that_are_not_the_works_do_not_count() {
    let disruption =
        json!({ "status": { "conditions": [{ "type": "DisruptionTarget", "status": "True" }] } });
    for pod in [
        exited("told-to-go", 143, ago(1)),
        exited("service-lost", 69, ago(1)),
        pod("evicted", "Failed", disruption),
    ] {
        let strict = job(json!({ "spec": { "backoffLimit": 0 } }));
        let plan = planned(strict, vec![pod], seen(snapshot(Phase::Sealed, ready(9))));
        assert_eq!((end_reason(&plan), created(&plan)), (None, 3));
    }
    let strict = job(json!({ "spec": { "backoffLimit": 0 } }));
    let crash = vec![exited("crash", 1, ago(1))];
    let plan = planned(strict, crash, seen(snapshot(Phase::Sealed, ready(9))));
    assert_eq!(end_reason(&plan), Some((false, "BackoffLimitExceeded")));
}

#[test]
fn restarts_in_place_are_forgiven_by_progress() {
    let in_place = job(json!({ "spec": {
        "backoffLimit": 3, "template": { "spec": { "restartPolicy": "OnFailure" } },
    } }));
    let restarted = |restarts| {
        let status = json!({ "containerStatuses": [{ "name": "main", "restartCount": restarts }] });
        vec![pod("a", "Running", json!({ "status": status }))]
    };
    let mut queue = snapshot(Phase::Sealed, ready(9));
    let mut observed = observed(in_place, restarted(2), seen(queue.clone()));
    observed.pods = restarted(3);
    assert_eq!(
        end_reason(&plan(&observed, now())),
        Some((false, "BackoffLimitExceeded"))
    );
    queue.status.last_done_at = Some(wire(ago(1)));
    observed.queue = seen(queue);
    let first = plan(&observed, now());
    assert_eq!(end_reason(&first), None);
    observed.forgiven = first.basis.forgiven;
    observed.pods = restarted(5);
    assert_eq!(
        end_reason(&plan(&observed, now())),
        None,
        "two since the last done item"
    );
    observed.pods = restarted(6);
    assert_eq!(
        end_reason(&plan(&observed, now())),
        Some((false, "BackoffLimitExceeded"))
    );
}

#[test]
fn an_idle_pod_that_nobody_needs_is_deleted_and_a_busy_one_never_is() {
    let pods = || vec![running("busy"), running("idle"), running("fresh")];
    let last = Counts {
        leased: 1,
        ..Counts::default()
    };
    let mut queue = snapshot(Phase::Sealed, last);
    queue.workers = vec![
        worker("busy", 1, None),
        worker("idle", 0, Some(ago(60))),
        worker("fresh", 0, Some(ago(59))),
    ];
    let plan = planned(job(json!({})), pods(), seen(queue.clone()));
    assert_eq!(deleted(&plan), ["idle"]);
    assert_eq!(plan.delete[0].finalizer, FinalizerFirst::Remove);
    // As many items as Pods: they are only between two items.
    queue.status.counts = ready(3);
    assert_eq!(
        deleted(&planned(job(json!({})), pods(), seen(queue.clone()))),
        [""; 0]
    );
    queue.status.counts = last;
    let patient = annotated(json!({ "gangline.dev/idle-seconds": "61" }));
    assert_eq!(deleted(&planned(patient, pods(), seen(queue))), [""; 0]);
}

#[test]
fn less_parallelism_spares_the_pods_that_hold_work() {
    let mut queue = snapshot(Phase::Sealed, ready(9));
    queue.workers = vec![
        worker("a", 4, None),
        worker("b", 0, None),
        worker("c", 2, None),
    ];
    let narrow = job(json!({ "spec": { "parallelism": 1 } }));
    let pods = vec![running("a"), running("b"), running("c")];
    assert_eq!(deleted(&planned(narrow, pods, seen(queue))), ["b", "c"]);
}

#[test]
fn sessions_of_dead_pods_are_revoked_and_those_of_pods_on_their_way_out_are_not() {
    let deleting = json!({ "metadata": { "deletionTimestamp": ago(1) } });
    let mut told_to_go = exited("told", 143, ago(1));
    Arc::make_mut(&mut told_to_go).metadata.deletion_timestamp = Some(crate::api::Time(ago(5)));
    let pods = vec![
        exited("crashed", 1, ago(1)),
        told_to_go,
        pod("leaving", "Running", deleting),
    ];
    let mut queue = snapshot(Phase::Sealed, ready(9));
    queue.workers = ["crashed", "told", "leaving", "gone", "stranger"]
        .map(|name| worker(name, 1, None))
        .to_vec();
    let mut observed = observed(job(json!({})), pods, seen(queue));
    observed.gone = vec![GonePod {
        uid: "gone".into(),
        counted: false,
    }];
    let revoked: Vec<(String, bool)> = plan(&observed, now())
        .queue_actions
        .into_iter()
        .filter_map(|action| match action {
            QueueAction::Revoke { worker, counted } => Some((worker.to_string(), counted)),
            _ => None,
        })
        .collect();
    let expected = [
        ("crashed.main", true),
        ("told.main", false),
        ("gone.main", false),
    ];
    assert_eq!(
        revoked,
        expected.map(|(name, counted)| (name.to_owned(), counted))
    );
}

#[test]
fn what_a_job_waits_for_is_said() {
    let plan = planned(
        job(json!({})),
        vec![],
        seen(snapshot(Phase::Open, ready(0))),
    );
    assert_eq!(reasons(&plan), ["QueueEmpty"]);
    let all_done = Counts {
        done: 3,
        ..Counts::default()
    };
    let plan = planned(
        job(json!({})),
        vec![],
        seen(snapshot(Phase::Open, all_done)),
    );
    assert_eq!(reasons(&plan), ["QueueNotSealed"]);
    assert!(plan.events[0].message.contains("`gangline seal images`"));
    let unmanaged = job(json!({ "spec": { "managedBy": null } }));
    let plan = planned(unmanaged, vec![], QueueView::Unread);
    assert_eq!(reasons(&plan), ["NotManaged"]);
}

#[test]
fn pods_learn_how_to_reach_their_queue_and_variables_of_the_user_win() {
    let own = json!({ "spec": { "template": { "spec": { "containers": [{
        "name": "main", "command": ["resize"], "args": ["-q"],
        "env": [{ "name": "GANGLINE_URL", "value": "http://mine" }],
    }] } } } });
    let plan = planned(
        job(own.clone()),
        vec![],
        seen(snapshot(Phase::Sealed, ready(1))),
    );
    let manifest = &plan.create[0][0].manifest;
    let container = &manifest["spec"]["containers"][0];
    let value = |name: &str| {
        let env = container["env"].as_array().unwrap();
        env.iter().find(|entry| entry["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(value("GANGLINE_URL"), "http://mine");
    assert_eq!(value("GANGLINE_QUEUE"), "default.images");
    assert_eq!(value("GANGLINE_TOKEN"), "secret");
    assert_eq!(value("GANGLINE_WORKER"), "$(GANGLINE_POD_UID).main");
    assert_eq!(value("GANGLINE_GRACE_SECONDS"), "30");
    assert_eq!(container["command"], json!(["resize"]));
    let mut wrapped = own;
    merge(
        &mut wrapped,
        json!({ "metadata": { "annotations": { "gangline.dev/wrap": "true" } } }),
    );
    let plan = planned(
        job(wrapped),
        vec![],
        seen(snapshot(Phase::Sealed, ready(1))),
    );
    let command = &plan.create[0][0].manifest["spec"]["containers"][0]["command"];
    assert_eq!(
        *command,
        json!(["/bin/gangline", "work", "--", "resize", "-q"])
    );
}
