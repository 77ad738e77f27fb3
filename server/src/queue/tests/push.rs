//! Pushes and streams, once each, however often they are sent.

use gangline_protocol::limits::IDEMPOTENCY_MS;

use super::world::{World, item, q};
use crate::queue::command::{Batch, BatchPart};
use crate::queue::{Command, Query, Refusal, Reply};

fn whole(hash: u8) -> Option<Batch> {
    let part = BatchPart::Whole { hash: [hash; 32] };
    Some(Batch {
        key: "k".into(),
        part,
    })
}

fn chunk(lines_before: u64, lines: u64, hash: u8, last: bool) -> Option<Batch> {
    let hash = [hash; 32];
    let part = BatchPart::Chunk {
        lines_before,
        lines,
        hash,
        last,
    };
    Some(Batch {
        key: "k".into(),
        part,
    })
}

#[test]
fn the_first_item_of_a_key_wins_also_within_a_push_and_after_its_end() {
    let mut world = World::new();
    let reply = world.push(vec![item("a"), item("b"), item("a")]).unwrap();
    let ids: Vec<(u64, bool)> = reply.items.iter().map(|p| (p.id.0, p.duplicate)).collect();
    assert_eq!(ids, [(1, false), (2, false), (1, true)]);
    world
        .apply(Command::Cancel {
            queue: q(),
            id: reply.items[0].id,
        })
        .unwrap();
    world.restart(true);
    assert!(world.push(vec![item("a")]).unwrap().items[0].duplicate);
}

#[test]
fn a_push_under_a_key_is_taken_once_for_a_day_even_when_its_queue_is_gone() {
    let mut world = World::new();
    let first = world.push_as(vec![item("")], whole(1)).unwrap();
    assert_eq!(world.push_as(vec![item("")], whole(1)).unwrap(), first);
    let other = world.push_as(vec![item(""), item("")], whole(2));
    assert!(matches!(other, Err(Refusal::IdempotencyMismatch { .. })));
    world.apply(Command::Delete { queue: q() }).unwrap();
    world.restart(true);
    world.pass(IDEMPOTENCY_MS - 1);
    assert_eq!(world.push_as(vec![item("")], whole(1)).unwrap(), first);
    world.pass(1);
    assert_ne!(
        world.push_as(vec![item("")], whole(1)).unwrap().uid,
        first.uid
    );
}

#[test]
fn a_stream_goes_on_where_it_was_taken_and_no_chunk_is_taken_twice() {
    let mut world = World::new();
    world
        .push_as(vec![item(""), item("")], chunk(0, 2, 1, false))
        .unwrap();
    world
        .push_as(vec![item(""), item("")], chunk(0, 2, 1, false))
        .unwrap();
    assert_eq!(world.status().counts.ready, 2);
    let other = world.push_as(vec![item(""), item("")], chunk(0, 2, 9, false));
    assert!(matches!(other, Err(Refusal::IdempotencyMismatch { .. })));
    let gap = world.push_as(vec![item("")], chunk(3, 1, 2, false));
    assert!(matches!(gap, Err(Refusal::StreamConflict { lines: 2, .. })));
    for _ in 0..2 {
        let reply = world.push_as(vec![item("")], chunk(2, 1, 2, true)).unwrap();
        assert_eq!((world.status().counts.ready, reply.sealed), (3, false));
    }
    let longer = world.push_as(vec![item("")], chunk(3, 1, 3, true));
    assert!(matches!(longer, Err(Refusal::IdempotencyMismatch { .. })));
    let query = Query::Stream {
        queue: q(),
        key: "k".into(),
    };
    let Ok(Reply::Stream(Some(stream))) = world.queues.read(world.now_ms, query) else {
        panic!("no stream")
    };
    assert_eq!((stream.lines, stream.added, stream.complete), (3, 3, true));
}

#[test]
fn the_rest_of_a_stream_does_not_go_into_another_queue_of_the_name() {
    let mut world = World::new();
    world
        .push_as(vec![item("")], chunk(0, 1, 1, false))
        .unwrap();
    world.apply(Command::Delete { queue: q() }).unwrap();
    for _ in 0..2 {
        let rest = world.push_as(vec![item("")], chunk(1, 1, 2, true));
        assert!(matches!(rest, Err(Refusal::Over(_))), "{rest:?}");
        world.fill(1);
    }
    assert_eq!(world.status().counts.ready, 2);
}
