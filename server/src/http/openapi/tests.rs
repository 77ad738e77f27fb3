use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::{SCHEMAS, description, text};

/// `UPDATE_SNAPSHOTS=1 cargo test -p gangline-server openapi` writes the file anew.
#[test]
fn the_checked_in_description_is_that_of_the_routes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let text = text();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == text,
        "docs/openapi.json has drifted: UPDATE_SNAPSHOTS=1 cargo test -p gangline-server openapi"
    );
}

#[test]
fn every_reference_leads_somewhere() {
    let description = description();
    let mut waiting = vec![&description];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(description.pointer(pointer).is_some(), "{reference}");
                }
                waiting.extend(fields.values());
            }
            Value::Array(values) => waiting.extend(values),
            _ => {}
        }
    }
}

fn schema(name: &str) -> Value {
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap();
    schemas[name].clone()
}

/// Compares a schema with a value that has all its fields.
#[track_caller]
fn check(name: &str, full: &impl Serialize) {
    let schema = schema(name);
    let full = serde_json::to_value(full).unwrap();
    let names = |object: &Value| -> BTreeSet<String> {
        object.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(names(&schema["properties"]), names(&full), "{name}");
}

/// Compares the values of an enumeration with those of its type.
#[track_caller]
fn check_enum<T: Serialize>(name: &str, all: &[T]) {
    assert_eq!(schema(name)["enum"], json!(all), "{name}");
}

#[test]
fn schemas_are_those_of_the_types() {
    use gangline_protocol::{
        Counts, DeadItems, Ending, ErrorCode, HeldBack, ItemProgress, ItemState, ItemView,
        JobReport, NewItem, Phase, QueueSettings, RedriveRequest, Redriven, Role, SettingsPatch,
        SettleOutcome, SettleStatus, StopOutcome, Term, TermKind,
    };
    check_enum("ErrorCode", &ErrorCode::ALL);
    check_enum("Role", &Role::ALL);
    check_enum(
        "Phase",
        &[Phase::Open, Phase::Sealed, Phase::Drained, Phase::Stopped],
    );
    check_enum("StopOutcome", &[StopOutcome::Success, StopOutcome::Failure]);
    check_enum(
        "SettleOutcome",
        &[
            SettleOutcome::Done,
            SettleOutcome::Retry,
            SettleOutcome::Dead,
            SettleOutcome::Release,
        ],
    );
    check_enum(
        "SettleStatus",
        &[
            SettleStatus::Ok,
            SettleStatus::AlreadySettled,
            SettleStatus::StaleLease,
            SettleStatus::Cancelled,
            SettleStatus::UnknownItem,
            SettleStatus::Over,
        ],
    );
    check_enum(
        "ItemState",
        &[
            ItemState::Ready,
            ItemState::Delayed,
            ItemState::Leased,
            ItemState::Done,
            ItemState::Dead,
            ItemState::Cancelled,
            ItemState::Abandoned,
        ],
    );
    check_enum(
        "Ending",
        &[
            Ending::Done,
            Ending::Retry,
            Ending::Dead,
            Ending::Release,
            Ending::TimeLimit,
            Ending::Expired,
            Ending::Replaced,
            Ending::Revoked,
            Ending::Disrupted,
            Ending::Left,
        ],
    );
    check_enum(
        "TermKind",
        &[
            TermKind::Paused,
            TermKind::Ready,
            TermKind::Leased,
            TermKind::Delayed,
            TermKind::NotSealed,
        ],
    );
    check_enum(
        "HeldBack",
        &[
            HeldBack::Paused,
            HeldBack::NoWorker,
            HeldBack::LimitReached,
            HeldBack::LastAttemptAlone,
            HeldBack::ResultsFull,
        ],
    );
    let held = json!({"id": 1, "key": "k", "lease": 1, "attempt": 1, "worker": "w",
        "session": "0000000000000001", "since": "2026-01-01T00:00:00Z", "heldMs": 1, "slow": true,
        "progress": {"fraction": 0.5, "text": "t", "at": "2026-01-01T00:00:00Z"}});
    let term = json!({"term": "leased", "text": "t", "trouble": true, "items": 1,
        "because": "paused", "command": "c", "call": "c", "nextDueAt": "2026-01-01T00:00:00Z",
        "typicalMs": 1, "oldest": [held], "more": 1, "looked": 1});
    let term: Term = serde_json::from_value(term).unwrap();
    check("HeldItem", &term.oldest[0]);
    check("Progress", &term.oldest[0].progress);
    let said = json!({"id": 1, "lease": 1, "fraction": 0.5, "text": "t"});
    let said: ItemProgress = serde_json::from_value(said).unwrap();
    check("ItemProgress", &said);
    check("Term", &term);
    let group = json!({"error": "e", "same": true, "count": 1, "firstAt": "2026-01-01T00:00:00Z",
        "lastAt": "2026-01-01T00:00:00Z", "example": 1});
    let dead = json!({"dead": 1, "groups": [group], "ungrouped": 0});
    let dead: DeadItems = serde_json::from_value(dead).unwrap();
    check("DeadItems", &dead);
    check("DeadGroup", &dead.groups[0]);
    let redrive =
        json!({"ids": [1], "error": "e", "contains": "c", "max": 1, "into": "q", "cursor": 1});
    let redrive: RedriveRequest = serde_json::from_value(redrive).unwrap();
    check("RedriveRequest", &redrive);
    let redriven = json!({"redriven": 1, "duplicates": 1, "next": 1});
    let redriven: Redriven = serde_json::from_value(redriven).unwrap();
    check("Redriven", &redriven);
    check("Counts", &Counts::default());
    let settings = QueueSettings {
        max_leased: Some(1),
        seal_when_idle_ms: Some(1),
        time_limit_ms: Some(1),
        results_bytes_max: Some(1),
        ..QueueSettings::default()
    };
    check("QueueSettings", &settings);
    let patch: SettingsPatch = serde_json::from_value(json!(settings)).unwrap();
    check("SettingsPatch", &patch);
    let job = json!({"namespace": "n", "name": "j", "uid": "u", "createdAt": "2026-01-01T00:00:00Z",
        "parallelism": 1, "conditions": [{"type": "Complete", "status": "True", "reason": "r",
        "message": "m"}], "pods": [{"name": "p", "uid": "u", "phase": "Running",
        "createdAt": "2026-01-01T00:00:00Z", "startedAt": "2026-01-01T00:00:00Z",
        "endedAt": "2026-01-01T00:00:00Z", "deletedAt": "2026-01-01T00:00:00Z", "exitCode": 1,
        "reason": "r"}]});
    let job: JobReport = serde_json::from_value(job).unwrap();
    check("JobReport", &job);
    check("ConditionReport", &job.conditions[0]);
    check("PodReport", &job.pods[0]);
    let attempt = json!({"attempt": 1, "worker": "w", "leasedAt": "2026-01-01T00:00:00Z",
        "endedAt": "2026-01-01T00:00:00Z", "outcome": "retry", "error": "e"});
    let view = json!({"id": 1, "state": "done", "key": "k", "payload": 1, "result": 1, "tookMs": 1,
        "attempts": 1, "error": "e", "dueAt": "2026-01-01T00:00:00Z", "lease": 1,
        "session": "0000000000000001", "worker": "w", "since": "2026-01-01T00:00:00Z",
        "progress": {"at": "2026-01-01T00:00:00Z"}, "history": [attempt]});
    let view: ItemView = serde_json::from_value(view).unwrap();
    check("ItemView", &view);
    check("Attempt", &view.history[0]);
    let item = json!({"payload": 1, "key": "k", "priority": 1, "delayMs": 1, "timeLimitMs": 1,
        "maxAttempts": 1, "traceparent": "t"});
    check("NewItem", &serde_json::from_value::<NewItem>(item).unwrap());
}
