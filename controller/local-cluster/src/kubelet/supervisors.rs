//! The supervisor processes at hand: an idle one takes the next run, else another is started.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::run::{Exit, Run};
use super::supervisor::{Reply, Request, Spec};

/// How many runs are being started at a time. The others wait for an idle supervisor rather than for a processor: a thousand
/// short Pods need a few supervisors and not a thousand.
const STARTS_PER_CORE: usize = 2;
/// How many supervisors are kept without a run; they leave by themselves after a while.
const IDLE_MAX: usize = 32;
/// How many new supervisors may end before they take a run, until it is given up.
const SPAWNS_MAX: usize = 3;

/// The turn to start a run.
pub(super) struct Permit<'a>(Option<SemaphorePermit<'a>>);

/// How the start of a run went.
pub(super) enum Start {
    Running(Link, Timestamp),
    Ended(Exit),
    /// It is another supervisor's, which this kubelet has no link to.
    Taken,
}

/// The kubelet's end of a supervisor that has a run.
pub(super) struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    async fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await
    }

    /// The next reply; `None` when the supervisor is gone. Must not be cancelled in between: use [`Link::wait`].
    async fn reply(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Reply>> {
        if self.stream.read_until(b'\n', line).await? == 0 {
            return Ok(None);
        }
        let reply = serde_json::from_slice(line)?;
        line.clear();
        Ok(Some(reply))
    }

    /// Tells the program to end.
    pub(super) async fn stop(&mut self, grace: i64) {
        // A supervisor that is gone shows in what it does not reply.
        let _ = self.send(&Request::Stop { grace }).await;
    }

    /// Waits for the end of the run; `None` when the supervisor ends without a word of it. May be cancelled and called
    /// again with the same `line`.
    pub(super) async fn wait(&mut self, line: &mut Vec<u8>) -> Option<Exit> {
        loop {
            match self.reply(line).await {
                Ok(Some(Reply::Ended(exit))) => return Some(exit),
                Ok(Some(Reply::Started(_))) => {}
                Ok(Some(Reply::Taken) | None) | Err(_) => return None,
            }
        }
    }
}

/// All supervisors that this server has started and that have no run.
pub(super) struct Supervisors {
    command: Vec<String>,
    idle: Mutex<Vec<Link>>,
    starts: Semaphore,
}

impl Supervisors {
    pub(super) fn new(command: Vec<String>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            command,
            idle: Mutex::new(Vec::new()),
            starts: Semaphore::new(cores * STARTS_PER_CORE),
        }
    }

    /// Waits for the turn to start a run.
    pub(super) async fn permit(&self) -> Permit<'_> {
        Permit(self.starts.acquire().await.ok())
    }

    /// Has the run started by a supervisor.
    pub(super) async fn start(
        &self,
        permit: Permit<'_>,
        run: &Run,
        spec: Spec,
    ) -> io::Result<Start> {
        let Permit(_held) = permit;
        let request = Request::Run {
            run: run.path().to_owned(),
            spec,
        };
        let mut spawns = 0;
        while spawns < SPAWNS_MAX {
            // All that are idle may have left by now.
            let mut link = if let Some(idle) = self.take() {
                idle
            } else {
                spawns += 1;
                self.spawn()?
            };
            let reply = match link.send(&request).await {
                // One that has left with our words unread resets the connection.
                Ok(()) => link.reply(&mut Vec::new()).await.unwrap_or(None),
                Err(_) => None,
            };
            match reply {
                Some(Reply::Started(at)) => return Ok(Start::Running(link, at)),
                Some(Reply::Ended(exit)) => {
                    self.give_back(link);
                    return Ok(Start::Ended(exit));
                }
                Some(Reply::Taken) => {
                    self.give_back(link);
                    return Ok(Start::Taken);
                }
                None if run.supervisor().is_some() => return Ok(Start::Taken),
                None => {}
            }
        }
        Err(io::Error::other("no supervisor process stays alive"))
    }

    /// The newest idle supervisor, so that those that are not needed get to leave.
    fn take(&self) -> Option<Link> {
        self.idle().pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a supervisor whose run has ended.
    pub(super) fn give_back(&self, link: Link) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(link);
        }
    }

    fn spawn(&self) -> io::Result<Link> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (program, args) = self
            .command
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        // It makes a session of its own first of all: what interrupts the server from a terminal does not reach it.
        tokio::process::Command::new(program)
            .args(args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("supervisor {program:?}: {error}"))
            })?;
        Ok(Link {
            stream: BufReader::new(UnixStream::from_std(ours)?),
        })
    }
}
