//! The garbage collector: what belongs to nobody goes, what waits for it goes after it.
//!
//! It only deletes and lets go; every step may be repeated.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::api::delete::{FOREGROUND, ORPHAN, Options, Propagation, delete_object};
use crate::api::write::change_own;
use crate::objects::resource::Resource;
use crate::objects::{Change, ChangeKind, Object, Place, Store};

/// Collects until `shutdown`.
pub(crate) async fn run(store: Arc<Store>, shutdown: CancellationToken) {
    let followers = Resource::ALL.map(|resource| follow(&store, resource));
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = join_all(followers) => {}
    }
}

async fn follow(store: &Store, resource: Resource) {
    let mut changed = store.subscribe(resource);
    let mut version = attend_all(store, resource);
    loop {
        changed.mark_unchanged();
        match store.changes(resource, version) {
            Ok(changes) => {
                for change in changes {
                    version = change.version;
                    attend_change(store, resource, &change);
                }
            }
            Err(_) => version = attend_all(store, resource),
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn attend_all(store: &Store, resource: Resource) -> u64 {
    let (objects, version) = store.list(resource, None);
    for object in objects {
        attend(store, resource, &object);
    }
    version
}

fn attend_change(store: &Store, resource: Resource, change: &Change) {
    let object = &change.object;
    if change.kind != ChangeKind::Deleted {
        let is_new = change
            .before
            .as_ref()
            .is_none_or(|before| before.owners() != object.owners());
        if is_new || object.is_being_deleted() {
            attend(store, resource, object);
        }
        return;
    }
    for place in store.dependents(object.uid()) {
        attend_place(store, &place);
    }
    for owner in object.owners() {
        if let Some(place) = store.find(&owner.uid) {
            attend_place(store, &place);
        }
    }
    let namespace = store.get(Resource::Namespaces, "", object.namespace());
    if let Some(namespace) = namespace.filter(|_| resource.is_namespaced()) {
        attend_namespace(store, &namespace);
    }
}

fn attend_place(store: &Store, place: &Place) {
    if let Some(object) = store.get(place.resource, &place.namespace, &place.name) {
        attend(store, place.resource, &object);
    }
}

fn attend(store: &Store, resource: Resource, object: &Object) {
    let place = object.place(resource);
    if object.is_being_deleted() {
        if object.finalizers().any(|finalizer| finalizer == ORPHAN) {
            let_go(store, object.uid());
            drop_finalizer(store, &place, object.uid(), ORPHAN);
        }
        if object.finalizers().any(|finalizer| finalizer == FOREGROUND) {
            delete_dependents(store, &place, object.uid());
        }
        if resource == Resource::Namespaces {
            attend_namespace(store, object);
        }
        return;
    }
    let mut owners = object.owners().iter();
    if !object.owners().is_empty() && owners.all(|owner| store.find(&owner.uid).is_none()) {
        delete(store, &place, object.uid());
    }
}

fn delete(store: &Store, place: &Place, uid: &str) {
    let options = Options::own(Propagation::Background, uid);
    let at = (
        place.resource,
        place.namespace.as_str(),
        place.name.as_str(),
    );
    if let Err(error) = delete_object(store, at, &options) {
        tracing::debug!(%error, object.name = place.name, "an object was not collected");
    }
}

/// Takes the owner `uid` out of everything that names it.
fn let_go(store: &Store, uid: &str) {
    for place in store.dependents(uid) {
        let Some(object) = store.get(place.resource, &place.namespace, &place.name) else {
            continue;
        };
        let at = (
            place.resource,
            place.namespace.as_str(),
            place.name.as_str(),
        );
        change_own(store, at, object.uid(), |value| {
            without(value, "ownerReferences", |owner| owner["uid"] == uid)
        });
    }
}

fn drop_finalizer(store: &Store, place: &Place, uid: &str, finalizer: &str) {
    let at = (
        place.resource,
        place.namespace.as_str(),
        place.name.as_str(),
    );
    change_own(store, at, uid, |value| {
        without(value, "finalizers", |item| item == finalizer)
    });
}

/// Takes elements out of a list of `metadata`; tells whether there were any.
fn without(value: &mut Value, key: &str, is_unwanted: impl Fn(&Value) -> bool) -> bool {
    let Some(Value::Array(list)) = value["metadata"].get_mut(key) else {
        return false;
    };
    let before = list.len();
    list.retain(|item| !is_unwanted(item));
    let (is_changed, is_empty) = (list.len() != before, list.is_empty());
    if is_empty && let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove(key);
    }
    is_changed
}

/// Deletes what belongs to the owner `uid`, and lets the owner go when all that it waits for is gone.
fn delete_dependents(store: &Store, owner: &Place, uid: &str) {
    let mut is_blocked = false;
    for place in store.dependents(uid) {
        let Some(object) = store.get(place.resource, &place.namespace, &place.name) else {
            continue;
        };
        if !object.is_being_deleted() {
            delete(store, &place, object.uid());
        }
        let is_there = store.find(object.uid()).is_some();
        is_blocked |= is_there
            && object
                .owners()
                .iter()
                .any(|owner| *owner.uid == *uid && owner.blocks_deletion);
    }
    if !is_blocked {
        drop_finalizer(store, owner, uid, FOREGROUND);
    }
}

/// Empties a namespace that is to go, and lets it go when it is empty.
fn attend_namespace(store: &Store, namespace: &Object) {
    if !namespace.is_being_deleted() {
        return;
    }
    let mut is_empty = true;
    for resource in Resource::ALL
        .into_iter()
        .filter(|resource| resource.is_namespaced())
    {
        for object in store.list(resource, Some(namespace.name())).0 {
            if !object.is_being_deleted() {
                delete(store, &object.place(resource), object.uid());
            }
            is_empty &= store.find(object.uid()).is_none();
        }
    }
    if is_empty {
        let at = (Resource::Namespaces, "", namespace.name());
        change_own(store, at, namespace.uid(), |value| {
            let spec = value["spec"].as_object_mut();
            spec.is_some_and(|spec| spec.remove("finalizers").is_some())
        });
    }
}
