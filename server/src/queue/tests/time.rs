//! Queue time: outages and clock jumps end no session, time limits begin with the start.

use gangline_protocol::{ItemId, LeaseRequest, NewItem};

use super::world::{World, dog, item};
use crate::queue::Command;

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
