//! What containers see of the volumes of their Pod.

use gangline_local_cluster::kubelet::{ConfigKind, LogOptions, Run};
use serde_json::{Value, json};

use crate::world::{Server, World, main, poll, script, single, waiting};

/// Runs this script in a Pod with these volumes and mounts; returns what it said.
async fn said(world: &World, uid: &str, script: &str, volumes: Value, mounts: Value) -> String {
    let container = json!({"command": ["sh", "-c", script], "volumeMounts": mounts});
    let pod = single(uid, container, json!({"volumes": volumes}));
    world.api.apply(pod);
    let (phase, code, _) = world.api.ended(uid).await;
    let status = world.api.over(uid).await;
    let message = main(&status)
        .state
        .clone()
        .unwrap()
        .terminated
        .unwrap()
        .message;
    let log = world.log(uid, LogOptions::default()).await;
    assert_eq!(
        (phase.as_str(), code),
        ("Succeeded", 0),
        "{message:?} {log}"
    );
    log
}

pub(crate) async fn an_empty_dir_is_shared_by_the_containers_of_a_pod() {
    let world = World::new();
    let mounts = |path: &str| json!([{"name": "shared", "mountPath": path}]);
    let init = json!({"name": "i", "command": ["sh", "-c", "echo hello > /gangline-a/b/file"], "volumeMounts": mounts("/gangline-a/b")});
    let container = json!({
        "command": ["sh", "-c", "cat /gangline-c/file $GANGLINE_VOLUMES/shared/file; stat -c %a /gangline-c"],
        "volumeMounts": mounts("/gangline-c"),
    });
    let volumes = json!([{"name": "shared", "emptyDir": {}}]);
    let pod = json!({"initContainers": [init], "volumes": volumes});
    world.api.apply(single("p", container, pod));
    assert_eq!(
        world.api.ended("p").await.1,
        0,
        "{:?}",
        world.api.over("p").await
    );
    let log = world.log("p", LogOptions::default()).await;
    assert_eq!(log, "hello\nhello\n777\n");
    for path in ["/gangline-a", "/gangline-c"] {
        assert!(
            !std::path::Path::new(path).exists(),
            "{path} is the machine's"
        );
    }
    world.api.delete("p", 0);
    world.api.gone("p").await;
    let state = world.state().join("p");
    poll(|| (!state.exists()).then_some(()), "the volume's end").await;
}

pub(crate) async fn config_maps_secrets_and_fields_are_files() {
    let world = World::new();
    world
        .api
        .set_config(ConfigKind::ConfigMap, "map", &[("a", "1"), ("b", "2")]);
    world
        .api
        .set_config(ConfigKind::Secret, "secret", &[("key", "hush")]);
    let items = json!([{"key": "b", "path": "deep/b", "mode": 0o400}]);
    let fields = json!([
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cores", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
    ]);
    let volumes = json!([
        {"name": "whole", "configMap": {"name": "map"}},
        {"name": "some", "configMap": {"name": "map", "items": items, "defaultMode": 0o600}},
        {"name": "secret", "secret": {"secretName": "secret", "defaultMode": 0o440}},
        {"name": "none", "configMap": {"name": "none", "optional": true}},
        {"name": "fields", "downwardAPI": {"items": fields}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "map", "items": [{"key": "a", "path": "x"}]}},
            {"secret": {"name": "secret"}},
            {"downwardAPI": {"items": [{"path": "who", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]}},
    ]);
    let names = ["whole", "some", "secret", "none", "fields", "all"];
    let mounts: Vec<_> = names
        .iter()
        .map(|name| json!({"name": name, "mountPath": format!("/gangline-{name}")}))
        .collect();
    let script = "cd /; find gangline-* -type f | sort | while read -r f; do \
        echo \"$f $(stat -c %a $f) $(cat $f)\"; done; \
        touch /gangline-whole/a 2>/dev/null || echo read-only";
    let limited = json!({"command": ["sh", "-c", script], "volumeMounts": mounts, "resources": {"limits": {"cpu": "3"}}});
    world
        .api
        .apply(single("p", limited, json!({"volumes": volumes})));
    assert_eq!(
        world.api.ended("p").await.1,
        0,
        "{:?}",
        world.api.over("p").await
    );
    let wanted = "gangline-all/key 644 hush\n\
        gangline-all/who 644 space\n\
        gangline-all/x 644 1\n\
        gangline-fields/cores 644 3\n\
        gangline-fields/labels 644 team=\"dogs\"\n\
        gangline-fields/name 644 p\n\
        gangline-secret/key 440 hush\n\
        gangline-some/deep/b 400 2\n\
        gangline-whole/a 644 1\n\
        gangline-whole/b 644 2\n\
        read-only\n";
    assert_eq!(world.log("p", LogOptions::default()).await, wanted);
}

pub(crate) async fn a_missing_config_map_of_a_volume_is_waited_for() {
    let world = World::new();
    let container = json!({
        "command": ["grep", "-q", "dogs", "/gangline-map/who"],
        "volumeMounts": [{"name": "map", "mountPath": "/gangline-map"}],
    });
    let volumes = json!([{"name": "map", "configMap": {"name": "later"}}]);
    world
        .api
        .apply(single("p", container, json!({"volumes": volumes})));
    let is_told = |status: &k8s_openapi::api::core::v1::PodStatus| {
        let state = main(status).state.clone().unwrap().waiting;
        state.and_then(|waiting| waiting.message).is_some()
    };
    let status = world.api.until("p", |s| {
        s.is_some_and(|s| s.container_statuses.is_some() && is_told(s))
    });
    let status = status.await.unwrap();
    assert_eq!(waiting(main(&status)), Some("ContainerCreating"));
    let why = main(&status)
        .state
        .clone()
        .unwrap()
        .waiting
        .unwrap()
        .message;
    assert_eq!(
        why.as_deref(),
        Some("MountVolume.SetUp failed for volume \"map\" : configmap \"later\" not found")
    );
    let warned = ("FailedMount".to_owned(), why.unwrap());
    assert_eq!(world.api.warnings("p"), [warned]);
    world
        .api
        .set_config(ConfigKind::ConfigMap, "later", &[("who", "dogs")]);
    assert_eq!(world.api.ended("p").await.1, 0);
}

pub(crate) async fn parts_of_volumes_and_places_of_the_machine_are_mounted() {
    let world = World::new();
    let host = world.path("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "from the host\n").unwrap();
    world
        .api
        .set_config(ConfigKind::ConfigMap, "map", &[("conf", "set\n")]);
    let volumes = json!([
        {"name": "host", "hostPath": {"path": host, "type": "Directory"}},
        {"name": "map", "configMap": {"name": "map"}},
        {"name": "work", "emptyDir": {}},
    ]);
    let mounts = json!([
        {"name": "host", "mountPath": "/gangline-host"},
        {"name": "host", "mountPath": "/gangline-ro", "readOnly": true},
        {"name": "map", "mountPath": "/etc/gangline.conf", "subPath": "conf"},
        {"name": "work", "mountPath": "/gangline-work"},
        {"name": "work", "mountPath": "/gangline-work/inner", "subPathExpr": "of/$(HOSTNAME)"},
        // Over the state of the kubelet itself.
        {"name": "work", "mountPath": world.root, "subPath": "hidden"},
    ]);
    let script = format!(
        "cat /gangline-host/file /etc/gangline.conf; grep -c root: /etc/passwd
        echo back > /gangline-host/back; echo x 2>/dev/null > /gangline-ro/file || echo read-only
        touch /gangline-work/inner/one; ls /gangline-work/of/p; ls {} | wc -l; pwd",
        world.root.display()
    );
    let log = said(&world, "p", &script, volumes, mounts).await;
    let here = std::env::current_dir().unwrap();
    let wanted = format!(
        "from the host\nset\n1\nread-only\none\n0\n{}\n",
        here.display()
    );
    assert_eq!(log, wanted);
    assert_eq!(
        std::fs::read_to_string(host.join("back")).unwrap(),
        "back\n"
    );
    assert!(!std::path::Path::new("/etc/gangline.conf").exists());
}

pub(crate) async fn an_end_behind_mounts_is_seen_as_any_other() {
    let world = World::new();
    let more = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let mounts = json!([{"name": "v", "mountPath": "/gangline-v"}]);
    let container = |command: Value| json!({"command": command, "volumeMounts": mounts});
    world.api.apply(single(
        "code",
        container(json!(["sh", "-c", "exit 7"])),
        more.clone(),
    ));
    world
        .api
        .apply(single("none", container(json!(["/none"])), more.clone()));
    let root = world.root.display();
    let held = format!("trap 'exit 9' TERM; touch {root}/up; while :; do sleep 0.05; done");
    world
        .api
        .apply(single("term", container(json!(["sh", "-c", held])), more));
    assert_eq!(world.api.ended("code").await.1, 7);
    assert_eq!(world.api.ended("none").await.2, "StartError");
    let status = world.api.over("none").await;
    let message = main(&status)
        .state
        .clone()
        .unwrap()
        .terminated
        .unwrap()
        .message
        .unwrap();
    assert!(message.starts_with("exec \"/none\": "), "{message}");
    world.file("up").await;
    world.api.delete("term", 30);
    world.api.gone("term").await;
    let last = world.api.written("term").pop().unwrap();
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

pub(crate) async fn volumes_that_cannot_be_are_refused_by_their_path() {
    let world = World::new();
    let empty = json!([{"name": "v", "emptyDir": {}}]);
    for (uid, volumes, mount, path) in [
        (
            "claim",
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]),
            json!({"name": "v", "mountPath": "/x"}),
            "spec.volumes[0].persistentVolumeClaim: ",
        ),
        (
            "token",
            json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
            json!({"name": "v", "mountPath": "/x"}),
            "spec.volumes[0].projected.sources[0].serviceAccountToken: ",
        ),
        (
            "unknown",
            empty.clone(),
            json!({"name": "w", "mountPath": "/x"}),
            "spec.containers[0].volumeMounts[0].name: ",
        ),
        (
            "root",
            empty.clone(),
            json!({"name": "v", "mountPath": "/"}),
            "spec.containers[0].volumeMounts[0].mountPath: ",
        ),
        (
            "out",
            empty,
            json!({"name": "v", "mountPath": "/x", "subPath": "../.."}),
            "spec.containers[0].volumeMounts[0].subPath: ",
        ),
    ] {
        let mut pod = script(uid, "true", json!({"volumes": volumes}));
        let container = &mut pod.spec.as_mut().unwrap().containers[0];
        container.volume_mounts = Some(vec![serde_json::from_value(mount).unwrap()]);
        world.api.apply(pod);
        let message = world.api.over(uid).await.message.unwrap();
        assert!(message.starts_with(path), "{message}");
    }
}

pub(crate) async fn a_machine_without_views_says_where_the_volumes_are() {
    // A user namespace that may have no mount namespace; where there are none of either, this machine will do.
    let none = "echo 0 > /proc/sys/user/max_mnt_namespaces; exec \"$@\"";
    let wrapped = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        none,
        "sh",
    ];
    let works = std::process::Command::new(wrapped[0])
        .args([wrapped[1], "true"])
        .status();
    let wrapper = if works.is_ok_and(|status| status.success()) {
        &wrapped[..]
    } else {
        &[]
    };
    let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let mounts = json!([{"name": "v", "mountPath": "/gangline-v"}]);
    for (mounts, code) in [(mounts, 128), (json!([]), 4)] {
        let command = json!(["sh", "-c", "touch $GANGLINE_VOLUMES/v/file && exit 4"]);
        let container = json!({"command": command, "volumeMounts": mounts});
        let root = tempfile::tempdir().unwrap();
        let pod = single("p", container, volumes.clone());
        let _server = Server::start(wrapper, root.path(), &pod);
        let run = Run::new(root.path().join("pods/p/c.0"));
        let exit = poll(|| run.exit(), "the end").await;
        assert_eq!(exit.code, code);
        let message = exit.message.unwrap_or_default();
        assert_eq!(
            message.contains("below $GANGLINE_VOLUMES"),
            code == 128,
            "{message}"
        );
    }
}
