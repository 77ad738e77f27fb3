//! The row of a Pod: one word for the state of all its containers.

use std::cmp::max;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::{self, since};
use super::cells::{NONE, or_none};
use crate::objects::{field, text};

fn items<'a>(value: &'a Value, key: &str) -> std::slice::Iter<'a, Value> {
    let list = value[key].as_array().map(Vec::as_slice);
    list.unwrap_or_default().iter()
}

/// Whether an init container goes on running beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn has_condition(pod: &Value, type_: &str) -> bool {
    let mut conditions = items(&pod["status"], "conditions");
    conditions.any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

/// How often containers have been run again, and when the last one ended before.
#[derive(Debug, Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status["restartCount"].as_i64().unwrap_or(0);
        let ended = age::time(&status["lastState"]["terminated"]["finishedAt"]);
        self.last = max(self.last, ended);
    }

    fn told(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count > 0 => {
                format!("{} ({} ago)", self.count, age::duration(last, now))
            }
            _ => self.count.to_string(),
        }
    }
}

fn ending(terminated: &Value) -> String {
    let signal = terminated["signal"].as_i64().unwrap_or(0);
    match terminated["reason"].as_str().unwrap_or_default() {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", terminated["exitCode"]),
        reason => reason.to_owned(),
    }
}

/// What is known after the init containers.
struct Begun {
    /// Why the others do not run yet.
    waits_for: Option<String>,
    ready: usize,
    restarts: Restarts,
    sidecar_restarts: Restarts,
}

fn begin(pod: &Value) -> Begun {
    let mut begun = Begun {
        waits_for: None,
        ready: 0,
        restarts: Restarts::default(),
        sidecar_restarts: Restarts::default(),
    };
    let specs = items(&pod["spec"], "initContainers");
    let count = specs.len();
    for (position, status) in items(&pod["status"], "initContainerStatuses").enumerate() {
        let named = |container: &&Value| container["name"] == status["name"];
        let is_sidecar = specs.clone().find(named).is_some_and(is_sidecar);
        begun.restarts.add(status);
        if is_sidecar {
            begun.sidecar_restarts.add(status);
        }
        let terminated = &status["state"]["terminated"];
        if terminated["exitCode"] == 0 {
            continue;
        }
        if is_sidecar && status["started"] == true {
            begun.ready += usize::from(status["ready"] == true);
            continue;
        }
        let waiting = status["state"]["waiting"]["reason"].as_str();
        begun.waits_for = Some(match waiting.unwrap_or_default() {
            _ if !terminated.is_null() => format!("Init:{}", ending(terminated)),
            "" | "PodInitializing" => format!("Init:{position}/{count}"),
            reason => format!("Init:{reason}"),
        });
        break;
    }
    begun
}

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = items(spec, "initContainers").filter(|container| is_sidecar(container));
    let total = items(spec, "containers").len() + sidecars.count();
    let begun = begin(pod);
    let (mut ready, mut restarts) = (begun.ready, begun.restarts);
    let mut word = first_word(pod);
    let is_initializing = begun.waits_for.is_some();
    if let Some(reason) = begun.waits_for {
        word = reason;
    }
    if !is_initializing || has_condition(pod, "Initialized") {
        restarts = begun.sidecar_restarts;
        let (mut is_running, mut error) = (false, None);
        for container in items(status, "containerStatuses").rev() {
            restarts.add(container);
            let state = &container["state"];
            let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
            if !waiting.is_empty() {
                word = waiting.to_owned();
            } else if !state["terminated"].is_null() {
                word = ending(&state["terminated"]);
                if state["terminated"]["exitCode"] != 0 {
                    error = Some(word.clone());
                }
            } else if container["ready"] == true && !state["running"].is_null() {
                is_running = true;
                ready += 1;
            }
        }
        // One that has completed is not the whole story.
        if word == "Completed" {
            word = match (is_running, error) {
                (true, _) if has_condition(pod, "Ready") => "Running".into(),
                (_, Some(error)) => error,
                (true, None) => "NotReady".into(),
                (false, None) => word,
            };
        }
    }
    let is_over = matches!(field(pod, "status.phase"), "Succeeded" | "Failed");
    if !text(pod, "deletionTimestamp").is_empty() {
        if field(pod, "status.reason") == "NodeLost" {
            word = "Unknown".into();
        } else if !is_over {
            word = "Terminating".into();
        }
    }
    let named = |path: &str| or_none(field(pod, path).to_owned());
    vec![
        json!(text(pod, "name")),
        json!(format!("{ready}/{total}")),
        json!(word),
        json!(restarts.told(now)),
        json!(since(&pod["metadata"]["creationTimestamp"], now)),
        json!(named("status.podIP")),
        json!(named("spec.nodeName")),
        json!(named("status.nominatedNodeName")),
        json!(gates(pod)),
    ]
}

fn first_word(pod: &Value) -> String {
    let is_gated = items(&pod["status"], "conditions").any(|condition| {
        condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated"
    });
    if is_gated {
        return "SchedulingGated".into();
    }
    match field(pod, "status.reason") {
        "" => field(pod, "status.phase").to_owned(),
        reason => reason.to_owned(),
    }
}

fn gates(pod: &Value) -> String {
    let gates = items(&pod["spec"], "readinessGates");
    let types = gates
        .clone()
        .filter_map(|gate| gate["conditionType"].as_str());
    match (gates.len(), types.filter(|type_| has_condition(pod, type_))) {
        (0, _) => NONE.into(),
        (all, met) => format!("{}/{all}", met.count()),
    }
}
