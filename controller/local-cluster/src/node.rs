//! The one node: its object, and the Pods on it as the kubelet sees and reports them.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::VERSION;
use crate::api::error::Result;
use crate::api::write::{change_own, create_own, time};
use crate::kubelet::{ConfigData, ConfigKind, PodApi, PodEvent, boot_id};
use crate::objects::resource::Resource;
use crate::objects::{Change, ChangeKind, Object, Store, field, text};

/// What the node is called.
pub(crate) const NODE_NAME: &str = "gangline";

/// Makes the node's object.
pub(crate) fn register(store: &Store) -> Result<()> {
    let cores = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    let resources = json!({
        "cpu": cores, "memory": format!("{}Ki", memory_kib()), "pods": "100000",
    });
    let node = json!({
        "metadata": { "name": NODE_NAME, "labels": {
            "kubernetes.io/hostname": NODE_NAME,
            "kubernetes.io/os": std::env::consts::OS,
            "kubernetes.io/arch": std::env::consts::ARCH,
        } },
        "spec": {},
        "status": {
            "capacity": resources, "allocatable": resources,
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": boot_id(), "osImage": "",
                "kernelVersion": read("/proc/sys/kernel/osrelease"),
                "containerRuntimeVersion": concat!("gangline://", env!("CARGO_PKG_VERSION")),
                "kubeletVersion": VERSION, "kubeProxyVersion": "",
                "operatingSystem": std::env::consts::OS, "architecture": std::env::consts::ARCH,
            },
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "the kubelet runs in the API server's process",
                "lastHeartbeatTime": time(), "lastTransitionTime": time(),
            }],
        },
    });
    match create_own(store, Resource::Nodes, None, &node) {
        // It was here before, and what it has may have changed.
        Err(error) if error.is_already_exists() => {
            let known = store.get(Resource::Nodes, "", NODE_NAME);
            let uid = known
                .map(|known| known.uid().to_owned())
                .unwrap_or_default();
            change_own(store, (Resource::Nodes, "", NODE_NAME), &uid, |value| {
                value["status"] = node["status"].clone();
                true
            });
            Ok(())
        }
        made => made.map(drop),
    }
}

/// The first line of a file of the kernel's, empty where there is none.
fn read(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// The memory of this machine.
fn memory_kib() -> u64 {
    // `MemTotal:       16384000 kB`
    let line = read("/proc/meminfo");
    let number = line.split_whitespace().nth(1);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The API as the kubelet needs it.
pub(crate) struct NodePods(pub(crate) Arc<Store>);

struct Following {
    store: Arc<Store>,
    changed: tokio::sync::watch::Receiver<()>,
    version: u64,
    ready: VecDeque<PodEvent>,
}

fn is_here(object: &Object) -> bool {
    field(&object.value(), "spec.nodeName") == NODE_NAME
}

fn typed(object: &Object) -> Option<PodEvent> {
    match serde_json::from_slice(object.bytes()) {
        Ok(pod) => Some(PodEvent::Applied(Arc::new(pod))),
        Err(error) => {
            tracing::error!(%error, pod.name = object.name(), "a stored Pod is not understood");
            None
        }
    }
}

/// What a change is to the kubelet. A change of the status alone is its own, and no news.
fn seen(change: &Change) -> Option<PodEvent> {
    if change.kind == ChangeKind::Deleted {
        return Some(PodEvent::Deleted(change.object.uid().to_owned()));
    }
    let is_same = |before: &Object| {
        let keys = [
            "labels",
            "annotations",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ];
        let (old, new) = (before.value(), change.object.value());
        old["spec"] == new["spec"]
            && keys
                .iter()
                .all(|key| old["metadata"][key] == new["metadata"][key])
    };
    if !is_here(&change.object) || change.before.as_deref().is_some_and(is_same) {
        return None;
    }
    typed(&change.object)
}

impl Following {
    async fn next(&mut self) -> Option<PodEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.changed.mark_unchanged();
            match self.store.changes(Resource::Pods, self.version) {
                Ok(changes) => {
                    for change in changes {
                        self.version = change.version;
                        self.ready.extend(seen(&change));
                    }
                }
                Err(_) => self.list(),
            }
            // What runs is known after whatever happens.
            if !self.ready.is_empty() && self.store.synced().await.is_err() {
                return None;
            }
            if self.ready.is_empty() && self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    fn list(&mut self) {
        let (objects, version) = self.store.list(Resource::Pods, None);
        self.version = version;
        let here = objects.iter().filter(|object| is_here(object));
        self.ready.extend(here.filter_map(|object| typed(object)));
    }
}

impl PodApi for NodePods {
    fn watch(&self) -> BoxStream<'static, PodEvent> {
        let mut following = Following {
            store: Arc::clone(&self.0),
            changed: self.0.subscribe(Resource::Pods),
            version: 0,
            ready: VecDeque::new(),
        };
        following.list();
        following.ready.push_back(PodEvent::Listed);
        stream::unfold(following, |mut following| async {
            following.next().await.map(|event| (event, following))
        })
        .boxed()
    }

    fn patch_status(&self, pod: &Pod, status: PodStatus) -> BoxFuture<'_, io::Result<()>> {
        let written = write_status(&self.0, pod, &status);
        let is_end = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        async move {
            written?;
            if is_end {
                self.0.synced().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, pod: &Pod) -> BoxFuture<'_, io::Result<()>> {
        let (namespace, name, uid) = place(pod);
        change_own(&self.0, (Resource::Pods, namespace, name), uid, |value| {
            if text(value, "deletionTimestamp").is_empty() {
                value["metadata"]["deletionTimestamp"] = time().into();
            }
            value["metadata"]["deletionGracePeriodSeconds"] = 0.into();
            true
        });
        // Whoever is gone already is removed.
        async { Ok(()) }.boxed()
    }

    fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        if let Err(error) = write_warning(&self.0, pod, reason, message) {
            tracing::warn!(%error, reason, "an event of a Pod was not written: {message}");
        }
    }

    fn config(
        &self,
        namespace: &str,
        kind: ConfigKind,
        name: &str,
    ) -> BoxFuture<'_, io::Result<Option<ConfigData>>> {
        let resource = match kind {
            ConfigKind::ConfigMap => Resource::ConfigMaps,
            ConfigKind::Secret => Resource::Secrets,
        };
        let object = self.0.get(resource, namespace, name);
        let data = object.map(|object| match kind {
            ConfigKind::ConfigMap => config_map(&object.value()),
            ConfigKind::Secret => bytes(&object.value()["data"]),
        });
        async { data.transpose() }.boxed()
    }

    fn services(&self, namespace: &str) -> BoxFuture<'_, io::Result<Vec<(String, String)>>> {
        let (services, _) = self.0.list(Resource::Services, Some(namespace));
        let variables = services.iter().flat_map(|service| {
            let name = service.name().to_uppercase().replace('-', "_");
            variables(&name, &service.value()["spec"])
        });
        let variables = variables.collect();
        async { Ok(variables) }.boxed()
    }
}

fn config_map(map: &Value) -> io::Result<ConfigData> {
    let texts = map["data"].as_object().into_iter().flatten();
    let mut data = bytes(&map["binaryData"])?;
    data.extend(texts.map(|(key, text)| {
        let text = text.as_str().unwrap_or_default();
        (key.clone(), text.as_bytes().to_vec())
    }));
    Ok(data)
}

fn bytes(values: &Value) -> io::Result<ConfigData> {
    let values = values.as_object().into_iter().flatten();
    let decoded = values.map(|(key, value)| {
        let bytes = ByteString::deserialize(value).map_err(io::Error::other)?;
        Ok((key.clone(), bytes.0))
    });
    decoded.collect()
}

/// What containers are told of a service that has an address.
fn variables(name: &str, spec: &Value) -> Vec<(String, String)> {
    let host = spec["clusterIP"].as_str().unwrap_or_default();
    if matches!(host, "" | "None") {
        return Vec::new();
    }
    let mut variables = vec![(format!("{name}_SERVICE_HOST"), host.to_owned())];
    let ports = spec["ports"].as_array().into_iter().flatten();
    for (position, port) in ports.enumerate() {
        let number = port["port"].to_string();
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let address = format!("{}://{host}:{number}", protocol.to_lowercase());
        if position == 0 {
            variables.push((format!("{name}_SERVICE_PORT"), number.clone()));
            variables.push((format!("{name}_PORT"), address.clone()));
        }
        if let Some(port_name) = port["name"].as_str() {
            let port_name = port_name.to_uppercase().replace('-', "_");
            variables.push((format!("{name}_SERVICE_PORT_{port_name}"), number.clone()));
        }
        let prefix = format!("{name}_PORT_{number}_{protocol}");
        variables.push((prefix.clone(), address));
        variables.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        variables.push((format!("{prefix}_PORT"), number));
        variables.push((format!("{prefix}_ADDR"), host.to_owned()));
    }
    variables
}

fn place(pod: &Pod) -> (&str, &str, &str) {
    let metadata = &pod.metadata;
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        metadata.uid.as_deref().unwrap_or_default(),
    )
}

fn write_status(store: &Store, pod: &Pod, status: &PodStatus) -> io::Result<()> {
    let status = serde_json::to_value(status).map_err(io::Error::other)?;
    let (namespace, name, uid) = place(pod);
    let written = change_own(store, (Resource::Pods, namespace, name), uid, |value| {
        let mut status = status.clone();
        keep_conditions(&value["status"], &mut status);
        if status["qosClass"].is_null() {
            status["qosClass"] = value["status"]["qosClass"].clone();
        }
        value["status"] = status;
        true
    });
    written
        .map(drop)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Writes an event, or counts up the one that says the same of this Pod.
fn write_warning(store: &Store, pod: &Pod, reason: &str, message: &str) -> Result<()> {
    let (namespace, name, uid) = place(pod);
    let mut hasher = DefaultHasher::new();
    (uid, reason, message).hash(&mut hasher);
    let event_name = format!("{name}.{:016x}", hasher.finish());
    let known = store.get(Resource::Events, namespace, &event_name);
    let counted = known.and_then(|known| {
        let at = (Resource::Events, namespace, event_name.as_str());
        change_own(store, at, known.uid(), |event| {
            event["count"] = (event["count"].as_i64().unwrap_or(1) + 1).into();
            event["lastTimestamp"] = time().into();
            true
        })
    });
    if counted.is_some() {
        return Ok(());
    }
    let event = json!({
        "metadata": { "name": event_name },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid,
        },
        "type": "Warning", "reason": reason, "message": message, "count": 1,
        "source": { "component": "kubelet", "host": NODE_NAME },
        "reportingComponent": "kubelet", "reportingInstance": NODE_NAME,
        "firstTimestamp": time(), "lastTimestamp": time(),
    });
    create_own(store, Resource::Events, Some(namespace), &event).map(drop)
}

/// Conditions that others have written stay.
fn keep_conditions(before: &Value, status: &mut Value) {
    let list = |status: &Value| status["conditions"].as_array().cloned().unwrap_or_default();
    let mut conditions = list(status);
    let is_known = |type_: &Value| {
        conditions
            .iter()
            .any(|condition| condition["type"] == *type_)
    };
    let mut kept: Vec<Value> = list(before)
        .into_iter()
        .filter(|condition| !is_known(&condition["type"]))
        .collect();
    kept.append(&mut conditions);
    status["conditions"] = kept.into();
}
