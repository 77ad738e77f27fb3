//! A command beside a container, with its environment and its view of the file system: for hooks and probes.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::supervisor::{Reply, Request, Spec};

/// Ends all of a command that nobody waits for any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs the command to its end; an error says why that was no success. `supervisor` is how a supervisor is started.
pub(super) async fn exec(
    supervisor: &[String],
    spec: Spec,
    allowed: Duration,
) -> Result<(), String> {
    let name = spec.argv.join(" ");
    let ran = tokio::time::timeout(allowed, run(supervisor, spec)).await;
    match ran {
        Err(_) => Err(format!("command {name:?} timed out after {allowed:?}")),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(None)) => Err(format!("command {name:?} was ended by a signal")),
        Ok(Ok(Some(0))) => Ok(()),
        Ok(Ok(Some(code))) => Err(format!("command {name:?} exited with {code}")),
    }
}

async fn run(supervisor: &[String], spec: Spec) -> io::Result<Option<i32>> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = start(supervisor, theirs)?;
    // Dropped first if this is given up: the group must be killed before its leader is waited for.
    let mut group = Group(
        child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw),
    );
    let mut stream = BufReader::new(UnixStream::from_std(ours)?);
    let mut line = serde_json::to_vec(&Request::Become(spec))?;
    line.push(b'\n');
    stream.get_mut().write_all(&line).await?;
    line.clear();
    // The end of the stream says that the command has taken over.
    stream.read_until(b'\n', &mut line).await?;
    if let Ok(Reply::Ended(exit)) = serde_json::from_slice(&line) {
        return Err(io::Error::other(exit.message.unwrap_or_default()));
    }
    let status = child.wait().await?;
    // What it has left running is its own affair; its process group may be another's by now.
    group.0 = None;
    Ok(status.code())
}

fn start(supervisor: &[String], stdin: std::os::unix::net::UnixStream) -> io::Result<Child> {
    let (program, args) = supervisor
        .split_first()
        .ok_or(io::ErrorKind::InvalidInput)?;
    Command::new(program)
        .args(args)
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
