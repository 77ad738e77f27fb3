//! From a request's body to an object that has no field but known ones, each of its type.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::{ApiError, Result};
use super::messages::{Message, Scalar, Type, message, written};
use crate::kubelet::quantity;
use crate::objects::resource::Resource;

/// Levels of the one part of objects that has no form of its own. Types have some 20; what is kept must
/// stay below the 128 at which no reader of JSON follows any more.
const FIELDS_LEVELS_MAX: usize = 64;

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
    let kind = resource.kind();
    let refusal = |why: String| {
        ApiError::bad_request(format!(
            "{kind} in version \"v1\" cannot be handled as a {kind}: {why}"
        ))
    };
    let mut reader = Reader::default();
    let mut value = reader.root(kind, value).map_err(refusal)?;
    value["apiVersion"] = json!(resource.api_version());
    value["kind"] = json!(kind);
    let unknown = reader.unknown;
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

/// Reads values by the table of messages, and remembers where it is.
#[derive(Default)]
struct Reader<'a> {
    path: Vec<Step<'a>>,
    unknown: Vec<String>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Key(&'a str),
    Index(usize),
}

type Read = std::result::Result<Value, String>;

impl<'a> Reader<'a> {
    fn root(&mut self, kind: &'static str, value: &'a Value) -> Read {
        let message = message(kind).ok_or_else(|| format!("no kind {kind:?} is served"))?;
        let value = value.as_object().into_iter().flatten();
        // Read before, and the same for all.
        self.fields(
            message,
            value.filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind")),
        )
    }

    fn fields(
        &mut self,
        message: &'static Message,
        fields: impl Iterator<Item = (&'a String, &'a Value)>,
    ) -> Read {
        let mut object = Map::new();
        for (name, value) in fields {
            self.path.push(Step::Field(name));
            match message.named(name) {
                None => self
                    .unknown
                    .push(format!("unknown field {:?}", self.place())),
                Some(_) if value.is_null() => {}
                Some(type_) => {
                    object.insert(name.clone(), self.typed(message.name, type_, value)?);
                }
            }
            self.path.pop();
        }
        Ok(Value::Object(object))
    }

    fn typed(&mut self, owner: &str, type_: Type, value: &'a Value) -> Read {
        match (type_, value) {
            (Type::One(scalar), value) => self.scalar(owner, scalar, value),
            (Type::List(scalar), Value::Array(list)) => {
                let elements = list.iter().enumerate();
                let elements =
                    elements.map(|(at, value)| self.inner(Step::Index(at), owner, scalar, value));
                elements
                    .collect::<std::result::Result<_, _>>()
                    .map(Value::Array)
            }
            (Type::Map(scalar), Value::Object(map)) => {
                let entries = map.iter().map(|(key, value)| {
                    let value = self.inner(Step::Key(key), owner, scalar, value)?;
                    Ok((key.clone(), value))
                });
                entries
                    .collect::<std::result::Result<_, _>>()
                    .map(Value::Object)
            }
            (Type::List(scalar), _) => {
                Err(self.wrong(owner, &format!("[]{}", go_type(scalar)), value))
            }
            (Type::Map(scalar), _) => {
                Err(self.wrong(owner, &format!("map[string]{}", go_type(scalar)), value))
            }
        }
    }

    /// An element of a list or map: null stands for an empty one.
    fn inner(&mut self, step: Step<'a>, owner: &str, scalar: Scalar, value: &'a Value) -> Read {
        self.path.push(step);
        let read = match (scalar, value) {
            (Scalar::Text | Scalar::Bytes, Value::Null) => Ok(json!("")),
            (Scalar::Message(_), Value::Null) => Ok(json!({})),
            _ => self.scalar(owner, scalar, value),
        };
        self.path.pop();
        read
    }

    fn scalar(&mut self, owner: &str, scalar: Scalar, value: &'a Value) -> Read {
        let is_right = match scalar {
            Scalar::Text => value.is_string(),
            Scalar::Switch { .. } => value.is_boolean(),
            Scalar::Number { is_long, .. } => value
                .as_i64()
                .is_some_and(|number| is_long || i32::try_from(number).is_ok()),
            Scalar::Bytes if value.is_string() => match ByteString::deserialize(value) {
                Ok(_) => true,
                Err(error) => return Err(self.invalid(&error.to_string())),
            },
            Scalar::Bytes => false,
            Scalar::Message(name) => return self.message(owner, name, value),
        };
        if is_right {
            Ok(value.clone())
        } else {
            Err(self.wrong(owner, &go_type(scalar), value))
        }
    }

    fn message(&mut self, owner: &str, name: &'static str, value: &'a Value) -> Read {
        match (name, value) {
            ("Time" | "MicroTime", Value::String(text)) => {
                let time: Timestamp = text.parse().map_err(|_| {
                    self.invalid(&format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}"))
                })?;
                Ok(written(name, time))
            }
            ("Quantity", Value::Number(number)) => Ok(number.to_string().into()),
            ("IntOrString", Value::Number(_)) => self.scalar(
                owner,
                Scalar::Number {
                    is_kept: true,
                    is_long: false,
                },
                value,
            ),
            ("Quantity", Value::String(text)) if !is_quantity(text) => {
                Err(self.invalid(QUANTITY_RULE))
            }
            ("Quantity" | "IntOrString", Value::String(_)) => Ok(value.clone()),
            ("FieldsV1", Value::Object(_)) if has_levels(value, FIELDS_LEVELS_MAX) => {
                Ok(value.clone())
            }
            ("FieldsV1", Value::Object(_)) => {
                Err(self.invalid(&format!("more than {FIELDS_LEVELS_MAX} levels")))
            }
            ("Time" | "MicroTime" | "Quantity" | "IntOrString" | "FieldsV1", _) => {
                Err(self.wrong(owner, &go_type(Scalar::Message(name)), value))
            }
            (_, Value::Object(map)) => {
                let message =
                    message(name).ok_or_else(|| format!("the table of messages lacks {name:?}"))?;
                self.fields(message, map.iter())
            }
            _ => Err(self.wrong(owner, &go_type(Scalar::Message(name)), value)),
        }
    }

    /// What Go's decoder says of a value of the wrong type.
    fn wrong(&self, owner: &str, expected: &str, value: &Value) -> String {
        let given = match value {
            Value::Null => "null".into(),
            Value::Bool(_) => "bool".into(),
            Value::Number(number) if expected.starts_with("int") => format!("number {number}"),
            Value::Number(_) => "number".into(),
            Value::String(_) => "string".into(),
            Value::Array(_) => "array".into(),
            Value::Object(_) => "object".into(),
        };
        let fields: Vec<&str> = self
            .path
            .iter()
            .filter_map(|step| match step {
                Step::Field(name) => Some(*name),
                Step::Key(_) | Step::Index(_) => None,
            })
            .collect();
        let field = fields.join(".");
        let place = self.place();
        // A cluster leaves out which element it is.
        let at = if place == field {
            String::new()
        } else {
            format!(" (at {place})")
        };
        format!(
            "json: cannot unmarshal {given} into Go struct field {owner}.{field} of type {expected}{at}"
        )
    }

    fn invalid(&self, why: &str) -> String {
        format!("{}: {why}", self.place())
    }

    /// Writes the path as Kubernetes does: `spec.containers[0].name`.
    fn place(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if text.is_empty() => text.push_str(name),
                Step::Field(name) => {
                    text.push('.');
                    text.push_str(name);
                }
                Step::Key(key) => text.push_str(&format!("[{key}]")),
                Step::Index(at) => text.push_str(&format!("[{at}]")),
            }
        }
        text
    }
}

/// Whether a value has no more than so many levels.
fn has_levels(value: &Value, max: usize) -> bool {
    match value {
        Value::Object(map) => max > 0 && map.values().all(|value| has_levels(value, max - 1)),
        Value::Array(list) => max > 0 && list.iter().all(|value| has_levels(value, max - 1)),
        _ => true,
    }
}

/// The type of a field as Go calls it.
fn go_type(scalar: Scalar) -> String {
    match scalar {
        Scalar::Text => "string".into(),
        Scalar::Bytes => "[]uint8".into(),
        Scalar::Number { is_long: true, .. } => "int64".into(),
        Scalar::Number { is_long: false, .. } => "int32".into(),
        Scalar::Switch { .. } => "bool".into(),
        Scalar::Message("Quantity") => "resource.Quantity".into(),
        Scalar::Message("IntOrString") => "intstr.IntOrString".into(),
        Scalar::Message(name) => format!("v1.{name}"),
    }
}

const QUANTITY_RULE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn is_quantity(text: &str) -> bool {
    quantity::nanos(text.strip_prefix(['+', '-']).unwrap_or(text)).is_ok()
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
    fn what_is_managed_may_not_be_deeper_than_a_reader_follows() {
        let nested = |levels| (1..levels).fold(json!({}), |inner, _| json!({ "f:x": inner }));
        let map =
            |levels| json!({ "metadata": { "managedFields": [{ "fieldsV1": nested(levels) }] } });
        let check = |levels| decode(Resource::ConfigMaps, &map(levels), Validation::Strict);
        assert!(check(FIELDS_LEVELS_MAX).is_ok());
        let refusal = check(FIELDS_LEVELS_MAX + 1).unwrap_err().to_string();
        assert!(
            refusal.ends_with("metadata.managedFields[0].fieldsV1: more than 64 levels"),
            "{refusal}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_path() {
        let job = json!({ "spec": { "parallelism": "two" } });
        let refusal = decode(Resource::Jobs, &job, Validation::Ignore).unwrap_err();
        assert!(
            refusal
                .to_string()
                .ends_with("json: cannot unmarshal string into Go struct field JobSpec.spec.parallelism of type int32"),
            "{refusal}"
        );
        let pod = json!({ "kind": "Pod" });
        assert!(decode(Resource::Jobs, &pod, Validation::Ignore).is_err());
    }

    #[test]
    fn values_take_the_form_in_which_a_cluster_writes_them() {
        let pod = json!({
            "metadata": { "creationTimestamp": "2026-01-02T05:04:05.5+02:00", "labels": {} },
            "spec": {
                "nodeName": null,
                "containers": [{
                    "name": "a",
                    "args": [null],
                    "resources": { "limits": { "cpu": 2, "memory": "1Gi" } },
                    "livenessProbe": { "httpGet": { "port": 80 } },
                }],
                "volumes": [{ "name": "v", "configMap": { "name": "c" } }],
            },
        });
        let decoded = decode(Resource::Pods, &pod, Validation::Strict).unwrap();
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "creationTimestamp": "2026-01-02T03:04:05Z" },
            "spec": {
                "containers": [{
                    "name": "a",
                    "args": [""],
                    "resources": { "limits": { "cpu": "2", "memory": "1Gi" } },
                    "livenessProbe": { "httpGet": { "port": 80 } },
                }],
                "volumes": [{ "name": "v", "configMap": { "name": "c" } }],
            },
        });
        assert_eq!(decoded.value, expected);
    }

    #[test]
    fn each_wrong_value_is_named_with_its_place() {
        let table = [
            (
                json!({ "spec": { "parallelism": 1.5 } }),
                "cannot unmarshal number 1.5 into Go struct field JobSpec.spec.parallelism of type int32",
            ),
            (
                json!({ "spec": { "completions": 3_000_000_000_u64 } }),
                "number 3000000000 into Go struct field JobSpec.spec.completions of type int32",
            ),
            (
                json!({ "metadata": { "annotations": { "a": 1 } } }),
                "number into Go struct field ObjectMeta.metadata.annotations of type string (at metadata.annotations[a])",
            ),
            (
                json!({ "spec": { "template": { "spec": { "containers": [{}, { "image": true }] } } } }),
                "bool into Go struct field Container.spec.template.spec.containers.image of type string (at spec.template.spec.containers[1].image)",
            ),
            (
                json!({ "spec": [] }),
                "array into Go struct field Job.spec of type v1.JobSpec",
            ),
            (
                json!({ "spec": { "template": { "spec": { "containers": {} } } } }),
                "object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({ "metadata": { "creationTimestamp": "soon" } }),
                "metadata.creationTimestamp: parsing time \"soon\"",
            ),
        ];
        for (job, expected) in table {
            let refusal = decode(Resource::Jobs, &job, Validation::Strict).unwrap_err();
            assert!(refusal.to_string().contains(expected), "{refusal}");
        }
        let secret = json!({ "data": { "a": "?" } });
        let refusal = decode(Resource::Secrets, &secret, Validation::Strict).unwrap_err();
        assert!(refusal.to_string().contains("data[a]: "), "{refusal}");
    }
}
