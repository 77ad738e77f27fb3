//! What each resource makes of a new object and of a change: defaults, preparation, validation.

use serde_json::{Value, json};

use super::error::Cause;
use super::target::Part;
use super::{jobs, pods};
use crate::objects::resource::Resource;
use crate::objects::text;

/// The longest name of anything.
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// The longest name that has no dots, as in host names.
const LABEL_BYTES_MAX: usize = 63;

pub(super) const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const KEY_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Whether a text may be a label of a host name.
pub(crate) fn is_dns_label(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= LABEL_BYTES_MAX
        && bytes.first().is_some_and(|byte| is_inner(*byte))
        && bytes.last().is_some_and(|byte| is_inner(*byte))
        && bytes.iter().all(|byte| is_inner(*byte) || *byte == b'-')
}

/// Whether a text may be a host name.
pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= SUBDOMAIN_BYTES_MAX && {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_label = |part: &str| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|byte| is_inner(*byte))
                && bytes.last().is_some_and(|byte| is_inner(*byte))
                && bytes.iter().all(|byte| is_inner(*byte) || *byte == b'-')
        };
        name.split('.').all(is_label)
    }
}

/// Whether a text may be the name of a label, an annotation or a condition.
pub(super) fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_BYTES_MAX
        && bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Judges an object's own name, labels and annotations.
pub(crate) fn validate_metadata(resource: Resource, value: &Value) -> Vec<Cause> {
    let mut causes = validate_name(resource, value);
    causes.extend(validate_labels(&value["metadata"], "metadata"));
    causes
}

/// Judges labels and annotations, of an object or of a template.
pub(super) fn validate_labels(metadata: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut check = |map: &str, are_labels: bool| {
        let field = format!("{path}.{map}");
        for (key, value) in metadata[map].as_object().into_iter().flatten() {
            if !is_qualified_name(key) {
                causes.push(Cause::invalid(&*field, &json!(key), KEY_RULE));
            }
            let is_label = value.as_str().is_none_or(is_label_value);
            if are_labels && !is_label {
                causes.push(Cause::invalid(&*field, value, VALUE_RULE));
            }
        }
    };
    check("labels", true);
    check("annotations", false);
    causes
}

fn validate_name(resource: Resource, value: &Value) -> Vec<Cause> {
    let name = text(value, "name");
    if name.is_empty() {
        return vec![Cause::required(
            "metadata.name",
            "name or generateName is required",
        )];
    }
    let (fits, rule) = match resource {
        Resource::Namespaces | Resource::Services => (is_dns_label(name), LABEL_RULE),
        Resource::Nodes
        | Resource::Pods
        | Resource::Jobs
        | Resource::Events
        | Resource::ConfigMaps
        | Resource::Secrets
        | Resource::ServiceAccounts
        | Resource::Leases => (is_dns_subdomain(name), SUBDOMAIN_RULE),
    };
    if fits {
        return Vec::new();
    }
    vec![Cause::invalid("metadata.name", &json!(name), rule)]
}

/// Completes a new object.
pub(crate) fn prepare_create(resource: Resource, new: &mut Value) {
    match resource {
        Resource::Jobs => jobs::prepare_create(new),
        Resource::Pods => pods::prepare_create(new),
        Resource::Namespaces => {
            let name = text(new, "name").to_owned();
            new["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
            new["spec"]["finalizers"] = json!(["kubernetes"]);
            new["status"] = json!({ "phase": "Active" });
        }
        Resource::Secrets => prepare_secret(new),
        Resource::Services => {
            for (key, default) in [("type", "ClusterIP"), ("sessionAffinity", "None")] {
                if new["spec"][key].is_null() {
                    new["spec"][key] = default.into();
                }
            }
        }
        Resource::Nodes
        | Resource::Events
        | Resource::ConfigMaps
        | Resource::ServiceAccounts
        | Resource::Leases => {}
    }
}

/// Texts of a Secret are written in plain and kept as bytes.
fn prepare_secret(new: &mut Value) {
    if new["type"].is_null() {
        new["type"] = "Opaque".into();
    }
    let Some(object) = new.as_object_mut() else {
        return;
    };
    let Some(Value::Object(texts)) = object.remove("stringData") else {
        return;
    };
    for (key, text) in texts {
        let bytes = text.as_str().unwrap_or_default().as_bytes().to_vec();
        let encoded = serde_json::to_value(k8s_openapi::ByteString(bytes)).unwrap_or_default();
        new["data"][key] = encoded;
    }
}

/// Judges a new object.
pub(crate) fn validate_create(resource: Resource, new: &Value) -> Vec<Cause> {
    match resource {
        Resource::Jobs => jobs::validate_create(new),
        Resource::Pods => pods::validate_create(new),
        Resource::Namespaces
        | Resource::Nodes
        | Resource::Events
        | Resource::ConfigMaps
        | Resource::Secrets
        | Resource::Services
        | Resource::ServiceAccounts
        | Resource::Leases => Vec::new(),
    }
}

/// Completes a change: what the path does not name stays as it was.
pub(crate) fn prepare_update(resource: Resource, part: Part, before: &Value, new: &mut Value) {
    if resource.has_status() {
        let kept = match part {
            Part::Status => "spec",
            Part::Main | Part::Scale | Part::Log | Part::Eviction => "status",
        };
        match before.get(kept) {
            Some(value) => new[kept] = value.clone(),
            None => {
                if let Some(object) = new.as_object_mut() {
                    object.remove(kept);
                }
            }
        }
    }
    match (resource, part) {
        (Resource::Jobs, Part::Main | Part::Scale) => jobs::default(new),
        (Resource::Pods, Part::Main) => pods::prepare_update(new),
        (Resource::Secrets, _) => prepare_secret(new),
        _ => {}
    }
    if matches!(resource, Resource::Jobs | Resource::Pods) && new["spec"] != before["spec"] {
        let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Judges a change.
pub(crate) fn validate_update(
    resource: Resource,
    part: Part,
    before: &Value,
    new: &Value,
) -> Vec<Cause> {
    match (resource, part) {
        (Resource::Jobs, Part::Status) => jobs::validate_status(before, new),
        (Resource::Jobs, _) => jobs::validate_update(before, new),
        (Resource::Pods, Part::Main) => pods::validate_update(before, new),
        (Resource::ConfigMaps | Resource::Secrets, _) => validate_immutable(before, new),
        _ => Vec::new(),
    }
}

fn validate_immutable(before: &Value, new: &Value) -> Vec<Cause> {
    if before["immutable"] != true {
        return Vec::new();
    }
    let keys = ["immutable", "data", "binaryData"].into_iter();
    let changed = keys.filter(|key| before[*key] != new[*key]);
    let why = "field is immutable when `immutable` is set";
    changed.map(|key| Cause::forbidden(key, why)).collect()
}

/// What is allowed, and yet worth a word.
pub(crate) fn warnings(resource: Resource, before: Option<&Value>, new: &Value) -> Vec<String> {
    let is_same = before
        .is_some_and(|before| before["metadata"]["generation"] == new["metadata"]["generation"]);
    if is_same || resource != Resource::Jobs {
        return Vec::new();
    }
    jobs::warnings(new)
}
