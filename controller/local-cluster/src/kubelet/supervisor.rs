//! The process that owns the run of a container and outlives the server.
//!
//! It takes one run at a time over its standard input, runs the program in a process group of its own, writes its output to
//! the log and its end to the run's directory. When nothing of the program is left it is as good as new and takes
//! the next run, which saves an exec for each short Pod. It knows nothing of Pods or of the API: what an end means is the
//! kubelet's to say.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGCHLD, SIGTERM};

use super::log_file::{LogFile, Source};
use super::run::{Exit, Identity, Run, descendants};

/// How long a supervisor without a run waits for one.
const IDLE: Duration = Duration::from_secs(10);
/// Kubernetes' default grace period, for a supervisor that somebody else than the kubelet terminates.
const GRACE_SECONDS: i64 = 30;
const OUTPUT_BUFFER_BYTES: usize = 64 * 1024;

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
}

/// What the kubelet asks, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Run { dir: PathBuf, spec: Spec },
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
}

impl Supervisor {
    fn new() -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
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
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            match self.next_request()? {
                // A stop that has crossed the end of its run.
                Some(Request::Stop { .. }) => {}
                Some(Request::Run { dir, spec }) => self.run(&Run::new(dir), spec)?,
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

    /// Tells the kubelet, if it is still there: a later one reads the run's directory.
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
        let mut log = LogFile::new(run.dir().to_owned(), spec.log_max);
        let bound = spec.bound;
        let started = Timestamp::now();
        let exit = match start(spec) {
            Err(error) => Exit::without_program(128, "StartError", error.to_string()),
            Ok(child) => {
                let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
                // Should this process be killed, the kubelet ends the program by its identity.
                if let Some(program) = Identity::of(pid) {
                    run.set_program(&program)?;
                }
                self.reply(&Reply::Started(started))?;
                let code = self.follow(run, child, Pid::from_raw(pid), bound, &mut log)?;
                Exit {
                    code,
                    reason: None,
                    message: None,
                    started,
                    finished: Timestamp::now(),
                }
            }
        };
        run.record(&exit)?;
        self.reply(&Reply::Ended(exit))
    }

    /// Follows the program to its end and leaves nothing of it behind; returns its exit code.
    fn follow(
        &mut self,
        run: &Run,
        child: Child,
        pid: Pid,
        bound: bool,
        log: &mut LogFile,
    ) -> io::Result<i32> {
        let mut streams = Streams::new(child)?;
        let mut kill_at = None;
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
                wait_for_some(
                    fds,
                    kill_at.map(|at: Instant| at.saturating_duration_since(now())),
                )?
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
            let mut grace = None;
            if terminated {
                drain(&mut self.terminated);
                grace = Some(run.grace().unwrap_or(GRACE_SECONDS));
            }
            if control {
                while let Some(request) = self.next_request()? {
                    if let Request::Stop { grace: seconds } = request {
                        grace = Some(seconds);
                    }
                }
                if self.orphaned && bound {
                    grace = Some(GRACE_SECONDS);
                }
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
        Ok(code)
    }

    /// Kills all that is left of the program, also what has left its process group or session.
    fn end_descendants(&self) {
        loop {
            // As a subreaper this process inherits every orphan, so that no child means no descendant.
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) => {
                    for pid in descendants(self.own.pid) {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                    let _ = waitpid(None, None);
                }
                _ => {}
            }
        }
    }
}

/// Reaps all children that have ended; returns the exit code of the program if it is among them.
fn reap(program: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, exit)) if pid == program => code = Some(exit),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                code = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}

/// Starts the program with an absolute path, so that the cheap `posix_spawn` does.
fn start(spec: Spec) -> io::Result<Child> {
    let mut argv = spec.argv.iter();
    let name = argv.next().map_or("", String::as_str);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("exec {name:?}: {error}"));
    let own = |key: &str| std::env::var_os(key);
    let given = spec.env.iter().rev().find(|(key, _)| key == "PATH");
    let path = given
        .map(|(_, value)| value.into())
        .or_else(|| own("PATH"))
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let program = if name.contains('/') {
        PathBuf::from(name)
    } else {
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|file| is_executable(file))
            .ok_or_else(|| io::Error::other(format!("exec {name:?}: not found in PATH")))?
    };
    let mut command = Command::new(program);
    command.arg0(name).args(argv).process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !spec.inherit {
        command
            .env_clear()
            .envs(own("HOME").map(|home| ("HOME", home)));
    }
    command.env("PATH", path).envs(spec.env);
    if let Some(cwd) = spec.cwd {
        if !cwd.is_dir() {
            let what = format!("workingDir {:?}: no such directory", cwd.display());
            return Err(io::Error::other(what));
        }
        command.current_dir(cwd);
    }
    command.spawn().map_err(named)
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The program's output.
struct Streams {
    out: Option<Source<ChildStdout>>,
    err: Option<Source<ChildStderr>>,
}

impl Streams {
    fn new(mut child: Child) -> io::Result<Self> {
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
    fn copy(&mut self, buffer: &mut [u8], log: &mut LogFile) -> bool {
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

    fn copy_all(&mut self, buffer: &mut [u8], log: &mut LogFile) {
        while self.copy(buffer, log) {}
    }
}

/// A stream that can be read whenever the signal has come in. Unlike a signal mask, the program does not inherit it.
fn signal_pipe(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write)?;
    Ok(read)
}

fn drain(pipe: &mut UnixStream) {
    let mut bytes = [0; 64];
    while pipe
        .read(&mut bytes)
        .is_ok_and(|count| count == bytes.len())
    {}
}

fn wait<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    wait_for_some(fds.map(Some), timeout)
}

/// Waits until one of these can be read or is closed; says which.
fn wait_for_some<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .flatten()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    let timeout = timeout.map_or(PollTimeout::NONE, |left| {
        // Rounded up, so that the loop does not turn without end within the last millisecond.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut results = polled.iter().map(|fd| fd.any().unwrap_or(false));
    Ok(fds.map(|fd| fd.is_some() && results.next().unwrap_or(false)))
}

#[expect(clippy::disallowed_methods, reason = "a grace period is real time")]
fn now() -> Instant {
    Instant::now()
}
