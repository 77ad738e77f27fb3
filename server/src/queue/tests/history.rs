//! What became of attempts, as a look at an item shows it.

use gangline_protocol::item::{Attempt, Ending};
use gangline_protocol::limits::{ATTEMPT_ERROR_BYTES_MAX, ATTEMPTS_KEPT_MAX, ATTEMPTS_SETTLED_MAX};
use gangline_protocol::{
    ItemId, ItemView, LeaseRequest, SettingsPatch, SettleOutcome, SettleStatus, Timestamp,
};

use super::world::{Dog, World, dog, item, q, settle};
use crate::queue::{Query, Reply};

impl World {
    fn item(&self, id: u64) -> ItemView {
        let (queue, id) = (q(), ItemId(id));
        match self.queues.read(self.now_ms, Query::Item { queue, id }) {
            Ok(Reply::Item(view)) => *view,
            other => panic!("{other:?}"),
        }
    }

    fn ends(&self, id: u64) -> Vec<Ending> {
        let history = self.item(id).history;
        history.iter().map(|attempt| attempt.outcome).collect()
    }

    /// Leases an item and fails it, to be tried again at once.
    fn fail(&mut self, dog: &mut Dog, error: &str) {
        let item = self.lease(dog, 1).remove(0);
        let mut settle = settle(&item, SettleOutcome::Retry);
        (settle.error, settle.delay_ms) = (Some(error.into()), Some(0));
        self.exchange(dog, |request| request.settles.push(settle));
    }
}

fn many_attempts() -> SettingsPatch {
    SettingsPatch {
        max_attempts: Some(100),
        ..SettingsPatch::default()
    }
}

#[test]
fn an_item_that_is_done_at_its_first_attempt_has_no_history() {
    let mut world = World::new();
    world.fill(1);
    let mut one = dog("one");
    let item = world.lease(&mut one, 1).remove(0);
    world.settle(&mut one, &item, SettleOutcome::Done);
    assert_eq!(world.ends(1), []);
}

#[test]
fn a_history_says_who_tried_when_and_how_it_ended() {
    let mut world = World::new();
    world.configure(many_attempts());
    world.fill(1);
    let (mut one, mut two) = (dog("one"), dog("two"));
    let began = world.now_ms;
    world.fail(&mut one, "no route to host");
    world.now_ms += 5;
    world.lease(&mut two, 1);
    world.now_ms += 7;
    world.revoke(&two, true);
    let item = world.lease(&mut one, 1).remove(0);
    world.settle(&mut one, &item, SettleOutcome::Done);
    let history = world.item(1).history;
    assert_eq!(
        history[0],
        Attempt {
            attempt: 1,
            worker: Some("one".parse().unwrap()),
            leased_at: Timestamp(began),
            ended_at: Timestamp(began),
            outcome: Ending::Retry,
            error: Some("no route to host".into()),
        }
    );
    let (lost, done) = (&history[1], &history[2]);
    assert_eq!((lost.attempt, lost.outcome), (2, Ending::Revoked));
    assert_eq!(lost.worker, Some(two.name.clone()));
    assert_eq!(lost.ended_at.0 - lost.leased_at.0, 7);
    assert_eq!((done.attempt, done.outcome), (3, Ending::Done));
    world.restart(true);
    assert_eq!(world.item(1).history, history);
}

#[test]
fn every_end_has_its_word() {
    let mut world = World::new();
    world.configure(many_attempts());
    let mut limited = item("");
    limited.time_limit_ms = Some(1);
    world.push(vec![limited]).unwrap();
    let lease = |world: &mut World, name: &str| {
        let mut dog = dog(name);
        let item = world.lease(&mut dog, 1).remove(0);
        (dog, item)
    };
    let (mut one, item) = lease(&mut world, "one");
    world.settle(&mut one, &item, SettleOutcome::Release);
    world.lease(&mut one, 1);
    world.exchange(&mut one, |request| request.leave = true);
    let (two, _) = lease(&mut world, "two");
    world.revoke(&two, false);
    lease(&mut world, "three");
    // Another process of the same name.
    lease(&mut world, "three");
    // It is not heard of again.
    world.pass(20_000);
    let (mut four, _) = lease(&mut world, "four");
    // This one is, but its attempt takes too long.
    while world.status().counts.leased > 0 {
        world.pass(1_000);
        world.heartbeat(&mut four);
    }
    let item = world.lease(&mut four, 1).remove(0);
    world.settle(&mut four, &item, SettleOutcome::Dead);
    let expected = [
        (1, Ending::Release),
        (1, Ending::Left),
        (1, Ending::Disrupted),
        (1, Ending::Replaced),
        (2, Ending::Expired),
        (3, Ending::TimeLimit),
        (4, Ending::Dead),
    ];
    let history = world.item(1).history;
    let seen: Vec<_> = history
        .iter()
        .map(|one| (one.attempt, one.outcome))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn what_was_leased_ahead_and_never_started_is_no_attempt() {
    let mut world = World::new();
    world.fill(2);
    let mut one = dog("one");
    world.exchange(&mut one, |request| {
        request.lease = Some(LeaseRequest {
            number: 1,
            max: 2,
            starting: Some(1),
            wait_ms: 0,
        });
    });
    world.revoke(&one, true);
    assert_eq!(world.ends(1), [Ending::Revoked]);
    assert_eq!(world.ends(2), []);
}

#[test]
fn a_late_settle_is_how_a_lost_attempt_ended() {
    for (outcome, end) in [
        (SettleOutcome::Done, Ending::Done),
        (SettleOutcome::Dead, Ending::Dead),
    ] {
        let mut world = World::new();
        world.fill(1);
        let mut one = dog("one");
        let item = world.lease(&mut one, 1).remove(0);
        world.revoke(&one, true);
        assert_eq!(world.ends(1), [Ending::Revoked]);
        world.now_ms += 9;
        assert_eq!(world.settle(&mut one, &item, outcome), SettleStatus::Ok);
        let history = world.item(1).history;
        assert_eq!(history.len(), 1);
        assert_eq!(
            (history[0].outcome, &history[0].worker),
            (end, &Some(one.name))
        );
        assert_eq!(history[0].ended_at.0 - history[0].leased_at.0, 9);
    }
}

#[test]
fn a_history_is_bounded() {
    let mut world = World::new();
    world.configure(many_attempts());
    world.fill(1);
    let mut one = dog("one");
    for n in 0..ATTEMPTS_KEPT_MAX + 2 {
        world.fail(
            &mut one,
            &format!("{}ä{n}", "x".repeat(ATTEMPT_ERROR_BYTES_MAX)),
        );
    }
    let history = world.item(1).history;
    assert_eq!(history.len(), ATTEMPTS_KEPT_MAX);
    assert_eq!((history[0].attempt, history[9].attempt), (3, 12));
    let error = history[9].error.as_deref().unwrap();
    assert!(error.len() <= ATTEMPT_ERROR_BYTES_MAX && error.ends_with("xä11"));
}

#[test]
fn of_items_that_are_settled_for_good_the_newest_keep_their_history() {
    let mut queue = super::super::attempts::Attempts::default();
    let attempt = Attempt {
        attempt: 1,
        worker: None,
        leased_at: Timestamp(1),
        ended_at: Timestamp(2),
        outcome: Ending::Retry,
        error: None,
    };
    let last = ATTEMPTS_SETTLED_MAX as u64 + 1;
    for id in (1..=last).map(ItemId) {
        queue.add(id, attempt.clone());
        queue.settle(id);
    }
    // One that had none takes no place.
    queue.settle(ItemId(last + 1));
    queue.add(ItemId(last + 2), attempt);
    let kept: Vec<_> = [1, 2, last, last + 1, last + 2]
        .map(|id| queue.has(ItemId(id)))
        .into();
    assert_eq!(kept, [false, true, true, false, true]);
}
