//! Which Pods a queue asks for, which failures count, and whose sessions end.

use super::*;

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
    // Nobody knows as long as the service is away: it is counted neither way.
    let away = QueueView::Unavailable("away".into());
    let unknown = super::observed(job(json!({})), vec![exited("a", 0, ago(3))], away);
    let unknown_plan = super::plan(&unknown, now());
    assert_eq!(
        (unknown_plan.basis.tally.succeeded, unknown_plan.end),
        (0, None)
    );
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
    let mut paused = snapshot(Phase::Sealed, ready(3));
    paused.status.paused = true;
    let plan = planned(job(json!({})), vec![], seen(paused.clone()));
    assert_eq!(reasons(&plan), ["QueuePaused"]);
    assert!(plan.events[0].message.contains("`gangline resume images`"));
    // It is this Job that has it paused, until the peers of the first success have settled.
    let first = vec![exited("a", 0, ago(1)), running("b")];
    assert_eq!(
        reasons(&planned(job(json!({})), first, seen(paused))),
        [""; 0]
    );
    let unmanaged = job(json!({ "spec": { "managedBy": null } }));
    let plan = planned(unmanaged, vec![], QueueView::Unread);
    assert_eq!(reasons(&plan), ["NotManaged"]);
}
