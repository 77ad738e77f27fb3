//! A Redis behind TLS, with certificates of a test's own, and users that may do what is needed.

use gangline_tests::gangline::{Left, gangline, run};
use gangline_tests::redis::{Keeping, free_port};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, TestRedis, TestServer};
use serde_json::json;
use tokio::time::timeout;

use super::DEADLINE;
use crate::server::Process;
use crate::server::tls::Ca;

/// Makes a user for the keys and channels of the service; the rights follow.
const USER: [&str; 7] = [
    "ACL",
    "SETUSER",
    "me",
    "on",
    ">pw",
    "~gangline:*",
    "&gangline:*",
];

/// What a service needs to be allowed, besides its keys and its channel.
const NEEDED: [&str; 9] = [
    "+@read",
    "+@write",
    "+@scripting",
    "+@pubsub",
    "+@connection",
    "+info",
    "+config|get",
    "+time",
    "+wait",
];

/// Starts a Redis that takes TLS on a second port; returns that port, too.
fn behind_tls(ca: &Ca) -> (TestRedis, u16) {
    let port = free_port();
    let files = ["cert.pem", "key.pem", "ca.pem"].map(|name| ca.file(name));
    let extra = [
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &files[0],
        "--tls-key-file",
        &files[1],
        "--tls-ca-cert-file",
        &files[2],
    ];
    (TestRedis::start_with(Keeping::Memory, &extra), port)
}

/// A service of its own process, since the authorities that it trusts stand in its environment.
fn service(redis: &str, trusted: &str) -> tokio::process::Command {
    let mut command = gangline(&["server", "--listen", "127.0.0.1:0", "--redis", redis]);
    command.env("GANGLINE_TOKEN", TOKEN);
    command.env("SSL_CERT_FILE", trusted);
    command
}

/// What is said by a service that does not start.
async fn refused(redis: &str, trusted: &str) -> String {
    let ended = timeout(DEADLINE, run(&mut service(redis, trusted))).await;
    let Left { code, stderr, .. } = ended.expect("an end");
    assert_eq!(code, Some(69), "{stderr}");
    stderr
}

#[tokio::test]
async fn a_redis_behind_tls_is_used_when_its_certificate_is_trusted() {
    if !TestRedis::is_installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(ca) = Ca::make(dir.path(), "ours") else {
        return;
    };
    let other = Ca::make(dir.path(), "other").unwrap();
    let (redis, port) = behind_tls(&ca);
    let (trusted, foreign) = (ca.file("ca.pem"), other.file("ca.pem"));
    let rights = [&USER[..], &NEEDED[..]];
    assert_eq!(redis.ask(&rights.concat()), "OK");

    let url = format!("rediss://me:pw@127.0.0.1:{port}");
    let starting = Process::run(service(&url, &trusted));
    let process = timeout(DEADLINE, starting).await.expect("an address");
    let queue = Api::new(&process.url, Some(TOKEN)).fresh_queue();
    queue.push(&[json!("secret")]).await;
    let worker = queue.open("w", 1).await;
    worker.settle(0, json!({"outcome": "done"})).await;
    assert_eq!(queue.counts().await, json!({"done": 1}));
    drop(process);

    let told = refused(&url, &foreign).await;
    assert!(told.contains("certificate that is not trusted"), "{told}");
    assert!(
        told.contains("SSL_CERT_FILE") && !told.contains("pw"),
        "{told}"
    );
    let told = refused(&url.replace("127.0.0.1", "localhost"), &trusted).await;
    assert!(told.contains("not valid for name \"localhost\""), "{told}");
    let told = refused(&url, &ca.file("nothing")).await;
    assert!(told.contains("No such file"), "{told}");
    let told = refused(&url.replace("pw", "guess"), &trusted).await;
    assert!(
        told.contains("refuses the credentials") && !told.contains("guess"),
        "{told}"
    );
}

#[tokio::test]
async fn a_user_with_the_rights_that_are_needed_is_enough() {
    if !TestRedis::is_installed() {
        return;
    }
    let redis = TestRedis::start(Keeping::Memory);
    assert_eq!(redis.ask(&[&USER[..], &NEEDED[..]].concat()), "OK");
    let url = redis.url.replace("//", "//me:pw@");
    let mut servers = [
        TestServer::start_on_redis(&url).await,
        TestServer::start_on_redis(&url).await,
    ];
    let urls = [&*servers[0].url, &*servers[1].url];
    let queue = Api::of_replicas(&urls, Some(TOKEN)).fresh_queue();
    // Waits on one for what comes by the other.
    let opening = tokio::spawn({
        let queue = queue.clone();
        async move {
            let lease = json!({"number": 1, "max": 1, "waitMs": 20_000});
            queue.exchange(json!({"worker": "w", "lease": lease})).await
        }
    });
    queue.push(&[json!(1)]).await;
    let reply = timeout(DEADLINE, opening).await.unwrap().unwrap().ok();
    assert_eq!(reply["lease"]["items"][0]["payload"], 1);
    // One right less, and it is said what is missing.
    let _ = redis.ask(&["ACL", "SETUSER", "me", "-@scripting"]);
    let refused = queue.post("/items", json!({"payload": 2})).await;
    let detail = refused.body["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("no permissions to run"), "{detail}");
    assert_eq!(refused.refused(503), "unavailable");
    for server in &mut servers {
        server.stop().await;
    }
}
