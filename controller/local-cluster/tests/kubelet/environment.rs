//! What containers are given.

use std::collections::BTreeMap;

use gangline_local_cluster::kubelet::{ConfigKind, Image, LogOptions};
use serde_json::json;

use crate::world::{World, main, script, single, waiting};

pub(crate) async fn references_are_expanded_in_command_and_arguments() {
    let world = World::new();
    world
        .api
        .set_config(ConfigKind::Secret, "secret", &[("KEY", "hush")]);
    let container = json!({
        "command": ["printf", "%s\\n", "$(NAME)"],
        "args": ["$(TEAM)", "$$(TEAM)", "$(NONE)", "$(WEB_SERVICE_PORT)", "$(KEY)", "$(BOTH)"],
        "env": [
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "TEAM", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
            {"name": "BOTH", "value": "$(NAME) $(TEAM)"},
        ],
        "envFrom": [{"secretRef": {"name": "secret"}}],
    });
    world.api.apply(single("p", container, json!({})));
    assert_eq!(world.api.ended("p").await.1, 0);
    let log = world.log("p", LogOptions::default()).await;
    assert_eq!(log, "p\ndogs\n$(TEAM)\n$(NONE)\n80\nhush\np dogs\n");
}

pub(crate) async fn a_missing_config_map_is_waited_for() {
    let world = World::new();
    let from = json!({"configMapKeyRef": {"name": "later", "key": "code"}});
    let container = json!({"command": ["sh", "-c", "exit $CODE"], "env": [{"name": "CODE", "valueFrom": from}]});
    world.api.apply(single("p", container, json!({})));
    let status = world
        .api
        .until("p", |s| s.is_some_and(|s| s.container_statuses.is_some()))
        .await
        .unwrap();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(main(&status)), Some("CreateContainerConfigError"));
    let why = main(&status)
        .state
        .clone()
        .unwrap()
        .waiting
        .unwrap()
        .message;
    assert_eq!(why.as_deref(), Some("configmap \"later\" not found"));
    world
        .api
        .set_config(ConfigKind::ConfigMap, "later", &[("code", "4")]);
    assert_eq!(world.api.ended("p").await.1, 4);
}

pub(crate) async fn images_stand_for_commands() {
    let world = World::with(|config| {
        let image = Image {
            command: vec!["sh".into(), "-c".into(), "echo $GREETING $0".into()],
            args: vec!["world".into()],
            env: BTreeMap::from([("GREETING".into(), "hello".into())]),
        };
        config.images.insert("greeter".into(), image);
    });
    for (uid, more, said) in [
        ("plain", json!({}), "hello world\n"),
        ("args", json!({"args": ["dogs"]}), "hello dogs\n"),
        (
            "env",
            json!({"env": [{"name": "GREETING", "value": "bye"}]}),
            "bye world\n",
        ),
    ] {
        let mut container = json!({"image": "greeter:1.0"});
        container
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world.api.apply(single(uid, container, json!({})));
        assert_eq!(world.api.ended(uid).await.1, 0);
        assert_eq!(world.log(uid, LogOptions::default()).await, said);
    }
}

pub(crate) async fn the_environment_of_the_server_is_not_the_containers() {
    let world = World::new();
    world
        .api
        .apply(script("p", "env | cut -d= -f1 | sort", json!({})));
    assert_eq!(world.api.ended("p").await.1, 0);
    let log = world.log("p", LogOptions::default()).await;
    // The shell adds some of its own.
    let names: Vec<_> = log
        .lines()
        .filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
        .collect();
    assert_eq!(names, ["HOME", "HOSTNAME", "PATH", "WEB_SERVICE_PORT"]);
}
