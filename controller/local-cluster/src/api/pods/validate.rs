//! What a Pod may say of itself, as far as it matters here.

use serde_json::{Value, json};

use super::super::error::Cause;
use super::super::strategy::{LABEL_RULE, is_dns_label};
use crate::kubelet::quantity::nanos;
use crate::objects::{field, items_mut};

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const VARIABLE_RULE: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
/// What asks or tells a container something.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
/// Kinds of resources whose bound is never below what is asked for.
const BOUNDED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

pub(in crate::api) fn validate_create(pod: &Value) -> Vec<Cause> {
    let mut causes = validate_spec(&pod["spec"], "spec");
    let policy = field(pod, "spec.restartPolicy");
    let known = ["Always", "OnFailure", "Never"];
    if !known.contains(&policy) {
        causes.push(Cause::not_supported("spec.restartPolicy", policy, &known));
    }
    causes
}

/// Judges what the kubelet relies on, in a Pod and in a template.
pub(in crate::api) fn validate_spec(spec: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut volumes = Vec::new();
    for (position, volume) in items(spec, "volumes").iter().enumerate() {
        named(
            &mut causes,
            &mut volumes,
            volume,
            &format!("{path}.volumes[{position}].name"),
        );
    }
    if items(spec, "containers").is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names = Vec::new();
    for key in ["initContainers", "containers"] {
        for (position, container) in items(spec, key).iter().enumerate() {
            let at = format!("{path}.{key}[{position}]");
            named(&mut causes, &mut names, container, &format!("{at}.name"));
            if container["image"].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::required(format!("{at}.image"), ""));
            }
            environment(&mut causes, container, &at);
            resources(
                &mut causes,
                &container["resources"],
                &format!("{at}.resources"),
            );
            mounts(&mut causes, container, &volumes, &at);
            hooks(&mut causes, container, &at);
            probes(&mut causes, container, &at);
        }
    }
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|seconds| seconds < 1) {
        let why = "must be between 1 and 2147483647, inclusive";
        let field = format!("{path}.activeDeadlineSeconds");
        causes.push(Cause::invalid(field, deadline, why));
    }
    not_negative(&mut causes, spec, "terminationGracePeriodSeconds", path);
    causes
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A name that no other of its list has.
fn named<'a>(causes: &mut Vec<Cause>, known: &mut Vec<&'a str>, one: &'a Value, at: &str) {
    let name = one["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(Cause::required(at, ""));
    } else if !is_dns_label(name) {
        causes.push(Cause::invalid(at, &json!(name), LABEL_RULE));
    } else if known.contains(&name) {
        causes.push(Cause::duplicate(at, &json!(name)));
    }
    known.push(name);
}

fn not_negative(causes: &mut Vec<Cause>, value: &Value, key: &str, at: &str) {
    if value[key].as_i64().is_some_and(|number| number < 0) {
        causes.push(Cause::invalid(
            format!("{at}.{key}"),
            &value[key],
            NOT_NEGATIVE,
        ));
    }
}

fn environment(causes: &mut Vec<Cause>, container: &Value, at: &str) {
    for (position, variable) in items(container, "env").iter().enumerate() {
        let at = format!("{at}.env[{position}]");
        let name = variable["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !name
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
        {
            causes.push(Cause::invalid(
                format!("{at}.name"),
                &json!(name),
                VARIABLE_RULE,
            ));
        }
        let has_value = variable["value"]
            .as_str()
            .is_some_and(|value| !value.is_empty());
        if has_value && variable["valueFrom"].is_object() {
            let why = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid(format!("{at}.valueFrom"), &json!(""), why));
        }
    }
}

fn resources(causes: &mut Vec<Cause>, resources: &Value, at: &str) {
    for list in ["limits", "requests"] {
        for (name, quantity) in resources[list].as_object().into_iter().flatten() {
            if quantity.as_str().is_some_and(|text| text.starts_with('-')) {
                let field = format!("{at}.{list}[{name}]");
                causes.push(Cause::invalid(field, quantity, NOT_NEGATIVE));
            }
        }
    }
    for name in BOUNDED {
        let of = |list: &str| resources[list][name].as_str();
        let (Some(asked), Some(limit)) = (of("requests"), of("limits")) else {
            continue;
        };
        if let (Ok(wanted), Ok(most)) = (nanos(asked), nanos(limit))
            && wanted > most
        {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            causes.push(Cause::invalid(
                format!("{at}.requests"),
                &json!(asked),
                &why,
            ));
        }
    }
}

fn mounts(causes: &mut Vec<Cause>, container: &Value, volumes: &[&str], at: &str) {
    let mut paths = Vec::new();
    for (position, mount) in items(container, "volumeMounts").iter().enumerate() {
        let at = format!("{at}.volumeMounts[{position}]");
        let name = mount["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !volumes.contains(&name) {
            causes.push(Cause::not_found(format!("{at}.name"), &json!(name)));
        }
        let path = mount["mountPath"].as_str().unwrap_or_default();
        if path.is_empty() {
            causes.push(Cause::required(format!("{at}.mountPath"), ""));
        } else if paths.contains(&path) {
            let field = format!("{at}.mountPath");
            causes.push(Cause::invalid(field, &json!(path), "must be unique"));
        }
        paths.push(path);
    }
}

/// One way to ask, and not two.
fn handler(causes: &mut Vec<Cause>, value: &Value, at: &str) {
    let mut given = HANDLERS.into_iter().filter(|kind| value[kind].is_object());
    if given.next().is_none() {
        causes.push(Cause::required(at, "must specify a handler type"));
    }
    for other in given {
        let why = "may not specify more than 1 handler type";
        causes.push(Cause::forbidden(format!("{at}.{other}"), why));
    }
}

fn hooks(causes: &mut Vec<Cause>, container: &Value, at: &str) {
    for hook in ["postStart", "preStop"] {
        let value = &container["lifecycle"][hook];
        if value.is_object() {
            handler(causes, value, &format!("{at}.lifecycle.{hook}"));
        }
    }
}

fn probes(causes: &mut Vec<Cause>, container: &Value, at: &str) {
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[kind];
        if !probe.is_object() {
            continue;
        }
        let at = format!("{at}.{kind}");
        handler(causes, probe, &at);
        for key in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            not_negative(causes, probe, key, &at);
        }
        let successes = &probe["successThreshold"];
        if kind != "readinessProbe" && successes.as_i64().is_some_and(|count| count > 1) {
            causes.push(Cause::invalid(
                format!("{at}.successThreshold"),
                successes,
                "must be 1",
            ));
        }
    }
}

pub(in crate::api) fn validate_update(before: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = validate_create(new);
    if fixed(&before["spec"]) != fixed(&new["spec"]) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        causes.push(Cause::forbidden("spec", why));
    }
    causes
}

/// The part of a spec that may not change.
fn fixed(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        for key in [
            "activeDeadlineSeconds",
            "tolerations",
            "schedulingGates",
            "nodeName",
        ] {
            fields.remove(key);
        }
    }
    for list in ["initContainers", "containers"] {
        for container in items_mut(&mut spec, list) {
            if let Some(fields) = container.as_object_mut() {
                fields.remove("image");
                fields.remove("imagePullPolicy");
            }
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(container: &Value, expected: &[&str]) {
        let mut whole = json!({ "name": "m", "image": "x" });
        let fields = container.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(fields);
        let spec = json!({ "containers": [whole], "volumes": [{ "name": "v" }] });
        let causes = validate_spec(&spec, "spec");
        let found: Vec<String> = causes
            .iter()
            .map(|cause| {
                format!("{}: {}", cause.field, cause.message).replace("spec.containers[0].", "")
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn containers_are_judged_in_the_words_of_kubernetes() {
        check(&json!({}), &[]);
        check(
            &json!({ "resources": { "limits": { "memory": "10Mi" }, "requests": { "memory": "20Mi" } } }),
            &[
                "resources.requests: Invalid value: \"20Mi\": must be less than or equal to memory limit of 10Mi",
            ],
        );
        check(
            &json!({ "resources": { "limits": { "cpu": "-1" } } }),
            &["resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check(
            &json!({ "volumeMounts": [{ "name": "v", "mountPath": "/a" }, { "name": "w", "mountPath": "/a" }] }),
            &[
                "volumeMounts[1].name: Not found: \"w\"",
                "volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            ],
        );
        check(
            &json!({ "env": [{ "name": "a=b" }, { "name": "A.b-c" }] }),
            &[&*format!(
                "env[0].name: Invalid value: \"a=b\": {VARIABLE_RULE}"
            )],
        );
        check(
            &json!({
                "livenessProbe": { "periodSeconds": -1 },
                "readinessProbe": { "exec": {}, "tcpSocket": {}, "successThreshold": 2 },
                "startupProbe": { "exec": {}, "successThreshold": 2 },
            }),
            &[
                "livenessProbe: Required value: must specify a handler type",
                "livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                "startupProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        );
    }
}
