//! Sets of fields in the form of managed fields (`FieldsV1`): `f:` a field, `k:` an element of a list
//! by its key, `v:` an element of a set, `.` the element itself. What has nothing below it is a leaf.

use serde_json::{Map, Value, json};

use super::super::strategic::{Rule, rule};

pub(super) type Tree = Map<String, Value>;

fn leaf() -> Value {
    Value::Object(Tree::new())
}

fn children(node: &Value) -> Option<&Tree> {
    node.as_object().filter(|children| !children.is_empty())
}

/// The fields that an object has.
pub(super) fn of(object: &Value) -> Tree {
    of_map(object, "")
}

fn of_map(object: &Value, parent: &str) -> Tree {
    let fields = object.as_object().into_iter().flatten();
    let nodes = fields.map(|(name, value)| (format!("f:{name}"), node(value, parent, name)));
    nodes.collect()
}

fn node(value: &Value, parent: &str, name: &str) -> Value {
    match value {
        Value::Object(_) => Value::Object(of_map(value, name)),
        Value::Array(items) => match rule(parent, name) {
            Rule::ByKey(key) => {
                let nodes = items.iter().map(|item| {
                    let mut fields = of_map(item, name);
                    fields.insert(".".into(), leaf());
                    (element_key(key, item), Value::Object(fields))
                });
                Value::Object(nodes.collect())
            }
            Rule::Set => {
                let nodes = items.iter().map(|item| (format!("v:{item}"), leaf()));
                Value::Object(nodes.collect())
            }
            Rule::Replace => leaf(),
        },
        _ => leaf(),
    }
}

fn element_key(key: &str, item: &Value) -> String {
    format!("k:{}", json!({ key: item[key] }))
}

/// The fields of `one` that are not in `other`.
pub(super) fn minus(one: &Tree, other: &Tree) -> Tree {
    let mut rest = Tree::new();
    for (key, node) in one {
        match (other.get(key), children(node)) {
            (None, _) => {
                rest.insert(key.clone(), node.clone());
            }
            (Some(other), Some(own)) => {
                // Who owns a field as a whole owns all below it.
                let below = children(other).map(|other| minus(own, other));
                if let Some(below) = below.filter(|below| !below.is_empty()) {
                    rest.insert(key.clone(), Value::Object(below));
                }
            }
            (Some(_), None) => {}
        }
    }
    rest
}

/// Makes `tree` have the fields of `other` too.
pub(super) fn add(tree: &mut Tree, other: &Tree) {
    for (key, node) in other {
        match (tree.get_mut(key), node) {
            (Some(Value::Object(own)), Value::Object(other)) => add(own, other),
            _ => {
                tree.insert(key.clone(), node.clone());
            }
        }
    }
}

/// The fields that are in both sets and have another value in `live` than in `new`, also as paths.
pub(super) fn conflicts(
    wanted: &Tree,
    theirs: &Tree,
    live: &Value,
    new: &Value,
) -> (Tree, Vec<String>) {
    let mut paths = Vec::new();
    let tree = differing(wanted, theirs, live, new, "", &mut paths);
    (tree, paths)
}

fn differing(
    wanted: &Tree,
    theirs: &Tree,
    live: &Value,
    new: &Value,
    path: &str,
    paths: &mut Vec<String>,
) -> Tree {
    let mut tree = Tree::new();
    for (key, node) in wanted {
        let Some(other) = theirs.get(key) else {
            continue;
        };
        let Some((live, new, step)) = step(key, live, new) else {
            continue;
        };
        let path = format!("{path}{step}");
        if let (Some(node), Some(other)) = (children(node), children(other)) {
            let below = differing(node, other, live, new, &path, paths);
            if !below.is_empty() {
                tree.insert(key.clone(), Value::Object(below));
            }
        } else if live != new {
            tree.insert(key.clone(), leaf());
            paths.push(path);
        }
    }
    tree
}

/// What a key of a tree leads to in both objects, and how a path tells it.
fn step<'a>(key: &str, live: &'a Value, new: &'a Value) -> Option<(&'a Value, &'a Value, String)> {
    if let Some(name) = key.strip_prefix("f:") {
        return Some((&live[name], &new[name], format!(".{name}")));
    }
    let (name, id) = element(key)?;
    let find = |list: &'a Value| list.as_array()?.iter().find(|item| item[&name] == id);
    let (live, new) = (find(live)?, find(new)?);
    Some((live, new, format!("[{name}={id}]")))
}

/// Reads `k:{"name":"main"}`.
fn element(key: &str) -> Option<(String, Value)> {
    let map: Tree = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
    map.into_iter().next()
}

/// Takes fields out of an object.
pub(super) fn remove(object: &mut Value, tree: &Tree) {
    for (key, node) in tree {
        if let Some(name) = key.strip_prefix("f:") {
            match (children(node), object.as_object_mut()) {
                (Some(below), Some(fields)) => {
                    if let Some(field) = fields.get_mut(name) {
                        remove(field, below);
                    }
                }
                (None, Some(fields)) => {
                    fields.remove(name);
                }
                (_, None) => {}
            }
        } else if let (Some(text), Some(list)) = (key.strip_prefix("v:"), object.as_array_mut()) {
            let gone: Option<Value> = serde_json::from_str(text).ok();
            list.retain(|item| Some(item) != gone.as_ref());
        } else if let (Some((name, id)), Some(list)) = (element(key), object.as_array_mut()) {
            let is_whole = node.get(".").is_some();
            if is_whole {
                list.retain(|item| item[&name] != id);
            } else if let (Some(below), Some(item)) = (
                children(node),
                list.iter_mut().find(|item| item[&name] == id),
            ) {
                remove(item, below);
            }
        }
    }
}

/// Writes the fields of `applied` over those of an object.
pub(super) fn overlay(object: &mut Value, applied: &Value) {
    overlay_map(object, applied, "");
}

fn overlay_map(object: &mut Value, applied: &Value, parent: &str) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (name, value) in applied.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => overlay_map(&mut object[name], value, name),
            Value::Array(items) => overlay_list(&mut object[name], items, parent, name),
            other => object[name] = other.clone(),
        }
    }
}

fn overlay_list(list: &mut Value, applied: &[Value], parent: &str, name: &str) {
    let rule = rule(parent, name);
    let (Some(known), Rule::ByKey(_) | Rule::Set) = (list.as_array_mut(), rule) else {
        *list = applied.to_vec().into();
        return;
    };
    for item in applied {
        match rule {
            Rule::ByKey(key) => match known.iter_mut().find(|known| known[key] == item[key]) {
                Some(known) => overlay_map(known, item, name),
                None => known.push(item.clone()),
            },
            Rule::Set | Rule::Replace => {
                if !known.contains(item) {
                    known.push(item.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Value {
        json!({ "metadata": { "labels": { "a": "1" }, "finalizers": ["x"] }, "spec": {
            "parallelism": 2,
            "containers": [{ "name": "main", "image": "i", "args": ["b"] }],
        } })
    }

    #[test]
    fn lists_with_keys_are_told_by_element_and_others_as_a_whole() {
        let expected = json!({
            "f:metadata": { "f:labels": { "f:a": {} }, "f:finalizers": { "v:\"x\"": {} } },
            "f:spec": { "f:parallelism": {}, "f:containers": {
                "k:{\"name\":\"main\"}": { ".": {}, "f:name": {}, "f:image": {}, "f:args": {} },
            } },
        });
        assert_eq!(Value::Object(of(&object())), expected);
    }

    #[test]
    fn what_is_given_up_goes_and_what_others_own_stays() {
        let mut live = object();
        let all = of(&live);
        let others = of(&json!({ "spec": { "containers": [{ "name": "main", "image": "i" }] } }));
        remove(&mut live, &minus(&all, &others));
        let expected = json!({ "metadata": { "labels": {}, "finalizers": [] }, "spec": {
            "containers": [{ "name": "main", "image": "i" }],
        } });
        assert_eq!(live, expected);
        remove(&mut live, &others);
        assert_eq!(live["spec"]["containers"], json!([]));
    }

    #[test]
    fn only_other_values_conflict() {
        let live = object();
        let new = json!({ "spec": { "parallelism": 2, "containers": [
            { "name": "main", "image": "other" },
        ] } });
        let (tree, paths) = conflicts(&of(&new), &of(&live), &live, &new);
        assert_eq!(paths, [".spec.containers[name=\"main\"].image"]);
        let rest = minus(&of(&live), &tree);
        let containers = &rest["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"];
        assert_eq!(*containers, json!({ ".": {}, "f:name": {}, "f:args": {} }));
    }

    #[test]
    fn applied_fields_are_written_over_those_there() {
        let mut live = object();
        let applied = json!({ "metadata": { "finalizers": ["y"] }, "spec": { "containers": [
            { "name": "main", "args": ["c"] }, { "name": "side" },
        ] } });
        overlay(&mut live, &applied);
        let expected = json!({ "metadata": { "labels": { "a": "1" }, "finalizers": ["x", "y"] },
            "spec": { "parallelism": 2, "containers": [
                { "name": "main", "image": "i", "args": ["c"] }, { "name": "side" },
            ] } });
        assert_eq!(live, expected);
    }
}
