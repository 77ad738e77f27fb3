//! Jobs with queues through their whole lives, as far as a plan alone cannot show it.

use std::time::Duration;

use gangline_controller::Settings;
use gangline_controller::driver::NoService;
use gangline_controller::plan::RetryDelay;
use gangline_protocol::{EndPhase, Phase, QueueUid, SessionId, StopOutcome, Timestamp, WorkerView};
use serde_json::{Value, json};

use super::api::FakeApi;
use super::queue::FakeQueue;
use super::{finish_all, has_condition, job, live, settings, start, start_with};

/// A Job with a queue of `items`, and what else its annotations say.
pub(super) fn with_queue(spec: Value, more: Value) -> Value {
    let mut annotations = json!({ "gangline.dev/queue": "$(job)", "gangline.dev/items": "1..5" });
    for (key, value) in more.as_object().unwrap() {
        annotations[format!("gangline.dev/{key}")] = value.clone();
    }
    job(spec, annotations)
}

pub(super) fn prompt() -> Settings {
    Settings {
        pod_retry_delay: RetryDelay {
            base: Duration::ZERO,
            cap: Duration::ZERO,
        },
        progress_interval: Duration::ZERO,
        ..settings()
    }
}

fn reason_of(api: &FakeApi, type_: &str) -> Option<String> {
    has_condition(api, type_).map(|condition| condition["reason"].as_str().unwrap().to_owned())
}

fn said(api: &FakeApi, reason: &str) -> Option<()> {
    api.event_reasons()
        .iter()
        .any(|said| said == reason)
        .then_some(())
}

fn progress(api: &FakeApi) -> Option<String> {
    let job = api.get("jobs", "work")?;
    let progress = &job["metadata"]["annotations"]["gangline.dev/progress"];
    progress.as_str().map(str::to_owned)
}

/// The workers of these Pods have sessions, and hold so many items each.
fn work(service: &FakeQueue, pods: &[String], holds: u32) {
    let mut state = service.lock();
    state.workers.clear();
    for pod in pods {
        state.workers.push(WorkerView {
            worker: format!("uid-{pod}.main").parse().unwrap(),
            session: SessionId(1),
            holds,
            done: 0,
            opened_at: Timestamp(1),
            idle_since: (holds == 0).then_some(Timestamp(1)),
        });
        state.had_sessions.insert(format!("uid-{pod}.main"));
    }
    state.status.as_mut().unwrap().first_lease_at = Some(Timestamp(1));
}

#[tokio::test]
async fn a_config_map_fills_the_queue_and_one_that_is_missing_is_said() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put(
        "jobs",
        with_queue(json!({}), json!({ "items": "configmap/files" })),
    );
    let running = start(&api, service.clone());
    api.until("said", |api| said(api, "QueueNotFilled")).await;
    assert!(api.pods_made().is_empty());
    api.put(
        "configmaps",
        json!({ "metadata": { "name": "files" }, "data": { "list": "a\nb\nc\n" } }),
    );
    api.until("filled", |_| (service.lock().filled == 1).then_some(()))
        .await;
    api.until("two Pods", |api| live(api, 2)).await;
    assert_eq!(service.lock().status.as_ref().unwrap().counts.ready, 3);
    running.stop().await;
}

#[tokio::test]
async fn the_progress_stands_on_the_job_to_its_end_and_is_in_nobodys_way() {
    for is_refused in [false, true] {
        let (api, service) = (FakeApi::default(), FakeQueue::default());
        if is_refused {
            api.refuse(|_, _, body| {
                let progress = &body["metadata"]["annotations"]["gangline.dev/progress"];
                progress.is_string().then(|| {
                    json!({ "kind": "Status", "status": "Failure", "code": 403, "message": "no" })
                })
            });
        }
        api.put("jobs", with_queue(json!({}), json!({})));
        let running = start_with(&api, service.clone(), prompt());
        let pods = api.until("two Pods", |api| live(api, 2)).await;
        work(&service, &pods, 1);
        {
            let mut state = service.lock();
            let counts = &mut state.status.as_mut().unwrap().counts;
            (counts.ready, counts.leased, counts.done) = (1, 2, 2);
        }
        if !is_refused {
            api.until("progress", |api| {
                progress(api).filter(|text| text == "2/5 done")
            })
            .await;
        }
        service.end(EndPhase::Drained, StopOutcome::Success);
        finish_all(&api, "Complete").await;
        let expected = (!is_refused).then(|| "5/5 done".to_owned());
        assert_eq!(progress(&api), expected);
        running.stop().await;
    }
}

#[tokio::test]
async fn progress_is_written_seldom() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue(json!({}), json!({})));
    let seldom = Settings {
        progress_interval: Duration::from_secs(3_600),
        ..prompt()
    };
    let running = start_with(&api, service.clone(), seldom);
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    api.until("progress", progress).await;
    let before = progress(&api);
    work(&service, &pods, 1);
    service.lock().status.as_mut().unwrap().counts.done = 2;
    // A Pod that fails is counted in a sync that has seen the two items done.
    api.finish(&pods[0], 1);
    api.until("counted", |api| {
        let status = api.get("jobs", "work")?["status"].clone();
        (status["failed"] == 1).then_some(())
    })
    .await;
    assert_eq!(progress(&api), before);
    service.end(EndPhase::Drained, StopOutcome::Success);
    finish_all(&api, "Complete").await;
    assert_eq!(
        progress(&api).as_deref(),
        Some("7/7 done"),
        "the end is always written"
    );
    running.stop().await;
}

#[tokio::test]
async fn fifty_disrupted_pods_do_not_fail_a_job_that_bears_six_failures() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue(json!({ "backoffLimit": 6 }), json!({})));
    let running = start_with(&api, service.clone(), prompt());
    for _ in 0..50 {
        let pods = api.until("a Pod", |api| live(api, 2)).await;
        api.change("pods", &pods[0], |pod| {
            let condition = json!({ "type": "DisruptionTarget", "status": "True" });
            pod["status"] = json!({ "phase": "Failed", "conditions": [condition] });
        });
    }
    api.until("two Pods again", |api| live(api, 2)).await;
    service.end(EndPhase::Drained, StopOutcome::Success);
    finish_all(&api, "Complete").await;
    let status = api.get("jobs", "work").unwrap()["status"].clone();
    assert_eq!(status["failed"], 50, "the counter stays true");
    running.stop().await;
}

#[tokio::test]
async fn peers_that_hang_are_deleted_after_the_drain_time_and_counted_nowhere() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    let quick = json!({ "drain-seconds": "0" });
    api.put("jobs", with_queue(json!({}), quick));
    let running = start(&api, service.clone());
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    work(&service, &pods, 1);
    service.end(EndPhase::Drained, StopOutcome::Success);
    api.until("complete", |api| has_condition(api, "Complete"))
        .await;
    let status = api.get("jobs", "work").unwrap()["status"].clone();
    let counter = |name: &str| status[name].as_u64().unwrap_or(0);
    assert_eq!((counter("succeeded"), counter("failed")), (0, 0));
    assert_eq!(api.all("pods").len(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_queue_without_work_lets_its_idle_pods_go_and_gets_new_ones_with_new_work() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    let quick = json!({ "idle-seconds": "0", "items": null });
    let mut with = with_queue(json!({}), quick);
    with["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("gangline.dev/items");
    api.put("jobs", with);
    let running = start(&api, service.clone());
    api.until("said", |api| said(api, "QueueEmpty")).await;
    assert!(api.pods_made().is_empty(), "no item, no Pod");
    let push = |ready, leased| {
        let mut state = service.lock();
        let counts = &mut state.status.as_mut().unwrap().counts;
        counts.done += counts.ready + counts.leased;
        (counts.ready, counts.leased) = (ready, leased);
    };
    push(9, 0);
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    // One is busy with the last item, the other has nothing.
    push(0, 1);
    work(&service, &pods, 1);
    service.lock().workers[1].holds = 0;
    service.lock().workers[1].idle_since = Some(Timestamp(1));
    let left = api.until("one Pod", |api| live(api, 1)).await;
    assert_eq!(left, pods[..1], "the busy one stays");
    push(0, 0);
    work(&service, &pods[..1], 0);
    api.until("no Pod", |api| live(api, 0)).await;
    push(9, 0);
    api.until("two Pods again", |api| live(api, 2)).await;
    assert_eq!(
        api.get("jobs", "work").unwrap()["status"]["failed"]
            .as_u64()
            .unwrap_or(0),
        0
    );
    running.stop().await;
}

#[tokio::test]
async fn suspension_lets_pods_go_without_counting_an_attempt_and_leaves_the_queue() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue(json!({}), json!({})));
    let running = start(&api, service.clone());
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    work(&service, &pods, 1);
    api.change("jobs", "work", |job| job["spec"]["suspend"] = true.into());
    api.until("no Pod", |api| live(api, 0)).await;
    let revoked = |_: &FakeApi| {
        let revoked = service.lock().revoked.clone();
        (revoked.len() == 2).then_some(revoked)
    };
    let revoked = api.until("revoked", revoked).await;
    assert!(revoked.iter().all(|(_, counted)| !counted));
    assert_eq!(service.lock().status.as_ref().unwrap().phase, Phase::Sealed);
    api.change("jobs", "work", |job| {
        job["spec"]["suspend"] = false.into();
        job["spec"]["parallelism"] = 0.into();
    });
    api.until("resumed", |api| said(api, "Resumed")).await;
    assert_eq!(api.pods_made().len(), 2, "parallelism 0 runs nothing");
    api.change("jobs", "work", |job| job["spec"]["parallelism"] = 2.into());
    api.until("two Pods", |api| live(api, 2)).await;
    service.end(EndPhase::Drained, StopOutcome::Success);
    finish_all(&api, "Complete").await;
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_leaves_too_early_is_replaced_or_stops_all_as_the_job_says() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    let on = json!({ "first-success": "continue" });
    api.put("jobs", with_queue(json!({}), on));
    let running = start(&api, service.clone());
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    work(&service, &pods, 1);
    api.finish(&pods[0], 0);
    api.until("said", |api| said(api, "LeftTooEarly")).await;
    api.until("replaced", |api| (api.pods_made().len() == 3).then_some(()))
        .await;
    service.end(EndPhase::Drained, StopOutcome::Success);
    finish_all(&api, "Complete").await;
    assert_eq!(reason_of(&api, "Complete").unwrap(), "QueueDrained");
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_never_had_a_session_has_failed_whatever_it_exits_with() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue(json!({ "backoffLimit": 1 }), json!({})));
    let running = start_with(&api, service.clone(), prompt());
    for _ in 0..2 {
        let pods = api.until("two Pods", |api| live(api, 2)).await;
        api.finish(&pods[0], 0);
        api.until("said", |api| said(api, "SuccessWithoutWorker"))
            .await;
    }
    api.until("failed", |api| has_condition(api, "Failed"))
        .await;
    assert_eq!(reason_of(&api, "Failed").unwrap(), "BackoffLimitExceeded");
    let status = service.lock().status.clone().unwrap();
    assert_eq!(
        status.phase,
        Phase::Sealed,
        "the next Job goes on with what is left"
    );
    running.stop().await;
}

#[tokio::test]
async fn who_worked_and_who_did_not_is_known_to_a_controller_that_saw_neither() {
    for (has_worked, said_of_it) in [(false, "SuccessWithoutWorker"), (true, "LeftTooEarly")] {
        let (api, service) = (FakeApi::default(), FakeQueue::default());
        let on = json!({ "first-success": "continue" });
        api.put("jobs", with_queue(json!({}), on));
        let running = start_with(&api, service.clone(), prompt());
        let pods = api.until("two Pods", |api| live(api, 2)).await;
        running.kill().await;
        // Both come and go unseen; the queue has given leases either way.
        work(&service, &pods[..1], 1);
        if has_worked {
            let name = format!("uid-{}.main", pods[1]);
            service.lock().had_sessions.insert(name);
        }
        api.finish(&pods[1], 0);
        let running = start_with(&api, service.clone(), prompt());
        api.until("judged", |api| said(api, said_of_it)).await;
        api.until("replaced", |api| live(api, 2)).await;
        let counter = if has_worked { "succeeded" } else { "failed" };
        assert_eq!(api.get("jobs", "work").unwrap()["status"][counter], 1);
        let polls = service.lock().polls;
        let later = |_: &FakeApi| (service.lock().polls > polls + 5).then_some(());
        api.until("some more looks", later).await;
        assert_eq!(service.lock().asked_of_workers, 1, "the answer is final");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_pod_that_works_under_a_name_of_its_users_is_taken_at_its_word() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    let mut with = with_queue(json!({}), json!({ "first-success": "continue" }));
    with["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{ "name": "GANGLINE_WORKER", "value": "mine" }]);
    api.put("jobs", with);
    let running = start_with(&api, service.clone(), prompt());
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    api.finish(&pods[0], 0);
    api.until("judged", |api| said(api, "LeftTooEarly")).await;
    assert_eq!(said(&api, "SuccessWithoutWorker"), None);
    running.stop().await;
}

#[tokio::test]
async fn a_queue_that_is_deleted_or_replaced_fails_the_job() {
    for (is_replaced, reason) in [(false, "QueueDeleted"), (true, "QueueReplaced")] {
        let (api, service) = (FakeApi::default(), FakeQueue::default());
        api.put(
            "jobs",
            with_queue(json!({}), json!({ "drain-seconds": "0" })),
        );
        let running = start(&api, service.clone());
        api.until("two Pods", |api| live(api, 2)).await;
        if is_replaced {
            service.lock().status.as_mut().unwrap().uid = QueueUid(99);
        } else {
            service.lock().status = None;
        }
        api.until("failed", |api| has_condition(api, "Failed"))
            .await;
        assert_eq!(reason_of(&api, "Failed").unwrap(), reason);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_job_of_the_same_name_on_an_old_queue_is_told_so() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue(json!({}), json!({})));
    let running = start(&api, service.clone());
    api.until("two Pods", |api| live(api, 2)).await;
    service.end(EndPhase::Drained, StopOutcome::Success);
    finish_all(&api, "Complete").await;
    let made = api.pods_made().len();
    api.remove("jobs", "work");
    let mut again = with_queue(json!({}), json!({}));
    again["metadata"]["uid"] = "another-uid".into();
    again["metadata"]["creationTimestamp"] = "2099-01-01T00:00:00Z".into();
    api.put("jobs", again);
    api.until("failed", |api| has_condition(api, "Failed"))
        .await;
    assert_eq!(reason_of(&api, "Failed").unwrap(), "QueueAlreadyOver");
    assert_eq!(api.pods_made().len(), made);
    running.stop().await;
}

#[tokio::test]
async fn a_job_that_is_made_anew_within_the_second_of_its_queue_is_told_so_too() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    // Both Jobs and the queue are of the same second.
    let of_that_second = |uid: &str| {
        let mut job = with_queue(json!({}), json!({}));
        job["metadata"]["uid"] = uid.into();
        job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        job
    };
    api.put("jobs", of_that_second("job-uid"));
    let running = start(&api, service.clone());
    api.until("two Pods", |api| live(api, 2)).await;
    {
        let mut state = service.lock();
        let status = state.status.as_mut().unwrap();
        status.created_at = Timestamp(1_767_225_600_200);
    }
    service.end(EndPhase::Drained, StopOutcome::Success);
    {
        let mut state = service.lock();
        let certificate = state.status.as_mut().unwrap().certificate.as_mut();
        certificate.unwrap().ended_at = Timestamp(1_767_225_600_400);
    }
    finish_all(&api, "Complete").await;
    api.remove("jobs", "work");
    api.put("jobs", of_that_second("another-uid"));
    api.until("failed", |api| has_condition(api, "Failed"))
        .await;
    assert_eq!(reason_of(&api, "Failed").unwrap(), "QueueAlreadyOver");
    running.stop().await;
}

#[tokio::test]
async fn two_jobs_that_share_a_queue_both_end_with_it() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue(json!({}), json!({ "queue": "shared" })));
    let mut second = with_queue(json!({}), json!({ "queue": "shared" }));
    second["metadata"]["name"] = "more".into();
    second["metadata"]["uid"] = "more-uid".into();
    second["spec"]["selector"]["matchLabels"]["app"] = "more".into();
    second["spec"]["template"]["metadata"]["labels"]["app"] = "more".into();
    api.put("jobs", second);
    let running = start(&api, service.clone());
    api.until("four Pods", |api| live(api, 4)).await;
    service.end(EndPhase::Drained, StopOutcome::Success);
    let both = |api: &FakeApi| {
        for name in api.live_pods() {
            api.finish(&name, 0);
        }
        let is_over = |name: &str| {
            let job = api.get("jobs", name).unwrap();
            job["status"]["completionTime"].is_string()
        };
        (is_over("work") && is_over("more")).then_some(())
    };
    api.until("both complete", both).await;
    running.stop().await;
}

#[tokio::test]
async fn a_service_that_is_away_in_any_phase_changes_nothing_about_the_end() {
    for phase in ["before", "at work", "after the first success", "draining"] {
        let (api, service) = (FakeApi::default(), FakeQueue::default());
        let away = async |is_away: bool| {
            service.lock().is_away = is_away;
            if is_away {
                api.until("said", |api| said(api, "QueueUnavailable")).await;
            }
        };
        service.lock().is_away = phase == "before";
        api.put("jobs", with_queue(json!({}), json!({})));
        let running = start_with(&api, service.clone(), prompt());
        if phase == "before" {
            away(true).await;
            assert!(api.pods_made().is_empty());
            away(false).await;
        }
        let pods = api.until("two Pods", |api| live(api, 2)).await;
        work(&service, &pods, 1);
        if phase == "at work" {
            away(true).await;
            // Nobody can say whether this failure is the work's: nothing is made for it.
            api.finish(&pods[1], 1);
            let counted = |api: &FakeApi| {
                let job = api.get("jobs", "work")?;
                (job["status"]["failed"] == 1).then_some(())
            };
            api.until("counted", counted).await;
            assert_eq!(api.pods_made().len(), 2, "{phase}");
            away(false).await;
            api.until("replaced", |api| (api.pods_made().len() == 3).then_some(()))
                .await;
        }
        if phase == "after the first success" {
            away(true).await;
            // Nobody can say whether it had worked: it does not count yet.
            api.finish(&pods[0], 0);
            let noticed = |api: &FakeApi| {
                let job = api.get("jobs", "work")?;
                (job["status"]["active"] == 1).then_some(job["status"].clone())
            };
            let status = api.until("noticed", noticed).await;
            assert_eq!(status["succeeded"].as_u64().unwrap_or(0), 0, "{phase}");
            assert_eq!(reason_of(&api, "SuccessCriteriaMet"), None, "{phase}");
            away(false).await;
            api.until("announced", |api| reason_of(api, "SuccessCriteriaMet"))
                .await;
            assert_eq!(api.pods_made().len(), 2, "{phase}");
            finish_all(&api, "Complete").await;
            running.stop().await;
            continue;
        }
        service.end(EndPhase::Drained, StopOutcome::Success);
        api.until("announced", |api| reason_of(api, "SuccessCriteriaMet"))
            .await;
        service.lock().is_away = phase == "draining";
        finish_all(&api, "Complete").await;
        assert_eq!(
            reason_of(&api, "Complete").unwrap(),
            "QueueDrained",
            "{phase}"
        );
        running.stop().await;
    }
}

#[tokio::test]
async fn without_a_service_jobs_with_queues_wait_and_others_run() {
    let api = FakeApi::default();
    api.put("jobs", with_queue(json!({}), json!({})));
    let mut plain = job(json!({}), json!({}));
    plain["metadata"]["name"] = "plain".into();
    plain["metadata"]["uid"] = "plain-uid".into();
    api.put("jobs", plain);
    let running = start(&api, NoService);
    api.until("said", |api| said(api, "QueueUnavailable")).await;
    api.until("two Pods", |api| live(api, 2)).await;
    let owners = api.pods_made();
    assert!(
        owners
            .iter()
            .all(|pod| pod["metadata"]["ownerReferences"][0]["uid"] == "plain-uid")
    );
    running.stop().await;
}
