//! How a Job ends with its queue.

use super::*;

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
    assert!(message.contains("`gangline delete images`, or name another queue"));
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
    let plan = planned(created(now()), vec![], seen(quick.clone()));
    assert_eq!(end_reason(&plan), Some((true, "QueueDrained")));
    // It was made for another Job, which is gone; this one was made anew within the same second.
    quick.outlived_a_job = true;
    let plan = planned(created(now()), vec![], seen(quick));
    assert_eq!(end_reason(&plan), Some((false, "QueueAlreadyOver")));
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
fn the_progress_names_what_did_not_go_well() {
    let text = |counts| {
        planned(
            job(json!({})),
            vec![],
            seen(snapshot(Phase::Sealed, counts)),
        )
        .progress
    };
    let counts = Counts {
        done: 730,
        dead: 2,
        leased: 8,
        ready: 260,
        ..Counts::default()
    };
    assert_eq!(text(counts).as_deref(), Some("730/1000 done, 2 dead"));
    assert_eq!(text(ready(3)).as_deref(), Some("0/3 done"));
    // What cannot be seen is not made up.
    let unseen = planned(
        job(json!({})),
        vec![],
        QueueView::Unavailable("away".into()),
    );
    assert_eq!(unseen.progress, None);
}
