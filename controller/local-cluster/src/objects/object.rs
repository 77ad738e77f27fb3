//! One version of one object: never changed, shared by everybody who reads it.
//!
//! It is kept as JSON text, which takes a tenth of the memory of a tree. The newest few versions have
//! their tree beside it, since those who follow the changes look at them within the next moment.

use std::sync::{Arc, Mutex, PoisonError};

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
    bytes: Bytes,
    version: u64,
    namespace: Box<str>,
    name: Box<str>,
    uid: Box<str>,
    is_being_deleted: bool,
    finalizers: Box<[Box<str>]>,
    owners: Box<[OwnerReference]>,
    /// Absent once the object is not among the newest any more.
    tree: Mutex<Option<Arc<Value>>>,
}

/// What an object says of one of its owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnerReference {
    pub(crate) uid: Box<str>,
    pub(crate) blocks_deletion: bool,
}

impl Object {
    pub(crate) fn new(mut value: Value, version: u64) -> Self {
        value["metadata"]["resourceVersion"] = Value::String(version.to_string());
        let metadata = &value["metadata"];
        let list = |key: &str| metadata[key].as_array().into_iter().flatten();
        let owners = list("ownerReferences").map(|owner| OwnerReference {
            uid: owner["uid"].as_str().unwrap_or_default().into(),
            blocks_deletion: owner["blockOwnerDeletion"] == true,
        });
        let finalizers = list("finalizers").filter_map(Value::as_str);
        Self {
            bytes: Bytes::from(value.to_string()),
            version,
            namespace: text(&value, "namespace").into(),
            name: text(&value, "name").into(),
            uid: text(&value, "uid").into(),
            is_being_deleted: !text(&value, "deletionTimestamp").is_empty(),
            finalizers: finalizers.map(Into::into).collect(),
            owners: owners.collect(),
            tree: Mutex::new(Some(Arc::new(value))),
        }
    }

    /// The object as a tree, which is made anew for each who wants it of an older version.
    pub(crate) fn value(&self) -> Arc<Value> {
        let tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        match &*tree {
            Some(tree) => Arc::clone(tree),
            None => {
                drop(tree);
                let tree = serde_json::from_slice(&self.bytes);
                Arc::new(tree.expect("the text was made from a tree"))
            }
        }
    }

    /// Lets the tree go.
    pub(super) fn rest(&self) {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        *tree = None;
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The object as JSON, shared by all who want it.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    pub(crate) fn place(&self, resource: Resource) -> Place {
        Place {
            resource,
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    pub(crate) fn is_being_deleted(&self) -> bool {
        self.is_being_deleted
    }

    pub(crate) fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.finalizers.iter().map(AsRef::as_ref)
    }

    pub(crate) fn owners(&self) -> &[OwnerReference] {
        &self.owners
    }
}
