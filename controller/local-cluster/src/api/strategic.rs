//! Strategic merge patches: merge patches that know the keys of lists.

use serde_json::{Map, Value};

/// How the lists under a name are merged. A list that is not here is replaced as a whole.
pub(super) fn rule(parent: &str, name: &str) -> Rule {
    match (parent, name) {
        (_, "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env")
        | (_, "imagePullSecrets" | "resourceClaims" | "schedulingGates" | "secrets") => {
            Rule::ByKey("name")
        }
        (_, "volumeMounts") => Rule::ByKey("mountPath"),
        (_, "volumeDevices") => Rule::ByKey("devicePath"),
        // Ports of a container, in a list of containers, and ports of a Service.
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => {
            Rule::ByKey("containerPort")
        }
        ("spec", "ports") => Rule::ByKey("port"),
        (_, "conditions" | "addresses") => Rule::ByKey("type"),
        (_, "hostAliases" | "podIPs" | "hostIPs") => Rule::ByKey("ip"),
        (_, "ownerReferences") => Rule::ByKey("uid"),
        (_, "taints") => Rule::ByKey("key"),
        (_, "topologySpreadConstraints") => Rule::ByKey("topologyKey"),
        ("metadata", "finalizers") | ("spec", "podCIDRs") => Rule::Set,
        _ => Rule::Replace,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    ByKey(&'static str),
    /// Texts, each once.
    Set,
    Replace,
}

const DIRECTIVE: &str = "$patch";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
const RETAIN: &str = "$retainKeys";

/// Changes `object` as `patch` says.
///
/// # Errors
///
/// What is wrong with the patch, for the client.
pub(crate) fn merge(object: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        return Err("a strategic merge patch must be a JSON object".into());
    };
    merge_maps(object, patch, "")
}

fn merge_maps(object: &mut Value, patch: &Map<String, Value>, parent: &str) -> Result<(), String> {
    match patch
        .get(DIRECTIVE)
        .map(|directive| directive.as_str().unwrap_or_default())
    {
        None | Some("merge") => {}
        Some("replace") => {
            *object = Value::Object(plain(patch));
            return Ok(());
        }
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(format!("unknown patch directive {other:?}")),
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else {
        return Ok(());
    };
    if let Some(retained) = patch.get(RETAIN).and_then(Value::as_array) {
        fields.retain(|key, _| retained.iter().any(|name| name == key));
    }
    for (key, change) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            let gone = change.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(Value::Array(list)) = fields.get_mut(name) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        match change {
            Value::Null => {
                fields.remove(key);
            }
            Value::Object(change) => {
                let field = fields.entry(key.as_str()).or_insert(Value::Null);
                merge_maps(field, change, key)?;
            }
            Value::Array(change) => {
                let list = fields.entry(key.as_str()).or_insert(Value::Null);
                merge_lists(list, change, parent, key)?;
            }
            other => {
                fields.insert(key.clone(), other.clone());
            }
        }
    }
    for (key, order) in patch {
        if let (Some(name), Some(order)) = (key.strip_prefix(ORDER), order.as_array())
            && let Some(Value::Array(list)) = fields.get_mut(name)
        {
            sort(list, order, rule(parent, name));
        }
    }
    Ok(())
}

fn merge_lists(list: &mut Value, patch: &[Value], parent: &str, name: &str) -> Result<(), String> {
    let rule = rule(parent, name);
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Value::Array(items) = list else {
        return Ok(());
    };
    let key = match rule {
        Rule::Replace => {
            *items = patch.iter().map(cleaned).collect();
            return Ok(());
        }
        Rule::Set => {
            for item in patch {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
            return Ok(());
        }
        Rule::ByKey(key) => key,
    };
    if patch.iter().any(|item| item[DIRECTIVE] == "replace") {
        let kept = patch.iter().filter(|item| item[DIRECTIVE] != "replace");
        *items = kept.map(cleaned).collect();
        return Ok(());
    }
    for item in patch {
        let Value::Object(change) = item else {
            return Err(format!("an element of {name} is no JSON object"));
        };
        let Some(id) = change.get(key) else {
            return Err(format!(
                "map: {item} does not contain declared merge key: {key}"
            ));
        };
        if item[DIRECTIVE] == "delete" {
            items.retain(|known| known[key] != *id);
            continue;
        }
        match items.iter_mut().find(|known| known[key] == *id) {
            Some(known) => merge_maps(known, change, name)?,
            None => {
                let mut new = Value::Object(Map::new());
                merge_maps(&mut new, change, name)?;
                items.push(new);
            }
        }
    }
    Ok(())
}

/// Orders a list as the client has it; what the client does not know comes after it.
fn sort(list: &mut [Value], order: &[Value], rule: Rule) {
    let place = |item: &Value| {
        let same = |wanted: &Value| match rule {
            Rule::ByKey(key) => wanted[key] == item[key],
            Rule::Set | Rule::Replace => wanted == item,
        };
        order.iter().position(same).unwrap_or(order.len())
    };
    list.sort_by_key(place);
}

fn plain(patch: &Map<String, Value>) -> Map<String, Value> {
    let kept = patch
        .iter()
        .filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    kept.map(|(key, value)| (key.clone(), cleaned(value)))
        .collect()
}

/// A value of a patch that stands where nothing was: without directives.
fn cleaned(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(plain(map)),
        Value::Array(list) => Value::Array(list.iter().map(cleaned).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(mut object: Value, patch: &Value, expected: &Value) {
        merge(&mut object, patch).unwrap();
        assert_eq!(object, *expected);
    }

    #[test]
    fn lists_are_merged_by_their_key() {
        let object = json!({ "spec": { "containers": [
            { "name": "a", "image": "1", "args": ["x"] }, { "name": "b" },
        ] } });
        let patch = json!({ "spec": {
            "$setElementOrder/containers": [{ "name": "c" }, { "name": "a" }],
            "containers": [{ "name": "a", "image": null, "args": ["y"] }, { "name": "c" },
                { "name": "b", "$patch": "delete" }],
        } });
        let expected =
            json!({ "spec": { "containers": [{ "name": "c" }, { "name": "a", "args": ["y"] }] } });
        check(object, &patch, &expected);
    }

    #[test]
    fn maps_are_merged_and_finalizers_are_a_set() {
        let object =
            json!({ "metadata": { "labels": { "a": "1", "b": "2" }, "finalizers": ["x", "y"] } });
        let patch = json!({ "metadata": {
            "labels": { "a": null, "c": "3" }, "finalizers": ["z", "x"],
            "$deleteFromPrimitiveList/finalizers": ["y"],
        } });
        let expected =
            json!({ "metadata": { "labels": { "b": "2", "c": "3" }, "finalizers": ["x", "z"] } });
        check(object, &patch, &expected);
    }

    #[test]
    fn directives_replace_and_retain() {
        let object =
            json!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }], "x": { "y": 1 } } });
        let patch = json!({ "spec": {
            "volumes": [{ "name": "v", "$retainKeys": ["name", "secret"], "secret": { "secretName": "s" } }],
            "x": { "$patch": "replace", "z": 2 },
        } });
        let expected = json!({ "spec": {
            "volumes": [{ "name": "v", "secret": { "secretName": "s" } }], "x": { "z": 2 },
        } });
        check(object, &patch, &expected);
    }

    #[test]
    fn an_element_without_its_key_is_refused() {
        let patch = json!({ "spec": { "containers": [{ "image": "x" }] } });
        assert!(merge(&mut json!({}), &patch).is_err());
    }
}
