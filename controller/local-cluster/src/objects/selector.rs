//! Label and field selectors.

use serde_json::Value;

use super::Object;
use super::resource::Resource;

/// Which objects are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, Equality, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Equality {
    Equal,
    Different,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    /// Reads both selectors as they stand in a query.
    ///
    /// # Errors
    ///
    /// What is wrong with one, for the client.
    pub(crate) fn parse(resource: Resource, labels: &str, fields: &str) -> Result<Self, String> {
        let labels = split(labels).into_iter().map(requirement);
        let fields = fields.split(',').filter(|term| !term.is_empty());
        Ok(Self {
            labels: labels.collect::<Result<_, _>>()?,
            fields: fields
                .map(|term| field(resource, term))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        let is_name = |path: &str| matches!(path, "metadata.name" | "metadata.namespace");
        // Names need no tree, and rule out most of the others.
        let named = |(path, equality, wanted): &(String, Equality, String)| {
            let name = match path.as_str() {
                "metadata.name" => object.name(),
                "metadata.namespace" => object.namespace(),
                _ => return true,
            };
            (name == wanted) == (*equality == Equality::Equal)
        };
        if !self.fields.iter().all(named) {
            return false;
        }
        if self.labels.is_empty() && self.fields.iter().all(|(path, ..)| is_name(path)) {
            return true;
        }
        let value = object.value();
        let labels = &value["metadata"]["labels"];
        let fits = |(path, equality, wanted): &(String, Equality, String)| {
            is_name(path) || (value_at(&value, path) == *wanted) == (*equality == Equality::Equal)
        };
        let mut labelled = self.labels.iter();
        labelled.all(|requirement| requirement.matches(labels)) && self.fields.iter().all(fits)
    }
}

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        let has = |key: &str, values: &[String]| {
            let value = labels[key].as_str();
            value.is_some_and(|value| values.iter().any(|wanted| wanted == value))
        };
        match self {
            Self::In(key, values) => has(key, values),
            Self::NotIn(key, values) => !has(key, values),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::Absent(key) => labels.get(key).is_none(),
        }
    }
}

/// Fields are compared as texts; what is absent is the empty text, and an absent switch is false.
fn value_at(object: &Value, path: &str) -> String {
    let path = match path {
        "status.successful" => "status.succeeded",
        "source" => "source.component",
        path => path,
    };
    let mut at = object;
    for key in path.split('.') {
        at = &at[key];
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Null if matches!(path, "spec.unschedulable" | "spec.hostNetwork") => "false".into(),
        Value::Null if path == "status.succeeded" => "0".into(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Splits at commas that stand in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = text.split(|letter: char| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let wrong = || format!("unable to parse requirement: {text}");
    let is_label = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    let label = |text: &str| {
        let text = text.trim();
        (text.chars().all(is_label))
            .then(|| text.to_owned())
            .ok_or_else(wrong)
    };
    let key = |text: &str| label(text).and_then(|k| (!k.is_empty()).then_some(k).ok_or_else(wrong));
    if let Some(rest) = text.strip_prefix('!') {
        return key(rest).map(Requirement::Absent);
    }
    if let Some((before, values)) = text.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(wrong)?;
        let values = values.split(',').map(label).collect::<Result<_, _>>()?;
        let mut words = before.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(name), Some("in"), None) => Ok(Requirement::In(key(name)?, values)),
            (Some(name), Some("notin"), None) => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(wrong()),
        };
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![label(value)?]));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![label(value)?]));
    }
    key(text).map(Requirement::Exists)
}

fn field(resource: Resource, term: &str) -> Result<(String, Equality, String), String> {
    let (path, equality, value) = if let Some((path, value)) = term.split_once("!=") {
        (path, Equality::Different, value)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, Equality::Equal, value)
    } else {
        return Err(format!(
            "invalid selector: '{term}'; can't understand '{term}'"
        ));
    };
    let path = path.trim();
    let is_name =
        path == "metadata.name" || (path == "metadata.namespace" && resource.is_namespaced());
    if !is_name && !resource.selectable_fields().contains(&path) {
        return Err(format!("field label not supported: {path}"));
    }
    Ok((path.to_owned(), equality, value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(labels: &str, fields: &str, expected: bool) {
        let pod = json!({
            "metadata": { "name": "a", "namespace": "n", "labels": { "app": "x", "b.c/d": "" } },
            "spec": { "nodeName": "here" }, "status": { "phase": "Running" },
        });
        let selector = Selector::parse(Resource::Pods, labels, fields).unwrap();
        let pod = Object::new(pod, 1);
        for _ in 0..2 {
            assert_eq!(selector.matches(&pod), expected, "{labels} {fields}");
            pod.rest();
        }
    }

    #[test]
    fn labels_are_selected_by_value_set_and_presence() {
        check("", "", true);
        check("app=x", "", true);
        check("app==y", "", false);
        check("app!=y,other!=x", "", true);
        check("app in (x, y),b.c/d=", "", true);
        check("app notin (x,y)", "", false);
        check("app,!other", "", true);
        check("other", "", false);
    }

    #[test]
    fn fields_are_selected_by_value() {
        check("", "metadata.name=a,metadata.namespace=n", true);
        check("", "spec.nodeName!=here", false);
        check("app=x", "status.phase==Running", true);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for labels in ["=x", "a in x", "a in (x", "a b", "a;b"] {
            assert!(
                Selector::parse(Resource::Pods, labels, "").is_err(),
                "{labels}"
            );
        }
        for fields in ["metadata.name", "spec.containers=x"] {
            assert!(
                Selector::parse(Resource::Pods, "", fields).is_err(),
                "{fields}"
            );
        }
        assert!(Selector::parse(Resource::Nodes, "", "metadata.namespace=x").is_err());
    }
}
