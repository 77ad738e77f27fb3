//! What a log gives.

use std::time::Duration;

use futures::StreamExt;
use gangline_local_cluster::kubelet::{LogError, LogOptions};
use jiff::Timestamp;
use serde_json::json;

use crate::world::{World, poll, script};

fn tail(lines: u64) -> LogOptions {
    LogOptions {
        tail_lines: Some(lines),
        ..LogOptions::default()
    }
}

pub(crate) async fn both_streams_come_without_their_records() {
    let world = World::new();
    let long = "x".repeat(40_000);
    let what = format!("echo one; sleep 0.1; echo two >&2; sleep 0.1; echo {long}; printf end");
    world.api.apply(script("p", &what, json!({})));
    world.api.over("p").await;
    let log = world.log("p", LogOptions::default()).await;
    assert_eq!(log, format!("one\ntwo\n{long}\nend"));
    assert_eq!(
        world
            .kubelet()
            .logs("none", "c", LogOptions::default())
            .err(),
        Some(LogError::NotStarted("c".to_owned()))
    );
}

pub(crate) async fn options_choose_lines_and_bytes() {
    let world = World::new();
    world
        .api
        .apply(script("p", "seq 1 1000; sleep 0.1; echo last", json!({})));
    world.api.over("p").await;
    assert_eq!(world.log("p", tail(3)).await, "999\n1000\nlast\n");
    assert_eq!(world.log("p", tail(0)).await, "");
    assert_eq!(world.log("p", tail(5000)).await.lines().count(), 1001);
    let limited = LogOptions {
        limit_bytes: Some(5),
        ..LogOptions::default()
    };
    assert_eq!(world.log("p", limited).await, "1\n2\n3");
    let stamped = LogOptions {
        timestamps: true,
        ..tail(2)
    };
    let log = world.log("p", stamped).await;
    let lines: Vec<_> = log
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!((lines[0].1, lines[1].1), ("1000", "last"));
    let last: Timestamp = lines[1].0.parse().unwrap();
    assert_eq!(lines[1].0.len(), "2016-10-06T00:17:09.669794202Z".len());
    let since = LogOptions {
        since: Some(last),
        ..LogOptions::default()
    };
    assert_eq!(world.log("p", since).await, "last\n");
}

pub(crate) async fn a_log_is_followed_to_its_end() {
    // A log so small that it is rotated while it is followed.
    let world = World::with(|config| config.log_max = 4000);
    let fifo = world.path("fifo");
    let what = format!(
        "echo one; mkfifo {0}; read x < {0}; for i in $(seq 60); do echo $i; sleep 0.02; done",
        fifo.display()
    );
    world.api.apply(script("p", &what, json!({})));
    poll(|| fifo.exists().then_some(()), "the fifo").await;
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut log = world.kubelet().logs("p", "c", options).unwrap();
    let first = tokio::time::timeout(Duration::from_secs(30), log.next())
        .await
        .unwrap();
    assert_eq!(first.unwrap().as_ref(), b"one\n");
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "x\n"))
        .await
        .unwrap()
        .unwrap();
    let rest: Vec<_> = log.collect().await;
    let all: String = (1..=60).map(|line| format!("{line}\n")).collect();
    assert_eq!(String::from_utf8(rest.concat()).unwrap(), all);
    assert_eq!(world.api.ended("p").await.1, 0);
}

pub(crate) async fn the_log_of_the_previous_run_is_kept() {
    let world = World::new();
    let file = world.path("tried").display().to_string();
    let what = format!("test -e {file} && echo second && exit 0; touch {file}; echo first; exit 1");
    world
        .api
        .apply(script("p", &what, json!({"restartPolicy": "OnFailure"})));
    world.api.over("p").await;
    let previous = LogOptions {
        previous: true,
        ..LogOptions::default()
    };
    assert_eq!(world.log("p", previous.clone()).await, "first\n");
    assert_eq!(world.log("p", LogOptions::default()).await, "second\n");
    let start = |restarts| LogOptions {
        restart_count: Some(restarts),
        ..LogOptions::default()
    };
    assert_eq!(world.log("p", start(0)).await, "first\n");
    assert_eq!(world.log("p", start(1)).await, "second\n");
    assert_eq!(
        world.kubelet().logs("p", "c", start(2)).err(),
        Some(LogError::NotStarted("c".to_owned()))
    );
    world.api.apply(script("once", "true", json!({})));
    world.api.over("once").await;
    assert_eq!(
        world.kubelet().logs("once", "c", previous).err(),
        Some(LogError::NoPrevious("c".to_owned()))
    );
}

pub(crate) async fn a_log_is_bounded_and_keeps_the_newest_lines() {
    let world = World::with(|config| config.log_max = 200_000);
    world.api.apply(script("p", "seq 1 100000", json!({})));
    world.api.over("p").await;
    let run = world.run_of("p", 0).path().display().to_string();
    let bytes: u64 = ["log", "log.1"]
        .iter()
        .map(|name| std::fs::metadata(format!("{run}.{name}")).unwrap().len())
        .sum();
    assert!((50_000..=200_000).contains(&bytes), "{bytes}");
    let log = world.log("p", LogOptions::default()).await;
    let lines: Vec<u32> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines.last(), Some(&100_000));
    assert!(lines.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}
