//! What the program writes, on its way to the log.

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdout};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::kubelet::log_file::{LogFile, Source};

/// The program's output.
pub(super) struct Streams {
    pub(super) out: Option<Source<ChildStdout>>,
    pub(super) err: Option<Source<ChildStderr>>,
}

impl Streams {
    pub(super) fn new(mut child: Child) -> io::Result<Self> {
        let (out, err) = (child.stdout.take(), child.stderr.take());
        for fd in out
            .iter()
            .map(AsFd::as_fd)
            .chain(err.iter().map(AsFd::as_fd))
        {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            out: out.map(|pipe| Source::new(pipe, "stdout")),
            err: err.map(|pipe| Source::new(pipe, "stderr")),
        })
    }

    /// Takes one buffer of each stream; returns whether there may be more at once.
    pub(super) fn copy(&mut self, buffer: &mut [u8], log: &mut LogFile) -> bool {
        let mut more = false;
        if let Some(source) = &mut self.out {
            match source.copy(buffer, log) {
                Ok(true) => more = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => self.out = None,
            }
        }
        if let Some(source) = &mut self.err {
            match source.copy(buffer, log) {
                Ok(true) => more = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => self.err = None,
            }
        }
        more
    }

    pub(super) fn copy_all(&mut self, buffer: &mut [u8], log: &mut LogFile) {
        while self.copy(buffer, log) {}
    }
}
