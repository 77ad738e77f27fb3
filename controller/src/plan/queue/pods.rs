//! What a Pod that works on a queue needs to know.

use serde_json::{Value, json};

use super::annotations::QueueSpec;
use crate::api::names::{ENV_GRACE_SECONDS, ENV_QUEUE, ENV_TOKEN, ENV_URL, ENV_WORKER};
use crate::plan::create::{Template, add_env_entry};

/// Kubernetes' own default for `terminationGracePeriodSeconds`.
const GRACE_SECONDS_DEFAULT: i64 = 30;
/// Holds the Pod's uid, which the worker's name is made of.
const ENV_POD_UID: &str = "GANGLINE_POD_UID";
const BINARY_VOLUME: &str = "gangline-binary";
const BINARY_FOLDER: &str = "/gangline";

/// How workers reach the queue service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerSettings {
    /// Its URL.
    pub url: String,
    /// The token that they show.
    pub token: Option<TokenSecret>,
    /// What runs a command that knows nothing of queues.
    pub wrapper: Wrapper,
}

/// The place of a worker's token in a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSecret {
    /// The Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// What runs a command that knows nothing of queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrapper {
    /// A `gangline` that every container finds at this path.
    Path(String),
    /// A `gangline` at `path` in `image`: an init container brings it.
    Image {
        /// The image.
        image: String,
        /// The path in it.
        path: String,
    },
}

impl Default for Wrapper {
    fn default() -> Self {
        Self::Path("gangline".into())
    }
}

/// Makes the Pods of `template` workers of the queue. Variables that the user set stay.
pub fn equip(template: &mut Template, spec: &QueueSpec, settings: &WorkerSettings) {
    if spec.wrap {
        wrap(template.spec_mut(), &settings.wrapper);
    }
    let grace = template.spec_mut()["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(GRACE_SECONDS_DEFAULT);
    let mut entries = vec![
        json!({ "name": ENV_URL, "value": settings.url }),
        json!({ "name": ENV_QUEUE, "value": spec.queue.full() }),
        json!({ "name": ENV_GRACE_SECONDS, "value": grace.to_string() }),
        json!({ "name": ENV_POD_UID, "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } }),
    ];
    entries.extend(settings.token.as_ref().map(|TokenSecret { name, key }| {
        let place = json!({ "name": name, "key": key });
        json!({ "name": ENV_TOKEN, "valueFrom": { "secretKeyRef": place } })
    }));
    for container in containers(template.spec_mut()) {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        for entry in &entries {
            add_env_entry(container, entry);
        }
        let worker = format!("$({ENV_POD_UID}).{name}");
        add_env_entry(container, &json!({ "name": ENV_WORKER, "value": worker }));
    }
}

/// Tells whether the user has the Pods of `template` work under another name, on another queue or
/// with another service: then nothing is known of their sessions.
#[must_use]
pub fn is_worker_elsewhere(template: &Value) -> bool {
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let containers = list(&template["spec"], "containers");
    let mut entries = containers
        .iter()
        .flat_map(|container| list(container, "env"));
    entries.any(|entry| {
        let name = entry["name"].as_str().unwrap_or_default();
        [ENV_URL, ENV_QUEUE, ENV_WORKER].contains(&name)
    })
}

fn containers(spec: &mut Value) -> impl Iterator<Item = &mut Value> {
    spec.get_mut("containers")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Has the command of the first container run by `gangline work`.
fn wrap(spec: &mut Value, wrapper: &Wrapper) {
    let path = match wrapper {
        Wrapper::Path(path) => path.clone(),
        Wrapper::Image { image, path } => bring_binary(spec, image, path),
    };
    if let Some(container) = containers(spec).next() {
        let mut command = vec![json!(path), json!("work"), json!("--")];
        command.extend(container["command"].as_array().cloned().unwrap_or_default());
        command.extend(container["args"].as_array().cloned().unwrap_or_default());
        container["command"] = Value::Array(command);
        if let Some(container) = container.as_object_mut() {
            container.remove("args");
        }
    }
}

fn bring_binary(spec: &mut Value, image: &str, path: &str) -> String {
    let target = format!("{BINARY_FOLDER}/gangline");
    let mount = json!({ "name": BINARY_VOLUME, "mountPath": BINARY_FOLDER });
    push(
        spec,
        "volumes",
        json!({ "name": BINARY_VOLUME, "emptyDir": {} }),
    );
    push(
        spec,
        "initContainers",
        json!({
            "name": BINARY_VOLUME,
            "image": image,
            "command": ["cp", path, target],
            "volumeMounts": [mount],
        }),
    );
    if let Some(container) = containers(spec).next() {
        push(container, "volumeMounts", mount);
    }
    target
}

fn push(object: &mut Value, list: &str, entry: Value) {
    if !object[list].is_array() {
        object[list] = Value::Array(Vec::new());
    }
    if let Some(list) = object[list].as_array_mut() {
        list.push(entry);
    }
}
