//! A program as a child process: its start, its end, and the group that is signalled.
//!
//! `std::process::Command` puts the whole environment together again at every start, which is a
//! part of what starting a short program costs; here that is done once.

use std::ffi::{CString, NulError, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
use nix::spawn::{posix_spawn, posix_spawnp};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::PidfdFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What all programs of a worker are started with.
pub(super) struct Launcher {
    /// `NAME=value` of this process, without what is not for programs.
    environment: Vec<CString>,
    nothing: File,
    attributes: PosixSpawnAttr,
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launcher").finish_non_exhaustive()
    }
}

/// How a program has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    /// A signal has ended it.
    Signal(Signal),
}

/// What a program gets as its three streams.
pub(super) struct Streams<'a> {
    /// Nothing to read when none.
    pub(super) stdin: Option<BorrowedFd<'a>>,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
}

impl Launcher {
    /// Takes the environment of this process as it is, but for `without`.
    pub(super) fn new(without: &[&str]) -> io::Result<Self> {
        let is_kept = |name: &OsStr| !without.iter().any(|without| name == *without);
        let environment =
            std::env::vars_os()
                .filter(|(name, _)| is_kept(name))
                .map(|(mut name, value)| {
                    name.push("=");
                    name.push(value);
                    CString::new(name.into_vec())
                });
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        // A group of its own, so that what it has started ends with it.
        attributes.set_pgroup(Pid::from_raw(0))?;
        // Rust ignores SIGPIPE, and a program expects not to.
        let mut ignored = SigSet::empty();
        ignored.add(Signal::SIGPIPE);
        attributes.set_sigdefault(&ignored)?;
        attributes.set_sigmask(&SigSet::empty())?;
        Ok(Self {
            environment: environment.collect::<Result<_, _>>()?,
            nothing: File::open("/dev/null")?,
            attributes,
        })
    }

    /// Starts a program: `file`, or else what the first argument says, as `execvp` finds it.
    pub(super) fn start(
        &self,
        file: Option<&Path>,
        arguments: &[String],
        environment: &[(&str, String)],
        streams: &Streams<'_>,
    ) -> io::Result<Child> {
        let arguments: Vec<CString> = arguments
            .iter()
            .map(|argument| CString::new(argument.as_str()))
            .collect::<Result<_, NulError>>()?;
        let own: Vec<CString> = environment
            .iter()
            .map(|(name, value)| CString::new(format!("{name}={value}")))
            .collect::<Result<_, NulError>>()?;
        let environment: Vec<_> = self.environment.iter().chain(&own).collect();
        let mut actions = PosixSpawnFileActions::init()?;
        let stdin = streams.stdin.unwrap_or(self.nothing.as_fd());
        for (ours, theirs) in [(stdin, 0), (streams.stdout, 1), (streams.stderr, 2)] {
            actions.add_dup2(ours.as_raw_fd(), theirs)?;
        }
        let pid = match file {
            Some(file) => posix_spawn(file, &actions, &self.attributes, &arguments, &environment),
            None => posix_spawnp(
                &arguments[0],
                &actions,
                &self.attributes,
                &arguments,
                &environment,
            ),
        }?;
        Child::of(pid)
    }
}

/// A program that was started. What still runs of it when this is dropped is killed.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    /// A file descriptor that can be read once the program has ended.
    end: AsyncFd<OwnedFd>,
    /// How it has ended.
    status: Option<WaitStatus>,
}

impl Child {
    #[expect(
        deprecated,
        reason = "sound for a descriptor that is owned and never replaced; what stands for it is unsafe code"
    )]
    fn of(pid: Pid) -> io::Result<Self> {
        let opened = rustix::process::Pid::from_raw(pid.as_raw())
            .ok_or(rustix::io::Errno::SRCH)
            // It is only polled, so that it need not be non-blocking, which Linux 5.10 began to know.
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
        let watched = opened
            .map_err(io::Error::from)
            .and_then(|end| AsyncFd::with_interest(end, Interest::READABLE));
        match watched {
            Ok(end) => Ok(Self {
                pid,
                end,
                status: None,
            }),
            Err(error) => {
                kill(pid);
                Err(error)
            }
        }
    }

    /// Waits for the program itself.
    pub(super) async fn wait(&mut self) -> io::Result<Exit> {
        loop {
            match self.status {
                Some(WaitStatus::Exited(_, code)) => return Ok(Exit::Code(code)),
                Some(WaitStatus::Signaled(_, signal, _)) => return Ok(Exit::Signal(signal)),
                _ => {}
            }
            let mut ready = self.end.readable().await?;
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => ready.clear_ready(),
                Ok(status) => self.status = Some(status),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a signal to the program and what it has started.
    pub(super) fn signal(&self, signal: Signal) {
        // A group that is gone needs no signal.
        let _ = killpg(self.pid, signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            kill(self.pid);
        }
    }
}

/// Ends a group for good. A program that hangs in the kernel holds nobody up but its own thread.
fn kill(pid: Pid) {
    let _ = killpg(pid, Signal::SIGKILL);
    std::thread::spawn(move || waitpid(pid, None));
}
