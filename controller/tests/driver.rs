//! The driver against a Kubernetes API and a queue service in memory, with faults put in between.

#![expect(clippy::unwrap_used, reason = "what a test has set up is there")]

#[path = "driver/api.rs"]
mod api;
#[path = "driver/faults.rs"]
mod faults;
#[path = "driver/queue.rs"]
mod queue;
#[path = "driver/queues.rs"]
mod queues;
#[path = "driver/tokens.rs"]
mod tokens;

use std::time::Duration;

use api::{FakeApi, Fault};
use gangline_controller::driver::{Candidate, LeadershipLost, NoService};
use gangline_controller::plan::queue::Wrapper;
use gangline_controller::{Controller, QueueService, Settings};
use gangline_protocol::{EndPhase, SessionId, StopOutcome, Timestamp, WorkerView};
use queue::FakeQueue;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A controller that runs until it is stopped.
struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), LeadershipLost>>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Stops it between two calls, as a crash would.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn settings() -> Settings {
    Settings {
        retry_base: Duration::from_millis(5),
        // However often it failed before, it is tried again while a test still waits.
        retry_cap: Duration::from_millis(200),
        queue_poll: Duration::from_millis(5),
        ..Settings::local("http://queue", Wrapper::default())
    }
}

fn start<Q: QueueService>(api: &FakeApi, service: Q) -> Running {
    start_with(api, service, settings())
}

fn start_with<Q: QueueService>(api: &FakeApi, service: Q, settings: Settings) -> Running {
    let controller = Controller::new(api.client(), service, settings);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(controller.run(shutdown.clone()));
    Running { shutdown, task }
}

fn job(spec: Value, annotations: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": "work", "uid": "job-uid", "annotations": annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "parallelism": 2, "backoffLimit": 6,
            "selector": { "matchLabels": { "app": "work" } },
            "template": {
                "metadata": { "labels": { "app": "work" } },
                "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "i" }] },
            },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key.as_str()] = value.clone();
    }
    job
}

fn has_condition(api: &FakeApi, type_: &str) -> Option<Value> {
    let job = api.get("jobs", "work")?;
    let conditions = job["status"]["conditions"].as_array()?;
    let condition = conditions
        .iter()
        .find(|condition| condition["type"] == type_)?;
    Some(condition.clone())
}

fn live(api: &FakeApi, count: usize) -> Option<Vec<String>> {
    let live = api.live_pods();
    (live.len() == count).then_some(live)
}

fn tracked(api: &FakeApi) -> usize {
    let pods = api.all("pods");
    let is_tracked = |pod: &&Value| {
        pod["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty())
    };
    pods.iter().filter(is_tracked).count()
}

/// Ends Pods well, one after the other, until the Job has `type_`.
async fn finish_all(api: &FakeApi, type_: &str) {
    let seen = api.until("anything to do", |api| {
        if has_condition(api, type_).is_some() {
            return Some(());
        }
        for name in api.live_pods() {
            api.finish(&name, 0);
        }
        None
    });
    seen.await;
}

#[tokio::test]
async fn a_job_runs_as_many_pods_as_it_needs_and_counts_each_once() {
    let api = FakeApi::default();
    api.put("jobs", job(json!({ "completions": 3 }), json!({})));
    let running = start(&api, NoService);
    let first = api.until("two Pods", |api| live(api, 2)).await;
    api.finish(&first[0], 0);
    api.until("a third Pod", |api| {
        (api.pods_made().len() == 3).then_some(())
    })
    .await;
    finish_all(&api, "Complete").await;
    let status = api.get("jobs", "work").unwrap()["status"].clone();
    assert_eq!(
        (&status["succeeded"], &status["active"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(api.pods_made().len(), 3);
    assert_eq!(tracked(&api), 0);
    api.until("said", |api| {
        api.event_reasons()
            .contains(&"Completed".into())
            .then_some(())
    })
    .await;
    let created = api
        .event_reasons()
        .iter()
        .filter(|reason| *reason == "SuccessfulCreate")
        .count();
    assert_eq!(created, 3);
    running.stop().await;
}

#[tokio::test]
async fn no_fault_of_any_write_loses_a_pod_or_counts_it_twice() {
    // A Job of three completions takes some twelve writes; each goes wrong in each way once.
    for nth in 0..14 {
        for fault in [Fault::Refused, Fault::ReplyLost] {
            let api = FakeApi::default();
            api.put("jobs", job(json!({ "completions": 3 }), json!({})));
            api.fail(nth, fault);
            let running = start(&api, NoService);
            finish_all(&api, "Complete").await;
            let status = api.get("jobs", "work").unwrap()["status"].clone();
            assert_eq!(status["succeeded"], 3, "write {nth}, {fault:?}");
            assert_eq!(api.pods_made().len(), 3, "write {nth}, {fault:?}");
            assert_eq!(tracked(&api), 0);
            running.stop().await;
        }
    }
}

#[tokio::test]
async fn a_controller_that_is_started_again_goes_on_where_the_last_one_stopped() {
    let api = FakeApi::default();
    api.put("jobs", job(json!({ "completions": 4 }), json!({})));
    for _ in 0..4 {
        let running = start(&api, NoService);
        let made = api.pods_made().len();
        let names = api.until("a Pod", |api| {
            Some(api.live_pods()).filter(|live| !live.is_empty())
        });
        api.finish(&names.await[0], 0);
        let went_on = |api: &FakeApi| {
            let is_done = has_condition(api, "SuccessCriteriaMet").is_some();
            (api.pods_made().len() > made || is_done || api.live_pods().len() < 2).then_some(())
        };
        api.until("progress", went_on).await;
        running.stop().await;
    }
    let running = start(&api, NoService);
    finish_all(&api, "Complete").await;
    let status = api.get("jobs", "work").unwrap()["status"].clone();
    assert_eq!(
        (&status["succeeded"], api.pods_made().len()),
        (&json!(4), 4)
    );
    running.stop().await;
}

#[tokio::test]
async fn another_writer_of_the_job_is_not_overwritten() {
    let api = FakeApi::default();
    api.put("jobs", job(json!({}), json!({})));
    let running = start(&api, NoService);
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    api.change("jobs", "work", |job| {
        job["metadata"]["labels"] = json!({ "mine": "1" });
        job["status"]["conditions"] = json!([{ "type": "Foreign", "status": "True" }]);
    });
    for pod in pods {
        api.finish(&pod, 0);
    }
    api.until("complete", |api| has_condition(api, "Complete"))
        .await;
    assert!(has_condition(&api, "Foreign").is_some());
    assert_eq!(
        api.get("jobs", "work").unwrap()["metadata"]["labels"]["mine"],
        "1"
    );
    running.stop().await;
}

#[tokio::test]
async fn pods_of_a_job_that_is_gone_lose_their_finalizer() {
    let api = FakeApi::default();
    api.put("jobs", job(json!({}), json!({})));
    let running = start(&api, NoService);
    api.until("two Pods", |api| live(api, 2)).await;
    assert_eq!(tracked(&api), 2);
    api.remove("jobs", "work");
    api.until("untracked", |api| (tracked(api) == 0).then_some(()))
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_was_orphaned_loses_its_finalizer() {
    let api = FakeApi::default();
    let finalizers = ["mine", "batch.kubernetes.io/job-tracking"];
    api.put(
        "pods",
        json!({
            "metadata": { "name": "orphan", "uid": "orphan", "finalizers": finalizers },
            "status": { "phase": "Running" },
        }),
    );
    let running = start(&api, NoService);
    let left = |api: &FakeApi| {
        let left = api.get("pods", "orphan")?["metadata"]["finalizers"].clone();
        (left == json!(["mine"])).then_some(())
    };
    api.until("untracked", left).await;
    running.stop().await;
}

#[tokio::test]
async fn a_pod_without_an_owner_is_adopted_and_one_that_no_longer_matches_is_released() {
    let api = FakeApi::default();
    api.put(
        "pods",
        json!({
            "metadata": { "name": "stray", "uid": "stray", "labels": { "app": "work" } },
            "status": { "phase": "Running" },
        }),
    );
    api.put("jobs", job(json!({}), json!({})));
    let running = start(&api, NoService);
    let owner = |api: &FakeApi, name: &str| {
        let owners = &api.get("pods", name)?["metadata"]["ownerReferences"];
        owners[0]["uid"].as_str().map(str::to_owned)
    };
    api.until("adopted", |api| owner(api, "stray")).await;
    api.until("one more Pod", |api| live(api, 2)).await;
    assert_eq!(api.pods_made().len(), 1);
    api.change("pods", "stray", |pod| {
        pod["metadata"]["labels"]["app"] = "other".into();
    });
    api.until("released", |api| {
        owner(api, "stray").is_none().then_some(())
    })
    .await;
    api.until("replaced", |api| (api.pods_made().len() == 2).then_some(()))
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_job_of_somebody_else_is_left_alone() {
    let api = FakeApi::default();
    api.put(
        "jobs",
        job(
            json!({ "managedBy": "somebody.else/controller" }),
            json!({}),
        ),
    );
    let mut own = job(json!({}), json!({}));
    own["metadata"]["name"] = "own".into();
    own["metadata"]["uid"] = "own-uid".into();
    own["spec"]["managedBy"] = "gangline.dev/controller".into();
    api.put("jobs", own);
    let running = start(&api, NoService);
    api.until("two Pods", |api| live(api, 2)).await;
    assert!(
        api.pods_made()
            .iter()
            .all(|pod| { pod["metadata"]["ownerReferences"][0]["uid"] == "own-uid" })
    );
    assert!(api.get("jobs", "work").unwrap()["status"].is_null());
    running.stop().await;
}

fn with_queue() -> Value {
    let annotations = json!({ "gangline.dev/queue": "$(job)", "gangline.dev/items": "1..5" });
    job(json!({}), annotations)
}

#[tokio::test]
async fn one_apply_is_enough_for_a_job_with_a_queue() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue());
    let running = start(&api, service.clone());
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    assert_eq!(service.lock().filled, 1);
    let annotations = &api.get("jobs", "work").unwrap()["metadata"]["annotations"];
    assert!(annotations["gangline.dev/queue-uid"].is_string());
    let env = &api.pods_made()[0]["spec"]["containers"][0]["env"];
    assert!(env.to_string().contains("default.work"));
    service.end(EndPhase::Drained, StopOutcome::Success);
    let announced = api
        .until("announced", |api| has_condition(api, "SuccessCriteriaMet"))
        .await;
    assert_eq!(announced["reason"], "QueueDrained");
    assert_eq!(api.live_pods().len(), 2, "Pods leave by themselves");
    api.finish(&pods[0], 0);
    api.finish(&pods[1], 1);
    api.until("complete", |api| has_condition(api, "Complete"))
        .await;
    let status = api.get("jobs", "work").unwrap()["status"].clone();
    assert_eq!(
        (&status["succeeded"], &status["failed"]),
        (&json!(1), &json!(1))
    );
    running.stop().await;
}

#[tokio::test]
async fn the_first_success_stops_the_queue_and_no_pod_comes_after_it() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue());
    let running = start(&api, service.clone());
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    let worker = format!("uid-{}.main", pods[0]);
    service.lock().had_sessions.insert(worker);
    api.finish(&pods[0], 0);
    let announced = api
        .until("announced", |api| has_condition(api, "SuccessCriteriaMet"))
        .await;
    assert_eq!(announced["reason"], "QueueStopped");
    assert!(
        announced["message"]
            .as_str()
            .unwrap()
            .contains("5 abandoned")
    );
    api.finish(&pods[1], 0);
    api.until("complete", |api| has_condition(api, "Complete"))
        .await;
    assert_eq!(api.pods_made().len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn the_session_of_a_pod_that_died_or_is_gone_is_revoked() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    api.put("jobs", with_queue());
    // Neither is waited for: not the next look at the queue, nor what else happens to Pods.
    let patient = Settings {
        pod_event_batch: Duration::from_secs(3_600),
        queue_poll: Duration::from_secs(3_600),
        ..settings()
    };
    let running = start_with(&api, service.clone(), patient);
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    for pod in &pods {
        service.lock().workers.push(WorkerView {
            worker: format!("uid-{pod}.main").parse().unwrap(),
            session: SessionId(1),
            holds: 1,
            done: 0,
            opened_at: Timestamp(1),
            idle_since: None,
        });
    }
    api.finish(&pods[0], 1);
    let revoked = |name: &str, counted: bool| {
        let (service, entry) = (service.clone(), (format!("uid-{name}.main"), counted));
        move |_: &FakeApi| service.lock().revoked.contains(&entry).then_some(())
    };
    api.until("revoked", revoked(&pods[0], true)).await;
    api.change("pods", &pods[1], |pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into();
    });
    api.remove("pods", &pods[1]);
    api.until("revoked", revoked(&pods[1], false)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_service_that_is_away_holds_everything_until_it_is_back() {
    let (api, service) = (FakeApi::default(), FakeQueue::default());
    service.lock().is_away = true;
    api.put("jobs", with_queue());
    let running = start(&api, service.clone());
    api.until("said", |api| {
        api.event_reasons()
            .contains(&"QueueUnavailable".into())
            .then_some(())
    })
    .await;
    assert_eq!(api.pods_made().len(), 0);
    service.lock().is_away = false;
    api.until("two Pods", |api| live(api, 2)).await;
    running.stop().await;
}

fn candidate(identity: &str) -> Settings {
    Settings {
        candidate: Some(Candidate {
            duration: Duration::from_secs(1),
            period: Duration::from_millis(10),
            ..Candidate::new("default", identity)
        }),
        ..settings()
    }
}

fn leader(api: &FakeApi) -> Option<String> {
    let lease = api.get("leases", "gangline-controller")?;
    let holder = lease["spec"]["holderIdentity"].as_str()?;
    (!holder.is_empty()).then(|| holder.to_owned())
}

#[tokio::test]
async fn of_two_controllers_one_leads_and_the_other_takes_over() {
    let api = FakeApi::default();
    let first = start_with(&api, NoService, candidate("first"));
    api.until("a leader", leader).await;
    let second = start_with(&api, NoService, candidate("second"));
    api.put("jobs", job(json!({}), json!({})));
    api.until("two Pods", |api| live(api, 2)).await;
    assert_eq!(leader(&api).unwrap(), "first");
    first.stop().await;
    api.until("another leader", |api| {
        leader(api).filter(|leader| leader == "second")
    })
    .await;
    finish_all(&api, "Complete").await;
    assert_eq!(api.pods_made().len(), 2);
    second.stop().await;
}

#[tokio::test]
async fn a_leader_whose_lease_was_taken_stops() {
    let api = FakeApi::default();
    let running = start_with(&api, NoService, candidate("first"));
    api.until("a leader", leader).await;
    api.change("leases", "gangline-controller", |lease| {
        lease["spec"]["holderIdentity"] = "somebody".into();
    });
    assert_eq!(running.task.await.unwrap(), Err(LeadershipLost));
}
