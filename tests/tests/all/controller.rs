//! `gangline controller` as a user meets it before it runs anything.

use std::path::{Path, PathBuf};

use gangline_tests::gangline::{Left, gangline, run};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Writes a kubeconfig of one cluster.
fn kubeconfig(dir: &Path, server: &str) -> PathBuf {
    let path = dir.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{ "name": "c", "cluster": { "server": server } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "here", "context": { "cluster": "c", "user": "u" } }],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Answers every request with the same JSON.
async fn answering(body: Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let body = body.to_string();
            let reply = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

async fn run_with(kubeconfig: &Path, arguments: &[&str]) -> Left {
    let mut command = gangline(&["controller"]);
    command
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env_remove("KUBERNETES_SERVICE_HOST");
    run(&mut command).await
}

#[tokio::test]
async fn a_cluster_that_is_too_old_is_refused_with_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let version = json!({
        "major": "1", "minor": "32+", "gitVersion": "v1.32.4-gke", "gitCommit": "",
        "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
    });
    let server = answering(version).await;
    let left = run_with(&kubeconfig(dir.path(), &server), &[]).await;
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    let text = &left.stderr;
    assert!(
        text.contains("runs Kubernetes v1.32.4-gke") && text.contains("needs 1.33 or later"),
        "{text}"
    );
}

#[tokio::test]
async fn a_cluster_that_cannot_be_reached_is_said_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    // Bound and let go: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let left = run_with(&kubeconfig(dir.path(), &server), &[]).await;
    assert_eq!(left.code, Some(69), "{}", left.stderr);
    assert!(left.stderr.contains(&server), "{}", left.stderr);
    assert!(left.stderr.contains("hint: "), "{}", left.stderr);
}

#[tokio::test]
async fn a_cluster_that_nobody_has_configured_is_said_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let left = run_with(&dir.path().join("none"), &[]).await;
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    assert!(left.stderr.contains("KUBECONFIG"), "{}", left.stderr);
    let config = kubeconfig(dir.path(), "http://127.0.0.1:1");
    let left = run_with(&config, &["--context", "there"]).await;
    assert_eq!(left.code, Some(2), "{}", left.stderr);
    assert!(
        left.stderr.contains("--context there") && left.stderr.contains("hint: "),
        "{}",
        left.stderr
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    // It speaks, but not TLS: what counts is that TLS is spoken to it at all.
    let server = answering(json!({})).await.replace("http://", "https://");
    let left = run_with(&kubeconfig(dir.path(), &server), &[]).await;
    assert_eq!(left.code, Some(69), "{}", left.stderr);
    assert!(
        left.stderr.contains("cannot ask https://"),
        "{}",
        left.stderr
    );
}
