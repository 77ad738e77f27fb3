//! Queue time: outages and clock jumps end no session, time limits begin with the start.

use gangline_protocol::{
    ItemId, LeaseRequest, NewItem, Phase, SettingsPatch, SettleOutcome, Timestamp,
};

use super::world::{World, dog, item};
use crate::queue::{Command, Query, Reply};

#[test]
fn an_outage_or_a_clock_jump_ends_no_session() {
    for restart in [None, Some(false), Some(true)] {
        let mut world = World::new();
        world.fill(1);
        let mut one = dog("one");
        world.lease(&mut one, 1);
        world.now_ms += 3_600_000;
        if let Some(from_snapshot) = restart {
            world.restart(from_snapshot);
        }
        world.apply(Command::Tick).unwrap();
        assert_eq!(world.status().sessions, 1, "{restart:?}");
        assert_eq!(world.heartbeat(&mut one).session_end, None);
        world.now_ms -= 7_200_000;
        assert_eq!(world.heartbeat(&mut one).session_end, None);
    }
}

#[test]
fn the_oldest_ready_item_is_as_old_as_its_push() {
    for from_snapshot in [false, true] {
        let mut world = World::new();
        let first = world.now_ms;
        world.fill(2);
        world.pass(10_000);
        world.fill(1);
        world.restart(from_snapshot);
        let oldest = |world: &World| match world.queues.read(0, Query::OldestReady).unwrap() {
            Reply::OldestReady(oldest) => oldest.first().map(|(_, Timestamp(at_ms))| *at_ms),
            other => panic!("{other:?}"),
        };
        assert_eq!(oldest(&world), Some(first));
        let mut one = dog("one");
        let items = world.lease(&mut one, 2);
        assert_eq!(oldest(&world), Some(first + 10_000));
        // What comes back is as old as it was.
        world.settle(&mut one, &items[1], SettleOutcome::Release);
        assert_eq!(oldest(&world), Some(first));
        let rest = world.lease(&mut one, 2);
        assert_eq!((rest.len(), oldest(&world)), (2, None));
    }
}

#[test]
fn a_time_limit_begins_when_the_item_is_started() {
    let mut world = World::new();
    let mut limited = item("");
    limited.time_limit_ms = Some(10_000);
    world.push(vec![limited]).unwrap();
    let mut one = dog("one");
    world.exchange(&mut one, |request| {
        let starting = Some(0);
        request.lease = Some(LeaseRequest {
            number: 1,
            max: 1,
            starting,
            wait_ms: 0,
        });
    });
    let wait = |world: &mut World, one: &mut _, steps| {
        for _ in 0..steps {
            world.pass(5_000);
            world.heartbeat(one);
        }
    };
    wait(&mut world, &mut one, 10);
    assert_eq!(world.status().counts.leased, 1);
    world.exchange(&mut one, |request| request.started = vec![ItemId(1)]);
    wait(&mut world, &mut one, 4);
    assert_eq!(world.status().counts.leased, 1);
    wait(&mut world, &mut one, 2);
    let counts = world.status().counts;
    assert_eq!((counts.leased, counts.ready), (0, 1));
    assert_eq!(world.heartbeat(&mut one).lost, [ItemId(1)]);
}

#[test]
fn a_tick_ends_a_bounded_number_of_sessions() {
    let mut world = World::new();
    world.fill(20);
    for n in 0..20 {
        world.lease(&mut dog(&format!("w{n}")), 1);
    }
    let mut sizes = vec![world.status().sessions];
    while *sizes.last().unwrap() > 0 {
        world.now_ms = world.queues.next_tick_ms().unwrap().max(world.now_ms);
        world.apply(Command::Tick).unwrap();
        sizes.push(world.status().sessions);
    }
    assert!(
        sizes.windows(2).all(|pair| pair[0] - pair[1] <= 8),
        "{sizes:?}"
    );
    assert_eq!(world.status().counts.ready, 20);
}

#[test]
fn an_item_that_a_session_gets_again_after_its_time_limit_is_not_lost_any_more() {
    let mut world = World::new();
    let time_limit_ms = Some(1_000);
    world
        .push(vec![NewItem {
            time_limit_ms,
            ..item("")
        }])
        .unwrap();
    let mut one = dog("one");
    world.lease(&mut one, 1);
    while world.status().counts.leased > 0 {
        world.pass(5_000);
        world.heartbeat(&mut one);
    }
    assert_eq!(world.heartbeat(&mut one).lost, [ItemId(1)]);
    world.lease(&mut one, 1);
    assert_eq!(world.heartbeat(&mut one).lost, []);
}

fn configured(patch: SettingsPatch) -> World {
    let mut world = World::new();
    world.configure(patch);
    world
}

#[test]
fn a_queue_seals_itself_when_nothing_was_left_for_so_long_in_queue_time() {
    let mut world = configured(SettingsPatch {
        seal_when_idle_ms: Some(20_000),
        ..SettingsPatch::default()
    });
    // Not before the first item has come.
    world.pass(3_600_000);
    assert_eq!(world.status().phase, Phase::Open);
    world.fill(1);
    let mut one = dog("one");
    let items = world.lease(&mut one, 1);
    for _ in 0..10 {
        world.pass(5_000);
        world.heartbeat(&mut one);
    }
    assert_eq!(world.status().phase, Phase::Open);
    world.settle(&mut one, &items[0], SettleOutcome::Done);
    world.pass(15_000);
    // Another item begins the time anew, and an outage counts for one heartbeat.
    world.fill(1);
    let mut two = dog("two");
    let items = world.lease(&mut two, 1);
    world.settle(&mut two, &items[0], SettleOutcome::Done);
    world.pass(14_000);
    world.now_ms += 3_600_000;
    world.apply(Command::Tick).unwrap();
    assert_eq!(world.status().phase, Phase::Open);
    world.pass(20_000);
    let status = world.status();
    assert_eq!((status.phase, status.counts.done), (Phase::Drained, 2));
}

#[test]
fn a_restart_begins_the_time_of_idleness_anew() {
    for from_snapshot in [false, true] {
        let mut world = configured(SettingsPatch {
            seal_when_idle_ms: Some(20_000),
            ..SettingsPatch::default()
        });
        world.fill(1);
        let mut one = dog("one");
        let items = world.lease(&mut one, 1);
        world.settle(&mut one, &items[0], SettleOutcome::Done);
        world.pass(15_000);
        world.restart(from_snapshot);
        world.pass(15_000);
        assert_eq!(world.status().phase, Phase::Open);
        world.pass(5_000);
        assert_eq!(world.status().phase, Phase::Drained);
    }
}

#[test]
fn items_without_a_time_limit_have_that_of_their_queue() {
    let mut world = configured(SettingsPatch {
        time_limit_ms: Some(10_000),
        ..SettingsPatch::default()
    });
    let mut own = item("");
    own.time_limit_ms = Some(60_000);
    world.push(vec![item(""), own]).unwrap();
    let mut one = dog("one");
    let items = world.lease(&mut one, 2);
    let limits: Vec<_> = items.iter().map(|item| item.time_limit_ms).collect();
    assert_eq!(limits, [Some(10_000), Some(60_000)]);
    for _ in 0..6 {
        world.pass(5_000);
        world.heartbeat(&mut one);
    }
    assert_eq!(world.status().counts.leased, 1);
    // 0 takes it back, for what starts from now on.
    world.configure(SettingsPatch {
        time_limit_ms: Some(0),
        ..SettingsPatch::default()
    });
    let mut two = dog("two");
    assert_eq!(world.lease(&mut two, 1)[0].time_limit_ms, None);
}
