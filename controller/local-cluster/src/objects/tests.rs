use serde_json::json;

use super::*;

fn pod(name: &str, owner: Option<&str>) -> Value {
    let owners: Vec<Value> = owner.into_iter().map(|uid| json!({ "uid": uid })).collect();
    json!({ "metadata": {
        "name": name, "namespace": "n", "uid": format!("uid-{name}"), "ownerReferences": owners,
    } })
}

fn names(objects: &[Arc<Object>]) -> Vec<&str> {
    objects.iter().map(|object| object.name()).collect()
}

#[test]
fn every_change_has_a_newer_version_and_is_remembered_in_order() {
    let store = Store::new(100);
    let first = store.create(Resource::Pods, pod("a", None)).unwrap();
    let second = store.create(Resource::Jobs, pod("a", None)).unwrap();
    let mut value = first.value().as_ref().clone();
    value["spec"] = json!({ "nodeName": "x" });
    let third = store
        .replace(Resource::Pods, &first, value.clone())
        .unwrap();
    let fourth = store.remove(Resource::Pods, &third, value).unwrap();
    let versions = [&first, &second, &third, &fourth].map(|object| object.version());
    assert_eq!(versions, [101, 102, 103, 104]);
    let kinds: Vec<ChangeKind> = store
        .changes(Resource::Pods, 100)
        .unwrap()
        .iter()
        .map(|change| change.kind)
        .collect();
    assert_eq!(
        kinds,
        [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted]
    );
    assert_eq!(store.changes(Resource::Pods, 103).unwrap().len(), 1);
    assert_eq!(store.list(Resource::Pods, None).0.len(), 0);
}

#[test]
fn an_object_that_has_changed_is_not_written_over() {
    let store = Store::new(0);
    let first = store.create(Resource::Pods, pod("a", None)).unwrap();
    let mut value = first.value().as_ref().clone();
    value["spec"] = json!({ "nodeName": "x" });
    store
        .replace(Resource::Pods, &first, value.clone())
        .unwrap();
    value["spec"] = json!({ "nodeName": "y" });
    let raced = store.replace(Resource::Pods, &first, value.clone());
    assert_eq!(raced.unwrap_err(), WriteError::Changed);
    assert_eq!(
        store.remove(Resource::Pods, &first, value).unwrap_err(),
        WriteError::Changed
    );
    assert_eq!(
        store.create(Resource::Pods, pod("a", None)).unwrap_err(),
        WriteError::Exists
    );
}

#[test]
fn a_write_that_changes_nothing_is_no_change() {
    let store = Store::new(0);
    let first = store.create(Resource::Pods, pod("a", None)).unwrap();
    let again = store
        .replace(Resource::Pods, &first, first.value().as_ref().clone())
        .unwrap();
    assert_eq!((again.version(), store.version()), (1, 1));
}

#[test]
fn history_is_bounded_and_says_so() {
    let store = Store::new(0);
    let mut object = store.create(Resource::Pods, pod("a", None)).unwrap();
    for turn in 0..HISTORY_MAX {
        let mut value = object.value().as_ref().clone();
        value["spec"] = json!(turn);
        object = store.replace(Resource::Pods, &object, value).unwrap();
    }
    assert!(store.changes(Resource::Pods, 0).is_err());
    assert_eq!(store.changes(Resource::Pods, 1).unwrap().len(), HISTORY_MAX);
    // A version from another store's future is as unknown as one from long ago.
    assert!(store.changes(Resource::Pods, store.version() + 1).is_err());
}

#[test]
fn history_is_bounded_in_bytes_too_and_old_versions_can_still_be_read() {
    let store = Store::new(0);
    let mut object = store.create(Resource::ConfigMaps, pod("a", None)).unwrap();
    let first = Arc::clone(&object);
    let text = "x".repeat(HISTORY_BYTES_MAX / 100);
    for turn in 0..200 {
        let mut value = object.value().as_ref().clone();
        value["data"] = serde_json::json!({ "text": text, "turn": turn });
        object = store.replace(Resource::ConfigMaps, &object, value).unwrap();
    }
    let newest = store.version();
    assert!(store.changes(Resource::ConfigMaps, newest - 101).is_err());
    let changes = store.changes(Resource::ConfigMaps, newest - 90).unwrap();
    assert_eq!(changes[0].object.value()["data"]["turn"], 110);
    assert_eq!(first.value()["metadata"]["name"], "a");
}

#[test]
fn lists_are_ordered_and_can_be_of_one_namespace() {
    let store = Store::new(0);
    for name in ["b", "a"] {
        store.create(Resource::Pods, pod(name, None)).unwrap();
    }
    assert_eq!(names(&store.list(Resource::Pods, Some("n")).0), ["a", "b"]);
    assert!(store.list(Resource::Pods, Some("m")).0.is_empty());
}

#[test]
fn dependents_are_known_by_their_owner() {
    let store = Store::new(0);
    let owner = store.create(Resource::Jobs, pod("job", None)).unwrap();
    let pod = store
        .create(Resource::Pods, pod("a", Some("uid-job")))
        .unwrap();
    assert_eq!(store.find("uid-job").unwrap().name, "job");
    assert_eq!(store.dependents("uid-job")[0].name, "a");
    store
        .remove(Resource::Jobs, &owner, owner.value().as_ref().clone())
        .unwrap();
    assert_eq!(store.find("uid-job"), None);
    store
        .remove(Resource::Pods, &pod, pod.value().as_ref().clone())
        .unwrap();
    assert!(store.dependents("uid-job").is_empty());
}
