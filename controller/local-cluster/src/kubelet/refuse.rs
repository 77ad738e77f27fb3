//! What this kubelet cannot do for a Pod, found before anything of it is started. Pure.

use std::fmt;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use serde::Serialize;

use super::status::containers;
use super::{Config, images, volumes};

const UNSUPPORTED: &str = "is not supported by the local cluster";
/// The kinds of volume there are here.
const VOLUMES: [&str; 7] = [
    "name",
    "emptyDir",
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
    "hostPath",
];
const PROJECTIONS: [&str; 3] = ["configMap", "secret", "downwardAPI"];

/// A field of a Pod that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    path: String,
    why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// Refuses a Pod that would not do here what it says.
pub(super) fn check(pod: &Pod, config: &Config) -> Result<(), Refusal> {
    check_volumes(pod)?;
    let (init, main) = containers(pod);
    let named = [("spec.initContainers", init), ("spec.containers", main)];
    for (list, containers) in named {
        for (index, container) in containers.iter().enumerate() {
            check_container(container, config).map_err(|(field, why)| Refusal {
                path: format!("{list}[{index}].{field}"),
                why,
            })?;
            for (at, mount) in container.volume_mounts.iter().flatten().enumerate() {
                check_mount(pod, mount).map_err(|(field, why)| Refusal {
                    path: format!("{list}[{index}].volumeMounts[{at}].{field}"),
                    why,
                })?;
            }
        }
    }
    Ok(())
}

fn check_volumes(pod: &Pod) -> Result<(), Refusal> {
    let refuse = |path: String, why: &str| {
        let why = why.to_owned();
        Err(Refusal { path, why })
    };
    for (index, volume) in volumes::of(pod).iter().enumerate() {
        let path = format!("spec.volumes[{index}]");
        if !volumes::is_inside(&volume.name) || volume.name.contains(['/', '.']) {
            return refuse(format!("{path}.name"), "must be a DNS label");
        }
        if let Some(kind) = foreign(volume, &VOLUMES) {
            return refuse(format!("{path}.{kind}"), UNSUPPORTED);
        }
        let sources = volume.projected.as_ref().and_then(|of| of.sources.as_ref());
        for (at, source) in sources.into_iter().flatten().enumerate() {
            if let Some(kind) = foreign(source, &PROJECTIONS) {
                return refuse(
                    format!("{path}.projected.sources[{at}].{kind}"),
                    UNSUPPORTED,
                );
            }
        }
        let empty = volume.empty_dir.as_ref();
        let medium = empty.and_then(|empty| empty.medium.as_deref());
        if medium.is_some_and(|medium| medium.starts_with("HugePages")) {
            return refuse(format!("{path}.emptyDir.medium"), UNSUPPORTED);
        }
        if volume
            .host_path
            .as_ref()
            .is_some_and(|host| !host.path.starts_with('/'))
        {
            return refuse(format!("{path}.hostPath.path"), "must be absolute");
        }
    }
    Ok(())
}

/// The first field that is set and not among these.
fn foreign(source: &impl Serialize, known: &[&str]) -> Option<String> {
    let value = serde_json::to_value(source).ok()?;
    let fields = value.as_object()?;
    fields
        .keys()
        .find(|field| !known.contains(&field.as_str()))
        .cloned()
}

fn check_mount(pod: &Pod, mount: &VolumeMount) -> Result<(), (&'static str, String)> {
    if volumes::of(pod)
        .iter()
        .all(|volume| volume.name != mount.name)
    {
        return Err(("name", format!("there is no volume {:?}", mount.name)));
    }
    let path = Path::new(&mount.mount_path);
    let is_own = ["/proc", "/sys"].iter().any(|own| path.starts_with(own));
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !is_plain || path == Path::new("/") || is_own {
        let why = "must be absolute, without .., and neither / nor in /proc or /sys".to_owned();
        return Err(("mountPath", why));
    }
    if mount
        .sub_path
        .as_deref()
        .is_some_and(|path| !path.is_empty() && !volumes::is_inside(path))
    {
        return Err(("subPath", "must be relative and without ..".to_owned()));
    }
    let unsupported = |field| Err((field, UNSUPPORTED.to_owned()));
    if mount
        .mount_propagation
        .as_deref()
        .is_some_and(|how| how != "None")
    {
        return unsupported("mountPropagation");
    }
    if mount
        .recursive_read_only
        .as_deref()
        .is_some_and(|how| how != "Disabled")
    {
        return unsupported("recursiveReadOnly");
    }
    Ok(())
}

fn check_container(container: &Container, config: &Config) -> Result<(), (&'static str, String)> {
    let unsupported = |field| Err((field, UNSUPPORTED.to_owned()));
    if images::argv(container, &config.images).is_none() {
        let why = match container.image.as_deref() {
            Some(image) => format!(
                "is not given, and images.toml has no entry for {image:?}: images are not pulled here, so that a command of this machine must be named"
            ),
            None => {
                "is not given, and neither is an image that images.toml could name a command for"
                    .to_owned()
            }
        };
        return Err(("command", why));
    }
    if let Some(lifecycle) = &container.lifecycle {
        let hooks = [
            (
                &lifecycle.post_start,
                [
                    "lifecycle.postStart.httpGet",
                    "lifecycle.postStart.tcpSocket",
                ],
            ),
            (
                &lifecycle.pre_stop,
                ["lifecycle.preStop.httpGet", "lifecycle.preStop.tcpSocket"],
            ),
        ];
        for (hook, [http, tcp]) in hooks {
            if hook.as_ref().is_some_and(|hook| hook.http_get.is_some()) {
                return unsupported(http);
            }
            if hook.as_ref().is_some_and(|hook| hook.tcp_socket.is_some()) {
                return unsupported(tcp);
            }
        }
    }
    for (probe, [grpc, https]) in [
        (
            &container.startup_probe,
            ["startupProbe.grpc", "startupProbe.httpGet.scheme"],
        ),
        (
            &container.liveness_probe,
            ["livenessProbe.grpc", "livenessProbe.httpGet.scheme"],
        ),
        (
            &container.readiness_probe,
            ["readinessProbe.grpc", "readinessProbe.httpGet.scheme"],
        ),
    ] {
        let Some(probe) = probe else {
            continue;
        };
        if probe.grpc.is_some() {
            return unsupported(grpc);
        }
        let get = probe.http_get.as_ref();
        if get
            .and_then(|get| get.scheme.as_deref())
            .is_some_and(|scheme| scheme != "HTTP")
        {
            return unsupported(https);
        }
    }
    if container
        .volume_devices
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return unsupported("volumeDevices");
    }
    if container.stdin == Some(true) {
        return unsupported("stdin");
    }
    if container.tty == Some(true) {
        return unsupported("tty");
    }
    if let Some(path) = container.termination_message_path.as_deref()
        && path != "/dev/termination-log"
    {
        let why = format!(
            "{path:?} is not read by the local cluster, the end of the log is: set terminationMessagePolicy to FallbackToLogsOnError"
        );
        return Err(("terminationMessagePath", why));
    }
    Ok(())
}
