//! The Pods' timeline: whatever a controller says, on a cluster or on this machine, is shown.

use gangline_tests::server::TOKEN;
use gangline_tests::{Api, TestServer, browser};
use reqwest::Method;
use serde_json::{Value, json};

use super::{open, patient_queue};

fn pod(name: &str, second: u32, rest: Value) -> Value {
    let mut pod = json!({
        "name": name, "uid": format!("uid-{name}"), "phase": "Running",
        "createdAt": format!("2026-01-01T00:00:{second:02}Z"),
        "startedAt": format!("2026-01-01T00:00:{:02}Z", second + 1),
    });
    for (field, value) in rest.as_object().unwrap() {
        pod[field] = value.clone();
    }
    pod
}

#[tokio::test]
async fn the_pods_of_a_job_have_a_lane_each_with_what_became_of_them() {
    if browser::is_missing() {
        return;
    }
    let server = TestServer::start().await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = patient_queue(&api).await;
    queue.push(&[json!(1), json!(2), json!(3)]).await;
    let oom = queue.open("uid-oom.main", 1).await;
    oom.settle(0, json!({"outcome": "dead", "error": "no memory"}))
        .await;
    let _busy = queue.open("uid-busy.main", 1).await;
    let pods = json!([
        pod(
            "oom",
            1,
            json!({"phase": "Failed", "endedAt": "2026-01-01T00:00:05Z",
            "exitCode": 137, "reason": "OOMKilled"})
        ),
        pod(
            "good",
            1,
            json!({"phase": "Succeeded", "endedAt": "2026-01-01T00:00:08Z", "exitCode": 0})
        ),
        pod("busy", 2, json!({})),
        pod(
            "new",
            9,
            json!({"phase": "Pending", "startedAt": null, "reason": "<i>Waits</i>"})
        ),
    ]);
    let report = json!({"namespace": "team", "name": "thumbs", "uid": "j", "parallelism": 3,
        "active": 2, "succeeded": 1, "failed": 1, "pods": pods, "podsOmitted": 7});
    let path = format!("/v1/queues/{}/job", queue.name);
    api.call(Method::PUT, &path, Some(report.clone()))
        .await
        .ok();
    let mut page = open(&server.url, &queue.name, TOKEN).await;
    page.until_there_are(4, "[data-is=pods] tr[data-pod] svg")
        .await;
    let fate = async |page: &mut gangline_tests::Browser, pod: &str| {
        page.text(&format!("tr[data-pod={pod}] .fate")).await
    };
    assert_eq!(fate(&mut page, "oom").await, "OOMKilled, exit 137");
    assert_eq!(fate(&mut page, "good").await, "succeeded");
    assert_eq!(fate(&mut page, "busy").await, "works on 1");
    assert_eq!(fate(&mut page, "new").await, "<i>Waits</i>");
    let job = page.text("[data-is=job]").await;
    assert!(
        job.starts_with("team/thumbs · 2 active · 1 succeeded · 1 failed"),
        "{job}"
    );
    page.until_contains("[data-is=pods]", "7 older ones are not shown")
        .await;
    // The mark of the first success is on every lane, and what runs on after it drains.
    page.until_there_are(4, "[data-is=pods] svg .first").await;
    page.until_there_are(1, "tr[data-pod=busy] .drains").await;
    page.until_there_are(1, "tr[data-pod=oom] .failed").await;
    // What a lane shows is said, too, and more of the Pod at a click.
    let label = "document.querySelector('tr[data-pod=oom] svg').getAttribute('aria-label')";
    let label = page.evaluate(label).await;
    let label = label.as_str().unwrap();
    assert!(label.starts_with("created at "), "{label}");
    assert!(
        label.contains("failed: OOMKilled, exit code 137 at "),
        "{label}"
    );
    page.click("tr[data-pod=busy] button").await;
    page.until_contains("dialog", "first success of a peer")
        .await;
    page.until_contains("dialog", "gangline logs pod/busy -n team")
        .await;
    page.evaluate("document.querySelector('dialog').close()")
        .await;
    // The worker is called by its Pod.
    page.until_contains(super::WORKERS, "busy\t0\t2").await;
    // What an item died of is in the log of the Pod that had it.
    page.click("[data-is=dead] .names button").await;
    page.until_contains("[data-is=attempts]", "failed for good, Pod exit 137")
        .await;
    page.until_contains("dialog .command", "kubectl -n team logs oom -c main")
        .await;
    page.evaluate("document.querySelector('dialog').close()")
        .await;
    page.until_there_are(0, "dialog").await;
    // How many Pods work is for the Job to say.
    page.click("[data-action=scale]").await;
    let command =
        "kubectl -n team patch job thumbs --type merge -p '{\"spec\":{\"parallelism\":3}}'";
    page.until_contains("dialog .command", command).await;
    page.evaluate("document.querySelector('dialog').close()")
        .await;

    // Whoever is at a Pod with the keyboard stays there when the lanes are drawn anew.
    page.evaluate("document.querySelector('tr[data-pod=busy] button').focus()")
        .await;
    let mut changed = report;
    changed["active"] = json!(0);
    changed["conditions"] = json!([{"type": "Complete", "status": "True", "reason": "Drained"}]);
    api.call(Method::PUT, &path, Some(changed)).await.ok();
    page.until_contains("[data-is=job]", "Complete: Drained")
        .await;
    let at = "document.activeElement.textContent";
    assert_eq!(page.evaluate(at).await, "busy");
    page.close().await;
}

#[tokio::test]
async fn a_report_that_is_too_large_is_refused_with_the_field() {
    let server = TestServer::start().await;
    let api = Api::new(&server.url, Some(TOKEN));
    let queue = api.fresh_queue();
    let report = |pods: usize, name: usize| {
        let pods: Vec<Value> = (0..pods)
            .map(|n| pod(&format!("p{n}"), 1, json!({})))
            .collect();
        json!({"namespace": "n", "name": "x".repeat(name), "uid": "u", "pods": pods})
    };
    let path = format!("/v1/queues/{}/job", queue.name);
    let put = async |report: Value| api.call(Method::PUT, &path, Some(report)).await;
    put(report(200, 1_024)).await.ok();
    for (body, field) in [(report(201, 1), "pods"), (report(1, 1_025), "name")] {
        let answer = put(body).await;
        assert_eq!(answer.body["field"], field, "{}", answer.body);
        assert_eq!(answer.refused(400), "out_of_bounds");
    }
    // What was refused has changed nothing, and a queue that goes takes its Job along.
    let job = queue.get("/job").await.ok();
    assert_eq!(job["job"]["pods"].as_array().unwrap().len(), 200);
    queue.push(&[json!(1)]).await;
    queue.bare(Method::DELETE, "").await.ok();
    assert_eq!(queue.get("/job").await.ok(), json!({"job": null}));
}
