//! The first settle wins, with its result and its spawned items, once.

use gangline_protocol::{Phase, SettingsPatch, SettleOutcome, SettleStatus, StopOutcome};

use super::world::{World, dog, item, q, settle};
use crate::queue::{Query, Reply};

#[test]
fn a_repeated_settle_gets_its_answer_while_the_session_lives_and_then_already_settled() {
    let mut world = World::new();
    world.fill(2);
    let mut one = dog("one");
    let leased = world.lease(&mut one, 2);
    for _ in 0..3 {
        assert_eq!(
            world.settle(&mut one, &leased[0], SettleOutcome::Done),
            SettleStatus::Ok
        );
    }
    assert_eq!(world.status().counts.done, 1);
    let other = world.settle(&mut one, &leased[0], SettleOutcome::Dead);
    assert_eq!(other, SettleStatus::AlreadySettled);
    world.revoke(&one, false);
    let late = world.settle(&mut one, &leased[0], SettleOutcome::Done);
    assert_eq!(late, SettleStatus::AlreadySettled);
    assert_eq!(world.status().counts.done, 1);
}

#[test]
fn a_late_done_or_dead_counts_until_the_item_is_leased_again_and_a_late_retry_does_not() {
    for (outcome, expected) in [
        (SettleOutcome::Done, SettleStatus::Ok),
        (SettleOutcome::Dead, SettleStatus::Ok),
        (SettleOutcome::Retry, SettleStatus::StaleLease),
        (SettleOutcome::Release, SettleStatus::StaleLease),
    ] {
        let mut world = World::new();
        world.fill(1);
        let mut one = dog("one");
        let leased = world.lease(&mut one, 1);
        world.pass(20_000);
        assert_eq!(
            world.settle(&mut one, &leased[0], outcome),
            expected,
            "{outcome:?}"
        );
    }
}

#[test]
fn a_result_and_spawned_items_are_recorded_once() {
    let mut world = World::new();
    world.fill(1);
    world.seal();
    let mut one = dog("one");
    let leased = world.lease(&mut one, 1);
    let mut done = settle(&leased[0], SettleOutcome::Done);
    done.spawn = vec![item("child"), item("child"), item("")];
    for _ in 0..2 {
        let done = done.clone();
        world.exchange(&mut one, |request| request.settles.push(done));
    }
    let status = world.status();
    assert_eq!((status.counts.done, status.counts.ready), (1, 2));
    assert_eq!(status.phase, Phase::Sealed);
    let query = Query::Results {
        queue: q(),
        cursor: 0,
        max: 10,
    };
    let Ok(Reply::Results(results)) = world.queues.read(world.now_ms, query) else {
        panic!("no results")
    };
    assert_eq!((results.len(), results[0].result.get()), (1, "1"));
}

#[test]
fn a_retry_waits_for_its_delay_and_the_last_one_is_dead() {
    let mut world = World::new();
    world.configure(SettingsPatch {
        max_attempts: Some(2),
        ..SettingsPatch::default()
    });
    world.fill(1);
    let mut one = dog("one");
    let leased = world.lease(&mut one, 1);
    let mut retry = settle(&leased[0], SettleOutcome::Retry);
    retry.delay_ms = Some(3_000);
    world.exchange(&mut one, |request| request.settles.push(retry));
    world.pass(2_999);
    assert_eq!(world.status().counts.delayed, 1);
    world.pass(1);
    assert_eq!(world.status().counts.ready, 1);
    let leased = world.lease(&mut one, 1);
    assert_eq!(leased[0].attempt, 2);
    world.settle(&mut one, &leased[0], SettleOutcome::Retry);
    assert_eq!(world.status().counts.dead, 1);
}

#[test]
fn a_stop_counts_only_with_a_settle_that_counts_and_after_all_of_its_exchange() {
    let mut world = World::new();
    world.fill(3);
    let (mut one, mut two) = (dog("one"), dog("two"));
    let stale = world.lease(&mut one, 1);
    world.revoke(&one, true);
    let leased = world.lease(&mut two, 2);
    let mut stop = settle(&stale[0], SettleOutcome::Done);
    stop.stop = Some(StopOutcome::Success);
    world.exchange(&mut one, |request| request.settles.push(stop));
    assert_eq!(world.status().phase, Phase::Open);
    let mut settles = vec![
        settle(&leased[0], SettleOutcome::Done),
        settle(&leased[1], SettleOutcome::Done),
    ];
    settles[0].stop = Some(StopOutcome::Success);
    let reply = world.exchange(&mut two, |request| request.settles = settles);
    assert!(
        reply
            .settled
            .iter()
            .all(|settled| settled.status == SettleStatus::Ok)
    );
    let counts = reply.over.unwrap().counts;
    assert_eq!((counts.done, counts.abandoned), (2, 1));
}

#[test]
fn a_done_spawns_its_items_once_and_nothing_else_spawns() {
    let mut world = World::new();
    world.fill(4);
    let mut a = dog("a");
    let items = world.lease(&mut a, 4);
    let outcomes = [
        SettleOutcome::Done,
        SettleOutcome::Retry,
        SettleOutcome::Dead,
        SettleOutcome::Release,
    ];
    for _ in 0..2 {
        for (leased, outcome) in items.iter().zip(outcomes) {
            let mut end = settle(leased, outcome);
            end.spawn = vec![item("")];
            let reply = world.exchange(&mut a, |request| request.settles.push(end));
            assert_eq!(reply.settled[0].status, SettleStatus::Ok);
        }
        assert_eq!(world.status().counts.total(), 5);
    }
}

#[test]
fn a_retry_of_the_last_attempt_gets_its_answer_again() {
    let mut world = World::new();
    world.configure(SettingsPatch {
        max_attempts: Some(1),
        ..SettingsPatch::default()
    });
    world.fill(1);
    let mut a = dog("a");
    let leased = world.lease(&mut a, 1);
    for _ in 0..2 {
        let status = world.settle(&mut a, &leased[0], SettleOutcome::Retry);
        assert_eq!(status, SettleStatus::Ok);
        assert_eq!(world.status().counts.dead, 1);
    }
    let other = world.settle(&mut a, &leased[0], SettleOutcome::Dead);
    assert_eq!(other, SettleStatus::AlreadySettled);
}
