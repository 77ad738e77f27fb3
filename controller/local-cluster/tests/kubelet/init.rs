//! Init containers and sidecars.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use serde_json::{Value, json};

use crate::world::{World, condition, main, poll, script, waiting};

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["sh", "-c", script]})
}

fn init(status: &PodStatus) -> &[ContainerStatus] {
    status.init_container_statuses.as_ref().unwrap()
}

pub(crate) async fn init_containers_run_one_after_the_other() {
    let world = World::new();
    let (out, fifo) = (world.path("out").display().to_string(), world.path("fifo"));
    let first = format!(
        "mkfifo {0}; read x < {0}; echo first >> {out}",
        fifo.display()
    );
    let more = json!({"initContainers": [container("one", &first), container("two", &format!("echo second >> {out}"))]});
    world
        .api
        .apply(script("p", &format!("echo main >> {out}"), more));
    let up = |s: &PodStatus| {
        s.init_container_statuses
            .as_ref()
            .is_some_and(|i| i[0].started == Some(true))
    };
    let status = world.api.until("p", |s| s.is_some_and(up)).await.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(
        condition(&status, "Initialized"),
        ("False", "ContainersNotInitialized")
    );
    assert_eq!(waiting(&init(&status)[1]), Some("PodInitializing"));
    assert_eq!(waiting(main(&status)), Some("PodInitializing"));
    poll(|| fifo.exists().then_some(()), "the fifo").await;
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "x\n"))
        .await
        .unwrap()
        .unwrap();
    let status = world.api.over("p").await;
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(condition(&status, "Initialized").0, "True");
    assert!(init(&status).iter().all(|one| one.ready));
    assert_eq!(
        std::fs::read_to_string(out).unwrap(),
        "first\nsecond\nmain\n"
    );
}

pub(crate) async fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let world = World::new();
    let more = json!({"initContainers": [container("one", "exit 4"), container("two", "true")]});
    world.api.apply(script("p", "true", more));
    let status = world.api.over("p").await;
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let ended = init(&status)[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 4);
    assert_eq!(waiting(&init(&status)[1]), Some("PodInitializing"));
    assert_eq!(waiting(main(&status)), Some("PodInitializing"));
}

pub(crate) async fn a_failed_init_container_is_retried_otherwise() {
    let world = World::new();
    let file = world.path("tried").display().to_string();
    let once = format!("test -e {file} || {{ touch {file}; exit 1; }}");
    let more = json!({"restartPolicy": "OnFailure", "initContainers": [container("one", &once)]});
    world.api.apply(script("p", "true", more));
    let status = world.api.over("p").await;
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(init(&status)[0].restart_count, 1);
}

pub(crate) async fn a_sidecar_runs_beside_the_containers_and_ends_after_them() {
    let world = World::new();
    let root = world.root.display();
    let mut side = container(
        "side",
        &format!(
            "trap 'echo side >> {root}/order; exit 0' TERM; touch {root}/up; while :; do sleep 0.05; done"
        ),
    );
    side["restartPolicy"] = json!("Always");
    let what = format!(
        "while ! test -e {root}/up -a -e {root}/go; do sleep 0.05; done; echo main >> {root}/order; exit 3"
    );
    world
        .api
        .apply(script("p", &what, json!({"initContainers": [side]})));
    let status = world.api.running("p").await;
    assert!(init(&status)[0].ready);
    assert_eq!(condition(&status, "Initialized").0, "True");
    std::fs::write(world.path("go"), "").unwrap();
    let status = world.api.over("p").await;
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(condition(&status, "Initialized").0, "True");
    assert_eq!(world.file("order").await, "main\nside");
}

pub(crate) async fn a_second_deletion_reaches_sidecars_that_are_ending() {
    let world = World::new();
    let root = world.root.display();
    let deaf =
        format!("trap 'touch {root}/told' TERM; touch {root}/side; while :; do sleep 0.05; done");
    let mut side = container("side", &deaf);
    side["restartPolicy"] = json!("Always");
    let what = format!(
        "while ! test -e {root}/side; do sleep 0.05; done; touch {root}/main; exec sleep 1000"
    );
    world
        .api
        .apply(script("p", &what, json!({"initContainers": [side]})));
    world.file("main").await;
    world.api.delete("p", 600);
    world.file("told").await;
    world.api.delete("p", 0);
    world.api.gone("p").await;
}
