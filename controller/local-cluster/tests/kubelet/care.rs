//! Hooks and probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gangline_local_cluster::kubelet::Identity;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{World, main, poll, single};

/// A container that says so when it is up and ends by itself when it is told to.
fn obedient(world: &World, more: Value) -> Value {
    let root = world.root.display();
    let script = format!(
        "trap 'echo told >> {root}/order; exit 9' TERM; touch {root}/up; while :; do sleep 0.05; done"
    );
    let mut container = json!({"command": ["sh", "-c", script]});
    let fields = container.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    container
}

fn shell(script: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", script]}})
}

/// Ends the Pod, whose program would outlive the test.
async fn end(world: &World) {
    world.api.delete("p", 0);
    world.api.gone("p").await;
}

fn exit_code(status: &PodStatus) -> i32 {
    main(status)
        .state
        .clone()
        .unwrap()
        .terminated
        .unwrap()
        .exit_code
}

pub(crate) async fn a_pre_stop_hook_comes_before_the_end() {
    let world = World::new();
    let hook = shell(&format!(
        "echo \"hook $WHO\" >> {}/order",
        world.root.display()
    ));
    let more = json!({"lifecycle": {"preStop": hook}, "env": [{"name": "WHO", "value": "me"}]});
    world
        .api
        .apply(single("p", obedient(&world, more), json!({})));
    world.file("up").await;
    world.api.delete("p", 600);
    world.api.gone("p").await;
    assert_eq!(exit_code(&world.api.written("p").pop().unwrap()), 9);
    assert_eq!(world.file("order").await, "hook me\ntold");
}

pub(crate) async fn a_pre_stop_hook_ends_with_the_grace_period() {
    let world = World::new();
    let root = world.root.display();
    let hook = shell(&format!(
        "echo $$ > {root}/new; mv {root}/new {root}/pid; sleep 1000; true"
    ));
    let more = json!({"lifecycle": {"preStop": hook}});
    world
        .api
        .apply(single("p", obedient(&world, more), json!({})));
    world.file("up").await;
    world.api.delete("p", 2);
    let hook: i32 = world.file("pid").await.parse().unwrap();
    world.api.gone("p").await;
    assert_eq!(exit_code(&world.api.written("p").pop().unwrap()), 9);
    poll(
        || Identity::of(hook).is_none().then_some(()),
        "the hook's end",
    )
    .await;
    let warnings = world.api.warnings("p");
    assert_eq!(warnings[0].0, "FailedPreStopHook");
    assert!(warnings[0].1.contains("timed out"), "{warnings:?}");
}

pub(crate) async fn a_failed_post_start_hook_ends_the_container() {
    let world = World::new();
    let more = json!({"lifecycle": {"postStart": shell(&format!("while ! test -e {}/up; do sleep 0.05; done; exit 3", world.root.display()))}});
    world
        .api
        .apply(single("p", obedient(&world, more), json!({})));
    assert_eq!(world.api.ended("p").await.1, 9);
    let warnings = world.api.warnings("p");
    assert_eq!(warnings[0].0, "FailedPostStartHook");
    assert!(warnings[0].1.ends_with("exited with 3"), "{warnings:?}");
    let never_ready = |s: &PodStatus| s.container_statuses.iter().flatten().all(|c| !c.ready);
    assert!(world.api.written("p").iter().all(never_ready));
}

pub(crate) async fn readiness_follows_its_probe() {
    let world = World::new();
    let mut probe = shell(&format!("test -e {}/ready", world.root.display()));
    probe["periodSeconds"] = json!(1);
    probe["timeoutSeconds"] = json!(20);
    probe["failureThreshold"] = json!(1);
    let more = json!({"readinessProbe": probe});
    world
        .api
        .apply(single("p", obedient(&world, more), json!({})));
    let is = |started: bool, ready: bool| {
        move |s: Option<&PodStatus>| {
            let first = s.and_then(|s| s.container_statuses.as_ref());
            first.is_some_and(|all| all[0].started == Some(started) && all[0].ready == ready)
        }
    };
    world.api.until("p", is(true, false)).await;
    std::fs::write(world.path("ready"), "").unwrap();
    world.api.until("p", is(true, true)).await;
    std::fs::remove_file(world.path("ready")).unwrap();
    world.api.until("p", is(true, false)).await;
    assert_eq!(world.api.warnings("p")[0].0, "Unhealthy");
    assert_eq!(main(&world.api.running_at_all("p").await).restart_count, 0);
    end(&world).await;
}

pub(crate) async fn a_startup_probe_holds_the_others_back() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let more = json!({
        "ports": [{"name": "web", "containerPort": port}],
        "startupProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1, "failureThreshold": 1000},
    });
    world
        .api
        .apply(single("p", obedient(&world, more), json!({})));
    let status = world.api.running_at_all("p").await;
    assert_eq!(
        (main(&status).started, main(&status).ready),
        (Some(false), false)
    );
    let _listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let status = world.api.running("p").await;
    assert_eq!(main(&status).started, Some(true));
    end(&world).await;
}

pub(crate) async fn a_failed_liveness_probe_restarts_the_container() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let healthy = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&healthy);
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).await.unwrap();
            let asked = request[..count].starts_with(b"GET /health HTTP/1.1\r\n");
            let good = asked && answers.load(Ordering::Relaxed);
            let status = if good { "204 No Content" } else { "500 Oh" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let probe = json!({"httpGet": {"path": "/health", "port": port}, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 20});
    let container = obedient(&world, json!({"livenessProbe": probe}));
    world
        .api
        .apply(single("p", container, json!({"restartPolicy": "Always"})));
    let again = |s: &PodStatus| {
        s.container_statuses
            .as_ref()
            .is_some_and(|all| all[0].restart_count > 0)
    };
    let status = world
        .api
        .until("p", |s| s.is_some_and(again))
        .await
        .unwrap();
    healthy.store(true, Ordering::Relaxed);
    let last = main(&status)
        .last_state
        .clone()
        .or(main(&status).state.clone());
    assert_eq!(last.unwrap().terminated.unwrap().exit_code, 9);
    let warnings = world.api.warnings("p");
    assert_eq!(warnings[0].0, "Unhealthy");
    assert!(
        warnings[0]
            .1
            .ends_with("HTTP probe failed with statuscode: 500"),
        "{warnings:?}"
    );
    end(&world).await;
    server.abort();
}
