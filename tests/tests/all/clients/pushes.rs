//! Producers whose connections break, and whose service goes away: every line is taken once.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use gangline_tests::gangline::{Left, end_of, gangline};
use gangline_tests::{Api, Forwarder, Queue, TestServer, server::TOKEN};
use gangline_worker::protocol::NewItem;
use gangline_worker::{Client, Producer, ProducerSettings};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Lines of some 300 bytes: more than half a dozen segments of `gangline push`.
const LINES: usize = 30_000;

/// Bytes after which a connection breaks: more than one segment, and no whole number of them.
const BREAKS_AFTER: usize = 1_700_000;

fn port_of(url: &str) -> u16 {
    address_of(url).port()
}

fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

fn queue_at(url: &str) -> Queue {
    Api::new(url, Some(TOKEN)).fresh_queue()
}

fn push(queue: &Queue, url: &str) -> Command {
    let mut command = gangline(&["push", &queue.name, "--json", "--seal"]);
    command
        .env("GANGLINE_URL", url)
        .env("GANGLINE_TOKEN", TOKEN)
        .stdin(Stdio::piped());
    command
}

fn lines(numbers: std::ops::Range<usize>) -> Vec<u8> {
    let line = |number| format!("\"{number:>300}\"\n");
    numbers.map(line).collect::<String>().into_bytes()
}

/// Says that all lines were taken, none of them twice, and that the queue was sealed after them.
async fn assert_pushed(queue: &Queue, left: &Left) {
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let said = format!("{}: {LINES} items added\n", queue.name);
    assert!(left.stderr.contains(&said), "{}", left.stderr);
    assert!(left.stderr.contains("trying again"), "{}", left.stderr);
    assert_eq!(queue.counts().await, json!({"ready": LINES}));
    assert_eq!(queue.get("").await.ok()["phase"], "sealed");
}

/// Waits until a queue has so many items.
async fn until_there_are(queue: &Queue, items: u64) {
    while queue.counts().await["ready"].as_u64().unwrap_or(0) < items {
        tokio::task::yield_now().await;
    }
}

/// Starts a service again on its directory and its address.
async fn started_again(server: &mut TestServer, dir: &Path) -> TestServer {
    let address = address_of(&server.url);
    server.stop().await;
    TestServer::start_at(dir, address).await
}

#[tokio::test]
async fn a_push_over_connections_that_break_goes_on_where_it_stopped() {
    let mut server = TestServer::start().await;
    let forwarder = Forwarder::breaking(port_of(&server.url), BREAKS_AFTER).await;
    let queue = queue_at(&server.url);
    let url = format!("http://127.0.0.1:{}", forwarder.port);
    let mut child = push(&queue, &url).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let write = async {
        pipe.write_all(&lines(0..LINES)).await.unwrap();
        drop(pipe);
    };
    let (left, ()) = tokio::join!(end_of(child), write);
    assert_pushed(&queue, &left).await;
    server.stop().await;
}

#[tokio::test]
async fn a_push_goes_on_when_the_service_was_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::start_in(dir.path()).await;
    let queue = queue_at(&server.url);
    let mut child = push(&queue, &server.url).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // The input has a pause, after which some of it is there and the service has gone.
    pipe.write_all(&lines(0..LINES / 2)).await.unwrap();
    until_there_are(&queue, 1_000).await;
    let address = address_of(&server.url);
    server.stop().await;
    let write = async {
        pipe.write_all(&lines(LINES / 2..LINES)).await.unwrap();
        drop(pipe);
    };
    let again = async {
        // Until somebody has found the service away.
        let knocked = tokio::net::TcpListener::bind(address).await.unwrap();
        drop(knocked.accept().await.unwrap());
        drop(knocked);
        TestServer::start_at(dir.path(), address).await
    };
    let (left, (), mut server) = tokio::join!(end_of(child), write, again);
    assert_pushed(&queue, &left).await;
    server.stop().await;
}

#[tokio::test]
async fn a_service_that_was_never_there_is_not_waited_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    drop(taken);
    let queue = queue_at(&url);
    let mut child = push(&queue, &url).spawn().unwrap();
    // Its end is not waited for.
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(b"1\n").await.unwrap();
    let left = end_of(child).await;
    assert_eq!(left.code, Some(69), "{}", left.stderr);
    assert!(!left.stderr.contains("trying again"), "{}", left.stderr);
}

#[tokio::test]
async fn a_producer_goes_on_over_connections_that_break_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::start_in(dir.path()).await;
    let forwarder = Forwarder::breaking(port_of(&server.url), BREAKS_AFTER).await;
    let url = format!("http://127.0.0.1:{}", forwarder.port);
    let client = Client::new(&url, Some(TOKEN.into())).unwrap();
    let settings = ProducerSettings {
        batch_bytes: 1 << 20,
        ..ProducerSettings::default()
    };
    for has_keys in [true, false] {
        let queue = queue_at(&server.url);
        let name = queue.name.parse().unwrap();
        let producer = Producer::start(client.clone(), name, settings.clone()).unwrap();
        for number in 0..LINES {
            let mut item =
                NewItem::new(serde_json::from_str(&format!("\"{number:>300}\"")).unwrap());
            item.key = has_keys.then(|| number.to_string().parse().unwrap());
            producer.push(item).await.unwrap();
            if number == LINES / 2 {
                server = started_again(&mut server, dir.path()).await;
            }
        }
        let report = producer.seal().await.unwrap();
        assert_eq!((report.pushed, report.untaken()), (LINES as u64, 0));
        if !has_keys {
            assert_eq!(report.duplicates, 0);
        }
        assert_eq!(queue.counts().await, json!({"ready": LINES}));
    }
    server.stop().await;
}
