//! A way to a TCP service that can be cut, and on which one text stands for another.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What is read at a time.
const CHUNK: usize = 64 << 10;

/// A text, and what stands in its place on the way there; as long as it.
#[derive(Debug, Clone)]
pub struct Renamed {
    /// What the client says.
    pub from: String,
    /// What the service hears.
    pub to: String,
}

/// A listening forwarder; dropping it cuts every connection.
#[derive(Debug)]
pub struct Forwarder {
    /// The port on loopback where it listens.
    pub port: u16,
    task: JoinHandle<()>,
    /// Ends all connections of its time.
    cut: std::sync::Arc<std::sync::Mutex<CancellationToken>>,
}

impl Forwarder {
    /// Forwards to a port on loopback.
    pub async fn start(to: u16, renamed: Option<Renamed>) -> Self {
        Self::listen(to, renamed, usize::MAX).await
    }

    /// Forwards to a port on loopback, and cuts each connection once it has brought so many bytes
    /// there.
    pub async fn breaking(to: u16, after_bytes: usize) -> Self {
        Self::listen(to, None, after_bytes).await
    }

    async fn listen(to: u16, renamed: Option<Renamed>, bytes_max: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let cut = std::sync::Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let current = cut.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Where it does not answer, the client sees its connection end.
                let Ok(service) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else {
                    continue;
                };
                let ended = current.lock().expect("no panic").clone();
                let renamed = renamed.clone();
                tokio::spawn(async move {
                    let (from_client, to_client) = client.into_split();
                    let (from_service, to_service) = service.into_split();
                    tokio::select! {
                        () = ended.cancelled() => {}
                        () = forward(from_client, to_service, renamed, bytes_max) => {}
                        () = forward(from_service, to_client, None, usize::MAX) => {}
                    }
                });
            }
        });
        Self { port, task, cut }
    }

    /// Cuts all connections that there are; new ones are taken.
    pub fn cut(&self) {
        let mut current = self.cut.lock().expect("no panic");
        current.cancel();
        *current = CancellationToken::new();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    renamed: Option<Renamed>,
    bytes_max: usize,
) {
    let mut waiting: Vec<u8> = Vec::new();
    let mut left = bytes_max;
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        waiting.extend(&chunk[..count]);
        let ready = match &renamed {
            Some(renamed) => rename(&mut waiting, renamed),
            None => waiting.len(),
        };
        let ready = ready.min(left);
        left -= ready;
        if to.write_all(&waiting[..ready]).await.is_err() {
            return;
        }
        if left == 0 {
            return;
        }
        waiting.drain(..ready);
    }
}

/// Renames in what has come; returns how much of it can go on: its end may be a beginning.
fn rename(bytes: &mut [u8], renamed: &Renamed) -> usize {
    let (from, to) = (renamed.from.as_bytes(), renamed.to.as_bytes());
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            at += from.len();
        } else {
            at += 1;
        }
    }
    let begins = (at..bytes.len()).find(|&at| from.starts_with(&bytes[at..]));
    begins.unwrap_or(bytes.len())
}
