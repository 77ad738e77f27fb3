//! What is served, as clients ask for it: in one document, or group by group.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::access;
use super::error::ApiError;
use crate::objects::resource::Resource;

/// The form of the one document, which is told by its media type.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The groups that have a name; all have one version.
const GROUPS: [&str; 4] = [
    "batch",
    "coordination.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
];

const WRITE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Something at a path of its own below an object or a group.
struct Served {
    name: String,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

fn subresources(resource: Resource) -> Vec<Served> {
    let plural = resource.plural();
    let served = |part: &str, group, version, kind, verbs| Served {
        name: format!("{plural}/{part}"),
        group,
        version,
        kind,
        verbs,
    };
    let mut all = Vec::new();
    if resource == Resource::Pods {
        all.push(served("eviction", "policy", "v1", "Eviction", &["create"]));
        all.push(served("log", "", "", "Pod", &["get"]));
    }
    if resource == Resource::Jobs {
        all.push(served("scale", "autoscaling", "v1", "Scale", &WRITE_VERBS));
    }
    if resource.has_status() {
        all.push(served("status", "", "", resource.kind(), &WRITE_VERBS));
    }
    all
}

fn verbs(resource: Resource) -> Vec<&'static str> {
    let mut verbs = vec!["create", "delete", "deletecollection"];
    if resource == Resource::Namespaces {
        verbs.pop();
    }
    verbs.extend(["get", "list", "patch", "update", "watch"]);
    verbs
}

fn of_group(group: &str) -> impl Iterator<Item = Resource> {
    let all = Resource::ALL.into_iter();
    all.filter(move |resource| resource.group() == group)
}

/// Answers what a path of discovery asks for; nothing when it is no such path.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Option<Response> {
    let wants_all = headers.get(header::ACCEPT).is_some_and(|accept| {
        let ranges = accept.to_str().unwrap_or_default().split(',');
        ranges
            .map(str::trim)
            .any(|range| range.replace(' ', "").starts_with(AGGREGATED))
    });
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let document = match segments.as_slice() {
        ["api"] if wants_all => return Some(aggregated(&[""], headers)),
        ["apis"] if wants_all => return Some(aggregated(&GROUPS, headers)),
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
        }),
        ["apis"] => json!({
            "kind": "APIGroupList", "apiVersion": "v1", "groups": GROUPS.map(group),
        }),
        ["apis", name] if GROUPS.contains(name) => {
            let mut group = group(name);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["api", "v1"] => resources(""),
        ["apis", name, "v1"] if GROUPS.contains(name) => resources(name),
        ["api" | "apis", ..] if segments.len() < 3 => {
            return Some(ApiError::no_such_path().into_response());
        }
        _ => return None,
    };
    Some(tagged(document, "application/json", headers))
}

fn group(name: &str) -> Value {
    let version = json!({ "groupVersion": format!("{name}/v1"), "version": "v1" });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

fn resources(group: &str) -> Value {
    let mut all = Vec::new();
    for resource in of_group(group) {
        let mut main = json!({
            "name": resource.plural(), "singularName": resource.kind().to_lowercase(),
            "namespaced": resource.is_namespaced(), "kind": resource.kind(),
            "verbs": verbs(resource),
        });
        if !resource.short_names().is_empty() {
            main["shortNames"] = json!(resource.short_names());
        }
        if resource.is_in_all() {
            main["categories"] = json!(["all"]);
        }
        all.push(main);
        for part in subresources(resource) {
            let mut served = json!({
                "name": part.name, "singularName": "", "namespaced": resource.is_namespaced(),
                "kind": part.kind, "verbs": part.verbs,
            });
            if !part.group.is_empty() {
                served["group"] = part.group.into();
                served["version"] = part.version.into();
            }
            all.push(served);
        }
    }
    all.extend(access::of_group(group).map(|review| {
        json!({
            "name": review.plural, "singularName": review.kind.to_lowercase(),
            "namespaced": false, "kind": review.kind, "verbs": ["create"],
        })
    }));
    let version = match group {
        "" => "v1".to_owned(),
        group => format!("{group}/v1"),
    };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": all,
    })
}

/// All groups in one document.
fn aggregated(groups: &[&str], headers: &HeaderMap) -> Response {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let mut metadata = json!({});
            if !group.is_empty() {
                metadata["name"] = json!(group);
            }
            json!({
                "metadata": metadata,
                "versions": [{
                    "version": "v1", "resources": discovered(group), "freshness": "Current",
                }],
            })
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items,
    });
    tagged(document, AGGREGATED, headers)
}

/// A document that clients keep and ask for again by its tag.
fn tagged(document: Value, media_type: &str, headers: &HeaderMap) -> Response {
    let body = document.to_string();
    let tag = super::tag(body.as_bytes());
    if super::has(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, media_type.to_owned()),
        (header::VARY, "Accept".to_owned()),
        (header::ETAG, tag),
    ];
    (StatusCode::OK, headers, body).into_response()
}

fn discovered(group: &str) -> Vec<Value> {
    let kind_of = |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let mut all: Vec<Value> = of_group(group)
        .map(|resource| {
            let parts = subresources(resource).into_iter().map(|part| {
                let (_, name) = part.name.split_once('/').unwrap_or_default();
                json!({
                    "subresource": name, "verbs": part.verbs,
                    "responseKind": kind_of(part.group, part.version, part.kind),
                })
            });
            let mut main = json!({
                "resource": resource.plural(),
                "responseKind": kind_of(group, "v1", resource.kind()),
                "scope": if resource.is_namespaced() { "Namespaced" } else { "Cluster" },
                "singularResource": resource.kind().to_lowercase(),
                "verbs": verbs(resource),
                "subresources": parts.collect::<Vec<_>>(),
            });
            if !resource.short_names().is_empty() {
                main["shortNames"] = json!(resource.short_names());
            }
            if resource.is_in_all() {
                main["categories"] = json!(["all"]);
            }
            main
        })
        .collect();
    all.extend(access::of_group(group).map(|review| {
        json!({
            "resource": review.plural, "responseKind": kind_of(group, "v1", review.kind),
            "scope": "Cluster", "singularResource": review.kind.to_lowercase(),
            "verbs": ["create"],
        })
    }));
    all
}
