//! An API that fails in every way: the end is right each time, and nobody is left in the dark.

use std::time::Duration;

use gangline_controller::Settings;
use gangline_controller::driver::NoService;
use gangline_controller::plan::RetryDelay;
use serde_json::{Value, json};

use super::api::{FakeApi, Fault, next_random};
use super::{Running, finish_all, has_condition, job, live, settings, start, start_with, tracked};

/// Settings for an API that leaves calls unanswered.
fn impatient() -> Settings {
    Settings {
        call_timeout: Duration::from_millis(40),
        ..settings()
    }
}

fn status(api: &FakeApi) -> Value {
    api.get("jobs", "work").unwrap()["status"].clone()
}

/// A Job of three completions ends with three Pods, each counted once.
async fn ends_well(api: &FakeApi, what: &str) {
    finish_all(api, "Complete").await;
    assert_eq!(status(api)["succeeded"], 3, "{what}");
    assert_eq!(status(api)["failed"].as_u64().unwrap_or(0), 0, "{what}");
    assert_eq!(api.pods_made().len(), 3, "{what}");
    assert_eq!(tracked(api), 0, "{what}");
}

#[tokio::test]
async fn a_write_that_is_never_answered_is_given_up_and_found_out_about() {
    let mut tried = 0;
    for nth in 0..14 {
        for fault in [
            Fault::Hangs,
            Fault::HangsAfter,
            Fault::Conflict,
            Fault::Throttled,
        ] {
            let api = FakeApi::default();
            api.put("jobs", job(json!({ "completions": 3 }), json!({})));
            api.fail(nth, fault);
            let running = start_with(&api, NoService, impatient());
            ends_well(&api, &format!("write {nth}, {fault:?}")).await;
            running.stop().await;
            tried += 1;
        }
    }
    println!("{tried} faults of single writes");
}

#[tokio::test]
async fn a_controller_that_is_killed_between_any_two_calls_is_replaced_without_harm() {
    let mut killed = 0;
    for nth in 0..14 {
        for fault in [Fault::Hangs, Fault::HangsAfter] {
            let api = FakeApi::default();
            api.put("jobs", job(json!({ "completions": 3 }), json!({})));
            api.fail(nth, fault);
            let running = start(&api, NoService);
            // Until it hangs in its nth write, or has nothing more to write.
            let hangs = api.until("hanging, or done", |api| {
                for name in api.live_pods() {
                    api.finish(&name, 0);
                }
                let is_done = has_condition(api, "Complete").is_some();
                (api.hanging() > 0 || is_done).then(|| api.hanging() > 0)
            });
            if hangs.await {
                running.kill().await;
                killed += 1;
                let running = start(&api, NoService);
                ends_well(&api, &format!("killed at write {nth}, {fault:?}")).await;
                running.stop().await;
            } else {
                running.stop().await;
            }
        }
    }
    println!("killed at {killed} points");
    assert!(
        killed >= 20,
        "only {killed} kills: the faults miss the writes"
    );
}

#[tokio::test]
async fn a_refusal_after_a_try_without_an_answer_does_not_make_a_second_pod() {
    for unanswered in [Fault::HangsAfter, Fault::ReplyLost] {
        for refusal in [Fault::Refused, Fault::Conflict, Fault::Throttled] {
            let api = FakeApi::default();
            let spec = json!({ "completions": 3, "parallelism": 1 });
            api.put("jobs", job(spec, json!({})));
            api.fail(0, unanswered);
            api.fail(1, refusal);
            // Only a question tells that the first try has made the Pod.
            api.silence(true);
            let running = start_with(&api, NoService, impatient());
            let is_active = |api: &FakeApi| (status(api)["active"] == 1).then_some(());
            api.until("a Pod counted", is_active).await;
            let what = format!("{unanswered:?}, then {refusal:?}");
            assert_eq!(api.pods_made().len(), 1, "{what}");
            api.silence(false);
            ends_well(&api, &what).await;
            running.stop().await;
        }
    }
}

/// Everything at once: late and doubled events, lost watches, faults of writes, kills.
async fn live_in_trouble(seed: u64) {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let api = FakeApi::default();
    let spec = json!({ "completions": 5, "parallelism": 3, "backoffLimit": 1_000 });
    api.put("jobs", job(spec, json!({})));
    api.disturb(seed);
    let settings = || Settings {
        pod_retry_delay: RetryDelay {
            base: Duration::ZERO,
            cap: Duration::ZERO,
        },
        ..impatient()
    };
    let mut running: Running = start_with(&api, NoService, settings());
    let mut failed = 0_u64;
    let mut killed = 0_u64;
    for _ in 0..12 {
        let before = api.writes();
        let fault = match next_random(&mut random) % 8 {
            0 => Fault::Refused,
            1 => Fault::ReplyLost,
            2 => Fault::Conflict,
            3 => Fault::Throttled,
            4 => Fault::Hangs,
            _ => Fault::HangsAfter,
        };
        api.fail((next_random(&mut random) % 3) as usize, fault);
        match next_random(&mut random) % 6 {
            0 => api.lose_watches(false),
            1 => {
                running.kill().await;
                killed += 1;
                running = start_with(&api, NoService, settings());
            }
            _ => {}
        }
        // One Pod ends, somehow.
        let pods = api.until("a Pod, or the end", |api| {
            let live = api.live_pods();
            (!live.is_empty() || has_condition(api, "Complete").is_some()).then_some(live)
        });
        let pods = pods.await;
        if pods.is_empty() {
            break;
        }
        let pod = &pods[(next_random(&mut random) as usize) % pods.len()];
        let code = i32::from(next_random(&mut random).is_multiple_of(3));
        failed += u64::from(code == 1);
        api.finish(pod, code);
        let noticed = |api: &FakeApi| {
            (api.writes() > before || has_condition(api, "Complete").is_some()).then_some(())
        };
        api.until("noticed", noticed).await;
    }
    finish_all(&api, "Complete").await;
    let status = status(&api);
    assert_eq!(status["succeeded"], 5, "seed {seed}");
    assert_eq!(
        status["failed"].as_u64().unwrap_or(0),
        failed,
        "seed {seed}"
    );
    // What a killed controller had on its way may land between the lists of the next one.
    let (made, needed) = (api.pods_made().len() as u64, 5 + failed);
    assert!(
        (needed..=needed + killed).contains(&made),
        "seed {seed}: {made} Pods for {needed}, {killed} controllers killed"
    );
    assert_eq!(tracked(&api), 0, "seed {seed}");
    running.stop().await;
}

#[tokio::test]
async fn all_troubles_at_once_change_nothing_about_the_end() {
    let lives = (0..60).map(live_in_trouble);
    futures::future::join_all(lives).await;
    println!("60 lives in trouble");
}

#[tokio::test]
async fn lost_watches_and_a_history_that_is_gone_are_made_good_by_a_list() {
    let api = FakeApi::default();
    api.put("jobs", job(json!({ "completions": 3 }), json!({})));
    let running = start(&api, NoService);
    let pods = api.until("two Pods", |api| live(api, 2)).await;
    api.go_away(true);
    // Nobody is told of these.
    api.finish(&pods[0], 0);
    api.remove("pods", &pods[1]);
    api.lose_watches(true);
    api.go_away(false);
    // The Pod that vanished is no success: another takes its place.
    finish_all(&api, "Complete").await;
    assert_eq!(status(&api)["succeeded"], 3);
    assert_eq!(api.pods_made().len(), 4);
    running.stop().await;
}

fn forbidden(message: &str) -> Value {
    json!({
        "kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": message,
    })
}

fn messages(api: &FakeApi, reason: &str) -> Vec<String> {
    api.all("events")
        .into_iter()
        .filter(|event| event["reason"] == reason)
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_refusal_is_said_in_the_words_of_the_api_and_not_repeated_in_a_hurry() {
    let api = FakeApi::default();
    let why = "pods is forbidden: exceeded quota: small, requested: pods=1, limited: pods=0";
    api.refuse(move |method, plural, _| {
        (method == "POST" && plural == "pods").then(|| forbidden(why))
    });
    api.put("jobs", job(json!({ "completions": 3 }), json!({})));
    let patient = Settings {
        retry_base: Duration::from_secs(3_600),
        retry_cap: Duration::from_secs(3_600),
        ..settings()
    };
    let running = start_with(&api, NoService, patient);
    let said = |api: &FakeApi| messages(api, "FailedCreate").pop();
    let message = api.until("said", said).await;
    assert_eq!(message, format!("Error creating: {why}"));
    // Another Job lives its whole life meanwhile.
    let mut other = job(json!({}), json!({}));
    other["metadata"]["name"] = "other".into();
    other["metadata"]["uid"] = "other-uid".into();
    api.put("jobs", other);
    api.until("the other one tried", |api| {
        (api.refused() == 2).then_some(())
    })
    .await;
    assert_eq!(messages(&api, "FailedCreate").len(), api.refused().min(2));
    api.allow();
    running.kill().await;
    let running = start(&api, NoService);
    ends_well_as(&api, 3).await;
    running.stop().await;
}

async fn ends_well_as(api: &FakeApi, succeeded: u64) {
    finish_all(api, "Complete").await;
    assert_eq!(status(api)["succeeded"], succeeded);
}

#[tokio::test]
async fn an_api_that_throttles_is_left_alone_for_as_long_as_it_asks() {
    let api = FakeApi::default();
    api.refuse(|method, plural, body| {
        let is_first = body["metadata"]["ownerReferences"][0]["uid"] == "job-uid";
        (method == "POST" && plural == "pods" && is_first).then(|| {
            json!({
                "kind": "Status", "status": "Failure", "reason": "TooManyRequests", "code": 429,
                "message": "the server has received too many requests",
                "details": { "retryAfterSeconds": 3_600 },
            })
        })
    });
    api.put("jobs", job(json!({}), json!({})));
    let running = start(&api, NoService);
    api.until("throttled", |api| (api.refused() > 0).then_some(()))
        .await;
    // By its own back-off of some milliseconds it would have tried again long before this ends.
    let mut other = job(json!({ "completions": 40 }), json!({}));
    other["metadata"]["name"] = "other".into();
    other["metadata"]["uid"] = "other-uid".into();
    api.put("jobs", other);
    let is_complete = |api: &FakeApi| {
        for name in api.live_pods() {
            api.finish(&name, 0);
        }
        let job = api.get("jobs", "other")?;
        job["status"]["completionTime"].as_str().map(drop)
    };
    api.until("the other one complete", is_complete).await;
    assert_eq!(api.refused(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_job_that_does_not_get_ahead_says_why_once() {
    let api = FakeApi::default();
    let why = "jobs.batch \"work\" is forbidden: cannot patch resource \"jobs/status\"";
    api.refuse(move |method, plural, body| {
        (method == "PATCH" && plural == "jobs" && !body["status"].is_null()).then(|| forbidden(why))
    });
    api.put("jobs", job(json!({ "completions": 3 }), json!({})));
    let running = start(&api, NoService);
    let said = |api: &FakeApi| messages(api, "JobStuck").pop();
    let message = api.until("said", said).await;
    assert_eq!(
        message,
        format!("failed to write the status: {why}; it is tried again")
    );
    api.until("tried again", |api| (api.refused() > 6).then_some(()))
        .await;
    assert_eq!(messages(&api, "JobStuck").len(), 1);
    assert_eq!(
        api.pods_made().len(),
        2,
        "no Pod more for a status that cannot be written"
    );
    api.allow();
    ends_well(&api, "allowed at last").await;
    running.stop().await;
}
