//! The clients of the binary: what they say about a queue, and what they do to it.

use gangline_tests::gangline::{Left, gangline, run};
use gangline_tests::{Api, Queue, TestServer, server::TOKEN};
use serde_json::{Value, json};

/// Runs a client against a service.
async fn client(q: &Queue, arguments: &[&str]) -> Left {
    let mut command = gangline(arguments);
    command
        .env("GANGLINE_URL", &q.api.url)
        .env("GANGLINE_TOKEN", TOKEN);
    run(&mut command).await
}

#[tokio::test]
async fn explain_says_what_keeps_a_queue_open_and_what_helps() {
    let mut server = TestServer::start().await;
    let q = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    q.push(&[json!(1), json!(2)]).await;
    let name = q.name.clone();
    let left = client(&q, &["explain", &name]).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    for said in [
        &format!("{name} is not over:"),
        "- 2 items wait for a worker, and none is here",
        &format!("GANGLINE_QUEUE={name} gangline work -- PROGRAM"),
        &format!("gangline seal {name}"),
    ] {
        assert!(left.stdout.contains(said), "{said}: {}", left.stdout);
    }
    let _session = q.open("w", 1).await;
    let left = client(&q, &["explain", &name]).await;
    assert!(left.stdout.contains("    #1: w for "), "{}", left.stdout);
    assert!(left.stdout.contains(", attempt 1"), "{}", left.stdout);
    let left = client(&q, &["explain", "-o", "json", &name]).await;
    let explanation: Value = serde_json::from_str(&left.stdout).unwrap();
    assert_eq!(explanation["terms"][0]["term"], "ready");
    q.post("/stop", json!({"outcome": "failure"})).await.ok();
    let left = client(&q, &["explain", &name]).await;
    assert!(
        left.stdout
            .contains("is over: stopped, 0 done, 0 dead, 0 cancelled, 2 abandoned"),
        "{}",
        left.stdout
    );
    server.stop().await;
}
