//! Sessions: how they end, what their end counts, and the poison item.

use gangline_protocol::limits::WORKERS_REMEMBERED_MAX;
use gangline_protocol::{
    ExchangeRequest, LeaseRequest, SessionEnd, SettingsPatch, SettleOutcome, SettleStatus,
    WaitReason,
};

use super::world::{World, dog, ids, q, reason, restored};
use crate::queue::{Command, Effects, Input, Reply, Signal};

#[test]
fn a_session_that_is_not_heard_of_ends_and_its_items_are_ready_at_once() {
    let mut world = World::new();
    world.fill(2);
    let (mut one, mut two) = (dog("one"), dog("two"));
    world.lease(&mut one, 1);
    world.pass(14_000);
    assert_eq!(world.status().counts.leased, 1);
    world.pass(2_000);
    assert_eq!(world.status().counts.leased, 0);
    let leased = world.lease(&mut two, 2);
    assert_eq!(ids(&leased), [1, 2]);
    assert_eq!((leased[0].attempt, leased[1].attempt), (2, 1));
    assert_eq!(
        world.heartbeat(&mut one).session_end,
        Some(SessionEnd::Expired)
    );
}

#[test]
fn heartbeats_keep_a_session_and_never_revive_one() {
    let mut world = World::new();
    world.fill(1);
    let mut one = dog("one");
    world.lease(&mut one, 1);
    for _ in 0..20 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(&mut one).session_end, None);
    }
    world.pass(20_000);
    for _ in 0..2 {
        assert_eq!(
            world.heartbeat(&mut one).session_end,
            Some(SessionEnd::Expired)
        );
    }
    assert_eq!(world.status().sessions, 0);
}

#[test]
fn a_new_session_of_a_name_ends_the_older_one() {
    let mut world = World::new();
    world.fill(1);
    let (mut old, mut new) = (dog("one"), dog("one"));
    world.lease(&mut old, 1);
    assert_eq!(ids(&world.lease(&mut new, 1)), [1]);
    assert_eq!(
        world.heartbeat(&mut old).session_end,
        Some(SessionEnd::Replaced)
    );
    assert_eq!(world.status().sessions, 1);
}

#[test]
fn a_revoked_name_gets_no_new_session_for_a_minute() {
    let mut world = World::new();
    world.fill(1);
    let mut one = dog("one");
    world.lease(&mut one, 1);
    world.revoke(&one, false);
    let ended = world
        .signals
        .iter()
        .any(|signal| matches!(signal, Signal::Session { .. }));
    assert!(ended, "{:?}", world.signals);
    let mut late = dog("one");
    assert_eq!(reason(world.ask(&mut late, 1)), WaitReason::Revoked);
    world.pass(30_000);
    let before = world.snapshot();
    world.revoke(&one, false);
    assert!(
        before == world.snapshot(),
        "a repeated revoke changes something"
    );
    world.restart(true);
    assert_eq!(reason(world.ask(&mut late, 1)), WaitReason::Revoked);
    world.pass(30_001);
    assert_eq!(world.lease(&mut late, 1)[0].attempt, 1);
}

#[test]
fn only_a_counted_loss_of_a_started_item_counts_an_attempt() {
    for (counted, starting, attempt) in [(true, 1, 2), (true, 0, 1), (false, 1, 1)] {
        let mut world = World::new();
        world.fill(1);
        let (mut one, mut two) = (dog("one"), dog("two"));
        world.exchange(&mut one, |request| {
            let starting = Some(starting);
            request.lease = Some(LeaseRequest {
                number: 1,
                max: 1,
                starting,
                wait_ms: 0,
            });
        });
        world.revoke(&one, counted);
        assert_eq!(world.lease(&mut two, 1)[0].attempt, attempt);
    }
}

#[test]
fn an_item_that_was_told_as_started_counts() {
    let mut world = World::new();
    world.fill(1);
    let (mut one, mut two) = (dog("one"), dog("two"));
    let mut started = Vec::new();
    world.exchange(&mut one, |request| {
        let starting = Some(0);
        request.lease = Some(LeaseRequest {
            number: 1,
            max: 1,
            starting,
            wait_ms: 0,
        });
        started.push(gangline_protocol::ItemId(1));
    });
    world.exchange(&mut one, |request| request.started = started);
    world.revoke(&one, true);
    assert_eq!(world.lease(&mut two, 1)[0].attempt, 2);
}

#[test]
fn a_settle_beside_a_held_lease_request_does_not_end_the_session_early() {
    let mut world = World::new();
    world.fill(1);
    let mut one = dog("one");
    let leased = world.lease(&mut one, 1);
    world.exchange(&mut one, |request| {
        request.lease = Some(LeaseRequest {
            number: 2,
            max: 1,
            starting: None,
            wait_ms: 50_000,
        });
    });
    world.settle(&mut one, &leased[0], SettleOutcome::Done);
    world.pass(49_000);
    assert_eq!(world.status().sessions, 1);
    world.pass(20_000);
    assert_eq!(world.status().sessions, 0);
}

#[test]
fn a_poison_item_gets_its_last_attempt_alone() {
    let mut world = World::new();
    world.configure(SettingsPatch {
        max_attempts: Some(2),
        ..SettingsPatch::default()
    });
    world.fill(3);
    let mut one = dog("one");
    world.lease(&mut one, 1);
    world.revoke(&one, true);
    let (mut busy, mut free) = (dog("busy"), dog("free"));
    let alone = world.lease(&mut free, 9);
    assert_eq!(ids(&alone), [1]);
    assert_eq!(
        reason(world.ask(&mut free, 9)),
        WaitReason::LastAttemptAlone
    );
    assert_eq!(ids(&world.lease(&mut busy, 9)), [2, 3]);
    world.revoke(&free, true);
    let counts = world.status().counts;
    assert_eq!((counts.dead, counts.leased), (1, 2));
    assert_eq!(
        world.settle(&mut free, &alone[0], SettleOutcome::Done),
        SettleStatus::Ok
    );
    assert_eq!(world.status().counts.dead, 0);
}

#[test]
fn a_session_that_holds_others_does_not_get_the_poison_item() {
    let mut world = World::new();
    world.configure(SettingsPatch {
        max_attempts: Some(2),
        ..SettingsPatch::default()
    });
    world.fill(2);
    let (mut one, mut busy) = (dog("one"), dog("busy"));
    world.lease(&mut one, 1);
    world.lease(&mut busy, 1);
    world.revoke(&one, true);
    assert_eq!(
        reason(world.ask(&mut busy, 1)),
        WaitReason::LastAttemptAlone
    );
}

#[test]
fn a_late_repeat_of_a_first_call_opens_no_second_session() {
    let mut world = World::new();
    world.fill(3);
    let first = |nonce| {
        let mut request = gangline_protocol::ExchangeRequest::new(dog("a").name);
        request.nonce = Some(nonce);
        request.lease = Some(gangline_protocol::LeaseRequest {
            number: 1,
            max: 1,
            starting: None,
            wait_ms: 0,
        });
        request
    };
    world.send(first(1)).unwrap();
    let newer = world.send(first(2)).unwrap();
    for from_snapshot in [false, true] {
        let late = world.send(first(1)).unwrap();
        assert_eq!(
            (late.session, late.session_end),
            (None, Some(SessionEnd::Replaced))
        );
        assert!(late.lease.is_none());
        assert_eq!(world.send(first(2)).unwrap().session, newer.session);
        world.restart(from_snapshot);
    }
    assert_eq!(world.status().counts.leased, 1);
}

#[test]
fn a_worker_that_had_a_session_is_known_after_its_end_and_after_a_restart() {
    let mut world = World::new();
    world.fill(1);
    let (mut gone, mut open) = (dog("gone"), dog("open"));
    for worker in [&mut gone, &mut open] {
        world.ask(worker, 1);
    }
    world.revoke(&gone, false);
    for from_snapshot in [false, true] {
        let known = |name: &str| {
            let record = world.worker(name);
            (record.had_session, record.session.is_some())
        };
        assert_eq!(known("gone"), (Some(true), false));
        assert_eq!(known("open"), (Some(true), true));
        assert_eq!(known("nobody"), (Some(false), false));
        world.restart(from_snapshot);
    }
}

#[test]
fn only_so_many_workers_are_known_those_whose_session_ended_last() {
    let mut world = World::new();
    world.fill(1);
    let mut old = dog("old");
    world.ask(&mut old, 1);
    for number in 0..=WORKERS_REMEMBERED_MAX {
        let name = format!("w{number}");
        // Past the world's checks, which would take a snapshot at each of thousands of steps.
        let mut say = |random: u64, fill: &dyn Fn(&mut ExchangeRequest)| {
            let mut request = ExchangeRequest::new(name.parse().unwrap());
            fill(&mut request);
            let command = Command::Exchange {
                queue: q(),
                request: Box::new(request),
            };
            let now_us = world.now_ms * 1_000;
            let input = Input { now_us, random };
            let reply = world.queues.apply(input, command, &mut Effects::default());
            let Ok(Reply::Exchange(reply)) = reply else {
                panic!("{reply:?}")
            };
            reply.session
        };
        let random = 2 * number as u64;
        let session = say(random, &|request| {
            request.lease = Some(LeaseRequest {
                number: 1,
                max: 1,
                starting: None,
                wait_ms: 0,
            });
        });
        assert!(session.is_some());
        say(random + 1, &|request| {
            (request.session, request.leave) = (session, true);
        });
        if number == 0 {
            assert_eq!(world.worker("nobody").had_session, Some(false));
        }
    }
    world.queues = restored(&world.queues.snapshot().collect::<Vec<_>>());
    // A name that is not there may be one that was forgotten.
    for (name, known) in [
        ("old", Some(true)),
        ("w0", None),
        ("w1", Some(true)),
        ("nobody", None),
    ] {
        assert_eq!(world.worker(name).had_session, known, "{name}");
    }
}
