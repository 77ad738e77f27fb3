//! Workers on queues in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gangline_protocol::{ItemId, Json, NewItem, SettleOutcome};

use super::Next;
use crate::item::json;
use crate::testing::MemoryQueue;
use crate::{End, HandlerError, Item};

fn errors(queue: &MemoryQueue) -> Vec<Option<String>> {
    let mut attempts = queue.attempts();
    attempts.sort_by_key(|one| one.settle.id);
    let error = |one: &crate::testing::Attempt| one.settle.error.as_deref().map(Into::into);
    attempts.iter().map(error).collect()
}

#[tokio::test]
async fn each_item_of_a_batch_is_settled_by_its_own_outcome() {
    let queue = MemoryQueue::of([4, 0, 2]);
    let end = queue
        .worker()
        .run_batch_until_over(
            3,
            Duration::from_secs(60),
            |items: Vec<Item<u32>>| async move {
                assert_eq!(items.len(), 3);
                let divide = |item: Item<u32>| {
                    let none = || HandlerError::permanent("division by zero");
                    8_u32.checked_div(item.payload).ok_or_else(none)
                };
                items.into_iter().map(divide).collect()
            },
        )
        .await;
    assert_eq!(end.code(), 0);
    assert_eq!(
        errors(&queue),
        [None, Some("division by zero".into()), None]
    );
    let results: Vec<_> = queue.items().into_iter().map(|item| item.result).collect();
    assert_eq!(results[2].as_ref().unwrap().get(), "4");
}

#[tokio::test]
async fn a_batch_that_is_not_full_goes_after_its_wait() {
    // The queue stays open: nothing but the wait ends the batch.
    let queue = MemoryQueue::new();
    for number in 0..3 {
        queue.add(NewItem::new(json(&number).unwrap()));
    }
    let (sizes, other) = (Arc::new(Mutex::new(Vec::new())), queue.clone());
    let seen = sizes.clone();
    let end = queue
        .worker()
        .run_batch_until_over(
            64,
            Duration::from_millis(20),
            move |items: Vec<Item<u32>>| {
                seen.lock().unwrap().push(items.len());
                if seen.lock().unwrap().iter().sum::<usize>() == 3 {
                    other.seal();
                }
                async move { items.iter().map(|_| Ok::<_, HandlerError>(())).collect() }
            },
        )
        .await;
    assert_eq!(end.code(), 0);
    assert_eq!(sizes.lock().unwrap().iter().sum::<usize>(), 3);
}

#[tokio::test]
async fn no_more_batches_run_at_a_time_than_told_and_waiting_ones_fill_up() {
    let queue = MemoryQueue::of(0..40);
    let running = Arc::new(AtomicUsize::new(0));
    let end = queue
        .worker()
        .concurrency(2)
        .run_batch_until_over(4, Duration::ZERO, move |items: Vec<Item<u32>>| {
            let running = running.clone();
            async move {
                assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                assert!(items.len() <= 4);
                items.iter().map(|_| Ok::<_, HandlerError>(())).collect()
            }
        })
        .await;
    assert_eq!(end.code(), 0);
    assert_eq!(queue.certificate().unwrap().counts.done, 40);
    assert!(errors(&queue).iter().all(Option::is_none));
}

#[tokio::test]
async fn a_batch_that_panics_or_miscounts_fails_for_all_of_its_items() {
    for (wrong, text) in [
        (
            true,
            "the batch handler must return one result an item: 2 items, 1 results",
        ),
        (false, "the handler panicked: a bug"),
    ] {
        let queue = MemoryQueue::of([1, 2]);
        let worker = queue.worker().attempts(1);
        worker
            .run_batch_until_over(
                2,
                Duration::from_secs(60),
                move |_: Vec<Item<u32>>| async move {
                    assert!(wrong, "a bug");
                    vec![Ok::<_, HandlerError>(1)]
                },
            )
            .await;
        assert_eq!(errors(&queue), [Some(text.into()), Some(text.into())]);
    }
}

#[tokio::test]
async fn a_payload_that_does_not_parse_keeps_no_batch_from_its_work() {
    let queue = MemoryQueue::of([json("text").unwrap(), json(&1).unwrap()]);
    queue
        .worker()
        .run_batch_until_over(
            2,
            Duration::from_secs(60),
            |items: Vec<Item<u32>>| async move {
                items
                    .iter()
                    .map(|item| Ok::<_, HandlerError>(item.payload))
                    .collect()
            },
        )
        .await;
    let counts = queue.certificate().unwrap().counts;
    assert_eq!((counts.done, counts.dead), (1, 1));
}

#[tokio::test]
async fn bounds_of_batches_are_told() {
    for (concurrency, max, wait) in [(1, 0, 0), (1, 1_025, 0), (2, 513, 0), (1, 1, 3_601)] {
        let worker = MemoryQueue::of([1]).worker().concurrency(concurrency);
        let wait = Duration::from_secs(wait);
        let end = worker
            .run_batch_until_over(max, wait, |_: Vec<Item<u32>>| async {
                Vec::<Result<(), HandlerError>>::new()
            })
            .await;
        assert!(
            matches!(&end, End::Misconfigured(text) if text.contains("batch")),
            "{end:?}"
        );
    }
}

#[tokio::test]
async fn blocking_handlers_run_beside_each_other_on_threads_that_are_used_again() {
    let queue = MemoryQueue::of(0..50);
    let meet = Arc::new(std::sync::Barrier::new(2));
    let threads = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let seen = threads.clone();
    let end = queue
        .worker()
        .concurrency(2)
        .run_blocking_until_over(move |item: Item<u32>| {
            seen.lock().unwrap().insert(std::thread::current().id());
            // Both go on only when both are here.
            meet.wait();
            Ok::<_, HandlerError>(item.payload)
        })
        .await;
    assert_eq!(end.code(), 0);
    assert_eq!(queue.certificate().unwrap().counts.done, 50);
    assert_eq!(threads.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_blocking_handler_that_panics_fails_and_the_worker_lives_on() {
    let queue = MemoryQueue::of([1, 2]);
    queue
        .worker()
        .attempts(1)
        .state("shared")
        .run_blocking_until_over(|item: Item<u32>, state| {
            assert!(item.payload != 1, "a bug");
            Ok::<_, HandlerError>(state)
        })
        .await;
    assert_eq!(
        errors(&queue),
        [Some("the handler panicked: a bug".into()), None]
    );
}

#[test]
fn a_blocking_handler_that_heeds_nothing_does_not_keep_the_program_from_ending() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let queue = MemoryQueue::of([1]);
    let other = queue.clone();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let end = runtime.block_on(queue.worker().run_blocking_until_over(move |_: Item<u32>| {
        other.cancel(ItemId(1));
        // Until the test ends.
        let _ = held.lock().unwrap().recv();
        Ok::<_, HandlerError>(())
    }));
    assert_eq!(end.code(), 0);
    // Would wait for the handler if its thread were the runtime's.
    drop(runtime);
    drop(hold);
}

#[tokio::test]
async fn wraps_stand_around_handlers_the_first_outermost_and_may_turn_items_away() {
    let queue = MemoryQueue::of([1, 2]);
    let log = Arc::new(Mutex::new(Vec::new()));
    let wrap = |name: &'static str| {
        let log = log.clone();
        move |item: Item<Json>, next: Next| {
            let log = log.clone();
            async move {
                let id = item.id.0;
                log.lock().unwrap().push(format!("{name} sees {id}"));
                if name == "inner" && id == 2 {
                    return Err(HandlerError::permanent("turned away"));
                }
                let outcome = next.run(item).await;
                let text = outcome
                    .as_ref()
                    .map_or_else(HandlerError::text, |json| json.get());
                log.lock().unwrap().push(format!("{name} has {text}"));
                outcome
            }
        }
    };
    queue
        .worker()
        .wrap(wrap("outer"))
        .wrap(wrap("inner"))
        .run_until_over(|item: Item<u32>| async move { Ok::<_, HandlerError>(item.payload * 10) })
        .await;
    let log = log.lock().unwrap();
    assert_eq!(
        log[..],
        [
            "outer sees 1",
            "inner sees 1",
            "inner has 10",
            "outer has 10",
            "outer sees 2",
            "inner sees 2",
            "outer has turned away",
        ]
    );
}

#[tokio::test]
async fn an_item_that_is_given_back_counts_no_attempt() {
    let queue = MemoryQueue::of([1]);
    let runs = AtomicUsize::new(0);
    queue
        .worker()
        .run_until_over(move |item: Item<u32>| {
            let first = runs.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first {
                    return Err(HandlerError::released());
                }
                Ok(item.attempt)
            }
        })
        .await;
    let attempts = queue.attempts();
    assert_eq!(attempts[0].settle.outcome, SettleOutcome::Release);
    assert_eq!(attempts[1].result::<u16>().unwrap(), 1);
}
