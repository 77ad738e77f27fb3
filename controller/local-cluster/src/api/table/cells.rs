//! The columns of each resource, and what stands in them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::{self, UNKNOWN, duration, since};
use super::pod;
use crate::objects::resource::Resource;
use crate::objects::{field, text};

/// What stands where there is nothing.
pub(super) const NONE: &str = "<none>";

/// The columns by resource; a star marks what only `-o wide` shows.
pub(super) const COLUMNS: [(Resource, &[&str]); 10] = [
    (Resource::Namespaces, &["Name", "Status", "Age"]),
    (
        Resource::Nodes,
        &[
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "*Internal-IP",
            "*External-IP",
            "*OS-Image",
            "*Kernel-Version",
            "*Container-Runtime",
        ],
    ),
    (
        Resource::Pods,
        &[
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "*IP",
            "*Node",
            "*Nominated Node",
            "*Readiness Gates",
        ],
    ),
    (
        Resource::Jobs,
        &[
            "Name",
            "Status",
            "Completions",
            "Duration",
            "Age",
            "*Containers",
            "*Images",
            "*Selector",
        ],
    ),
    (
        Resource::Events,
        &[
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "*Subobject",
            "*Source",
            "Message",
            "*First Seen",
            "*Count",
            "*Name",
        ],
    ),
    (Resource::ConfigMaps, &["Name", "Data", "Age"]),
    (Resource::Secrets, &["Name", "Type", "Data", "Age"]),
    (
        Resource::Services,
        &[
            "Name",
            "Type",
            "Cluster-IP",
            "External-IP",
            "Port(s)",
            "Age",
            "*Selector",
        ],
    ),
    (Resource::ServiceAccounts, &["Name", "Secrets", "Age"]),
    (Resource::Leases, &["Name", "Holder", "Age"]),
];

fn items<'a>(value: &'a Value, key: &str) -> impl DoubleEndedIterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { NONE.into() } else { text }
}

fn joined(texts: impl Iterator<Item = impl Into<String>>) -> String {
    let texts: Vec<String> = texts.map(Into::into).collect();
    texts.join(",")
}

/// A row of the object.
pub(crate) fn of(resource: Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = || json!(text(object, "name"));
    let age = || json!(since(&object["metadata"]["creationTimestamp"], now));
    let size = |key: &str| object[key].as_object().map_or(0, serde_json::Map::len);
    match resource {
        Resource::Namespaces => vec![name(), json!(field(object, "status.phase")), age()],
        Resource::Nodes => node(object, name(), age()),
        Resource::Pods => pod::cells(object, now),
        Resource::Jobs => job(object, name(), age(), now),
        Resource::Events => event(object, now),
        Resource::ConfigMaps => {
            let values = size("data") + size("binaryData");
            vec![name(), json!(values), age()]
        }
        Resource::Secrets => {
            let type_ = json!(field(object, "type"));
            vec![name(), type_, json!(size("data")), age()]
        }
        Resource::Services => service(object, name(), age()),
        Resource::ServiceAccounts => {
            vec![name(), json!(items(object, "secrets").count()), age()]
        }
        Resource::Leases => vec![name(), json!(field(object, "spec.holderIdentity")), age()],
    }
}

fn node(node: &Value, name: Value, age: Value) -> Vec<Value> {
    let mut conditions = items(&node["status"], "conditions");
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    let mut status = match ready.map(|ready| ready["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let address = |type_: &str| {
        let mut addresses = items(&node["status"], "addresses");
        let found = addresses.find(|address| address["type"] == type_);
        let found = found.and_then(|address| address["address"].as_str());
        found.unwrap_or(NONE).to_owned()
    };
    let info = |key: &str| match node["status"]["nodeInfo"][key].as_str() {
        None | Some("") => UNKNOWN.to_owned(),
        Some(text) => text.to_owned(),
    };
    vec![
        name,
        json!(status),
        json!(NONE),
        age,
        json!(field(node, "status.nodeInfo.kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(info("osImage")),
        json!(info("kernelVersion")),
        json!(info("containerRuntimeVersion")),
    ]
}

fn job(job: &Value, name: Value, age: Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let succeeded = status["succeeded"].as_i64().unwrap_or(0);
    let parallelism = spec["parallelism"].as_i64().unwrap_or(0);
    let completions = match spec["completions"].as_i64() {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let took = match (
        age::time(&status["startTime"]),
        age::time(&status["completionTime"]),
    ) {
        (None, _) => String::new(),
        (Some(started), Some(completed)) => duration(started, completed),
        (Some(started), None) => duration(started, now),
    };
    let template = &spec["template"]["spec"];
    let containers = |key: &str| {
        let all = items(template, "containers");
        joined(all.map(|container| container[key].as_str().unwrap_or_default()))
    };
    vec![
        name,
        json!(job_status(job)),
        json!(completions),
        json!(took),
        age,
        json!(containers("name")),
        json!(containers("image")),
        json!(selector(&spec["selector"])),
    ]
}

fn job_status(job: &Value) -> &'static str {
    let is = |type_: &str| {
        let mut conditions = items(&job["status"], "conditions");
        // Only the first condition of a type counts.
        let found = conditions.find(|condition| condition["type"] == type_);
        found.is_some_and(|condition| condition["status"] == "True")
    };
    let is_deleted = !text(job, "deletionTimestamp").is_empty();
    let words = [
        (is("Complete"), "Complete"),
        (is("Failed"), "Failed"),
        (is_deleted, "Terminating"),
        (is("Suspended"), "Suspended"),
        (is("FailureTarget"), "FailureTarget"),
        (is("SuccessCriteriaMet"), "SuccessCriteriaMet"),
    ];
    let first = words.into_iter().find(|(holds, _)| *holds);
    first.map_or("Running", |(_, word)| word)
}

fn selector(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let expressions = items(selector, "matchExpressions").map(|expression| {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = joined(items(expression, "values").filter_map(Value::as_str));
        match expression["operator"].as_str().unwrap_or_default() {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            operator => format!("{key} {} ({values})", operator.to_lowercase()),
        }
    });
    or_none(joined(labels.chain(expressions)))
}

fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let named = |key: &str| age::time(&event[key]);
    let first = named("firstTimestamp").or_else(|| named("eventTime"));
    let last = age::time(&event["series"]["lastObservedTime"])
        .or_else(|| named("lastTimestamp"))
        .or(first);
    let ago = |time: Option<Timestamp>| {
        time.map_or_else(|| UNKNOWN.to_owned(), |time| duration(time, now))
    };
    let count = event["series"]["count"].as_i64();
    let count = count.or_else(|| event["count"].as_i64()).unwrap_or(1);
    let object = &event["involvedObject"];
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let source = match field(event, "source.component") {
        "" => field(event, "reportingComponent"),
        component => component,
    };
    let source = match field(event, "source.host") {
        "" => source.to_owned(),
        host => format!("{source}, {host}"),
    };
    vec![
        json!(ago(last)),
        json!(field(event, "type")),
        json!(field(event, "reason")),
        json!(format!(
            "{kind}/{}",
            object["name"].as_str().unwrap_or_default()
        )),
        json!(object["fieldPath"].as_str().unwrap_or_default()),
        json!(source),
        json!(field(event, "message").trim()),
        json!(ago(first)),
        json!(count),
        json!(text(event, "name")),
    ]
}

fn service(service: &Value, name: Value, age: Value) -> Vec<Value> {
    let spec = &service["spec"];
    let ports = items(spec, "ports").map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        format!("{}/{protocol}", port["port"])
    });
    vec![
        name,
        json!(spec["type"].as_str().unwrap_or("ClusterIP")),
        json!(spec["clusterIP"].as_str().unwrap_or(NONE)),
        json!(NONE),
        json!(or_none(joined(ports))),
        age,
        json!(selector(&json!({ "matchLabels": spec["selector"] }))),
    ]
}
