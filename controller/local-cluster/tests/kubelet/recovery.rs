//! What outlives the server, and what is known of what did not.

use gangline_local_cluster::kubelet::{Identity, Run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::world::{Server, World, main, poll, script};

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
    let root = world.root.display();
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

pub(crate) async fn a_run_starts_although_all_idle_supervisors_have_left() {
    let world = World::new();
    let uids: Vec<String> = (0..12).map(|number| format!("p{number}")).collect();
    let mut fifos = Vec::new();
    for uid in &uids {
        fifos.push(held(&world, uid).await);
    }
    for fifo in fifos {
        let_go(fifo).await;
    }
    for uid in &uids {
        assert_eq!(world.api.ended(uid).await.1, 7);
        let supervisor = world.run_of(uid, 0).supervisor().unwrap();
        kill(Pid::from_raw(supervisor.pid), Signal::SIGKILL).unwrap();
        let has_left = || (!supervisor.alive()).then_some(());
        poll(has_left, "the supervisor's leave").await;
    }
    world.api.apply(script("later", "exit 7", json!({})));
    assert_eq!(world.api.ended("later").await.2, "Error");
}

pub(crate) async fn a_state_of_an_earlier_boot_is_not_believed() {
    let world = World::new();
    let own = i32::try_from(std::process::id()).unwrap();
    let mut earlier = Identity::of(own).unwrap();
    earlier.boot = "00000000-0000-0000-0000-000000000000".to_owned();
    assert!(!earlier.alive() && earlier.to_string().parse::<Identity>().unwrap() == earlier);
    let run = world.run_of("p", 0);
    std::fs::create_dir_all(run.path().parent().unwrap()).unwrap();
    assert!(run.claim(&earlier).unwrap());
    // Not even a Pod that would be run again: on a cluster, its node's end would have ended it.
    world
        .api
        .apply(script("p", "true", json!({ "restartPolicy": "Always" })));
    let status = world.api.over("p").await;
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Terminated"));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let end = container.state.clone().unwrap().terminated.unwrap();
    assert_eq!(
        (end.exit_code, end.reason.as_deref()),
        (137, Some("ContainerStatusUnknown"))
    );
    let mut conditions = status.conditions.into_iter().flatten();
    let condition = conditions
        .find(|condition| condition.type_ == "DisruptionTarget")
        .unwrap();
    assert_eq!(condition.status, "True");
    assert_eq!(condition.reason.as_deref(), Some("TerminationByKubelet"));
}

pub(crate) async fn a_run_is_carried_out_once() {
    let root = tempfile::tempdir().unwrap();
    let run = Run::new(root.path().join("c.0"));
    let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    let claims: Vec<bool> = (0..3).map(|_| run.claim(&own).unwrap()).collect();
    assert_eq!(claims, [true, false, false]);
    assert_eq!(run.supervisor(), Some(own));
}

pub(crate) async fn a_line_that_was_cut_off_is_none() {
    let root = tempfile::tempdir().unwrap();
    let run = Run::new(root.path().join("c.0"));
    let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert!(run.claim(&own).unwrap());
    let whole = std::fs::read(run.path()).unwrap();
    for length in 0..whole.len() - 1 {
        std::fs::write(run.path(), &whole[..length]).unwrap();
        assert_eq!(run.supervisor(), None, "after {length} bytes");
        assert_eq!(run.claim(&own).unwrap(), length == 0);
    }
}

pub(crate) async fn a_bound_program_ends_with_its_server() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let what = format!(
        "trap 'touch {0}/told' TERM; touch {0}/up; while :; do sleep 0.05; done",
        dir.display()
    );
    let pod = script("p", &what, json!({"terminationGracePeriodSeconds": 1}));
    let mut server = Server::start(&[], dir, &pod);
    poll(|| dir.join("up").exists().then_some(()), "the program").await;
    let run = Run::new(dir.join("pods/p/c.0"));
    let program = poll(|| run.program(), "its process").await;
    server.kill();
    poll(|| dir.join("told").exists().then_some(()), "SIGTERM").await;
    // It does not listen: what ends it is the Pod's grace period.
    let exit = poll(|| run.exit(), "the end").await;
    assert_eq!(exit.code, 137);
    assert!(!program.alive());
}

pub(crate) async fn what_is_left_of_pods_that_are_gone_is_ended_and_removed() {
    let mut world = World::new();
    let fifo = held(&world, "kept").await;
    held(&world, "gone").await;
    world.api.apply(script("over", "true", json!({})));
    world.api.over("over").await;
    let state = world.state();
    std::fs::create_dir(state.join("strange")).unwrap();
    std::fs::write(state.join("strange/file"), "not a Pod's").unwrap();
    let program = world.run_of("gone", 0).program().unwrap();
    let api = std::sync::Arc::clone(&world.api);
    world
        .restart(async || {
            api.forget("gone");
            api.forget("over");
        })
        .await;
    for uid in ["gone", "over"] {
        poll(|| (!state.join(uid).exists()).then_some(()), uid).await;
    }
    assert!(!program.alive());
    assert!(state.join("strange/file").exists());
    let_go(fifo).await;
    assert_eq!(world.api.ended("kept").await.1, 7);
}

pub(crate) async fn what_has_run_is_not_run_again_when_the_state_is_lost() {
    let mut world = World::new();
    let root = world.root.display();
    let script = format!("echo x >> {root}/$0; test $0 = d && exec sleep 1000; exit 3");
    let container = |name: &str| json!({"name": name, "command": ["sh", "-c", script, name]});
    let pod = crate::world::single(
        "p",
        json!({}),
        json!({"containers": [container("c"), container("d")]}),
    );
    world.api.apply(pod);
    let states = |s: &k8s_openapi::api::core::v1::PodStatus| {
        let all = s.container_statuses.clone().unwrap_or_default();
        all.into_iter()
            .map(|c| c.state.unwrap())
            .collect::<Vec<_>>()
    };
    let half = |s: &k8s_openapi::api::core::v1::PodStatus| {
        states(s).first().is_some_and(|c| c.terminated.is_some()) && states(s)[1].running.is_some()
    };
    world.api.until("p", |s| s.is_some_and(half)).await;
    let state = world.state();
    let run = Run::new(state.join("p/d.0"));
    let program = run.program().unwrap();
    world
        .restart(async || {
            for process in [run.supervisor().unwrap(), program] {
                kill(Pid::from_raw(process.pid), Signal::SIGKILL).unwrap();
            }
            std::fs::remove_dir_all(state).unwrap();
        })
        .await;
    let status = world.api.over("p").await;
    let ends: Vec<_> = states(&status)
        .into_iter()
        .map(|state| state.terminated.unwrap())
        .map(|end| (end.exit_code, end.reason.unwrap()))
        .collect();
    assert_eq!(
        ends,
        [
            (3, "Error".to_owned()),
            (137, "ContainerStatusUnknown".to_owned())
        ]
    );
    for name in ["c", "d"] {
        assert_eq!(world.file(name).await, "x");
    }
}
