//! Random Jobs and random lives of their Pods: what must hold whatever happens, and however often
//! the controller is stopped between two writes.

#![expect(clippy::unwrap_used, reason = "what a test has set up is there")]
#![expect(clippy::print_stdout, reason = "a run says on how much it was tried")]

#[path = "plan_properties/queue.rs"]
mod queue;
#[path = "plan_properties/status_rules.rs"]
mod status_rules;
#[path = "plan_properties/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::path::Path;

use gangline_controller::api::Job;
use gangline_protocol::{EndPhase, StopOutcome};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use queue::Queue;
use serde_json::{Value, json};
use world::{Stop, World};

/// What happens to the world.
#[derive(Debug, Clone)]
enum Step {
    /// The controller looks, and is stopped after so many writes.
    Sync(Stop),
    Start(usize),
    Exit(usize, i32),
    /// A container is started again in place.
    Restart(usize),
    /// Somebody deletes a Pod.
    Delete(usize),
    /// The node ends a Pod that is on its way out.
    Reap(usize, i32),
    Suspend(bool),
    Parallelism(i32),
    /// An elastic Indexed Job gets another size.
    Scale(i32),
    Wait(i64),
    /// A worker asks its queue for an item.
    Lease(usize),
    /// A worker has done its items, or has found them hopeless.
    Settle(usize, bool),
    Push(u64),
    Seal,
    Stop(bool),
    DeleteQueue,
    Away(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 0..60)
}

/// What happens to a Job with a queue, too.
fn steps_with_queue() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => step(),
        6 => (0_usize..8).prop_map(Step::Lease),
        4 => (0_usize..8, any::<bool>()).prop_map(|(pod, done)| Step::Settle(pod, done)),
        3 => (1_u64..4).prop_map(Step::Push),
        1 => Just(Step::Seal),
        1 => any::<bool>().prop_map(Step::Stop),
        1 => Just(Step::DeleteQueue),
        2 => any::<bool>().prop_map(Step::Away),
    ];
    vec(step, 0..80)
}

fn step() -> impl Strategy<Value = Step> {
    let stop = prop_oneof![
        3 => Just(Stop::Never),
        2 => (0_usize..12).prop_map(Stop::After),
    ];
    let code = prop_oneof![4 => Just(0), 3 => Just(1), 1 => Just(42), 1 => Just(43), 1 => Just(44)];
    prop_oneof![
        6 => stop.prop_map(Step::Sync),
        3 => (0_usize..8).prop_map(Step::Start),
        5 => (0_usize..8, code.clone()).prop_map(|(pod, code)| Step::Exit(pod, code)),
        1 => (0_usize..8).prop_map(Step::Restart),
        1 => (0_usize..8).prop_map(Step::Delete),
        1 => (0_usize..8, code).prop_map(|(pod, code)| Step::Reap(pod, code)),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => (0_i32..5).prop_map(Step::Parallelism),
        1 => (1_i32..6).prop_map(Step::Scale),
        2 => (0_i64..700).prop_map(Step::Wait),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let plain = (prop::option::of(0_i32..5), 0_i32..5, 0_i32..5);
    let indexed = (
        1_i32..5,
        prop::option::of(0_i32..3),
        prop::option::of(0_i32..3),
        prop::option::of(1_i32..5),
        any::<bool>(),
    );
    let shape = prop_oneof![
        plain.prop_map(|(completions, parallelism, limit)| {
            let mut spec = json!({ "parallelism": parallelism, "backoffLimit": limit });
            if let Some(completions) = completions {
                spec["completions"] = completions.into();
            }
            spec
        }),
        (indexed, 0_i32..5).prop_map(|(indexed, parallelism)| {
            let (completions, per_index, max_failed, enough, elastic) = indexed;
            let parallelism = if elastic { completions } else { parallelism };
            let mut spec = json!({
                "completionMode": "Indexed", "completions": completions, "parallelism": parallelism,
            });
            if let Some(limit) = per_index {
                spec["backoffLimitPerIndex"] = limit.into();
                spec["maxFailedIndexes"] = max_failed.map_or(Value::Null, Value::from);
            }
            if let Some(count) = enough.filter(|_| !elastic) {
                let count = count.min(completions);
                spec["successPolicy"] = json!({ "rules": [{ "succeededCount": count }] });
            }
            spec
        }),
    ];
    let deadline = prop_oneof![3 => Just(None), 1 => (1_i64..900).prop_map(Some)];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (shape, flags, deadline).prop_map(|(mut spec, (only_failed, policy, in_place), deadline)| {
        if let Some(seconds) = deadline {
            spec["activeDeadlineSeconds"] = seconds.into();
        }
        if in_place && !policy {
            spec["restartPolicy"] = "OnFailure".into();
        }
        if only_failed || policy {
            spec["podReplacementPolicy"] = "Failed".into();
        }
        if policy {
            let on = |code: i32| json!({ "operator": "In", "values": [code] });
            let mut rules = vec![
                json!({ "action": "Ignore", "onExitCodes": on(42) }),
                json!({ "action": "FailJob", "onExitCodes": on(43) }),
            ];
            if spec["backoffLimitPerIndex"].is_i64() {
                rules.push(json!({ "action": "FailIndex", "onExitCodes": on(44) }));
            }
            spec["podFailurePolicy"] = json!({ "rules": rules });
        }
        if spec["maxFailedIndexes"].is_null() {
            spec.as_object_mut().unwrap().remove("maxFailedIndexes");
        }
        spec
    })
}

fn live(world: &mut World, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Sync(stop) => world.sync(stop),
            Step::Start(pod) => world.start(pod),
            Step::Exit(pod, code) => world.exit(pod, code),
            Step::Restart(pod) => world.restart(pod),
            Step::Delete(pod) => world.delete(pod),
            Step::Reap(pod, code) => world.reap(pod, code),
            Step::Suspend(suspend) => world.suspend(suspend),
            Step::Parallelism(parallelism) => world.set_parallelism(parallelism),
            Step::Scale(size) => world.scale(size),
            Step::Wait(seconds) => world.wait(seconds),
            Step::Lease(pod) => world.work(pod, Queue::lease),
            Step::Settle(pod, done) => world.work(pod, |q, pod, now| q.settle(pod, done, now)),
            Step::Push(items) => world.on_queue(|queue, _| queue.push(items)),
            Step::Seal => world.on_queue(Queue::seal),
            Step::Stop(success) => world.on_queue(|queue, now| {
                let outcome = match success {
                    true => StopOutcome::Success,
                    false => StopOutcome::Failure,
                };
                queue.end(EndPhase::Stopped, outcome, now);
            }),
            Step::DeleteQueue => world.on_queue(|queue, _| queue.delete()),
            Step::Away(is_away) => world.on_queue(|queue, _| queue.go_away(is_away)),
        }
        world.check();
    }
}

/// A Job that names a queue: its spec, and what its annotations say.
fn job_with_queue() -> impl Strategy<Value = (Value, Value)> {
    let spec = (0_i32..5, 0_i32..4, any::<bool>(), any::<bool>());
    let spec = spec.prop_map(|(parallelism, limit, only_failed, one)| {
        let mut spec = json!({ "parallelism": parallelism, "backoffLimit": limit });
        if one {
            spec["completions"] = 1.into();
        }
        if only_failed {
            spec["podReplacementPolicy"] = "Failed".into();
        }
        spec
    });
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let annotations = (flags, prop::option::of(1_u64..3), 0_u64..3);
    let annotations = annotations.prop_map(|((filled, goes_on, scales), stop_at, max_dead)| {
        let mut annotations = json!({
            "gangline.dev/queue": "j",
            "gangline.dev/first-success": if goes_on { "continue" } else { "stop" },
            "gangline.dev/scale-to-items": scales.to_string(),
            "gangline.dev/max-dead-items": max_dead.to_string(),
        });
        if filled {
            annotations["gangline.dev/items"] = "1..4".into();
        }
        if let Some(items) = stop_at {
            annotations["gangline.dev/stop-at-dead-items"] = items.to_string().into();
        }
        annotations
    });
    (spec, annotations)
}

/// How many lives each property is tried on.
const LIVES: u32 = 600;

/// Tries a property on many Jobs and histories, and says on how many.
fn try_on_many(what: &str, property: impl Fn(&mut World)) {
    let worlds = (spec(), steps());
    let worlds = worlds.prop_map(|(spec, steps)| (World::new(&spec), steps));
    try_on(what, worlds, property);
}

/// The same for Jobs with queues.
fn try_on_many_with_queues(what: &str, property: impl Fn(&mut World)) {
    let worlds = (job_with_queue(), steps_with_queue());
    let worlds = worlds
        .prop_map(|((spec, annotations), steps)| (World::with_queue(&spec, &annotations), steps));
    try_on(what, worlds, property);
}

fn try_on(
    what: &str,
    worlds: impl Strategy<Value = (World, Vec<Step>)>,
    property: impl Fn(&mut World),
) {
    let config = ProptestConfig {
        cases: LIVES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let tried = std::cell::Cell::new((0_u32, 0_usize));
    let result = TestRunner::new(config).run(&worlds, |(mut world, steps)| {
        let (histories, events) = tried.get();
        tried.set((histories + 1, events + steps.len()));
        live(&mut world, steps);
        property(&mut world);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{what}: {failure}");
    }
    let (histories, events) = tried.get();
    println!("{what}: {histories} histories of {events} events");
}

/// After each step every Pod that lost its finalizer is counted once, or was to be counted
/// nowhere; no more Pods were made than the kind of Job allows.
#[test]
fn every_pod_is_counted_once_and_every_job_comes_to_its_end() {
    try_on_many("counted once, and ended", World::run_to_its_end);
}

/// Looking again at an unchanged world changes nothing, after at most a few looks.
#[test]
fn the_plan_comes_to_rest() {
    try_on_many("comes to rest", World::comes_to_rest);
}

/// And no Pod is made for a queue that is over, and none let go that is busy, whatever happens.
#[test]
fn a_job_with_a_queue_counts_every_pod_once_and_ends_with_it() {
    try_on_many_with_queues(
        "counted once, and ended with its queue",
        World::run_to_its_end,
    );
}

#[test]
fn the_plan_of_a_job_with_a_queue_comes_to_rest() {
    try_on_many_with_queues("comes to rest with a queue", World::comes_to_rest);
}

/// Wherever the controller is stopped between listing the Pod and counting it.
#[test]
fn a_pod_that_was_listed_as_failed_and_then_exits_0_is_counted_once() {
    for writes in 0..8 {
        let mut world = World::new(&json!({ "parallelism": 1, "completions": 2 }));
        world.sync(Stop::Never);
        world.start(0);
        world.delete(0);
        world.sync(Stop::After(writes));
        world.reap(0, 0);
        world.sync(Stop::Never);
        world.check();
        world.run_to_its_end();
    }
}

/// What it was called first, it stays, also while nobody can ask who it was.
#[test]
fn a_pod_that_was_listed_before_the_service_went_away_is_counted_once() {
    for writes in 0..8 {
        let annotations = json!({ "gangline.dev/queue": "j" });
        let mut world = World::with_queue(&json!({ "parallelism": 1 }), &annotations);
        world.on_queue(|queue, _| queue.push(2));
        world.sync(Stop::Never);
        world.exit(0, 0);
        world.sync(Stop::After(writes));
        world.on_queue(|queue, _| queue.go_away(true));
        world.sync(Stop::Never);
        world.check();
        world.run_to_its_end();
    }
}

/// What the world holds against a status is what an API server does.
#[test]
fn the_rules_of_a_status_are_those_of_the_api() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/job-vectors/validate-status-update.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let job = |which: &str| -> Job {
            let mut job = case["given"][which].clone();
            for part in ["spec", "status"] {
                if job[part].is_null() {
                    job[part] = json!({});
                }
            }
            serde_json::from_value(job).unwrap()
        };
        let expected = case["expect"]["errors"].as_array().unwrap();
        let expected: BTreeSet<&str> = expected
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        let refused = status_rules::refused(&job("old"), &job("new"));
        let refused: BTreeSet<&str> = refused.into_iter().collect();
        assert_eq!(refused, expected, "{}", case["name"]);
    }
}
