//! One live lease an item, numbers that never repeat, repeats that get the same items.

use gangline_protocol::{LeaseRequest, SettingsPatch, SettleOutcome, SettleStatus, WaitReason};

use super::world::{World, dog, ids, item, items, lease_of, q, reason};
use crate::queue::{Command, Refusal};

#[test]
fn an_item_is_leased_to_one_session_at_a_time() {
    let mut world = World::new();
    world.fill(3);
    let (mut one, mut two) = (dog("one"), dog("two"));
    assert_eq!(ids(&world.lease(&mut one, 2)), [1, 2]);
    assert_eq!(ids(&world.lease(&mut two, 2)), [3]);
    assert_eq!(reason(world.ask(&mut two, 2)), WaitReason::NothingReady);
}

#[test]
fn lease_numbers_grow_over_restarts_a_clock_set_back_and_a_new_queue() {
    let mut world = World::new();
    let mut last = 0;
    for round in 0..6 {
        world.fill(1);
        let mut dog = dog("one");
        let lease = world.lease(&mut dog, 1)[0].lease.0;
        assert!(lease > last, "round {round}: {lease} after {last}");
        last = lease;
        world.now_ms -= 60_000;
        match round % 3 {
            0 => world.restart(false),
            1 => world.restart(true),
            _ => drop(world.apply(Command::Delete { queue: q() }).unwrap()),
        }
    }
}

#[test]
fn a_first_lease_is_not_synced_and_a_further_one_is() {
    let mut world = World::new();
    world.fill(1);
    let mut dog = dog("one");
    let first = world.lease(&mut dog, 1);
    assert!(!world.synced);
    world.settle(&mut dog, &first[0], SettleOutcome::Release);
    assert!(world.synced);
    world.lease(&mut dog, 1);
    assert!(world.synced);
}

#[test]
fn a_settle_with_an_older_lease_changes_nothing() {
    let mut world = World::new();
    world.fill(1);
    let (mut one, mut two) = (dog("one"), dog("two"));
    let old = world.lease(&mut one, 1);
    world.revoke(&one, true);
    let new = world.lease(&mut two, 1);
    for outcome in [
        SettleOutcome::Done,
        SettleOutcome::Dead,
        SettleOutcome::Retry,
    ] {
        assert_eq!(
            world.settle(&mut one, &old[0], outcome),
            SettleStatus::StaleLease
        );
    }
    assert_eq!(
        world.settle(&mut two, &new[0], SettleOutcome::Done),
        SettleStatus::Ok
    );
}

#[test]
fn a_repeated_lease_request_gets_the_same_items_and_loses_no_attempt() {
    let mut world = World::new();
    world.fill(5);
    let mut dog = dog("one");
    let first = world.lease(&mut dog, 2);
    dog.number -= 1;
    let again = world.lease(&mut dog, 2);
    assert_eq!(ids(&first), ids(&again));
    assert_eq!((again[0].lease, again[0].attempt), (first[0].lease, 1));
    assert_eq!(world.status().counts.leased, 2);
    dog.number = 0;
    let mut request = gangline_protocol::ExchangeRequest::new(dog.name.clone());
    request.session = dog.session;
    request.lease = Some(LeaseRequest {
        number: 0,
        max: 1,
        starting: None,
        wait_ms: 0,
    });
    let refusal = world.send(request).unwrap_err();
    assert!(matches!(
        refusal,
        Refusal::LeaseNumberOutOfOrder { number: 0, last: 1 }
    ));
}

#[test]
fn a_first_call_that_is_repeated_by_its_nonce_continues_its_session() {
    let mut world = World::new();
    world.fill(4);
    let call = |nonce| {
        let mut request = gangline_protocol::ExchangeRequest::new("one".parse().unwrap());
        request.nonce = Some(nonce);
        request.lease = Some(LeaseRequest {
            number: 1,
            max: 2,
            starting: None,
            wait_ms: 0,
        });
        request
    };
    let first = world.send(call(7)).unwrap();
    let again = world.send(call(7)).unwrap();
    assert_eq!(first.session, again.session);
    assert_eq!(ids(&items(first)), ids(&items(again)));
    let other = world.send(call(8)).unwrap();
    assert_eq!(ids(&items(other)), [1, 2]);
}

#[test]
fn higher_priority_goes_first_and_returned_items_before_fresh_ones() {
    let mut world = World::new();
    let mut urgent = item("");
    urgent.priority = Some(9);
    world.push(vec![item(""), item(""), urgent]).unwrap();
    let (mut one, mut two) = (dog("one"), dog("two"));
    assert_eq!(ids(&world.lease(&mut one, 2)), [3, 1]);
    world.fill(1);
    world.exchange(&mut one, |request| request.leave = true);
    assert_eq!(ids(&world.lease(&mut two, 9)), [3, 1, 2, 4]);
}

#[test]
fn no_more_items_are_leased_than_the_queue_and_the_session_may_hold() {
    let mut world = World::new();
    world.fill(3_000);
    let mut one = dog("one");
    assert_eq!(world.lease(&mut one, 9_999).len(), 1_024);
    assert_eq!(reason(world.ask(&mut one, 1)), WaitReason::LimitReached);
    world.configure(SettingsPatch {
        max_leased: Some(1_025),
        ..SettingsPatch::default()
    });
    let mut two = dog("two");
    assert_eq!(world.lease(&mut two, 5).len(), 1);
    assert_eq!(reason(world.ask(&mut two, 1)), WaitReason::LimitReached);
}

#[test]
fn nothing_is_leased_while_paused_or_before_the_queue_exists() {
    let mut world = World::new();
    let mut one = dog("one");
    assert_eq!(reason(world.ask(&mut one, 1)), WaitReason::NoSuchQueue);
    world.fill(1);
    world
        .apply(Command::Pause {
            queue: q(),
            paused: true,
        })
        .unwrap();
    assert_eq!(reason(world.ask(&mut one, 1)), WaitReason::Paused);
    world
        .apply(Command::Pause {
            queue: q(),
            paused: false,
        })
        .unwrap();
    let leased = world.lease(&mut one, 1);
    assert_ne!((leased[0].id, leased[0].lease), lease_of(1, 0));
}
