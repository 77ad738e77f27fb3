use super::*;
use crate::testing::{Fault, MemoryQueue};

fn start(queue: &MemoryQueue, settings: ProducerSettings) -> Producer {
    Producer::start(queue.clone(), queue.name().clone(), settings).unwrap()
}

/// Batches that only fullness or a flush sends.
fn patient() -> ProducerSettings {
    ProducerSettings {
        linger: Duration::from_secs(3_600),
        ..ProducerSettings::default()
    }
}

fn keyed(key: &str) -> NewItem {
    let mut item = NewItem::new(json(key).unwrap());
    item.key = Some(key.parse().unwrap());
    item
}

fn payloads(queue: &MemoryQueue) -> Vec<String> {
    let payload = |item: gangline_protocol::ItemView| item.payload.unwrap().get().to_owned();
    queue.items().into_iter().map(payload).collect()
}

/// Waits until the queue has so many items.
async fn until(queue: &MemoryQueue, items: usize) {
    let filled = async {
        while queue.items().len() < items {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let filled = tokio::time::timeout(Duration::from_secs(30), filled).await;
    assert!(filled.is_ok(), "{} items", queue.items().len());
}

#[tokio::test]
async fn items_arrive_in_their_order_in_batches_of_at_most_so_many() {
    let queue = MemoryQueue::new();
    let settings = ProducerSettings {
        batch_items: 3,
        ..patient()
    };
    let producer = start(&queue, settings);
    for number in 0..10 {
        producer.push_payload(&number).await.unwrap();
    }
    let report = producer.seal().await.unwrap();
    assert_eq!((report.pushed, report.added, report.untaken()), (10, 10, 0));
    let numbers: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&queue), numbers);
    assert_eq!(queue.push_sizes(), [3, 3, 3, 1]);
}

#[tokio::test]
async fn a_batch_goes_by_its_bytes_and_by_its_time() {
    let queue = MemoryQueue::new();
    let settings = ProducerSettings {
        batch_bytes: 10,
        ..patient()
    };
    let producer = start(&queue, settings);
    // 4 bytes each, and one that is larger than a batch.
    for text in ["ab", "cd", "ef", "a long one indeed", "gh"] {
        producer.push_payload(text).await.unwrap();
    }
    assert_eq!(producer.close().await.unwrap().added, 5);
    assert_eq!(queue.push_sizes(), [2, 1, 1, 1]);

    let queue = MemoryQueue::new();
    let settings = ProducerSettings {
        linger: Duration::from_millis(1),
        ..ProducerSettings::default()
    };
    let producer = start(&queue, settings);
    producer.push_payload("lingers").await.unwrap();
    // Nothing but the time sends it.
    until(&queue, 1).await;
}

#[tokio::test]
async fn without_lingering_a_batch_takes_what_is_there() {
    let queue = MemoryQueue::new();
    let settings = ProducerSettings {
        linger: Duration::ZERO,
        ..ProducerSettings::default()
    };
    let producer = start(&queue, settings);
    // The task runs only when this one waits.
    for number in 0..100 {
        producer.push_payload(&number).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(queue.push_sizes().iter().sum::<usize>(), 100);
    assert!(queue.push_sizes().len() < 100, "{:?}", queue.push_sizes());
}

#[tokio::test]
async fn a_push_waits_while_too_much_waits() {
    for settings in [
        ProducerSettings {
            buffer_items: 1,
            batch_items: 1,
            ..patient()
        },
        ProducerSettings {
            buffer_bytes: 8,
            batch_items: 1,
            ..patient()
        },
    ] {
        let queue = MemoryQueue::new();
        // The service does not let the first batch in for a while.
        queue.fail_next(Fault::Busy(Duration::from_millis(200)));
        let producer = start(&queue, settings);
        for number in 0..20 {
            producer
                .push_payload(&format!("{number:02}"))
                .await
                .unwrap();
            let waiting = number + 1 - queue.items().len();
            // Under way, in the buffer, and between the two.
            assert!(waiting <= 3, "{waiting}");
        }
        assert_eq!(producer.flush().await.unwrap().added, 20);
    }
}

#[tokio::test]
async fn lost_answers_add_nothing_twice_with_keys_and_without() {
    let queue = MemoryQueue::new();
    let producer = start(&queue, patient());
    for fault in [Fault::AnswerLost, Fault::Away, Fault::AnswerLost] {
        queue.fail_next(fault);
    }
    producer.push_payload("nameless").await.unwrap();
    assert_eq!(producer.flush().await.unwrap().added, 1);
    queue.fail_next(Fault::AnswerLost);
    producer.push(keyed("a")).await.unwrap();
    producer.push(keyed("a")).await.unwrap();
    let report = producer.flush().await.unwrap();
    assert_eq!(queue.items().len(), 2);
    assert_eq!(report.untaken(), 0);
    assert_eq!(report.added + report.duplicates, 3);
}

#[tokio::test]
async fn a_refusal_is_told_by_every_later_call_with_what_was_taken() {
    let queue = MemoryQueue::new();
    let producer = start(&queue, patient());
    producer.push_payload("in time").await.unwrap();
    producer.flush().await.unwrap();
    queue.seal();
    producer.push_payload("late").await.unwrap();
    let error = producer.flush().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::QueueSealed));
    let ProducerError::Failed { report, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((report.pushed, report.added, report.untaken()), (2, 1, 1));
    assert!(
        error
            .to_string()
            .ends_with("(1 items were taken, 1 were not)"),
        "{error}"
    );
    for error in [
        producer.push_payload("later").await.unwrap_err(),
        producer.clone().seal().await.unwrap_err(),
        producer.close().await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Some(ErrorCode::QueueSealed));
    }
}

#[tokio::test]
async fn a_service_that_is_away_for_too_long_is_given_up() {
    let queue = MemoryQueue::new();
    let settings = ProducerSettings {
        patience: Duration::ZERO,
        ..patient()
    };
    let producer = start(&queue, settings);
    queue.fail_next(Fault::AnswerLost);
    producer.push_payload("unsure").await.unwrap();
    let error = producer.flush().await.unwrap_err();
    let call = error.client_error().unwrap();
    assert!(call.is_retryable() && call.may_have_taken_effect());
}

#[tokio::test]
async fn items_and_settings_out_of_bounds_are_told_and_harm_nothing_else() {
    let queue = MemoryQueue::new();
    let producer = start(&queue, patient());
    let mut item = keyed("a");
    item.priority = Some(10);
    let error = producer.push(item).await.unwrap_err();
    assert_eq!(error.to_string(), "priority must be 0 to 9, got 10");
    let map = std::collections::HashMap::from([(vec![1], 1)]);
    let error = producer.push_payload(&map).await.unwrap_err();
    assert!(matches!(error, ProducerError::NoJson(_)), "{error}");
    producer.push(keyed("b")).await.unwrap();
    assert_eq!(producer.close().await.unwrap().added, 1);

    let settings = ProducerSettings {
        batch_items: 1_001,
        ..patient()
    };
    let error = Producer::start(queue.clone(), queue.name().clone(), settings).unwrap_err();
    assert_eq!(error.to_string(), "batch_items must be 1 to 1000, got 1001");
}

#[tokio::test]
async fn what_waits_when_a_producer_is_dropped_is_still_pushed() {
    let queue = MemoryQueue::new();
    let producer = start(&queue, patient());
    producer.push_payload("left").await.unwrap();
    drop(producer);
    until(&queue, 1).await;
}
