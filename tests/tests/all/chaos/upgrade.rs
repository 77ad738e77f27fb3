//! Services of two versions on one Redis. A version is told by the library of functions that it
//! brings, whose name holds a hash of its text; here one that has another name on its way there.

use gangline_tests::forwarder::Renamed;
use gangline_tests::redis::Keeping;
use gangline_tests::{Forwarder, Replica, TestRedis};

use super::{Stage, patient, seed};

/// The libraries that Redis knows.
fn libraries(redis: &TestRedis) -> Vec<String> {
    let told = redis.ask(&["FUNCTION", "LIST", "LIBRARYNAME", "gangline_*"]);
    let names = told.lines().filter(|line| line.starts_with("gangline_"));
    // Those of functions have a word behind the hash.
    let of_libraries = names.filter(|name| name.matches('_').count() == 1);
    of_libraries.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_and_its_taking_back_break_no_promise() {
    if !TestRedis::is_installed() {
        return;
    }
    let seed = seed(0);
    println!("GANGLINE_CHAOS_SEED={seed}");
    let redis = TestRedis::start(Keeping::Always);
    let old = ["--redis", &redis.url];
    let replicas = vec![Replica::start(&old), Replica::start(&old)];
    let mut stage = Stage::new(seed, patient(), None, replicas).await;
    let play = stage.begin();
    stage.some_results().await;

    let known = libraries(&redis);
    assert_eq!(known.len(), 1, "{known:?}");
    let renamed = Renamed {
        from: known[0].clone(),
        to: known[0].replace(|digit: char| digit.is_ascii_digit(), "f"),
    };
    let forwarder = Forwarder::start(redis.port(), Some(renamed.clone())).await;
    let through = format!("redis://127.0.0.1:{}", forwarder.port);
    let new = ["--redis", &through];
    stage.replicas[0].replace(&new);
    redis.until_it_says(&["FUNCTION", "LIST"], &renamed.to);
    // Each by turns takes what the other has written.
    stage.some_results().await;
    stage.replicas[1].replace(&new);
    stage.some_results().await;
    // What the old version needs may have been cleaned up meanwhile.
    let deleted = redis.ask(&["FUNCTION", "DELETE", &renamed.from]);
    assert_eq!(deleted, "OK");
    stage.replicas[0].replace(&old);
    redis.until_it_says(&["FUNCTION", "LIST"], &renamed.from);
    stage.some_results().await;
    assert_eq!(libraries(&redis).len(), 2);
    println!("{}", stage.finish(play).await);
}
