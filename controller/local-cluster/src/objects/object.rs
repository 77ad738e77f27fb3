//! One version of one object: never changed, shared by everybody who reads it.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value;

use super::Place;
use super::resource::Resource;

/// Returns a text of `metadata`, empty when it is absent.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value["metadata"][key].as_str().unwrap_or_default()
}

/// Returns the text at a dotted path, empty when it is absent.
pub(crate) fn field<'a>(value: &'a Value, path: &str) -> &'a str {
    let mut at = value;
    for key in path.split('.') {
        at = &at[key];
    }
    at.as_str().unwrap_or_default()
}

/// The elements of a list, none when it is absent. Unlike an index, it leaves nothing behind.
pub(crate) fn items_mut<'a>(
    value: &'a mut Value,
    key: &str,
) -> impl Iterator<Item = &'a mut Value> {
    let list = value.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// One version of an object.
#[derive(Debug)]
pub(crate) struct Object {
    value: Value,
    version: u64,
    bytes: OnceLock<Bytes>,
}

/// What an object says of one of its owners.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnerReference<'a> {
    pub(crate) uid: &'a str,
    pub(crate) blocks_deletion: bool,
}

impl Object {
    pub(crate) fn new(mut value: Value, version: u64) -> Self {
        value["metadata"]["resourceVersion"] = Value::String(version.to_string());
        Self {
            value,
            version,
            bytes: OnceLock::new(),
        }
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The object as JSON, made once for all who want it.
    pub(crate) fn bytes(&self) -> &Bytes {
        self.bytes
            .get_or_init(|| Bytes::from(self.value.to_string()))
    }

    pub(crate) fn namespace(&self) -> &str {
        text(&self.value, "namespace")
    }

    pub(crate) fn name(&self) -> &str {
        text(&self.value, "name")
    }

    pub(crate) fn uid(&self) -> &str {
        text(&self.value, "uid")
    }

    pub(crate) fn place(&self, resource: Resource) -> Place {
        Place {
            resource,
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    pub(crate) fn is_being_deleted(&self) -> bool {
        !text(&self.value, "deletionTimestamp").is_empty()
    }

    pub(crate) fn finalizers(&self) -> impl Iterator<Item = &str> {
        let list = self.value["metadata"]["finalizers"].as_array();
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    pub(crate) fn owners(&self) -> std::vec::IntoIter<OwnerReference<'_>> {
        let list = self.value["metadata"]["ownerReferences"].as_array();
        let references = list.into_iter().flatten().map(|owner| OwnerReference {
            uid: owner["uid"].as_str().unwrap_or_default(),
            blocks_deletion: owner["blockOwnerDeletion"] == true,
        });
        references.collect::<Vec<_>>().into_iter()
    }
}
