//! How Pods end.

use gangline_local_cluster::kubelet::Identity;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde_json::json;

use crate::world::{World, condition, main, poll, script, single};

fn is(phase: &str, code: i32, reason: &str) -> (String, i32, String) {
    (phase.to_owned(), code, reason.to_owned())
}

pub(crate) async fn exit_codes_and_signals_end_a_pod() {
    let world = World::new();
    for (uid, what, expected) in [
        ("ok", "true", is("Succeeded", 0, "Completed")),
        ("three", "exit 3", is("Failed", 3, "Error")),
        // Kubernetes makes one dollar of two.
        ("signal", "kill -SEGV $$$$", is("Failed", 139, "Error")),
    ] {
        world.api.apply(script(uid, what, json!({})));
        assert_eq!(world.api.ended(uid).await, expected);
    }
}

pub(crate) async fn a_pod_without_a_command_fails_at_once() {
    let world = World::new();
    world.api.apply(single(
        "none",
        json!({"image": "busybox"}),
        json!({"restartPolicy": "Always"}),
    ));
    assert_eq!(
        world.api.ended("none").await,
        is("Failed", 128, "StartError")
    );
    let message = world.api.over("none").await.message.unwrap();
    assert!(
        message.starts_with("spec.containers[0].command: "),
        "{message}"
    );
    assert!(
        message.contains("images.toml has no entry for \"busybox\""),
        "{message}"
    );
}

pub(crate) async fn a_field_that_cannot_be_honoured_is_refused_by_its_path() {
    let world = World::new();
    for (uid, field, path) in [
        ("tty", json!({"tty": true}), "spec.containers[0].tty"),
        (
            "hook",
            json!({"lifecycle": {"postStart": {"httpGet": {"port": 1}}}}),
            "spec.containers[0].lifecycle.postStart.httpGet",
        ),
        (
            "message",
            json!({"terminationMessagePath": "/x"}),
            "spec.containers[0].terminationMessagePath",
        ),
    ] {
        let mut container = json!({"command": ["true"]});
        container
            .as_object_mut()
            .unwrap()
            .extend(field.as_object().unwrap().clone());
        world.api.apply(single(uid, container, json!({})));
        let status = world.api.over(uid).await;
        assert_eq!(status.reason.as_deref(), Some("StartError"));
        let message = status.message.unwrap();
        assert!(message.starts_with(&format!("{path}: ")), "{message}");
    }
}

pub(crate) async fn an_unknown_program_is_a_start_error() {
    let world = World::new();
    for (uid, container, needle) in [
        (
            "path",
            json!({"command": ["no-such-program"]}),
            "\"no-such-program\"",
        ),
        ("file", json!({"command": ["/no/such"]}), "\"/no/such\""),
        (
            "dir",
            json!({"command": ["true"], "workingDir": "/no/dir"}),
            "/no/dir",
        ),
        (
            "data",
            json!({"command": ["/etc/passwd"]}),
            "\"/etc/passwd\"",
        ),
    ] {
        world.api.apply(single(uid, container, json!({})));
        assert_eq!(world.api.ended(uid).await, is("Failed", 128, "StartError"));
        let status = world.api.over(uid).await;
        let ended = main(&status).state.clone().unwrap().terminated.unwrap();
        assert!(
            ended.message.as_ref().unwrap().contains(needle),
            "{ended:?}"
        );
    }
}

pub(crate) async fn the_deadline_ends_a_pod() {
    let world = World::new();
    let more = json!({"activeDeadlineSeconds": 1, "restartPolicy": "OnFailure"});
    world.api.apply(script("late", "exec sleep 1000", more));
    assert_eq!(world.api.ended("late").await, is("Failed", 143, "Error"));
    assert_eq!(
        world.api.over("late").await.reason.as_deref(),
        Some("DeadlineExceeded")
    );
}

pub(crate) async fn deletion_terminates_waits_and_kills_all_descendants() {
    let world = World::new();
    let what = format!(
        "setsid sleep 1000 & echo $! > {0}/new; mv {0}/new {0}/pid; trap 'echo term > {0}/new; mv {0}/new {0}/term' TERM; \
         while :; do sleep 1; done",
        world.root.display()
    );
    world.api.apply(script("deaf", &what, json!({})));
    let pid: i32 = world.file("pid").await.parse().unwrap();
    world.api.delete("deaf", 2);
    assert_eq!(world.file("term").await, "term");
    world.api.gone("deaf").await;
    assert_eq!(
        Identity::of(pid),
        None,
        "what left the session is killed too"
    );
    let last = world.api.written("deaf").pop().unwrap();
    let ended = main(&last).state.clone().unwrap().terminated.unwrap();
    assert_eq!(
        (last.phase.as_deref(), ended.exit_code),
        (Some("Failed"), 137)
    );
    assert!(!world.path("pods/deaf").exists(), "nothing of it is kept");
}

pub(crate) async fn deletion_without_grace_kills_at_once() {
    let world = World::new();
    let what = format!(
        "trap 'touch {}' TERM; while :; do sleep 1; done",
        world.path("term").display()
    );
    world.api.apply(script("now", &what, json!({})));
    world.api.running("now").await;
    world.api.delete("now", 0);
    world.api.gone("now").await;
    assert!(!world.path("term").exists());
}

pub(crate) async fn a_second_deletion_can_shorten_the_grace() {
    let world = World::new();
    let file = world.path("term").display().to_string();
    let what = format!("trap 'touch {file}' TERM; touch {file}.ready; while :; do sleep 0.1; done");
    world.api.apply(script("slow", &what, json!({})));
    world.file("term.ready").await;
    world.api.delete("slow", 3000);
    world.file("term").await;
    world.api.delete("slow", 0);
    world.api.gone("slow").await;
}

pub(crate) async fn only_the_program_itself_is_told_to_end() {
    let world = World::new();
    let root = world.root.display();
    // The program lets its own child finish: a signal to the whole group would end that first.
    let what = format!(
        "(touch {root}/ready; sleep 0.5; touch {root}/finished) & trap 'wait; exit 5' TERM; wait; exit 6"
    );
    world.api.apply(script("gentle", &what, json!({})));
    world.file("ready").await;
    world.api.delete("gentle", 30);
    world.api.gone("gentle").await;
    assert!(world.path("finished").exists());
}

pub(crate) async fn conditions_keep_their_times_and_those_of_others() {
    let world = World::new();
    let fifo = world.path("fifo");
    let what = format!("mkfifo {0}; read x < {0}", fifo.display());
    world.api.apply(script("p", &what, json!({})));
    let before = world.api.running("p").await;
    assert_eq!(condition(&before, "Ready"), ("True", ""));
    assert_eq!(before.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(before.host_ip.as_deref(), Some("127.0.0.1"));
    let running = main(&before).state.clone().unwrap().running.unwrap();
    assert!(running.started_at.is_some());
    world.api.edit("p", |pod| {
        let target = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        };
        let status = pod.status.get_or_insert_default();
        status.conditions.get_or_insert_default().push(target);
    });
    poll(|| fifo.exists().then_some(()), "the fifo").await;
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "x\n"))
        .await
        .unwrap()
        .unwrap();
    let after = world.api.over("p").await;
    assert_eq!(condition(&after, "Ready"), ("False", "PodCompleted"));
    assert_eq!(condition(&after, "Initialized"), ("True", ""));
    assert_eq!(condition(&after, "DisruptionTarget").0, "True");
    let since = |status: &PodStatus| {
        let all = status.conditions.clone().unwrap();
        let found = all.into_iter().find(|c| c.type_ == "PodScheduled").unwrap();
        found.last_transition_time.unwrap()
    };
    assert_eq!(since(&before), since(&after));
    assert_eq!(before.start_time, after.start_time);
}

pub(crate) async fn statuses_are_written_on_change_only_and_never_after_the_last() {
    let mut world = World::new();
    world.api.apply(script("p", "exit 1", json!({})));
    world.api.over("p").await;
    // Further events of the Pod, and another kubelet, have nothing to add.
    world.api.edit("p", |_| {});
    world.restart(async || {}).await;
    world.api.edit("p", |_| {});
    world.api.delete("p", 0);
    world.api.gone("p").await;
    let phases: Vec<_> = world
        .api
        .written("p")
        .into_iter()
        .map(|s| s.phase.unwrap())
        .collect();
    let (last, earlier) = phases.split_last().unwrap();
    assert_eq!(last, "Failed");
    assert!(
        earlier.len() <= 1 && earlier.iter().all(|phase| phase == "Running"),
        "{phases:?}"
    );
}

pub(crate) async fn a_failure_can_be_explained_by_its_log() {
    let world = World::new();
    let command = json!(["sh", "-c", "seq 200; echo the reason >&2; exit 1"]);
    let container =
        json!({"command": command, "terminationMessagePolicy": "FallbackToLogsOnError"});
    world.api.apply(single("p", container, json!({})));
    let status = world.api.over("p").await;
    let ended = main(&status).state.clone().unwrap().terminated.unwrap();
    let message = ended.message.unwrap();
    assert!(
        message.contains("the reason") && message.lines().count() == 80,
        "{message}"
    );
}

/// Has so many MiB of memory for as long as this takes.
fn hold(mebibytes: usize, during: &str) -> String {
    format!("(head -c {mebibytes}M /dev/zero; {during}) | tail -c {mebibytes}M >/dev/null")
}

fn bounded(
    uid: &str,
    script: &str,
    memory: &str,
    more: serde_json::Value,
) -> k8s_openapi::api::core::v1::Pod {
    let resources = json!({"limits": {"memory": memory}});
    single(
        uid,
        json!({"command": ["bash", "-c", script], "resources": resources}),
        more,
    )
}

pub(crate) async fn a_container_with_more_memory_than_it_may_have_is_ended() {
    let world = World::new();
    let root = world.root.display();
    // It is a child of a child in another session that has too much; all end.
    let too_much = hold(128, "sleep 1000");
    let family = format!(
        "sleep 1000 & echo $! > {root}/new; mv {root}/new {root}/pid; setsid bash -c '{too_much}' & wait"
    );
    world
        .api
        .apply(bounded("family", &family, "32Mi", json!({})));
    assert_eq!(
        world.api.ended("family").await,
        is("Failed", 137, "OOMKilled")
    );
    let child: i32 = world.file("pid").await.parse().unwrap();
    assert_eq!(Identity::of(child), None, "nothing of it is left");
    // A restart gives it another try.
    let twice = format!("test -e {root}/once && exit 0; touch {root}/once; {too_much}");
    let again = json!({"restartPolicy": "OnFailure"});
    world.api.apply(bounded("twice", &twice, "32Mi", again));
    assert_eq!(
        world.api.ended("twice").await,
        is("Succeeded", 0, "Completed")
    );
    let status = world.api.over("twice").await;
    let last = main(&status)
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (137, Some("OOMKilled"))
    );
    // Within its bound, and without one.
    let little = hold(4, "true") + "; exit 3";
    world
        .api
        .apply(bounded("within", &little, "32Mi", json!({})));
    assert_eq!(world.api.ended("within").await, is("Failed", 3, "Error"));
    let much = hold(128, "true") + "; exit 3";
    world.api.apply(bounded("unbounded", &much, "0", json!({})));
    assert_eq!(world.api.ended("unbounded").await, is("Failed", 3, "Error"));
}

pub(crate) async fn programs_go_before_their_supervisor_when_memory_is_out() {
    let world = World::new();
    world.api.apply(script("p", "exec sleep 1000", json!({})));
    world.api.running("p").await;
    let run = world.run_of("p", 0);
    let program = poll(|| run.program(), "the program").await;
    let score = |pid: i32| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let own = score(i32::try_from(std::process::id()).unwrap());
    assert_eq!(score(program.pid), 1000);
    assert_eq!(score(run.supervisor().unwrap().pid), own);
    world.api.delete("p", 0);
    world.api.gone("p").await;
}

pub(crate) async fn memory_that_processes_share_is_counted_once() {
    let world = World::new();
    // Eight processes that see the same 16 MiB.
    let many = r"x=$(head -c 16M /dev/zero | tr '\0' x); for i in 1 2 3 4 5 6 7; do (sleep 1; :) & done; wait; exit 3";
    world.api.apply(bounded("many", many, "96Mi", json!({})));
    assert_eq!(world.api.ended("many").await, is("Failed", 3, "Error"));
}

pub(crate) async fn a_thousand_short_pods_need_few_supervisors() {
    let world = World::new();
    let uids: Vec<String> = (0..1000).map(|number| format!("p{number}")).collect();
    for uid in &uids {
        world
            .api
            .apply(single(uid, json!({"command": ["true"]}), json!({})));
    }
    let mut supervisors = std::collections::HashSet::new();
    for uid in &uids {
        assert_eq!(world.api.ended(uid).await, is("Succeeded", 0, "Completed"));
        supervisors.insert(world.run_of(uid, 0).supervisor().unwrap().pid);
    }
    assert!(supervisors.len() < 200, "{} supervisors", supervisors.len());
}

pub(crate) async fn a_pod_that_forks_without_end_is_ended_and_others_are_not() {
    let world = World::with(|config| config.processes_max = 100);
    world
        .api
        .apply(script("few", "sleep 1000 & exec sleep 1000", json!({})));
    world.api.running("few").await;
    // As fast as it goes, but for the bound of the kernel where there is one.
    let fence = world.fence("few");
    let crowd = match fence {
        // It tries again and again where there is no room for another process.
        Some(_) => "exec bash -c 'while :; do sleep 1000 & done' 2>/dev/null",
        None => "while :; do setsid sleep 1000 & sleep 0.01; done",
    };
    world
        .api
        .apply(script("crowd", crowd, json!({"restartPolicy": "Always"})));
    let status = world.api.over("crowd").await;
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("TooManyProcesses"));
    let message = status.message.unwrap();
    let words: Vec<&str> = message.split(' ').collect();
    let count: usize = words[2].parse().unwrap();
    assert_eq!(
        message,
        format!("Pod had {count} processes, and may have 100")
    );
    if let Some(fence) = fence {
        assert!(
            count <= fence,
            "{count} processes, and the kernel lets it have {fence}"
        );
    } else {
        println!("SKIPPED the bound of the kernel: no control groups can be made here");
    }
    // It may have been held meanwhile, and goes on.
    let program = world.run_of("few", 0).program().unwrap();
    let goes_on = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid)).ok()?;
        let (_, after_name) = stat.rsplit_once(") ")?;
        (!after_name.starts_with('T')).then_some(())
    };
    poll(goes_on, "the other Pod's going on").await;
    let few = world.api.written("few").pop().unwrap();
    assert_eq!(few.phase.as_deref(), Some("Running"));
    world.api.delete("few", 0);
    world.api.gone("few").await;
}
