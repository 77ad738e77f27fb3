//! What this kubelet cannot do for a Pod, found before anything of it is started. Pure.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::status::containers;
use super::{Config, images};

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
    let (init, main) = containers(pod);
    let named = [("spec.initContainers", init), ("spec.containers", main)];
    for (list, containers) in named {
        for (index, container) in containers.iter().enumerate() {
            check_container(container, config).map_err(|(field, why)| Refusal {
                path: format!("{list}[{index}].{field}"),
                why,
            })?;
        }
    }
    Ok(())
}

fn check_container(container: &Container, config: &Config) -> Result<(), (&'static str, String)> {
    let unsupported = |field| Err((field, "is not supported by the local cluster".to_owned()));
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
    let lifecycle = container.lifecycle.as_ref();
    if lifecycle.is_some_and(|lifecycle| lifecycle.post_start.is_some()) {
        return unsupported("lifecycle.postStart");
    }
    if lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some()) {
        return unsupported("lifecycle.preStop");
    }
    if container
        .volume_mounts
        .as_ref()
        .is_some_and(|mounts| !mounts.is_empty())
    {
        return unsupported("volumeMounts");
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
