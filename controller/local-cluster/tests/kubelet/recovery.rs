//! What outlives the server, and what is known of what did not.

use gangline_local_cluster::kubelet::{Identity, Run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::world::{World, main, poll, script};

/// A Pod that ends with 7 once something is written to its fifo.
async fn held(world: &World, uid: &str) -> std::path::PathBuf {
    let fifo = world.path(&format!("{uid}.fifo"));
    world.api.apply(script(
        uid,
        &format!("mkfifo {0}; read x < {0}; exit 7", fifo.display()),
        json!({}),
    ));
    world.api.running(uid).await;
    poll(|| fifo.exists().then_some(()), "the fifo").await;
    fifo
}

async fn let_go(fifo: std::path::PathBuf) {
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "x\n"))
        .await
        .unwrap()
        .unwrap();
}

pub(crate) async fn a_run_is_found_again_after_a_restart() {
    let mut world = World::new();
    let fifo = held(&world, "p").await;
    world.restart(async || {}).await;
    let_go(fifo).await;
    assert_eq!(
        world.api.ended("p").await,
        ("Failed".to_owned(), 7, "Error".to_owned())
    );
    let status = world.api.over("p").await;
    assert_eq!(main(&status).restart_count, 0);
}

pub(crate) async fn an_end_while_no_server_ran_is_not_lost() {
    let mut world = World::new();
    let fifo = held(&world, "p").await;
    let run = world.run_of("p", 0);
    let supervisor = run.supervisor().unwrap();
    world
        .restart(async || {
            let_go(fifo).await;
            poll(|| run.exit(), "the end").await;
            poll(
                || (!supervisor.alive()).then_some(()),
                "the supervisor's leave",
            )
            .await;
        })
        .await;
    assert_eq!(world.api.ended("p").await.1, 7);
}

pub(crate) async fn a_found_run_can_be_stopped() {
    let mut world = World::new();
    let fifo = world.path("ready").display().to_string();
    let what = format!("trap 'exit 9' TERM; touch {fifo}; while :; do sleep 0.05; done");
    world.api.apply(script("p", &what, json!({})));
    world.file("ready").await;
    world.restart(async || {}).await;
    world.api.delete("p", 30);
    world.api.gone("p").await;
    let last = world.api.written("p").pop().unwrap();
    assert_eq!(
        main(&last)
            .state
            .clone()
            .unwrap()
            .terminated
            .unwrap()
            .exit_code,
        9
    );
}

pub(crate) async fn a_killed_supervisor_is_an_unknown_status_and_leaves_nothing() {
    let world = World::new();
    let root = world.root.path().display();
    let what = format!("setsid sleep 1000 & echo $! > {root}/new; mv {root}/new {root}/pid; wait");
    world.api.apply(script("p", &what, json!({})));
    let child: i32 = world.file("pid").await.parse().unwrap();
    let run = world.run_of("p", 0);
    let program = run.program().unwrap();
    kill(
        Pid::from_raw(run.supervisor().unwrap().pid),
        Signal::SIGKILL,
    )
    .unwrap();
    let ended = world.api.ended("p").await;
    assert_eq!(
        ended,
        (
            "Failed".to_owned(),
            137,
            "ContainerStatusUnknown".to_owned()
        )
    );
    poll(|| (!program.alive()).then_some(()), "the program's end").await;
    poll(
        || Identity::of(child).is_none().then_some(()),
        "its child's end",
    )
    .await;
}

pub(crate) async fn a_state_of_an_earlier_boot_is_not_believed() {
    let world = World::new();
    let own = i32::try_from(std::process::id()).unwrap();
    let mut earlier = Identity::of(own).unwrap();
    earlier.boot = "00000000-0000-0000-0000-000000000000".to_owned();
    assert!(!earlier.alive() && earlier.to_string().parse::<Identity>().unwrap() == earlier);
    let run = world.run_of("p", 0);
    std::fs::create_dir_all(run.dir()).unwrap();
    assert!(run.claim(&earlier).unwrap());
    world.api.apply(script("p", "true", json!({})));
    assert_eq!(world.api.ended("p").await.2, "ContainerStatusUnknown");
}

pub(crate) async fn a_run_is_carried_out_once() {
    let root = tempfile::tempdir().unwrap();
    let run = Run::new(root.path().to_owned());
    let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    let claims: Vec<bool> = (0..3).map(|_| run.claim(&own).unwrap()).collect();
    assert_eq!(claims, [true, false, false]);
    assert_eq!(run.supervisor(), Some(own));
}
