//! A connection with one call at a time: what is to be said is written whole, what comes is read
//! as far as it is wanted.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Error, Kind};

/// A connection, and what has come over it and was not taken yet.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// Where the bytes begin that were not taken yet.
    taken: usize,
}

/// Says what is wrong with the peer.
pub(super) fn lost(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::ServiceLost, error)
}

impl Wire {
    pub(super) async fn open(address: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| {
            lost(format!("cannot connect to {address}: {error}"))
                .hint("is it running? --url, or --redis, says where it is")
        })?;
        stream.set_nodelay(true).map_err(lost)?;
        Ok(Self {
            stream,
            bytes: Vec::with_capacity(64 << 10),
            taken: 0,
        })
    }

    pub(super) async fn write(&mut self, call: &[u8]) -> Result<(), Error> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.stream.write_all(call).await.map_err(lost)
    }

    async fn read_more(&mut self) -> Result<(), Error> {
        match self.stream.read_buf(&mut self.bytes).await.map_err(lost)? {
            0 => Err(lost("the connection was closed in the middle of an answer")),
            _ => Ok(()),
        }
    }

    /// Returns the next line, without its end.
    pub(super) async fn line(&mut self) -> Result<&str, Error> {
        let mut looked_at = self.taken;
        let end = loop {
            let rest = &self.bytes[looked_at..];
            if let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
                break looked_at + at;
            }
            looked_at = self.bytes.len().saturating_sub(1).max(self.taken);
            self.read_more().await?;
        };
        let start = std::mem::replace(&mut self.taken, end + 2);
        str::from_utf8(&self.bytes[start..end]).map_err(lost)
    }

    /// Returns the next bytes, so many.
    pub(super) async fn exactly(&mut self, count: usize) -> Result<&[u8], Error> {
        while self.bytes.len() < self.taken + count {
            self.read_more().await?;
        }
        let start = self.taken;
        self.taken += count;
        Ok(&self.bytes[start..self.taken])
    }
}
