//! Snapshots of much: bounded parts, and what comes after them.

use gangline_protocol::SettleOutcome;

use super::world::{World, dog, item, json, settle};

#[test]
fn a_snapshot_has_bounded_parts_and_the_queue_goes_on_after_it() {
    let mut world = World::new();
    for n in 0..6 {
        let mut items: Vec<_> = (0..1_000).map(|k| item(&format!("{n}-{k}"))).collect();
        items[0].payload = json(&format!("\"{}\"", "x".repeat(900_000)));
        world.push(items).unwrap();
    }
    let mut one = dog("one");
    let leased = world.lease(&mut one, 300);
    let done = leased[..280].iter();
    let done: Vec<_> = done.map(|item| settle(item, SettleOutcome::Done)).collect();
    world.exchange(&mut one, |request| request.settles = done);
    let parts = world.snapshot();
    let largest = parts.iter().map(Vec::len).max().unwrap();
    assert!(parts.len() > 4 && largest < 3 << 20, "{largest} bytes");
    world.restart(true);
    assert_eq!(world.lease(&mut one, 2)[0].id.0, 301);
    world.seal();
    let counts = world.status().counts;
    assert_eq!((counts.done, counts.leased), (280, 22));
}
