//! Runs the vectors of `controller/tests/job-vectors` that are about the API, or those of the
//! directory that `GANGLINE_JOB_VECTORS` names.

#[path = "../../../../tests/job_vectors/tally.rs"]
mod tally;

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};
use tally::Tally;

use super::super::decode::{Validation, decode};
use super::super::error::Cause;
use super::super::target::Part;
use super::super::{strategy, table};
use super::update::{self, Open};
use super::validate::{self, LabelNames};
use super::{indexes, typed};
use crate::expire;
use crate::objects::resource::Resource;

type Check = fn(given: &Value, expect: &Value) -> Result<(), String>;

const AREAS: [(&str, Check); 14] = [
    ("create-warnings", create_warnings),
    ("defaults", defaults),
    ("indexes-format", indexes_format),
    ("indexes-overlap", indexes_overlap),
    ("prepare-for-create", prepare_for_create),
    ("prepare-for-update", prepare_for_update),
    ("table-job", table_job),
    ("table-pod", table_pod),
    ("ttl-after-finished", ttl_after_finished),
    ("validate-create", validate_create),
    ("validate-create-strategy", validate_create_strategy),
    ("validate-status-update", validate_status_update),
    ("validate-update", validate_update),
    ("validate-update-strategy", validate_update_strategy),
];

#[test]
fn the_api_agrees_with_every_vector() {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/job-vectors");
    let other = std::env::var_os("GANGLINE_JOB_VECTORS").map(PathBuf::from);
    let directory = other.as_ref().unwrap_or(&own);
    let mut tally = Tally::default();
    for (area, check) in AREAS {
        let path = directory.join(format!("{area}.json"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // Another directory may have some areas only.
            Err(_) if other.is_some() => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let line = tally.check(area, &text, |case| check(&case["given"], &case["expect"]));
        println!("{line}");
    }
    tally.conclude(directory);
}

/// The object as the API sees it: without fields that are null, and empty lists and maps of metadata.
fn decoded(value: &Value) -> Value {
    decode(Resource::Jobs, value, Validation::Ignore)
        .unwrap()
        .value
}

fn same(what: &str, expected: &Value, got: &Value) -> Result<(), String> {
    if expected == got {
        return Ok(());
    }
    Err(format!("{what}\nexpected {expected}\n     got {got}"))
}

fn same_causes(expect: &Value, causes: &[Cause]) -> Result<(), String> {
    let got: Value = causes
        .iter()
        .map(|cause| json!({ "type": cause.reason, "field": cause.field }))
        .collect();
    same("causes", expect, &got).map_err(|why| format!("{why}\n{causes:?}"))
}

fn create_warnings(given: &Value, expect: &Value) -> Result<(), String> {
    let before = given.get("oldJob").map(decoded);
    let new = decoded(&given["job"]);
    let warnings = strategy::warnings(Resource::Jobs, before.as_ref(), &new);
    same("warnings", &expect["warnings"], &json!(warnings.len()))
}

fn defaults(given: &Value, expect: &Value) -> Result<(), String> {
    let mut job = decoded(&given["job"]);
    super::default(&mut job);
    for (key, expected) in expect["spec"].as_object().unwrap() {
        same(key, expected, &job["spec"][key])?;
    }
    let labels = job["metadata"]["labels"].clone();
    let template = &job["spec"]["template"]["metadata"]["labels"];
    let is_copied = decoded(&given["job"])["metadata"]["labels"] != labels && &labels == template;
    let expected = &expect["labelsCopiedFromTemplate"];
    same("labels are copied", expected, &json!(is_copied))
}

fn indexes_format(given: &Value, expect: &Value) -> Result<(), String> {
    let completions = i32::try_from(given["completions"].as_i64().unwrap()).unwrap();
    let parsed = indexes::parse(given["indexes"].as_str().unwrap(), completions);
    same("valid", &expect["valid"], &json!(parsed.is_ok()))?;
    match parsed {
        Ok(intervals) => same(
            "total",
            &expect["total"],
            &json!(indexes::count(&intervals)),
        ),
        Err(_) => Ok(()),
    }
}

fn indexes_overlap(given: &Value, expect: &Value) -> Result<(), String> {
    let texts = given.as_object().unwrap().values();
    let lists = texts.filter_map(Value::as_str);
    let lists: Vec<_> = lists.map(indexes::readable).collect();
    let [one, other] = lists.as_slice() else {
        return Err(format!("two lists are wanted: {given}"));
    };
    let expected = json!(!expect["overlapAt"].is_null());
    same("overlap", &expected, &json!(indexes::overlap(one, other)))
}

/// The expected Job has no defaults, which preparing gives too.
fn same_job(expected: &Value, got: &Value) -> Result<(), String> {
    let mut expected = decoded(expected);
    super::default(&mut expected);
    for key in ["metadata", "spec", "status"] {
        let empty = json!({});
        let of = |job: &Value| job.get(key).unwrap_or(&empty).clone();
        let (mut expected, mut got) = (of(&expected), of(got));
        if key == "metadata" {
            // A Job without labels gets those of its template, in defaulting.
            for metadata in [&mut expected, &mut got] {
                metadata.as_object_mut().unwrap().remove("labels");
            }
        }
        same(key, &expected, &got)?;
    }
    Ok(())
}

fn prepare_for_create(given: &Value, expect: &Value) -> Result<(), String> {
    let mut job = decoded(&given["job"]);
    strategy::prepare_create(Resource::Jobs, &mut job);
    same_job(&expect["job"], &job)
}

fn prepare_for_update(given: &Value, expect: &Value) -> Result<(), String> {
    // What is stored has its defaults.
    let mut before = decoded(&given["old"]);
    super::default(&mut before);
    let mut new = decoded(&given["new"]);
    strategy::prepare_update(Resource::Jobs, Part::Main, &before, &mut new);
    same_job(&expect["job"], &new)
}

fn now(given: &Value) -> Timestamp {
    given["now"].as_str().unwrap().parse().unwrap()
}

fn same_cells(resource: Resource, key: &str, given: &Value, expect: &Value) -> Result<(), String> {
    let mut cells = table::cells_of(resource, &given[key], now(given));
    cells.truncate(expect["cells"].as_array().unwrap().len());
    same("cells", &expect["cells"], &json!(cells))
}

fn table_job(given: &Value, expect: &Value) -> Result<(), String> {
    // Upstream prints a Job without completions as one that wants a single one.
    same_cells(Resource::Jobs, "job", given, expect)
}

fn table_pod(given: &Value, expect: &Value) -> Result<(), String> {
    same_cells(Resource::Pods, "pod", given, expect)
}

fn ttl_after_finished(given: &Value, expect: &Value) -> Result<(), String> {
    let job = json!({
        "metadata": {}, "spec": { "ttlSecondsAfterFinished": given["ttlSecondsAfterFinished"] },
        "status": { "conditions": given["conditions"] },
    });
    let due = expire::due_at(&job);
    same("eligible", &expect["eligible"], &json!(due.is_some()))?;
    if let Some(due) = due {
        same("expireAt", &expect["expireAt"], &json!(due.to_string()))?;
        let is_due = due <= now(given);
        same("deleteNow", &expect["deleteNow"], &json!(is_due))?;
    }
    Ok(())
}

fn validate_create(given: &Value, expect: &Value) -> Result<(), String> {
    let job = decoded(&given["job"]);
    let names = match given["requirePrefixedLabels"] == false {
        true => LabelNames::Old,
        false => LabelNames::OldAndNew,
    };
    let mut causes = strategy::validate_metadata(Resource::Jobs, &job);
    causes.extend(validate::job(&typed(&job).unwrap(), &job, names));
    same("valid", &expect["valid"], &json!(causes.is_empty()))
        .map_err(|why| format!("{why}\n{causes:?}"))?;
    causes.truncate(1);
    match expect.get("firstError") {
        Some(first) if !first.is_null() => same_causes(&json!([first]), &causes),
        _ => Ok(()),
    }
}

fn validate_create_strategy(given: &Value, expect: &Value) -> Result<(), String> {
    let job = decoded(&given["job"]);
    let mut causes = strategy::validate_metadata(Resource::Jobs, &job);
    causes.extend(strategy::validate_create(Resource::Jobs, &job));
    same("errors", &expect["errorCount"], &json!(causes.len()))
        .map_err(|why| format!("{why}\n{causes:#?}"))
}

fn validate_status_update(given: &Value, expect: &Value) -> Result<(), String> {
    let (before, new) = (decoded(&given["old"]), decoded(&given["new"]));
    let causes = strategy::validate_update(Resource::Jobs, Part::Status, &before, &new);
    same_causes(&expect["errors"], &causes)
}

fn validate_update(given: &Value, expect: &Value) -> Result<(), String> {
    let (before, new) = (decoded(&given["old"]), decoded(&given["new"]));
    let open = Open {
        placement: given["allowMutableSchedulingDirectives"] == true,
        resources: given["allowMutablePodResources"] == true,
    };
    let mut causes = validate::spec(&typed(&new).unwrap().spec.unwrap(), &new);
    causes.extend(update::changes(&before, &new, open));
    same_causes(&expect["errors"], &causes)
}

fn validate_update_strategy(given: &Value, expect: &Value) -> Result<(), String> {
    let (before, new) = (decoded(&given["old"]), decoded(&given["new"]));
    let causes = strategy::validate_update(Resource::Jobs, Part::Main, &before, &new);
    same_causes(&expect["errors"], &causes)
}
