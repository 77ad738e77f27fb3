//! Manifests: YAML or JSON documents, and where the objects in them are created.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::error::Error;

/// Where namespaces are created.
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
/// Where the Jobs of a namespace are.
pub(crate) const JOBS: &str = "batch/v1";

/// The objects of a manifest.
#[derive(Debug)]
pub(crate) struct Documents {
    /// What the file says.
    pub(crate) text: String,
    /// Its objects; those of a List one by one.
    pub(crate) objects: Vec<Value>,
}

/// Reads a manifest; `-` is stdin.
pub(crate) fn read(path: &Path) -> Result<Documents, Error> {
    let name = path.display();
    let text = text_of(path).map_err(|error| {
        Error::usage(format!("cannot read the manifest {name}: {error}"))
            .hint("-f names a file with YAML or JSON; - is stdin")
    })?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| {
        Error::usage(format!("{name} is no YAML: {error}"))
            .hint("the line that it names, or the one before it, is where to look")
    })?;
    let objects: Vec<Value> = documents
        .into_iter()
        .filter(|document| !document.is_null())
        .flat_map(items)
        .collect();
    if let Some(other) = objects.iter().find(|document| !document.is_object()) {
        return Err(Error::usage(format!("{name}: {other} is no object"))
            .hint("a manifest has apiVersion, kind, metadata and spec"));
    }
    Ok(Documents { text, objects })
}

fn text_of(path: &Path) -> std::io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

/// Takes a List apart.
fn items(mut document: Value) -> Vec<Value> {
    if document["kind"] == "List"
        && let Some(Value::Array(items)) = document.get_mut("items").map(Value::take)
    {
        return items;
    }
    vec![document]
}

/// Returns where objects of this kind are created.
pub(crate) fn collection(object: &Value, namespace: &str) -> Result<String, Error> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let own = object["metadata"]["namespace"].as_str();
    let namespace = own.unwrap_or(namespace);
    let plural = match (text("apiVersion"), text("kind")) {
        ("v1", "Namespace") => return Ok(NAMESPACES.into()),
        (JOBS, "Job") => return Ok(format!("/apis/{JOBS}/namespaces/{namespace}/jobs")),
        ("v1", "Pod") => "pods",
        ("v1", "ConfigMap") => "configmaps",
        ("v1", "Secret") => "secrets",
        ("v1", "Service") => "services",
        ("v1", "ServiceAccount") => "serviceaccounts",
        (version, kind) => {
            let text = format!("{kind:?} of {version:?} is no kind that is known here");
            return Err(Error::usage(text).hint(
                "Jobs, Pods, ConfigMaps, Secrets, Services, ServiceAccounts and Namespaces are; \
                 kubectl apply takes any",
            ));
        }
    };
    Ok(format!("/api/v1/namespaces/{namespace}/{plural}"))
}
