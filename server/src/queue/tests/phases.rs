//! Drained in the very step that makes it so, and over is over.

use gangline_protocol::{
    EndCause, EndPhase, ItemId, Phase, SettingsPatch, SettleOutcome, SettleStatus, StopOutcome,
};

use super::world::{World, dog, item, q, settle, status};
use crate::queue::{Command, Refusal, Reply, Selection, Signal};

fn stop(world: &mut World) {
    let (queue, outcome) = (q(), StopOutcome::Success);
    world
        .apply(Command::Stop {
            queue,
            outcome,
            reason: None,
            by: None,
        })
        .unwrap();
}

#[test]
fn the_seal_of_an_empty_queue_drains_it() {
    let mut world = World::new();
    assert_eq!(world.seal().phase, Phase::Drained);
    assert!(world.signals.contains(&Signal::Over { queue: q() }));
}

#[test]
fn the_last_settle_cancel_or_loss_drains_a_sealed_queue() {
    for way in 0..4 {
        let mut world = World::new();
        world.configure(SettingsPatch {
            max_attempts: Some(1),
            ..SettingsPatch::default()
        });
        world.fill(1);
        assert_eq!(world.seal().phase, Phase::Sealed);
        let mut one = dog("one");
        let leased = world.lease(&mut one, 1);
        match way {
            0 => {
                let done = settle(&leased[0], SettleOutcome::Done);
                let reply = world.exchange(&mut one, |request| request.settles.push(done));
                let over = reply.over.unwrap();
                assert_eq!(
                    (over.phase, over.cause),
                    (EndPhase::Drained, EndCause::Drained)
                );
            }
            1 => drop(
                world
                    .apply(Command::Cancel {
                        queue: q(),
                        id: ItemId(1),
                    })
                    .unwrap(),
            ),
            2 => world.revoke(&one, true),
            _ => world.pass(20_000),
        }
        assert_eq!(world.status().phase, Phase::Drained, "way {way}");
    }
}

#[test]
fn a_sealed_queue_takes_no_new_items_from_outside_and_answers_repeats() {
    let mut world = World::new();
    world.push(vec![item("a")]).unwrap();
    world.seal();
    assert!(matches!(
        world.push(vec![item("b")]),
        Err(Refusal::Sealed(_))
    ));
    let reply = world.push(vec![item("a")]).unwrap();
    assert_eq!((reply.added, reply.duplicates), (0, 1));
}

#[test]
fn over_is_over() {
    let mut world = World::new();
    world.push(vec![item("a"), item("b")]).unwrap();
    let mut one = dog("one");
    let leased = world.lease(&mut one, 1);
    stop(&mut world);
    let certificate = world.status().certificate.unwrap();
    assert_eq!(certificate.counts.abandoned, 2);
    let mut done = settle(&leased[0], SettleOutcome::Done);
    done.spawn = vec![item("c")];
    let reply = world.exchange(&mut one, |request| request.settles.push(done));
    assert_eq!(reply.settled[0].status, SettleStatus::Over);
    let asked = world.ask(&mut one, 1);
    assert!(asked.lease.is_none() && asked.over.is_some());
    assert!(matches!(world.push(vec![item("c")]), Err(Refusal::Over(_))));
    let selection = Selection::First(9);
    let redrive = world.apply(Command::Redrive {
        queue: q(),
        selection,
    });
    assert!(matches!(redrive, Err(Refusal::Over(_))));
    let cancel = world.apply(Command::Cancel {
        queue: q(),
        id: ItemId(2),
    });
    assert!(matches!(cancel, Err(Refusal::Over(_))));
    assert_eq!(world.push(vec![item("a")]).unwrap().duplicates, 1);
    stop(&mut world);
    world.pass(60_000);
    assert_eq!(world.status().certificate.unwrap(), certificate);
}

#[test]
fn a_late_done_does_not_revive_an_item_of_a_queue_that_is_over() {
    let mut world = World::new();
    world.configure(SettingsPatch {
        max_attempts: Some(1),
        ..SettingsPatch::default()
    });
    world.fill(1);
    world.seal();
    let mut one = dog("one");
    let leased = world.lease(&mut one, 1);
    world.pass(20_000);
    assert_eq!(
        world.settle(&mut one, &leased[0], SettleOutcome::Done),
        SettleStatus::Over
    );
    assert_eq!(world.status().counts.dead, 1);
}

#[test]
fn redrive_makes_dead_items_ready_with_all_their_attempts() {
    let mut world = World::new();
    world.fill(2);
    let mut one = dog("one");
    for leased in world.lease(&mut one, 2) {
        world.settle(&mut one, &leased, SettleOutcome::Dead);
    }
    let selection = Selection::First(1);
    let reply = world.apply(Command::Redrive {
        queue: q(),
        selection,
    });
    assert!(matches!(reply, Ok(Reply::Redriven(1))));
    assert_eq!(world.lease(&mut one, 9)[0].attempt, 1);
    assert_eq!(world.status().counts.dead, 1);
}

#[test]
fn an_old_uid_is_answered_with_the_certificate_of_its_queue() {
    let mut world = World::new();
    world.fill(1);
    let mut one = dog("one");
    world.lease(&mut one, 1);
    let deleted = status(world.apply(Command::Delete { queue: q() }));
    world.fill(1);
    for from_snapshot in [false, true] {
        world.restart(from_snapshot);
        let reply = world.ask(&mut one, 1);
        assert_eq!(reply.over, deleted.certificate);
        assert!(reply.lease.is_none());
    }
    assert_eq!(world.status().counts.ready, 1);
}
