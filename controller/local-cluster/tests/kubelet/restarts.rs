//! Restarts in place.

use std::time::Duration;

use gangline_local_cluster::kubelet::BackOff;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::json;

use crate::world::{World, condition, main, script, waiting};

/// Ends with 1 for so many times, then with 0.
fn failing(world: &World, times: u32) -> String {
    let file = world.path("tries").display().to_string();
    format!("echo x >> {file}; test $(wc -l < {file}) -gt {times}")
}

pub(crate) async fn on_failure_restarts_until_success() {
    let world = World::new();
    world.api.apply(script(
        "p",
        &failing(&world, 3),
        json!({"restartPolicy": "OnFailure"}),
    ));
    assert_eq!(
        world.api.ended("p").await,
        ("Succeeded".to_owned(), 0, "Completed".to_owned())
    );
    let status = world.api.over("p").await;
    assert_eq!(main(&status).restart_count, 3);
    let last = main(&status)
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!(last.exit_code, 1);
    assert!(
        !world.run_of("p", 1).path().exists(),
        "only the run before the last is kept"
    );
    assert!(world.run_of("p", 2).path().exists());
}

pub(crate) async fn always_restarts_after_success_too() {
    let world = World::new();
    world
        .api
        .apply(script("p", "true", json!({"restartPolicy": "Always"})));
    let again = |s: &PodStatus| {
        s.container_statuses
            .as_ref()
            .is_some_and(|c| c[0].restart_count >= 2)
    };
    let status = world
        .api
        .until("p", |s| s.is_some_and(again))
        .await
        .unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

pub(crate) async fn never_does_not_restart() {
    let world = World::new();
    world.api.apply(script("p", &failing(&world, 1), json!({})));
    assert_eq!(world.api.ended("p").await.1, 1);
    assert_eq!(main(&world.api.over("p").await).restart_count, 0);
}

pub(crate) async fn a_container_waits_in_back_off_and_says_so() {
    let mut world = World::with(|config| {
        config.back_off = BackOff {
            base: Duration::from_secs(600),
            ..BackOff::default()
        };
    });
    world
        .api
        .apply(script("p", "exit 3", json!({"restartPolicy": "Always"})));
    let waits = |s: &PodStatus| {
        s.container_statuses.as_ref().and_then(|c| waiting(&c[0])) == Some("CrashLoopBackOff")
    };
    let status = world
        .api
        .until("p", |s| s.is_some_and(waits))
        .await
        .unwrap();
    // The first restart is immediate, the second one waits.
    assert_eq!(main(&status).restart_count, 1);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready"), ("False", "ContainersNotReady"));
    let state = main(&status).state.clone().unwrap().waiting.unwrap();
    let message = "back-off 5m0s restarting failed container=c pod=p_space(p)";
    assert_eq!(state.message.as_deref(), Some(message));
    let last = main(&status)
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!(last.exit_code, 3);
    // Another kubelet goes on waiting, and deletion ends the wait.
    world.restart(async || {}).await;
    world.api.delete("p", 30);
    world.api.gone("p").await;
    let last = world.api.written("p").pop().unwrap();
    assert_eq!(last.phase.as_deref(), Some("Failed"));
    assert_eq!(main(&last).restart_count, 1);
}

pub(crate) async fn containers_restart_by_themselves() {
    let world = World::new();
    let containers = json!([
        {"name": "c", "command": ["sh", "-c", failing(&world, 2)]},
        {"name": "other", "command": ["true"]},
    ]);
    world.api.apply(script(
        "p",
        "",
        json!({"restartPolicy": "OnFailure", "containers": containers}),
    ));
    let status = world.api.over("p").await;
    let counts: Vec<i32> = status
        .container_statuses
        .unwrap()
        .iter()
        .map(|c| c.restart_count)
        .collect();
    assert_eq!(
        (status.phase.as_deref(), counts),
        (Some("Succeeded"), vec![2, 0])
    );
}
