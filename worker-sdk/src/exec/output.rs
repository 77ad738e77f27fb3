//! What a program writes: two pipes, read within bounds.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;

use gangline_protocol::limits::{ERROR_BYTES_MAX, PAYLOAD_BYTES_MAX};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// It wrote more than a result may have.
#[derive(Debug)]
pub(super) struct TooMuch;

/// Decides what is kept of what comes out of a pipe.
pub(super) trait Keep {
    /// Takes the next bytes.
    fn take(&mut self, chunk: &[u8]) -> Result<(), TooMuch>;
}

/// Keeps everything, up to what a result may have.
#[derive(Debug, Default)]
pub(super) struct Whole(pub(super) Vec<u8>);

impl Keep for Whole {
    fn take(&mut self, chunk: &[u8]) -> Result<(), TooMuch> {
        if self.0.len() + chunk.len() > PAYLOAD_BYTES_MAX {
            return Err(TooMuch);
        }
        self.0.extend_from_slice(chunk);
        Ok(())
    }
}

/// Keeps the end, which usually says what went wrong. All of it goes to our own stderr, too.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        let surplus = self.0.len().saturating_sub(ERROR_BYTES_MAX - 64);
        self.0.drain(..surplus);
        self.0
    }
}

impl Keep for Tail {
    fn take(&mut self, chunk: &[u8]) -> Result<(), TooMuch> {
        // Nobody may read our stderr; the program's end is kept all the same.
        let _ = io::stderr().write_all(chunk);
        self.0.extend_from_slice(chunk);
        if self.0.len() > 2 * ERROR_BYTES_MAX {
            self.0.drain(..self.0.len() - ERROR_BYTES_MAX);
        }
        Ok(())
    }
}

/// Our end of a pipe, and what is kept of it.
#[derive(Debug)]
pub(super) struct Output<K> {
    pipe: PipeReader,
    kept: K,
    ended: bool,
}

impl<K: Keep + Default> Output<K> {
    /// Makes a pipe; the program gets the other end.
    pub(super) fn new() -> io::Result<(Self, PipeWriter)> {
        let (pipe, writer) = io::pipe()?;
        let output = Self {
            pipe,
            kept: K::default(),
            ended: false,
        };
        Ok((output, writer))
    }

    /// Reads what is in the pipe by now, without waiting; tells whether it has ended, which it has
    /// when nobody is left who could write to it.
    pub(super) fn read_ready(&mut self) -> Result<bool, TooMuch> {
        let mut chunk = [0; CHUNK_BYTES];
        let unwaiting = fcntl(&self.pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        while unwaiting.is_ok() && !self.ended {
            match self.pipe.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(count) => self.kept.take(&chunk[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whatever else it is, whoever waits for the end will meet it again.
                Err(_) => break,
            }
        }
        Ok(self.ended)
    }

    /// Reads on until nobody is left who could write.
    pub(super) async fn read_to_end(mut self) -> Result<K, TooMuch> {
        if self.ended {
            return Ok(self.kept);
        }
        // A pipe that breaks has ended; what came before counts.
        let Ok(mut pipe) = Receiver::from_owned_fd(OwnedFd::from(self.pipe)) else {
            return Ok(self.kept);
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
            self.kept.take(&chunk[..count])?;
        }
        Ok(self.kept)
    }

    /// Returns what was kept of a pipe that has ended.
    pub(super) fn into_kept(self) -> K {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_has_ended_only_when_every_writer_is_gone() {
        let (mut output, mut writer) = Output::<Whole>::new().unwrap();
        let other = writer.try_clone().unwrap();
        assert!(!output.read_ready().unwrap());
        writer.write_all(b"one").unwrap();
        drop(writer);
        assert!(!output.read_ready().unwrap());
        drop(other);
        assert!(output.read_ready().unwrap());
        assert_eq!(output.into_kept().0, b"one");
    }

    #[tokio::test]
    async fn what_comes_later_follows_what_was_there() {
        let (mut output, mut writer) = Output::<Whole>::new().unwrap();
        writer.write_all(b"one ").unwrap();
        assert!(!output.read_ready().unwrap());
        writer.write_all(b"two").unwrap();
        drop(writer);
        assert_eq!(output.read_to_end().await.unwrap().0, b"one two");
    }

    #[test]
    fn a_result_may_have_so_many_bytes_and_not_one_more() {
        let mut whole = Whole::default();
        whole.take(&vec![b'x'; PAYLOAD_BYTES_MAX]).unwrap();
        assert!(whole.take(b"x").is_err());
    }

    #[test]
    fn of_errors_the_end_is_kept() {
        let mut tail = Tail::default();
        for _ in 0..10 {
            tail.take(&[b'\n'; ERROR_BYTES_MAX]).unwrap();
        }
        tail.take(b"the reason").unwrap();
        let bytes = tail.into_bytes();
        assert!(bytes.ends_with(b"the reason") && bytes.len() < ERROR_BYTES_MAX);
    }
}
