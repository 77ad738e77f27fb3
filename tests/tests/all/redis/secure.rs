//! A Redis behind TLS, with certificates of a test's own, and users that may do what is needed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gangline_tests::gangline::{Left, gangline, run};
use gangline_tests::redis::{Keeping, free_port};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, TestRedis, TestServer};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use super::DEADLINE;

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

/// A certificate and its key, in PEM.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

/// Has openssl make a certificate: an authority's own, or one that an authority has signed.
fn certificate(dir: &Path, name: &str, authority: Option<&Pair>) -> Pair {
    let pair = Pair {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-subj", &format!("/CN={name}")])
        .arg("-out")
        .arg(&pair.certificate)
        .arg("-keyout")
        .arg(&pair.key);
    if let Some(authority) = authority {
        command
            .arg("-CA")
            .arg(&authority.certificate)
            .arg("-CAkey")
            .arg(&authority.key)
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    let made = command.stderr(Stdio::null()).status().unwrap();
    assert!(made.success());
    pair
}

#[expect(
    clippy::print_stderr,
    reason = "who runs the suite must see what did not run"
)]
fn has_openssl() -> bool {
    let mut command = Command::new("openssl");
    command.arg("version").stdout(Stdio::null());
    let is_there = command.status().is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("SKIPPED: no openssl here; `apt-get install openssl` brings it");
    }
    is_there
}

/// Starts a Redis that wants TLS on a second port; returns that port, too.
fn behind_tls(pair: &Pair, authority: &Pair) -> (TestRedis, u16) {
    let port = free_port();
    let paths = [&pair.certificate, &pair.key, &authority.certificate];
    let [certificate, key, authority] = paths.map(|path| path.to_str().unwrap());
    let extra = [
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        authority,
    ];
    (TestRedis::start_with(Keeping::Memory, &extra), port)
}

/// A service of its own process, since the authorities that it trusts stand in its environment.
fn service(redis: &str, trusted: &Path) -> tokio::process::Command {
    let mut command = gangline(&["server", "--listen", "127.0.0.1:0", "--redis", redis]);
    command.env("GANGLINE_TOKEN", TOKEN);
    command.env("SSL_CERT_FILE", trusted);
    command
}

/// What is said by a service that does not start.
async fn refused(redis: &str, trusted: &Path) -> String {
    let ended = timeout(DEADLINE, run(&mut service(redis, trusted))).await;
    let Left { code, stderr, .. } = ended.expect("an end");
    assert_eq!(code, Some(69), "{stderr}");
    stderr
}

#[tokio::test]
async fn a_redis_behind_tls_is_used_when_its_certificate_is_trusted() {
    if !TestRedis::is_installed() || !has_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = certificate(dir.path(), "authority", None);
    let stranger = certificate(dir.path(), "stranger", None);
    let pair = certificate(dir.path(), "redis", Some(&authority));
    let (redis, port) = behind_tls(&pair, &authority);
    let rights = [
        &[
            "ACL",
            "SETUSER",
            "me",
            "on",
            ">pw",
            "~gangline:*",
            "&gangline:*",
        ],
        &NEEDED[..],
    ];
    assert_eq!(redis.ask(&rights.concat()), "OK");

    let url = format!("rediss://me:pw@127.0.0.1:{port}");
    let mut child = service(&url, &authority.certificate).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap();
        let line = line.unwrap().expect("the address where it listens");
        if let Some((_, rest)) = line.split_once("listening on ") {
            break rest.split_once(',').unwrap().0.to_owned();
        }
    };
    let queue = Api::new(&address, Some(TOKEN)).fresh_queue();
    queue.push(&[json!("secret")]).await;
    let worker = queue.open("w", 1).await;
    worker.settle(0, json!({"outcome": "done"})).await;
    assert_eq!(queue.counts().await, json!({"done": 1}));
    child.kill().await.unwrap();

    let told = refused(&url, &stranger.certificate).await;
    assert!(told.contains("certificate that is not trusted"), "{told}");
    assert!(
        told.contains("SSL_CERT_FILE") && !told.contains("pw"),
        "{told}"
    );
    let told = refused(
        &url.replace("127.0.0.1", "localhost"),
        &authority.certificate,
    )
    .await;
    assert!(told.contains("not valid for name \"localhost\""), "{told}");
    let told = refused(&url, &dir.path().join("nothing")).await;
    assert!(told.contains("No such file"), "{told}");
    let told = refused(&url.replace("pw", "guess"), &authority.certificate).await;
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
    let begin = [
        "ACL",
        "SETUSER",
        "me",
        "on",
        ">pw",
        "~gangline:*",
        "&gangline:*",
    ];
    assert_eq!(redis.ask(&[&begin, &NEEDED[..]].concat()), "OK");
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
