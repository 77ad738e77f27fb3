//! The local cluster under abuse: `gangline up` as a process, and Pods that behave as badly as programs can.
//!
//! With `GANGLINE_TEST_FULL` set (`tests/run --full`), counts and sizes are those that people meet; else smaller.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gangline_tests::{Up, full_or};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

/// How long anything here may take on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
/// What the kubelet keeps of a log.
const LOG_BYTES_MAX: u64 = 10 << 20;

struct World {
    up: Up,
    pods: Api<Pod>,
    jobs: Api<Job>,
    root: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self::at(root).await
    }

    async fn at(root: tempfile::TempDir) -> Self {
        let up = Up::start(&root.path().join("up")).await;
        let client = up.client().await;
        Self {
            up,
            pods: Api::default_namespaced(client.clone()),
            jobs: Api::default_namespaced(client),
            root,
        }
    }

    /// Kills the cluster, does something, and starts it again.
    async fn restart(self, between: impl AsyncFnOnce()) -> Self {
        let Self { up, root, .. } = self;
        up.kill().await;
        between().await;
        Self::at(root).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Creates a Pod that runs a script of the shell; `more` replaces fields of its spec.
    async fn create(&self, name: &str, script: &str, more: Value) {
        let mut spec = json!({
            "restartPolicy": "Never",
            "containers": [{ "name": "c", "image": "none", "command": ["sh", "-c", script] }],
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key.as_str()] = value.clone();
        }
        let pod = json!({ "metadata": { "name": name }, "spec": spec });
        let pod = serde_json::from_value(pod).unwrap();
        self.pods
            .create(&PostParams::default(), &pod)
            .await
            .unwrap();
    }

    async fn until(&self, name: &str, what: impl Fn(Option<&Pod>) -> bool) -> Option<Pod> {
        let seen = await_condition(self.pods.clone(), name, what);
        let Ok(seen) = tokio::time::timeout(PATIENCE, seen).await else {
            let pod = self.pods.get_opt(name).await.unwrap();
            panic!("{name} does not get there: {}", json!(pod));
        };
        seen.unwrap()
    }

    async fn until_phase(&self, name: &str, phases: &[&str]) -> Pod {
        let is = |pod: Option<&Pod>| pod.is_some_and(|pod| phases.contains(&phase(pod)));
        self.until(name, is).await.unwrap()
    }

    /// The Pod once it has ended, and the exit code of its container.
    async fn ended(&self, name: &str) -> (Pod, i32) {
        let pod = self.until_phase(name, &["Succeeded", "Failed"]).await;
        let status = pod.status.as_ref().unwrap();
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(container.restart_count, 0);
        let state = container.state.clone().unwrap();
        (pod, state.terminated.unwrap().exit_code)
    }

    async fn log(&self, name: &str) -> String {
        self.pods.logs(name, &LogParams::default()).await.unwrap()
    }

    /// Deletes a Pod and waits until its object is gone.
    async fn delete(&self, name: &str, grace: u32) {
        let options = DeleteParams::default().grace_period(grace);
        self.pods.delete(name, &options).await.unwrap();
        self.until(name, |pod| pod.is_none()).await;
    }

    /// Has another Pod do its work, as if nothing else went on here.
    async fn run_another(&self) {
        self.create("another", "echo worked; exit 5", json!({}))
            .await;
        assert_eq!(self.ended("another").await.1, 5);
        assert_eq!(self.log("another").await, "worked\n");
        self.delete("another", 0).await;
    }
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Waits until it is so.
async fn poll(what: &str, mut is: impl FnMut() -> bool) {
    let met = async {
        while !is() {
            tokio::time::sleep(POLL).await;
        }
    };
    let met = tokio::time::timeout(PATIENCE, met).await;
    assert!(met.is_ok(), "never: {what}");
}

/// All processes whose command line holds `word`.
fn processes_of(word: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(word)
    })
    .collect()
}

/// Children of a process, and theirs.
fn descendants(root: i32) -> Vec<i32> {
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(1)?.parse::<i32>().ok()
    };
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&of) = family.get(next) {
        family.extend(parents.iter().filter(|(_, p)| *p == of).map(|(pid, _)| pid));
        next += 1;
    }
    family.split_off(1)
}

fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What descriptors are open; those of connections come and go by themselves.
fn descriptors(pid: i32) -> Vec<String> {
    let links = entries(format!("/proc/{pid}/fd")).into_iter();
    let names = links.filter_map(|link| {
        fs::read_link(link)
            .ok()?
            .into_os_string()
            .into_string()
            .ok()
    });
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("socket:")).collect();
    names.sort_unstable();
    names
}

fn sockets(pid: i32) -> usize {
    let links = entries(format!("/proc/{pid}/fd")).into_iter();
    let names = links.filter_map(|link| fs::read_link(link).ok());
    names
        .filter(|name| name.to_string_lossy().starts_with("socket:"))
        .count()
}

#[tokio::test]
async fn pods_one_after_another_leave_nothing_behind() {
    let world = World::start().await;
    let pid = world.up.pid();
    let more = json!({
        "containers": [{
            "name": "c",
            "image": "none",
            "command": ["sh", "-c", "setsid sleep 1000 & echo $! > /scratch/pid; cat /scratch/pid"],
            "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
        }],
        "volumes": [{ "name": "scratch", "emptyDir": {} }],
    });
    let run = async |name: &str| {
        world.create(name, "", more.clone()).await;
        assert_eq!(world.ended(name).await.1, 0);
        assert_ne!(world.log(name).await, "");
        world.delete(name, 0).await;
    };
    // What there is from the first Pod on.
    run("first").await;
    poll("its state goes", || entries(world.up.pods()).is_empty()).await;
    let mounts = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let (open_before, sockets_before, mounts_before) = (descriptors(pid), sockets(pid), mounts());
    for number in 0..full_or(1_000, 40) {
        run(&format!("pod-{number}")).await;
    }
    let left = || {
        let mut left: Vec<String> = Vec::new();
        left.extend(descendants(pid).iter().map(|pid| format!("process {pid}")));
        left.extend(
            entries(world.up.pods())
                .iter()
                .map(|dir| format!("{dir:?}")),
        );
        if sockets(pid) > sockets_before {
            left.push(format!("{} sockets, not {sockets_before}", sockets(pid)));
        }
        left
    };
    // Supervisors without a run wait a while for another one.
    let waited = async {
        while !left().is_empty() {
            tokio::time::sleep(POLL).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    assert!(waited.is_ok(), "{:?}", left());
    assert_eq!(descriptors(pid), open_before);
    assert_eq!(mounts(), mounts_before);
    world.up.stop().await;
}

#[tokio::test]
async fn pods_are_found_again_after_the_cluster_was_killed() {
    const PODS: i32 = 50;
    let mut world = World::start().await;
    let fifo = |world: &World, number: i32| world.path(&format!("fifo-{number}"));
    for number in 0..PODS {
        let fifo = fifo(&world, number);
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let script = format!(
            "echo begun {number}; read x < {}; echo ended {number}; exit {number}",
            fifo.display()
        );
        world
            .create(&format!("pod-{number}"), &script, json!({}))
            .await;
    }
    for number in 0..PODS {
        let name = format!("pod-{number}");
        world.until_phase(&name, &["Running"]).await;
    }
    // Two thirds end while no cluster is there, the others after it was killed three times.
    let fifos: Vec<PathBuf> = (0..PODS).map(|number| fifo(&world, number)).collect();
    let let_go = async |third: usize| {
        for fifo in fifos.iter().skip(third).step_by(3).cloned() {
            let write = move || fs::write(fifo, "go\n").unwrap();
            tokio::task::spawn_blocking(write).await.unwrap();
        }
    };
    for third in 0..3 {
        let ends_alone = third < 2;
        world = world
            .restart(async || {
                if ends_alone {
                    let_go(third).await;
                }
            })
            .await;
        if !ends_alone {
            let_go(third).await;
        }
    }
    for number in 0..PODS {
        let name = format!("pod-{number}");
        let (pod, code) = world.ended(&name).await;
        assert_eq!(code, number, "{}", json!(pod));
        let log = world.log(&name).await;
        assert_eq!(log, format!("begun {number}\nended {number}\n"));
    }
    assert_eq!(entries(world.up.pods()).len(), PODS as usize);
    let all = world.pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), PODS as usize);
    world.up.stop().await;
}

#[tokio::test]
async fn what_ran_before_a_reboot_has_failed_as_a_disruption_and_is_replaced() {
    let world = World::start().await;
    let tried = world.path("tried");
    let script = format!(
        "mkdir {} || exit 0; echo begun; exec sleep 1000",
        tried.display()
    );
    let job = json!({
        "metadata": { "name": "cut-off" },
        "spec": {
            "backoffLimit": 0,
            "podFailurePolicy": { "rules": [
                { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] },
            ] },
            "template": { "spec": { "restartPolicy": "Never", "containers": [
                { "name": "c", "image": "none", "command": ["sh", "-c", script] },
            ] } },
        },
    });
    let job = serde_json::from_value(job).unwrap();
    world
        .jobs
        .create(&PostParams::default(), &job)
        .await
        .unwrap();
    poll("the first Pod runs", || tried.exists()).await;
    let all = world.pods.list(&ListParams::default()).await.unwrap();
    let first = all.items[0].name_any();
    world.until_phase(&first, &["Running"]).await;
    let (state, family) = (world.up.pods(), descendants(world.up.pid()));
    let world = world
        .restart(async || {
            // All that a reboot is to the cluster: its processes are gone, and the kernel has another id.
            for pid in family {
                let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            let mut changed = 0;
            for file in entries(state).iter().flat_map(entries) {
                if let Ok(text) = fs::read_to_string(&file)
                    && text.contains(boot.trim())
                {
                    let earlier = "11111111-2222-3333-4444-555555555555";
                    fs::write(&file, text.replace(boot.trim(), earlier)).unwrap();
                    changed += 1;
                }
            }
            assert_eq!(changed, 1);
        })
        .await;
    let pod = world.until_phase(&first, &["Failed"]).await;
    let status = pod.status.unwrap();
    let condition = status.conditions.iter().flatten();
    let mut condition = condition.filter(|condition| condition.type_ == "DisruptionTarget");
    let condition = condition.next().unwrap();
    assert_eq!(
        (&*condition.status, condition.reason.as_deref()),
        ("True", Some("TerminationByKubelet"))
    );
    assert_eq!(world.log(&first).await, "begun\n");
    let is_complete = |job: Option<&Job>| {
        let status = job.and_then(|job| job.status.as_ref());
        status.is_some_and(|status| status.completion_time.is_some())
    };
    let complete = await_condition(world.jobs.clone(), "cut-off", is_complete);
    let job = tokio::time::timeout(PATIENCE, complete).await.unwrap();
    let status = job.unwrap().unwrap().status.unwrap();
    // Not counted, though no failure at all was allowed.
    assert_eq!((status.succeeded, status.failed), (Some(1), None));
    world.up.stop().await;
}

#[tokio::test]
async fn a_flood_of_log_is_bounded_and_keeps_its_end() {
    let world = World::start().await;
    let bytes = full_or(1_u64 << 30, 64 << 20);
    let script = format!(
        "yes a line of a program that says too much | head -c {bytes}; echo; echo end; exit 3"
    );
    world.create("flood", &script, json!({})).await;
    world.run_another().await;
    let (pod, code) = world.ended("flood").await;
    assert_eq!(code, 3);
    let state = world.up.pods().join(pod.uid().unwrap());
    let kept: u64 = entries(state)
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(
        (LOG_BYTES_MAX / 4..=LOG_BYTES_MAX + 4096).contains(&kept),
        "{kept} bytes"
    );
    let tail = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    assert_eq!(world.pods.logs("flood", &tail).await.unwrap(), "end\n");
    world.delete("flood", 0).await;
    world.up.stop().await;
}

#[tokio::test]
async fn a_program_that_forks_without_end_ends_with_its_pod() {
    let world = World::start().await;
    // Each of them lives on its own, and is gone from its place before anybody has looked there.
    let chain = world.path("chain.sh");
    fs::write(&chain, format!("setsid sh {} &\n", chain.display())).unwrap();
    let chain = chain.display().to_string();
    for (name, script) in [
        (
            "sleepers",
            format!("while :; do sh -c 'sleep 1000; :' {chain} & done"),
        ),
        (
            "sessions",
            format!("while :; do setsid sh -c 'sleep 1000; :' {chain} & done"),
        ),
        (
            "chains",
            format!("for i in 1 2 3; do setsid sh {chain} & done; exec sleep 1000"),
        ),
    ] {
        let more = json!({ "activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1 });
        world.create(name, &script, more).await;
        world.run_another().await;
        let (pod, _) = world.ended(name).await;
        // A fast machine gets to the most that a Pod may have first.
        let reason = pod.status.unwrap().reason.unwrap();
        assert!(
            ["DeadlineExceeded", "TooManyProcesses"].contains(&reason.as_str()),
            "{reason}"
        );
        let left = processes_of(&chain);
        assert!(left.is_empty(), "{name}: {left:?}");
        world.delete(name, 0).await;
    }
    for grace in [0, 1] {
        world
            .create(
                "deleted",
                &format!("setsid sh {chain}; exec sleep 1000"),
                json!({}),
            )
            .await;
        poll("the chain runs", || !processes_of(&chain).is_empty()).await;
        world.delete("deleted", grace).await;
        // Without a grace, the object goes first.
        poll("the chain ends", || processes_of(&chain).is_empty()).await;
    }
    world.up.stop().await;
}

#[tokio::test]
async fn programs_that_do_not_hear_end_after_their_grace_and_hold_nobody_up() {
    let world = World::start().await;
    let deaf = "trap '' TERM INT HUP; echo deaf; while :; do sleep 1; done";
    for number in 0..10 {
        world
            .create(&format!("deaf-{number}"), deaf, json!({}))
            .await;
    }
    for number in 0..10 {
        let name = format!("deaf-{number}");
        world.until_phase(&name, &["Running"]).await;
        let options = DeleteParams::default().grace_period(3);
        world.pods.delete(&name, &options).await.unwrap();
    }
    world.run_another().await;
    for number in 0..10 {
        world
            .until(&format!("deaf-{number}"), |pod| pod.is_none())
            .await;
    }
    assert_eq!(entries(world.up.pods()), Vec::<PathBuf>::new());
    world.up.stop().await;
}
