//! The clients of the binary: what they say about a queue, and what they do to it.

mod pushes;

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
    let session = q.open("w", 1).await;
    let lease = &session.items[0]["lease"];
    let said = json!([{"id": 1, "lease": lease, "fraction": 0.999, "text": "page\n3"}]);
    session.say(json!({"progress": said})).await.ok();
    let left = client(&q, &["explain", &name]).await;
    assert!(left.stdout.contains("    #1: w for "), "{}", left.stdout);
    assert!(
        left.stdout.contains(", attempt 1, 99 % page 3\n"),
        "{}",
        left.stdout
    );
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

#[tokio::test]
async fn redrive_takes_a_selection_and_goes_into_another_queue() {
    let mut server = TestServer::start().await;
    let q = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    q.push(&[json!(1), json!(2), json!(3)]).await;
    let session = q.open("w", 3).await;
    for nth in 0..3 {
        session
            .settle(
                nth,
                json!({"outcome": "dead", "error": format!("error {nth}")}),
            )
            .await;
    }
    let name = q.name.clone();
    let into = format!("{name}-again");
    let copied = format!("{name}: 2 items copied into {into}, 0 were there before; there are more");
    let rest = format!("{name}: 1 item copied into {into}, 2 were there before");
    for (arguments, said) in [
        (&["--id=2"][..], format!("{name}: 1 item ready again")),
        (
            &["--contains", "error 2"],
            format!("{name}: 1 item ready again"),
        ),
        (
            &["--error", "error 99"],
            format!("{name}: 1 item ready again"),
        ),
        (&[], format!("{name}: 0 items ready again")),
    ] {
        let left = client(&q, &[&["redrive", &name], arguments].concat()).await;
        assert_eq!((left.code, left.stderr.trim()), (Some(0), said.as_str()));
    }
    let session = q.open("w", 3).await;
    for nth in 0..3 {
        session.settle(nth, json!({"outcome": "dead"})).await;
    }
    q.post("/stop", json!({"outcome": "failure"})).await.ok();
    for (arguments, said) in [(&["--max=2"][..], copied), (&[], rest)] {
        let left = client(
            &q,
            &[&["redrive", &name, "--into", &into], arguments].concat(),
        )
        .await;
        assert_eq!((left.code, left.stderr.trim()), (Some(0), said.as_str()));
    }
    let left = client(&q, &["redrive", &name]).await;
    assert_eq!(left.code, Some(1));
    assert!(left.stderr.contains("is over"), "{}", left.stderr);
    server.stop().await;
}

#[tokio::test]
async fn results_are_written_as_recorded_or_as_pushed() {
    let mut server = TestServer::start().await;
    let q = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    q.push(&[json!(1), json!(2)]).await;
    let session = q.open("w", 2).await;
    for nth in [1, 0] {
        session.settle(nth, json!({"outcome": "done"})).await;
    }
    q.post("/seal", json!({})).await;
    for (arguments, wanted) in [
        (&["--follow"][..], [2, 1]),
        (&["--order=push"], [1, 2]),
        (&["--order=push", "--follow"], [1, 2]),
        (&["--order=recorded"], [2, 1]),
    ] {
        let left = client(&q, &[&["results", &q.name], arguments].concat()).await;
        assert_eq!(left.code, Some(0), "{}", left.stderr);
        let ids: Vec<Value> = left
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
            .collect();
        assert_eq!(ids, wanted);
    }
    server.stop().await;
}
