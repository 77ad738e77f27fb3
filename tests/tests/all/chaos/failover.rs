//! A primary that dies under load, and a replica that takes its place.

use std::time::Duration;

use gangline_tests::redis::Keeping;
use gangline_tests::{Replica, TestRedis, full_or};
use tokio::time::sleep;

use super::{Stage, patient, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_breaks_no_promise_that_was_given_when_a_replica_had_it() {
    if !TestRedis::is_installed() {
        return;
    }
    let seed = seed(0);
    println!("GANGLINE_CHAOS_SEED={seed}");
    let mut primary = TestRedis::start(Keeping::Memory);
    let mut replica = TestRedis::start(Keeping::Memory);
    replica.restart_as_replica_of(&primary);
    let hosts = [&primary, &replica].map(|one| format!("127.0.0.1:{}", one.port()));
    let url = format!("redis://{}", hosts.join(","));
    let arguments = ["--redis", &url, "--redis-durability", "replicated"];
    let replicas = vec![Replica::start(&arguments), Replica::start(&arguments)];
    let mut stage = Stage::new(seed, patient(), None, replicas).await;
    let play = stage.begin();
    for _ in 0..full_or(20, 3) {
        stage.some_results().await;
        sleep(Duration::from_millis(stage.dice.below(300))).await;
        primary.kill();
        assert_eq!(replica.ask(&["REPLICAOF", "NO", "ONE"]), "OK");
        primary.restart_as_replica_of(&replica);
        std::mem::swap(&mut primary, &mut replica);
    }
    stage.some_results().await;
    println!("{}", stage.finish(play).await);
}
