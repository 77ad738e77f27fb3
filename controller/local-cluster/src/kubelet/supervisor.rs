//! The process that owns the run of a container and outlives the server.
//!
//! It takes one run at a time over its standard input, runs the program in a process group of its own, writes its output to
//! the log and its end to the run's state file. When nothing of the program is left it is as good as new and takes
//! the next run, which saves an exec for each short Pod. It knows nothing of Pods or of the API: what an end means is the
//! kubelet's to say.

mod fence;
mod memory;
mod mounts;
mod program;
mod streams;
mod wait;

use std::cell::OnceCell;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGCHLD, SIGTERM};

use super::identity::{Identity, descendants};
use super::log_file::LogFile;
use super::run::{Exit, Run};
use fence::Fence;
use memory::{Memory, start_expendable};
pub(super) use mounts::Mount;
use program::{become_program, reap, start};
use streams::Streams;
use wait::{drain, now, signal_pipe, wait, wait_for_some};

/// How long a supervisor without a run waits for one.
const IDLE: Duration = Duration::from_secs(10);
/// How often processes are stopped that come anew, before all are killed for a first time.
const SWEEPS_MAX: usize = 16;
const OUTPUT_BUFFER_BYTES: usize = 64 * 1024;
/// Kubernetes' reason for the end of a container that had more memory than it may.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// What to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The program and its arguments.
    pub(super) argv: Vec<String>,
    /// Environment, besides what the server's own gives.
    pub(super) env: Vec<(String, String)>,
    /// Working directory.
    pub(super) cwd: Option<PathBuf>,
    /// Whether the program sees the whole environment of the server.
    pub(super) inherit: bool,
    /// Bytes of log that are kept.
    pub(super) log_max: u64,
    /// Whether the program is told to end when the kubelet is gone.
    pub(super) bound: bool,
    /// What it sees in other places than it is in.
    pub(super) mounts: Vec<Mount>,
    /// An empty directory to put its view of the file system together in.
    pub(super) stage: PathBuf,
    /// How many seconds it has to end when nobody says otherwise.
    pub(super) grace: i64,
    /// How many processes it may have where the kernel sees to that.
    pub(super) processes_max: usize,
    /// How many bytes of memory it may have, if that is bounded.
    pub(super) memory_max: Option<u64>,
}

/// What the kubelet asks, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Carry out the run of this state file.
    Run { run: PathBuf, spec: Spec },
    /// Become the program, behind the mounts of its own: another supervisor asks that, or a kubelet that has no run in mind.
    Become(Spec),
    /// End the program within so many seconds.
    Stop { grace: i64 },
}

/// What the supervisor answers, a line of JSON each. `Taken` and `Ended` are the last word on a run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The run is another supervisor's.
    Taken,
    Started(Timestamp),
    Ended(Exit),
}

/// Runs a supervisor; to be called before anything that costs time or starts a thread.
#[must_use]
pub fn main() -> ExitCode {
    match Supervisor::new().and_then(|mut supervisor| supervisor.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

struct Supervisor {
    own: Identity,
    control: UnixStream,
    /// Bytes of the control stream that are no whole line yet.
    inbox: Vec<u8>,
    /// The kubelet is gone, so that no run comes after this one.
    orphaned: bool,
    child_ended: UnixStream,
    terminated: UnixStream,
    buffer: Vec<u8>,
    /// Around the runs, from the first one on.
    fence: OnceCell<Option<Fence>>,
}

impl Supervisor {
    fn new() -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        // A session of its own, which the scheduler gives its share and no more where it groups by session: whatever the program
        // starts, the server has its turns. Who leads a group already, to become a program, cannot have one.
        let _ = setsid();
        let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        control.set_nonblocking(true)?;
        Ok(Self {
            own: Identity::of(pid).ok_or(io::ErrorKind::NotFound)?,
            control,
            inbox: Vec::new(),
            orphaned: false,
            child_ended: signal_pipe(SIGCHLD)?,
            terminated: signal_pipe(SIGTERM)?,
            buffer: vec![0; OUTPUT_BUFFER_BYTES],
            fence: OnceCell::new(),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            match self.next_request()? {
                // A stop that has crossed the end of its run.
                Some(Request::Stop { .. }) => {}
                Some(Request::Run { run, spec }) => self.run(&Run::new(run), spec)?,
                Some(Request::Become(spec)) => {
                    let error = become_program(spec);
                    let exit = Exit::without_program(128, "StartError", error.to_string());
                    return self.reply(&Reply::Ended(exit));
                }
                None if self.orphaned => return Ok(()),
                None => {
                    let ready = wait([self.control.as_fd(), self.terminated.as_fd()], Some(IDLE))?;
                    if ready != [true, false] {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The next whole request that has come in.
    fn next_request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.inbox.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.control.read(&mut self.buffer) {
                Ok(0) => self.orphaned = true,
                Ok(count) => {
                    self.inbox
                        .extend_from_slice(self.buffer.get(..count).unwrap_or_default());
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => self.orphaned = true,
            }
            return Ok(None);
        }
    }

    /// Tells the kubelet, if it is still there: a later one reads the run's state.
    fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        if self.control.write_all(&line).is_err() {
            self.orphaned = true;
        }
        Ok(())
    }

    fn run(&mut self, run: &Run, spec: Spec) -> io::Result<()> {
        if !run.claim(&self.own)? {
            return self.reply(&Reply::Taken);
        }
        let fence = self.fence.get_or_init(fence::around).as_ref();
        if let Some(fence) = fence {
            // What is not allowed is what was allowed to the run before.
            let _ = fence.allow(spec.processes_max);
        }
        let mut memory = Memory::bound(spec.memory_max, self.own.pid, fence);
        let mut log = LogFile::new(run.path().to_owned(), spec.log_max);
        let Spec { bound, grace, .. } = spec;
        let started = Timestamp::now();
        let exit = match start_expendable(|| start(spec)) {
            Err(error) => Exit::without_program(128, "StartError", error.to_string()),
            Ok(child) => {
                let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
                // Should this process be killed, the kubelet ends the program by its identity.
                if let Some(program) = Identity::of(pid) {
                    run.set_program(&program, started)?;
                }
                self.reply(&Reply::Started(started))?;
                let pid = Pid::from_raw(pid);
                let (code, reason) =
                    self.follow(run, child, pid, (bound, grace), &mut memory, &mut log)?;
                Exit {
                    code,
                    reason: reason.map(str::to_owned),
                    message: None,
                    started,
                    finished: Timestamp::now(),
                }
            }
        };
        run.record(&exit)?;
        self.reply(&Reply::Ended(exit))
    }

    /// Follows the program to its end and leaves nothing of it behind; returns its exit code, and a reason that is not
    /// simply the code.
    fn follow(
        &mut self,
        run: &Run,
        child: Child,
        pid: Pid,
        (bound, own_grace): (bool, i64),
        memory: &mut Option<Memory>,
        log: &mut LogFile,
    ) -> io::Result<(i32, Option<&'static str>)> {
        let mut streams = Streams::new(child)?;
        let mut kill_at = None;
        let mut told_alone = false;
        let mut had_too_much = false;
        let code = loop {
            let [ended, terminated, control, out, err] = {
                let control = (!self.orphaned).then(|| self.control.as_fd());
                let fds = [
                    Some(self.child_ended.as_fd()),
                    Some(self.terminated.as_fd()),
                    control,
                    streams.out.as_ref().map(|source| source.pipe.as_fd()),
                    streams.err.as_ref().map(|source| source.pipe.as_fd()),
                ];
                // The kubelet may have gone before the program had started.
                let is_news = self.orphaned && bound && !told_alone;
                let news_in = is_news.then_some(Duration::ZERO);
                let kill_in = kill_at.map(|at: Instant| at.saturating_duration_since(now()));
                let look_in = memory.as_ref().map(Memory::due);
                wait_for_some(fds, [news_in, kill_in, look_in].into_iter().flatten().min())?
            };
            if out || err {
                streams.copy(&mut self.buffer, log);
            }
            if ended {
                drain(&mut self.child_ended);
                if let Some(code) = reap(pid) {
                    break code;
                }
            }
            let fence = self.fence.get().and_then(Option::as_ref);
            if memory.as_mut().is_some_and(|memory| memory.is_over(fence)) {
                had_too_much = true;
                kill_at = Some(now());
            }
            let mut grace = None;
            if terminated {
                drain(&mut self.terminated);
                grace = Some(run.grace().unwrap_or(own_grace));
            }
            if control {
                while let Some(request) = self.next_request()? {
                    if let Request::Stop { grace: seconds } = request {
                        grace = Some(seconds);
                    }
                }
            }
            if self.orphaned && bound && !told_alone {
                told_alone = true;
                grace = Some(own_grace);
            }
            if let Some(seconds) = grace {
                let at = now() + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                kill_at = Some(kill_at.map_or(at, |earlier: Instant| earlier.min(at)));
                if seconds > 0 {
                    let _ = kill(pid, Signal::SIGTERM);
                }
            }
            if kill_at.is_some_and(|at| at <= now()) {
                let _ = kill(pid, Signal::SIGKILL);
                kill_at = None;
            }
        };
        self.end_descendants();
        drain(&mut self.child_ended);
        // Everybody who could write is dead: what is in the pipes is all there will be.
        streams.copy_all(&mut self.buffer, log);
        let fence = self.fence.get().and_then(Option::as_ref);
        had_too_much |= memory
            .as_ref()
            .is_some_and(|memory| memory.has_ended_some(fence));
        Ok((code, had_too_much.then_some(OUT_OF_MEMORY)))
    }

    /// Kills all that is left of the program, also what has left its process group or session.
    fn end_descendants(&self) {
        loop {
            // As a subreaper this process inherits every orphan, so that no child means no descendant.
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) => {
                    for pid in self.stop_descendants() {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                    let _ = waitpid(None, None);
                }
                _ => {}
            }
        }
    }

    /// Stops all descendants, again and again until there is no new one: what is stopped starts none, and none of them notices
    /// that others are gone.
    fn stop_descendants(&self) -> HashSet<i32> {
        let mut stopped = HashSet::new();
        for _ in 0..SWEEPS_MAX {
            let before = stopped.len();
            for pid in descendants(self.own.pid) {
                if stopped.insert(pid) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
                }
            }
            if stopped.len() == before {
                break;
            }
        }
        stopped
    }
}
