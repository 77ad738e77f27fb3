//! Vectors of whole syncs: plan, act against a scripted API, account.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use gangline_controller::api::names::BUILT_IN_CONTROLLER;
use gangline_controller::api::{Job, JobCondition, JobStatus, Pod};
use gangline_controller::plan::account::{Accounting, Outcome, Tracking, account, track};
use gangline_controller::plan::conditions::Verdict as End;
use gangline_controller::plan::tally::Tally;
use gangline_controller::plan::{self, FinalizerFirst, NewPod, Observed, Plan, Scope, Skip, plan};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::functions::read_record;
use super::same;

/// The API, as the vector wants it to behave, and what it was asked to do.
#[derive(Default)]
struct Api {
    refuses_writes: bool,
    create_limit: Option<usize>,
    creation_calls: usize,
    creations: Vec<NewPod>,
    deletions: usize,
    deleted_names: BTreeSet<String>,
    removals: usize,
    status_writes: Vec<JobStatus>,
    events: BTreeSet<(String, String)>,
    error: bool,
}

pub(crate) fn check(given: &Value, expect: &Value) -> Result<(), String> {
    let observed = observed(given);
    let now = now(given);
    let mut api = Api {
        refuses_writes: given["podWriteErrors"] == "all",
        create_limit: given["podCreateLimit"].as_u64().map(|limit| limit as usize),
        ..Api::default()
    };
    let plan = plan(&observed, now);
    api.say(&plan.events);
    api.error |= plan.error.is_some();
    let outcome = api.carry_out(&plan);
    if let Some(accounting) = account(&observed, &plan, &outcome, now) {
        api.write_down(&accounting);
    }
    compare(expect, &plan, &api)?;
    check_transition_times(&observed.job, &api, now)
}

pub(crate) fn check_tracking(given: &Value, expect: &Value) -> Result<(), String> {
    let job: Job = serde_json::from_value(given["job"].clone()).unwrap();
    let pods: Vec<Arc<Pod>> = serde_json::from_value(given["pods"].clone()).unwrap();
    let in_flight: HashSet<String> =
        serde_json::from_value(given["finalizerRemovalsAlreadyInFlight"].clone()).unwrap();
    let now = now(given);
    let end = decided_end(&given["finishedCondition"], now);
    let mut api = Api {
        refuses_writes: given["podWriteErrors"] == "all",
        ..Api::default()
    };
    let accounting = track(Tracking {
        job: &job,
        tally: &Tally::new(&job, pods, &in_flight),
        in_flight: &in_flight,
        end: end.as_ref(),
        status: job.status.clone(),
        changed: given["needsStatusWrite"] == true,
        now,
    });
    api.write_down(&accounting);
    same(
        "removals",
        &expect["finalizerRemovals"],
        &json!(api.removals),
    )?;
    same("error", &expect["error"], &json!(api.error))?;
    let writes: Vec<Value> = api
        .status_writes
        .iter()
        .map(|status| {
            let mut shown = shown(status);
            shown.remove("startTime");
            shown.remove("completionTime");
            shown.insert(
                "completionTimeSet".into(),
                status.completion_time.is_some().into(),
            );
            Value::Object(shown)
        })
        .collect();
    same("writes", &expect["statusWrites"], &json!(writes))
}

/// The end that a tracking vector starts from: announced anew, or already on its last step.
fn decided_end(condition: &Value, now: Timestamp) -> Option<plan::End> {
    let condition: Option<JobCondition> = serde_json::from_value(condition.clone()).unwrap();
    let condition = condition?;
    let success = matches!(condition.type_.as_str(), "SuccessCriteriaMet" | "Complete");
    let verdict = End {
        success,
        reason: condition.reason,
        message: condition.message,
    };
    let is_interim = matches!(
        condition.type_.as_str(),
        "SuccessCriteriaMet" | "FailureTarget"
    );
    let mut end = plan::End::new(verdict, now);
    end.interim = end.interim.filter(|_| is_interim);
    Some(end)
}

fn observed(given: &Value) -> Observed {
    Observed {
        job: serde_json::from_value(given["job"].clone()).unwrap(),
        pods: serde_json::from_value(given["pods"].clone()).unwrap(),
        scope: Scope {
            managed_by: BUILT_IN_CONTROLLER,
            unmanaged: true,
        },
        may_adopt: true,
        expectations_met: given["pendingExpectations"].as_i64().unwrap_or(0) == 0,
        removals_in_flight: HashSet::new(),
        backoff: match &given["backoffRecord"] {
            Value::Null => plan::BackoffRecord::default(),
            record => read_record(record),
        },
        retry_delay: plan::RetryDelay::default(),
        queue: plan::QueueView::Unread,
        gone: Vec::new(),
        forgiven: plan::queue::Forgiven::default(),
        workers: plan::queue::WorkerSettings::default(),
        seed: 7,
    }
}

fn now(given: &Value) -> Timestamp {
    given["now"].as_str().unwrap().parse().unwrap()
}

impl Api {
    fn say(&mut self, events: &[plan::Event]) {
        for event in events {
            self.tell(event.kind.as_str(), &event.reason);
        }
    }

    fn tell(&mut self, kind: &str, reason: &str) {
        self.events.insert((kind.into(), reason.into()));
    }

    fn carry_out(&mut self, plan: &Plan) -> Outcome {
        let mut outcome = Outcome::default();
        for deletion in &plan.delete {
            if deletion.finalizer == FinalizerFirst::Remove {
                self.removals += 1;
                if self.refuses_writes {
                    self.error = true;
                    continue;
                }
            }
            self.deletions += 1;
            if self.refuses_writes {
                self.error = true;
                self.tell("Warning", "FailedDelete");
                continue;
            }
            self.deleted_names.insert(deletion.pod.name().into());
            outcome.deleted.insert(deletion.pod.uid().into());
            self.tell("Normal", "SuccessfulDelete");
        }
        for batch in &plan.create {
            let before = outcome.created;
            for pod in batch {
                outcome.created += usize::from(self.create(pod));
            }
            if outcome.created - before < batch.len() {
                self.error = true;
                break;
            }
        }
        outcome
    }

    fn create(&mut self, pod: &NewPod) -> bool {
        self.creation_calls += 1;
        if self
            .create_limit
            .is_some_and(|limit| self.creation_calls > limit)
        {
            self.tell("Warning", "FailedCreate");
            return false;
        }
        self.creations.push(pod.clone());
        if self.refuses_writes {
            self.tell("Warning", "FailedCreate");
            return false;
        }
        self.tell("Normal", "SuccessfulCreate");
        true
    }

    fn write_down(&mut self, accounting: &Accounting) {
        self.say(&accounting.events);
        self.status_writes.extend(accounting.first.clone());
        let mut removed = HashSet::new();
        for pod in &accounting.remove_finalizers {
            self.removals += 1;
            if self.refuses_writes {
                self.error = true;
            } else {
                removed.insert(pod.uid().to_owned());
            }
        }
        let conclusion = accounting.conclude(&removed);
        self.status_writes.extend(conclusion.second.clone());
        self.say(&conclusion.events);
    }
}

fn compare(expect: &Value, plan: &Plan, api: &Api) -> Result<(), String> {
    let skipped = plan.skip.map(|skip| match skip {
        Skip::ManagedElsewhere => "managedBy",
        Skip::Finished => "finished",
        Skip::UnknownCompletionMode => "unknownCompletionMode",
    });
    let indexes: Vec<u32> = api
        .creations
        .iter()
        .filter_map(|pod| pod.slot.index)
        .collect();
    let counts = |of: fn(&NewPod) -> Option<u32>| -> Value {
        let counts: BTreeMap<String, u32> = api
            .creations
            .iter()
            .filter_map(|pod| Some((pod.slot.index?.to_string(), of(pod)?)))
            .collect();
        json!(counts)
    };
    let requeue: Vec<f64> = plan
        .requeue_after
        .iter()
        .map(|delay| delay.as_secs_f64())
        .collect();
    let last = api.status_writes.last().map(shown);
    let got = json!({
        "skipped": skipped,
        "podCreations": api.creations.len(),
        "podDeletions": api.deletions,
        "finalizerRemovals": api.removals,
        "createdIndexes": indexes,
        "createdIndexFailureCounts": counts(|pod| Some(pod.slot.failures?.counted)),
        "createdIndexIgnoredFailureCounts": counts(|pod| Some(pod.slot.failures?.ignored)),
        "deletedPods": api.deleted_names,
        "status": last,
        "statusWrites": api.status_writes.len(),
        "error": api.error,
        "requeueAfterSeconds": requeue,
        "events": api.events,
    });
    let mut differences = Vec::new();
    for (key, expected) in expect.as_object().unwrap() {
        assert!(
            got.get(key).is_some(),
            "the vectors expect {key}, which nobody compares"
        );
        let mut expected = expected.clone();
        if key == "events" {
            expected
                .as_array_mut()
                .unwrap()
                .sort_by_key(Value::to_string);
        }
        differences.extend(same(key, &expected, &got[key]).err());
    }
    for key in ["skipped", "requeueAfterSeconds"] {
        if expect.get(key).is_none() {
            let nothing = if key == "skipped" {
                Value::Null
            } else {
                json!([])
            };
            differences.extend(same(key, &nothing, &got[key]).err());
        }
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differences.join("\n"))
    }
}

/// A status in the form that the vectors have.
fn shown(status: &JobStatus) -> Map<String, Value> {
    let conditions: Vec<Value> = status
        .conditions
        .iter()
        .map(|condition| {
            let mut shown = json!(condition);
            let shown = shown.as_object_mut().unwrap();
            shown.remove("lastProbeTime");
            shown.remove("lastTransitionTime");
            Value::Object(shown.clone())
        })
        .collect();
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.into(), value);
    put("active", json!(status.active.unwrap_or(0)));
    put("ready", json!(status.ready));
    put("terminating", json!(status.terminating));
    put("succeeded", json!(status.succeeded.unwrap_or(0)));
    put("failed", json!(status.failed.unwrap_or(0)));
    put("conditions", json!(conditions));
    put("startTime", json!(status.start_time));
    put("completionTime", json!(status.completion_time));
    let list = status.uncounted_terminated_pods.clone();
    put("uncountedTerminatedPods", json!(list.unwrap_or_default()));
    if let Some(text) = &status.completed_indexes {
        put("completedIndexes", json!(text));
    }
    if let Some(text) = &status.failed_indexes {
        put("failedIndexes", json!(text));
    }
    map
}

/// What is new or changed carries the time of the sync.
fn check_transition_times(job: &Job, api: &Api, now: Timestamp) -> Result<(), String> {
    for condition in api
        .status_writes
        .iter()
        .flat_map(|status| &status.conditions)
    {
        let is_old = job.status.conditions.contains(condition);
        let time = condition.last_transition_time.as_ref().map(|time| time.0);
        if !is_old && time != Some(now) {
            return Err(format!(
                "{} changed at {time:?}, not {now}",
                condition.type_
            ));
        }
    }
    Ok(())
}
