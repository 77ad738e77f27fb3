//! Pushes of any length: what they cost in memory.
//!
//! With `GANGLINE_TEST_FULL` set (`tests/run --full`), as many lines as people have; else fewer.

use std::process::Stdio;

use gangline_tests::gangline::{end_of, gangline};
use gangline_tests::server::TOKEN;
use gangline_tests::{Api, Queue};
use tokio::io::AsyncWriteExt;

use super::Process;

/// Bytes of a payload: so many that a copy of the stream would be seen, and that its key is a hash.
const PAYLOAD_BYTES: usize = 600;

/// What an item may cost beside its payload: a place of 32 bytes, its key of 73 and the places of
/// that in an index, and up to an eighth more of the allocator for each.
const ITEM_BYTES: usize = 230;

/// What the service may take beside: a commit, a chunk, and what the allocator keeps.
const SERVER_BYTES: usize = 32 << 20;

/// What the client may have: itself, a few chunks, and a hash of each line, to tell equal lines
/// apart.
const CLIENT_BYTES: usize = 64 << 20;
const CLIENT_LINE_BYTES: usize = 32;

/// Returns the most memory that a process ever had.
fn most_bytes(pid: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[tokio::test]
async fn a_long_stream_costs_what_its_items_cost_and_no_more() {
    let lines = match std::env::var_os("GANGLINE_TEST_FULL") {
        Some(_) => 10_000_000,
        None => 100_000,
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let before = most_bytes(server.pid()).unwrap();
    let mut push = gangline(&["push", "long", "--json", "--seal"]);
    push.env("GANGLINE_URL", &server.url)
        .env("GANGLINE_TOKEN", TOKEN)
        .stdin(Stdio::piped());
    let mut push = push.spawn().unwrap();
    let (pid, mut pipe) = (push.id().unwrap(), push.stdin.take().unwrap());
    let write = async {
        let mut chunk = Vec::new();
        for number in 0..lines {
            let payload = format!("\"{number:>width$}\"\n", width = PAYLOAD_BYTES - 2);
            chunk.extend_from_slice(payload.as_bytes());
            if chunk.len() > 1 << 16 || number + 1 == lines {
                pipe.write_all(&chunk).await.unwrap();
                chunk.clear();
            }
        }
        let client = most_bytes(pid).unwrap();
        drop(pipe);
        client
    };
    let (client, left) = tokio::join!(write, end_of(push));
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    let queue = Queue {
        api: Api::new(&server.url, Some(TOKEN)),
        name: "long".into(),
    };
    assert_eq!(queue.counts().await, serde_json::json!({"ready": lines}));
    let server = most_bytes(server.pid()).unwrap() - before;
    let client_max = CLIENT_BYTES + lines * CLIENT_LINE_BYTES;
    assert!(client < client_max, "the client had {client} bytes");
    let server_max = SERVER_BYTES + lines * (PAYLOAD_BYTES + ITEM_BYTES);
    assert!(server < server_max, "the service grew by {server} bytes");
}
