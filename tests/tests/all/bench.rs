//! `gangline bench` beside a live service.

use gangline_tests::gangline::{Left, gangline, run};
use gangline_tests::server::{TOKEN, TestServer};

async fn run_at(server: &TestServer, arguments: &[&str]) -> Left {
    let mut command = gangline(arguments);
    command.env("GANGLINE_URL", &server.url);
    run(command.env("GANGLINE_TOKEN", TOKEN)).await
}

#[tokio::test]
async fn every_item_goes_through_its_life_and_no_queue_is_left() {
    let server = TestServer::start().await;
    let cycle = run_at(&server, &["bench", "--items=250", "--batch=10"]).await;
    assert_eq!(cycle.code, Some(0), "{}", cycle.stderr);
    assert!(cycle.stdout.contains(" items/s\n"), "{}", cycle.stdout);
    let held = run_at(&server, &["bench", "--latency", "--items=3"]).await;
    assert_eq!(held.code, Some(0), "{}", held.stderr);
    assert!(held.stdout.starts_with("held lease"), "{}", held.stdout);
    let left = run_at(&server, &["get", "queues", "-o=json"]).await;
    assert_eq!(left.stdout.trim(), "[]", "{}", left.stderr);
}

#[tokio::test]
async fn without_an_address_it_starts_a_service_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", dir.path().display());
    let left = run(&mut gangline(&[
        "bench",
        "--items=10",
        "--batch=5",
        &data_dir,
    ]))
    .await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert!(left.stdout.contains(" items/s\n"), "{}", left.stdout);
}

#[tokio::test]
async fn a_refused_token_is_said() {
    let server = TestServer::start().await;
    let mut command = gangline(&["bench", "--url", &server.url]);
    let left = run(command.env("GANGLINE_TOKEN", "another")).await;
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    assert!(left.stderr.contains("401"), "{}", left.stderr);
}
