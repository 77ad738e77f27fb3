//! The same life cycle by bare scripts on Redis: no sessions, no expiry, no keys, no results. What
//! is left is what Redis itself costs.

use tokio::time::Instant;

use super::wire::{Wire, lost};
use super::{Load, Times};
use crate::error::Error;

const PUSH: &str = include_str!("../../../../tests/bench/bare/push.lua");
const LEASE: &str = include_str!("../../../../tests/bench/bare/lease.lua");
const SETTLE: &str = include_str!("../../../../tests/bench/bare/settle.lua");

const READY: &[u8] = b"{gangline-bench}:ready";
const LEASED: &[u8] = b"{gangline-bench}:leased";
const LAST: &[u8] = b"{gangline-bench}:last";
const DONE: &[u8] = b"{gangline-bench}:done";

/// Bytes before the payload of a packed item: its number.
const NUMBER_BYTES: usize = 8;

/// Any time to come; the peer has nobody who looks at it.
const DEADLINE: &[u8] = b"01234567";

/// A producer and worker in one, on a connection of its own.
pub(super) struct Peer {
    wire: Wire,
}

/// A script that Redis has by its hash.
struct Script {
    sha: Vec<u8>,
}

/// What Redis answers.
enum Answer {
    Number(usize),
    /// The numbers of the items that came; their payloads are looked at no further.
    Items(Vec<[u8; NUMBER_BYTES]>),
}

impl Peer {
    /// Pushes, leases and settles until all rounds are done.
    pub(super) fn cycle(
        address: &str,
        load: Load,
    ) -> impl Future<Output = Result<Times, Error>> + Send + 'static {
        let address = address.trim_start_matches("redis://").trim_end_matches('/');
        let address = address.to_owned();
        async move {
            let wire = Wire::open(&address).await?;
            let mut peer = Self { wire };
            let push = peer.load(PUSH).await?;
            let lease = peer.load(LEASE).await?;
            let settle = peer.load(SETTLE).await?;
            let payload = vec![b'x'; load.payload_bytes];
            let payloads = vec![payload.as_slice(); load.batch as usize];
            let push = push.call(&[READY, LAST], &payloads);
            let lease = lease.call(
                &[READY, LEASED],
                &[load.batch.to_string().as_bytes(), DEADLINE],
            );
            let mut times = Times::default();
            for _ in 0..load.rounds {
                let started = Instant::now();
                peer.ask(&push).await?;
                let pushed = Instant::now();
                let Answer::Items(numbers) = peer.ask(&lease).await? else {
                    return Err(lost("a lease was answered with a number"));
                };
                let leased = Instant::now();
                let numbers: Vec<&[u8]> = numbers.iter().map(<[u8; 8]>::as_slice).collect();
                match peer.ask(&settle.call(&[LEASED, DONE], &numbers)).await? {
                    Answer::Number(count) if count == numbers.len() => {}
                    Answer::Number(_) | Answer::Items(_) => {
                        return Err(lost("not all settles counted"));
                    }
                }
                times.push.push(pushed - started);
                times.lease.push(leased - pushed);
                times.settle.push(leased.elapsed());
            }
            Ok(times)
        }
    }

    async fn load(&mut self, script: &str) -> Result<Script, Error> {
        let command = command(&[b"SCRIPT", b"LOAD", script.as_bytes()]);
        self.wire.write(&command).await?;
        let head = self.wire.line().await?.to_owned();
        let sha = self.bulk(&head).await?.to_vec();
        Ok(Script { sha })
    }

    /// Returns the bulk string that a line announces.
    async fn bulk(&mut self, head: &str) -> Result<&[u8], Error> {
        let count: usize = number(head, '$')?;
        let bytes = self.wire.exactly(count + 2).await?;
        Ok(&bytes[..count])
    }

    async fn ask(&mut self, command: &[u8]) -> Result<Answer, Error> {
        self.wire.write(command).await?;
        let head = self.wire.line().await?.to_owned();
        if head.starts_with(':') {
            return Ok(Answer::Number(number(&head, ':')?));
        }
        let count = number(&head, '*')?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            let head = self.wire.line().await?;
            let bytes: usize = number(head, '$')?;
            let item = self.wire.exactly(bytes + 2).await?;
            let number = item.first_chunk::<NUMBER_BYTES>();
            items.push(*number.ok_or_else(|| lost("an item without a number"))?);
        }
        Ok(Answer::Items(items))
    }
}

fn number(head: &str, kind: char) -> Result<usize, Error> {
    let digits = head.strip_prefix(kind);
    let digits = digits.ok_or_else(|| lost(format!("Redis answers {head:?}")))?;
    digits.parse().map_err(lost)
}

impl Script {
    /// Writes a call of the script down.
    fn call(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Vec<u8> {
        let count = keys.len().to_string();
        let mut words = vec![b"EVALSHA".as_slice(), &self.sha, count.as_bytes()];
        words.extend(keys.iter().chain(arguments));
        command(&words)
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
