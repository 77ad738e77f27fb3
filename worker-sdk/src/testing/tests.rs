use gangline_protocol::{EndCause, ItemState};

use super::*;
use crate::End;

fn numbered(number: u32, key: &str) -> NewItem {
    let mut item = NewItem::new(json(&number).unwrap());
    item.key = Some(key.parse().unwrap());
    item
}

#[tokio::test]
async fn retries_come_again_in_virtual_time_up_to_the_bound() {
    let queue = run(["a"], |item: Item<String>| async move {
        Err::<(), _>(format!("{} fails", item.payload))
    })
    .await;
    let attempts = queue.attempts();
    let numbers: Vec<_> = attempts.iter().map(|one| one.attempt).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let at: Vec<_> = attempts.iter().map(|one| one.at.as_secs()).collect();
    assert_eq!(at, [0, 1, 3, 7, 15], "1, 2, 4 and 8 s of back-off");
    let dead = &queue.items()[0];
    assert_eq!(dead.state, ItemState::Dead);
    assert_eq!(dead.error.as_deref(), Some("a fails"));
    let certificate = queue.certificate().unwrap();
    assert_eq!(certificate.counts.dead, 1);
    assert_eq!(certificate.cause, EndCause::Drained);
}

#[tokio::test]
async fn what_is_spawned_is_worked_on_too_and_keys_are_taken_once() {
    let queue = run([3], |item: Item<u32>| async move {
        if item.payload > 0 {
            for _ in 0..2 {
                let next = item.payload - 1;
                item.spawn(numbered(next, &format!("n{next}")));
            }
        }
        Ok::<_, HandlerError>(item.payload)
    })
    .await;
    let results: Vec<u32> = queue
        .attempts()
        .iter()
        .map(|one| one.result().unwrap())
        .collect();
    assert_eq!(results, [3, 2, 1, 0]);
    assert_eq!(queue.attempts()[0].settle.spawn.len(), 2);
}

#[tokio::test]
async fn a_stop_ends_the_queue_and_abandons_the_rest() {
    let queue = MemoryQueue::of(1..=10);
    let worker = queue.worker();
    let end = worker
        .run_until_over(|item: Item<u32>| async move {
            if item.payload == 3 {
                item.stop(StopOutcome::Failure);
            }
            Ok::<_, HandlerError>(())
        })
        .await;
    assert_eq!(end.code(), 70);
    let certificate = queue.certificate().unwrap();
    assert_eq!(End::Over(Box::new(certificate.clone())), end);
    assert_eq!(certificate.ended_by.as_deref(), Some("worker"));
    assert_eq!(certificate.counts.done + certificate.counts.abandoned, 10);
    let stop = queue.attempts().iter().find_map(|one| one.settle.stop);
    assert_eq!(stop, Some(StopOutcome::Failure));
}

#[tokio::test]
async fn a_cancelled_item_is_told_to_its_handler() {
    let queue = MemoryQueue::of([1, 2]);
    let other = queue.clone();
    queue
        .worker()
        .run_until_over(move |item: Item<u32>| {
            let queue = other.clone();
            async move {
                if item.payload == 1 {
                    queue.cancel(item.id);
                    item.cancelled().await;
                }
                Ok::<_, HandlerError>(item.payload)
            }
        })
        .await;
    let counts = queue.certificate().unwrap().counts;
    assert_eq!((counts.done, counts.cancelled), (1, 1));
}

#[tokio::test]
async fn lost_answers_and_outages_change_nothing() {
    let queue = MemoryQueue::of(1..=20);
    for fault in [
        Fault::AnswerLost,
        Fault::AnswerLost,
        Fault::Away,
        Fault::Busy(Duration::from_millis(1)),
        Fault::AnswerLost,
        Fault::AnswerLost,
        Fault::Away,
    ] {
        queue.fail_next(fault);
    }
    let handler = |item: Item<u32>| async move { Ok::<_, HandlerError>(item.payload) };
    let end = queue.worker().concurrency(4).run_until_over(handler).await;
    assert_eq!(end.code(), 0);
    let attempts = queue.attempts();
    assert_eq!(attempts.len(), 20);
    assert!(attempts.iter().all(|one| one.attempt == 1));
    assert_eq!(queue.certificate().unwrap().counts.done, 20);
}

#[tokio::test]
async fn a_session_that_is_lost_is_opened_anew_and_its_work_still_counts() {
    let queue = MemoryQueue::of([1]);
    let other = queue.clone();
    let handler = move |item: Item<u32>| {
        let queue = other.clone();
        async move {
            if item.attempt == 1 {
                queue.lose_sessions();
            }
            Ok::<_, HandlerError>(())
        }
    };
    let end = queue.worker().run_until_over(handler).await;
    assert_eq!(end.code(), 0);
    assert_eq!(queue.items()[0].state, ItemState::Done);
}

#[tokio::test]
async fn priorities_go_first() {
    let queue = MemoryQueue::new();
    for (number, priority) in [(1, 5), (2, 9), (3, 0)] {
        let mut item = numbered(number, &number.to_string());
        item.priority = Some(priority);
        queue.add(item);
    }
    queue.seal();
    queue
        .worker()
        .run_until_over(|item: Item<u32>| async move { Ok::<_, HandlerError>(item.payload) })
        .await;
    let attempts = queue.attempts();
    let order: Vec<u32> = attempts.iter().map(|one| one.result().unwrap()).collect();
    assert_eq!(order, [2, 1, 3]);
}

#[tokio::test]
async fn a_worker_with_unheeded_news_asks_when_it_is_told_to_and_not_in_a_circle() {
    // Until the handler of the cancelled item ends, every answer says again that the item is
    // lost, and so is never held.
    let queue = MemoryQueue::new();
    queue.add(numbered(1, "one"));
    let waited = Arc::new(Mutex::new(None));
    let (other, tell) = (queue.clone(), waited.clone());
    let handler = move |item: Item<u32>| {
        let (queue, told) = (other.clone(), tell.clone());
        async move {
            queue.cancel(item.id);
            let (began, before) = (Instant::now(), queue.exchanges());
            while queue.exchanges() < before + 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // The first of them may have followed at once.
            *told.lock().unwrap() = Some(began.elapsed());
            queue.seal();
            Ok::<_, HandlerError>(())
        }
    };
    let end = queue.worker().concurrency(2).run_until_over(handler).await;
    assert_eq!(end.code(), 0);
    assert_eq!(queue.certificate().unwrap().counts.cancelled, 1);
    let waited = waited.lock().unwrap().expect("the handler has run");
    assert!(
        waited >= Duration::from_millis(state::RETRY_MS),
        "{waited:?}"
    );
}
