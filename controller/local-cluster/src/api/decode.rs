//! From a request's body to an object that has no field but known ones, each of its type.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

use super::error::{ApiError, Result};
use crate::objects::resource::Resource;

/// What to do about fields that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validation {
    Ignore,
    Warn,
    Strict,
}

impl Validation {
    /// Reads the parameter `fieldValidation`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "Ignore" => Ok(Self::Ignore),
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            other => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// An object, and what is to be said about its fields.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    pub(crate) warnings: Vec<String>,
}

/// Brings an object into the form of its type: absent where it is null, without what is not known.
pub(crate) fn decode(resource: Resource, value: &Value, validation: Validation) -> Result<Decoded> {
    check_type(resource, value)?;
    let typed = match resource {
        Resource::Namespaces => typed::<Namespace>,
        Resource::Nodes => typed::<Node>,
        Resource::Pods => typed::<Pod>,
        Resource::Jobs => typed::<Job>,
        Resource::Events => typed::<Event>,
        Resource::ConfigMaps => typed::<ConfigMap>,
        Resource::Secrets => typed::<Secret>,
        Resource::Services => typed::<Service>,
        Resource::ServiceAccounts => typed::<ServiceAccount>,
        Resource::Leases => typed::<Lease>,
    };
    let mut unknown = Vec::new();
    let kind = resource.kind();
    let refusal = |why: String| {
        ApiError::bad_request(format!(
            "{kind} in version \"v1\" cannot be handled as a {kind}: {why}"
        ))
    };
    let mut value = typed(value, &mut unknown).map_err(refusal)?;
    let unknown: Vec<String> = unknown
        .into_iter()
        .map(|path| format!("unknown field {path:?}"))
        .collect();
    if validation == Validation::Strict && !unknown.is_empty() {
        return Err(refusal(format!(
            "strict decoding error: {}",
            unknown.join(", ")
        )));
    }
    match value.get_mut("metadata") {
        // An empty list or map is the same as none, and written as such.
        Some(Value::Object(metadata)) => metadata.retain(|_, field| match field {
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        }),
        _ => value["metadata"] = Value::Object(serde_json::Map::new()),
    }
    Ok(Decoded {
        value,
        warnings: match validation {
            Validation::Warn => unknown,
            Validation::Ignore | Validation::Strict => Vec::new(),
        },
    })
}

fn check_type(resource: Resource, value: &Value) -> Result<()> {
    if !value.is_object() {
        return Err(ApiError::bad_request(
            "the object provided is no JSON object",
        ));
    }
    let expected = [
        ("apiVersion", resource.api_version()),
        ("kind", resource.kind().to_owned()),
    ];
    for (key, expected) in expected {
        if let Some(given) = value[key]
            .as_str()
            .filter(|given| !given.is_empty() && *given != expected)
        {
            return Err(ApiError::bad_request(format!(
                "the {key} in the data ({given}) does not match the expected {key} ({expected})"
            )));
        }
    }
    Ok(())
}

fn typed<T: DeserializeOwned + Serialize>(
    value: &Value,
    unknown: &mut Vec<String>,
) -> std::result::Result<Value, String> {
    let mut track = serde_path_to_error::Track::new();
    let source = serde_path_to_error::Deserializer::new(value, &mut track);
    let note = |path: Path<'_>| unknown.push(written(&path));
    let object: T = serde_ignored::deserialize(source, note).map_err(|error| {
        let path = track.path().to_string();
        if path == "." {
            error.to_string()
        } else {
            format!("{path}: {error}")
        }
    })?;
    serde_json::to_value(object).map_err(|error| error.to_string())
}

/// Writes a path as Kubernetes does: `spec.containers[0].name`.
fn written(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", written(parent)),
        Path::Map { parent, key } => match written(parent).as_str() {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => written(parent),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_named_by_their_path() {
        let job = json!({ "spec": { "paralelism": 2, "template": { "spec": {
            "containers": [{ "name": "a", "imaje": "x" }],
        } } } });
        let refusal = decode(Resource::Jobs, &job, Validation::Strict).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "Job in version \"v1\" cannot be handled as a Job: strict decoding error: \
             unknown field \"spec.paralelism\", unknown field \"spec.template.spec.containers[0].imaje\""
        );
        let decoded = decode(Resource::Jobs, &job, Validation::Warn).unwrap();
        assert_eq!(decoded.warnings.len(), 2);
        assert_eq!(decoded.value["spec"].get("paralelism"), None);
        assert_eq!(decoded.value["kind"], "Job");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_path() {
        let job = json!({ "spec": { "parallelism": "two" } });
        let refusal = decode(Resource::Jobs, &job, Validation::Ignore).unwrap_err();
        assert!(
            refusal
                .to_string()
                .contains("spec.parallelism: invalid type: string"),
            "{refusal}"
        );
        let pod = json!({ "kind": "Pod" });
        assert!(decode(Resource::Jobs, &pod, Validation::Ignore).is_err());
    }
}
