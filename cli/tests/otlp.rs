//! Spans of the service, at a receiver of OTLP/HTTP: a trace goes through push, lease and settle.
//!
//! `cargo test -p gangline --features otlp --test otlp`
#![cfg(feature = "otlp")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const TRACE: [u8; 16] = *b"\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36";
const PARENT: [u8; 8] = *b"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7";

fn traceparent() -> String {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    format!("00-{}-{}-01", hex(&TRACE), hex(&PARENT))
}

/// One HTTP message; its head in lower case.
struct Message {
    head: String,
    body: Vec<u8>,
}

/// Reads a message, unless the connection has ended.
fn read(from: &mut impl BufRead) -> Option<Message> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line.to_ascii_lowercase());
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |text| text.trim().parse().expect("a number"));
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some(Message { head, body })
}

/// Takes what is exported, and says so.
fn receiver() -> (u16, mpsc::Receiver<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let (send, received) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let send = send.clone();
            std::thread::spawn(move || {
                let mut from = BufReader::new(stream.try_clone().expect("a second handle"));
                while let Some(message) = read(&mut from) {
                    let ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                    if send.send(message).is_err() || stream.write_all(ok).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, received)
}

/// The spans of the trace that follow the parent, by name. In protobuf: trace id (field 1), span id
/// (2), parent (4), name (5).
fn spans_of(body: &[u8]) -> Vec<String> {
    let id = [&[0x0a, 16][..], &TRACE, &[0x12, 8]].concat();
    let parent = [&[0x22, 8][..], &PARENT, &[0x2a]].concat();
    let spans = body
        .windows(id.len())
        .enumerate()
        .filter(|(_, window)| *window == id);
    let names = spans.filter_map(|(at, _)| {
        let rest = body[at + id.len() + 8..].strip_prefix(&parent[..])?;
        let (length, rest) = rest.split_first()?;
        String::from_utf8(rest.get(..usize::from(*length))?.to_vec()).ok()
    });
    names.collect()
}

/// A service; dropping it kills it.
struct Service {
    child: Child,
    address: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(data_dir: &std::path::Path, collector: u16) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gangline"))
            .args(["server", "--listen=127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env_remove("GANGLINE_TOKEN")
            .env(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{collector}"),
            )
            .env("OTEL_SERVICE_NAME", "queues-under-test")
            .stderr(Stdio::piped())
            .spawn()
            .expect("to start");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let address = lines.find_map(|line| {
            let line = line.expect("text");
            let (_, rest) = line.split_once("listening on http://")?;
            rest.split(',').next().map(str::to_owned)
        });
        // What it logs later is read by nobody.
        std::thread::spawn(move || lines.count());
        let address = address.expect("an address");
        Self { child, address }
    }

    fn post(&self, path: &str, headers: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let body = body.to_string();
        write!(
            stream,
            "POST /v1/queues/traced/{path} HTTP/1.1\r\nhost: localhost\r\n{headers}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        let answer = read(&mut BufReader::new(stream)).expect("an answer");
        let body = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(answer.head.starts_with("http/1.1 200"), "{body}");
        body
    }
}

#[test]
fn a_trace_goes_through_push_lease_and_settle() {
    let data = tempfile::tempdir().unwrap();
    let (collector, received) = receiver();
    let mut service = Service::start(data.path(), collector);
    let header = format!("traceparent: {}\r\n", traceparent());
    service.post("items", &header, &json!({"payload": 1}));
    // Of no trace of somebody else: its spans begin one of their own.
    service.post("items", "", &json!({"payload": 2}));
    let lease = json!({"worker": "w", "lease": {"number": 1, "max": 2}});
    let leased = service.post("exchange", "", &lease);
    let items = leased["lease"]["items"].as_array().unwrap();
    let settles: Vec<Value> = items
        .iter()
        .map(|item| json!({"id": item["id"], "lease": item["lease"], "outcome": "done"}))
        .collect();
    let settle = json!({
        "worker": "w", "session": leased["session"], "uid": leased["uid"], "settles": settles,
    });
    service.post("exchange", "", &settle);
    // What has not gone out by then goes when the service ends.
    let pid = i32::try_from(service.child.id()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert!(service.child.wait().unwrap().success());
    let mut names = Vec::new();
    let mut bytes = Vec::new();
    // Each was answered before the service ended.
    while let Ok(message) = received.try_recv() {
        assert!(
            message.head.starts_with("post /v1/traces "),
            "{}",
            message.head
        );
        names.extend(spans_of(&message.body));
        bytes.extend(message.body);
    }
    names.sort();
    assert_eq!(names, ["POST /v1/queues/{queue}/items", "lease", "settle"]);
    let has = |text: &str| {
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    for text in [
        "queues-under-test",
        "POST /v1/queues/{queue}/exchange",
        "http.response.status_code",
    ] {
        assert!(has(text), "{text}");
    }
}
