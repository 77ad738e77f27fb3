//! The token of a Job's workers, from its first Pod to its end.

use gangline_protocol::{EndPhase, StopOutcome};
use serde_json::{Value, json};

use super::api::FakeApi;
use super::queue::FakeQueue;
use super::queues::{prompt, with_queue};
use super::{finish_all, has_condition, job, live, start, start_with};

fn asking() -> FakeQueue {
    let service = FakeQueue::default();
    service.lock().asks_for_tokens = true;
    service
}

fn tokens(service: &FakeQueue) -> Vec<String> {
    service.lock().tokens.iter().cloned().collect()
}

async fn until_no_token(api: &FakeApi, service: &FakeQueue) {
    let revoked = |_: &FakeApi| tokens(service).is_empty().then_some(());
    api.until("revoked", revoked).await;
}

fn token_entry(pod: &Value) -> Value {
    let env = &pod["spec"]["containers"][0]["env"];
    let mut entries = env.as_array().into_iter().flatten();
    let found = entries.find(|entry| entry["name"] == "GANGLINE_TOKEN");
    found.cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_job_has_a_token_of_its_own_in_a_secret_that_it_owns_until_its_end() {
    let (api, service) = (FakeApi::default(), asking());
    // A Job without a queue needs none.
    let mut plain = job(json!({ "parallelism": 1 }), json!({}));
    plain["metadata"]["name"] = "plain".into();
    plain["metadata"]["uid"] = "plain-uid".into();
    api.put("jobs", plain);
    api.put("jobs", with_queue(json!({}), json!({})));
    let running = start_with(&api, service.clone(), prompt());
    let pods = api.until("three Pods", |api| live(api, 3)).await;
    assert_eq!(tokens(&service), ["job-uid"]);
    let secrets = api.all("secrets");
    assert_eq!(secrets.len(), 1, "{secrets:?}");
    let secret = &secrets[0];
    assert_eq!(secret["stringData"]["token"], "token of job-uid");
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "job-uid");
    for pod in api.pods_made() {
        let is_plain = pod["metadata"]["ownerReferences"][0]["uid"] == "plain-uid";
        let place = json!({ "name": secret["metadata"]["name"], "key": "token" });
        let expected = json!({
            "name": "GANGLINE_TOKEN",
            "valueFrom": { "secretKeyRef": place },
        });
        let expected = if is_plain { Value::Null } else { expected };
        assert_eq!(token_entry(&pod), expected);
    }
    service.end(EndPhase::Drained, StopOutcome::Success);
    api.until("announced", |api| has_condition(api, "SuccessCriteriaMet"))
        .await;
    // Peers are on their way out.
    let polls = service.lock().polls;
    let later = |_: &FakeApi| (service.lock().polls > polls + 3).then_some(());
    api.until("more looks", later).await;
    assert_eq!(tokens(&service), ["job-uid"]);
    for pod in pods {
        api.finish(&pod, 0);
    }
    api.until("complete", |api| has_condition(api, "Complete"))
        .await;
    until_no_token(&api, &service).await;
    running.stop().await;
}

#[tokio::test]
async fn the_token_of_a_deleted_job_holds_until_its_last_pod_is_gone() {
    let (api, service) = (FakeApi::default(), asking());
    api.put("jobs", with_queue(json!({}), json!({})));
    let running = start(&api, service.clone());
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    api.remove("jobs", "work");
    let released = |api: &FakeApi| (super::tracked(api) == 0).then_some(());
    api.until("Pods are released", released).await;
    api.remove("pods", &pods[0]);
    // Another Job is looked at after what has happened so far, and has a token of its own.
    let mut other = with_queue(json!({ "parallelism": 1 }), json!({ "queue": "other" }));
    other["metadata"]["uid"] = "another-uid".into();
    api.put("jobs", other);
    let both = |_: &FakeApi| (tokens(&service).len() == 2).then_some(());
    api.until("both have tokens", both).await;
    api.remove("pods", &pods[1]);
    let one = |_: &FakeApi| (tokens(&service) == ["another-uid"]).then_some(());
    api.until("the older one is revoked", one).await;
    running.stop().await;
}

#[tokio::test]
async fn a_token_that_cannot_be_revoked_while_the_service_is_away_is_revoked_later() {
    let (api, service) = (FakeApi::default(), asking());
    api.put("jobs", with_queue(json!({}), json!({})));
    let running = start_with(&api, service.clone(), prompt());
    api.until("two Pods", |api| live(api, 2)).await;
    service.end(EndPhase::Drained, StopOutcome::Success);
    api.until("announced", |api| has_condition(api, "SuccessCriteriaMet"))
        .await;
    service.lock().is_away = true;
    finish_all(&api, "Complete").await;
    assert_eq!(tokens(&service), ["job-uid"]);
    service.lock().is_away = false;
    until_no_token(&api, &service).await;
    running.stop().await;
}

#[tokio::test]
async fn a_controller_that_is_started_again_knows_the_tokens_of_jobs_that_run() {
    let (api, service) = (FakeApi::default(), asking());
    api.put("jobs", with_queue(json!({}), json!({})));
    let running = start_with(&api, service.clone(), prompt());
    api.until("two Pods", |api| live(api, 2)).await;
    running.kill().await;
    // What it never knew of may have ended by itself meanwhile.
    service.lock().tokens.clear();
    let running = start_with(&api, service.clone(), prompt());
    let known = |_: &FakeApi| (tokens(&service) == ["job-uid"]).then_some(());
    api.until("registered again", known).await;
    assert_eq!(api.pods_made().len(), 2);
    service.end(EndPhase::Drained, StopOutcome::Success);
    finish_all(&api, "Complete").await;
    until_no_token(&api, &service).await;
    running.stop().await;
}

#[tokio::test]
async fn without_a_token_no_pod_is_made_and_that_is_said() {
    let (api, service) = (FakeApi::default(), asking());
    api.refuse(|method, plural, _| {
        (method == http::Method::POST && plural == "secrets").then(|| {
            json!({ "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden",
                    "message": "secrets is forbidden: the account may not create them" })
        })
    });
    api.put("jobs", with_queue(json!({}), json!({})));
    let running = start(&api, service.clone());
    let said = |api: &FakeApi| {
        let mut events = api.all("events").into_iter();
        events.find(|event| {
            let message = event["message"].as_str().unwrap_or_default();
            event["reason"] == "JobStuck" && message.contains("secrets is forbidden")
        })
    };
    api.until("said", said).await;
    assert!(api.pods_made().is_empty());
    api.allow();
    api.until("two Pods", |api| live(api, 2)).await;
    running.stop().await;
}
