//! The process that owns one run of one container and outlives the server.
//!
//! It reads `spec.json` in its directory, runs the program in a process group of its own, writes its output to `log` and
//! its end to `exit.json`. It knows nothing of Pods or of the API: what the end means is the kubelet's to say.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

/// A log line is cut into partial lines of at most this many bytes, as CRI runtimes do.
const LINE_MAX: u64 = 16 * 1024;

/// What to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Environment, besides `PATH` and whatever else `inherit` lets through.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Whether the program sees the whole environment of the server.
    pub inherit: bool,
    /// Bytes of log that are kept; what comes after is dropped.
    pub log_max: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 plus the signal for a program that a signal ended.
    pub code: i32,
    /// Kubernetes' reason when it is not simply `Completed` or `Error`.
    pub reason: Option<String>,
    /// What went wrong, for people.
    pub message: Option<String>,
    /// When the program started.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// Which process supervises: a pid alone may be another process after a reboot or a wrap of the pid space.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start: u64,
    /// The kernel's boot id.
    pub boot: String,
}

impl Identity {
    /// The identity of a living process.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let (_, state, start) = stat(pid)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        (state != "Z").then(|| Self {
            pid,
            start,
            boot: boot.trim().to_owned(),
        })
    }

    /// Whether that very process still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// Writes a file so that a crash leaves the old one or the new one.
pub(super) fn write_durably<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent()
        .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Runs the supervisor; the one argument is the directory of the run.
#[must_use]
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(dir) = args.next().map(PathBuf::from) else {
        return ExitCode::from(2);
    };
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(supervise(&dir)));
    if done.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn supervise(dir: &Path) -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    write_durably(&dir.join("supervisor.json"), &Identity::of(own))?;
    let spec: Spec = serde_json::from_slice(&fs::read(dir.join("spec.json"))?)?;
    let log = Arc::new(Mutex::new(Log {
        file: File::create(dir.join("log"))?,
        left: spec.log_max,
    }));
    let started = Timestamp::now();
    let end = |code, reason: Option<&str>, message| Exit {
        code,
        reason: reason.map(str::to_owned),
        message,
        started,
        finished: Timestamp::now(),
    };
    let mut command = tokio::process::Command::new(spec.argv.first().map_or("", String::as_str));
    command.args(spec.argv.iter().skip(1)).process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !spec.inherit {
        command.env_clear().env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
    }
    command.envs(spec.env);
    if let Some(cwd) = spec.cwd {
        command.current_dir(cwd);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            };
            return write_durably(
                &dir.join("exit.json"),
                &end(
                    code,
                    Some("StartError"),
                    Some(format!("{}: {error}", spec.argv.join(" "))),
                ),
            );
        }
    };
    let group = Pid::from_raw(
        child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .unwrap_or(0),
    );
    // Should this process be killed, the kubelet ends the program by its group.
    if let Some(program) = Identity::of(group.as_raw()) {
        write_durably(&dir.join("program.json"), &program)?;
    }
    let out = child
        .stdout
        .take()
        .map(|pipe| tokio::spawn(copy(pipe, "stdout", Arc::clone(&log))));
    let err = child
        .stderr
        .take()
        .map(|pipe| tokio::spawn(copy(pipe, "stderr", Arc::clone(&log))));
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = terminate.recv() => {
            let grace = fs::read_to_string(dir.join("grace")).ok().and_then(|s| s.parse().ok()).unwrap_or(30);
            let _ = killpg(group, Signal::SIGTERM);
            if let Ok(status) = tokio::time::timeout(Duration::from_secs(grace), child.wait()).await {
                status?
            } else {
                let _ = killpg(group, Signal::SIGKILL);
                child.wait().await?
            }
        }
    };
    kill_descendants(own);
    for copier in [out, err].into_iter().flatten() {
        let _ = copier.await;
    }
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(9));
    write_durably(&dir.join("exit.json"), &end(code, None, None))
}

/// Parent, state and start time of a process.
fn stat(pid: i32) -> Option<(i32, String, u64)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses: fields count from the last one.
    let fields: Vec<&str> = line.get(line.rfind(')')? + 2..)?.split(' ').collect();
    Some((
        fields.get(1)?.parse().ok()?,
        (*fields.first()?).to_owned(),
        fields.get(19)?.parse().ok()?,
    ))
}

/// Kills all that descends from `own` until nothing is left, also what has left its process group or session.
fn kill_descendants(own: i32) {
    loop {
        let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?.0)))
            .collect();
        let mut family = HashSet::from([own]);
        loop {
            let before = family.len();
            for &(pid, parent) in &parents {
                if family.contains(&parent) {
                    family.insert(pid);
                }
            }
            if family.len() == before {
                break;
            }
        }
        family.remove(&own);
        for pid in family {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // As a subreaper this process inherits every orphan, so that no child means no descendant.
        if waitpid(None, None).is_err() {
            return;
        }
    }
}

struct Log {
    file: File,
    left: u64,
}

async fn copy(pipe: impl AsyncRead + Unpin, stream: &str, log: Arc<Mutex<Log>>) -> io::Result<()> {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut pipe)
            .take(LINE_MAX)
            .read_until(b'\n', &mut line)
            .await?
            == 0
        {
            return Ok(());
        }
        let tag = if line.pop_if(|last| *last == b'\n').is_some() {
            "F"
        } else {
            "P"
        };
        let mut record = format!("{:.9} {stream} {tag} ", Timestamp::now()).into_bytes();
        record.extend_from_slice(&line);
        record.push(b'\n');
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        // A full log still drains the pipe: the program must not block on it.
        if let Some(left) = log.left.checked_sub(record.len() as u64) {
            log.left = left;
            log.file.write_all(&record)?;
        }
    }
}
