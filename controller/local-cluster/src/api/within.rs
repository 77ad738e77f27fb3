//! What would happen within a container, as `kubectl exec` would have it. Nothing of that is served, and each is told why.

use http::HeaderMap;
use serde_json::Value;

use super::error::{ApiError, Result};

/// The commands of `kubectl` that reach into a container.
const COMMANDS: [&str; 5] = ["attach", "cp", "debug", "exec", "port-forward"];
/// The parts of a Pod that they would ask for.
const PARTS: [&str; 4] = ["attach", "ephemeralcontainers", "exec", "portforward"];
/// In which `kubectl` says of each request what command it is for.
const COMMAND_HEADER: &str = "kubectl-command";

/// Refuses what is on its way into a container.
///
/// `kubectl` first reads the Pod and is told then: it would stumble over the token in the URL of its kubeconfig before it
/// asked for more.
pub(super) fn refuse(path: &str, headers: &HeaderMap) -> Result<()> {
    let command = command(headers).filter(|command| COMMANDS.contains(command));
    let mut parts = path.trim_end_matches('/').rsplit('/');
    let part = match (parts.next(), parts.nth(1)) {
        (Some(part), Some("pods")) if PARTS.contains(&part) => Some(part),
        _ => None,
    };
    match command.or(part) {
        Some(wanted) => Err(ApiError::not_within(wanted)),
        None => Ok(()),
    }
}

/// Refuses a Pod that `kubectl run -i` wants to type into, before it is there.
pub(super) fn refuse_typing(pod: &Value, headers: &HeaderMap) -> Result<()> {
    let mut containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let is_typed_into = containers.any(|container| container["stdin"] == true);
    match command(headers) {
        Some("run") if is_typed_into => Err(ApiError::not_typed_into()),
        _ => Ok(()),
    }
}

/// The command of `kubectl` that a request is for.
fn command(headers: &HeaderMap) -> Option<&str> {
    let said = headers.get(COMMAND_HEADER)?;
    said.to_str().ok()?.strip_prefix("kubectl ")
}
