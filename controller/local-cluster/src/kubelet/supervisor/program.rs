//! The program of a run: how it is found and started, and how its end is seen.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::{Reply, Request, Spec, mounts};

/// Starts the program in a process group of its own.
pub(super) fn start(spec: Spec) -> io::Result<Child> {
    if !spec.mounts.is_empty() {
        return start_behind_mounts(spec);
    }
    let mut command = command(&spec)?;
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map_err(|error| about(&spec, &error))
}

/// Has another process of this executable take on the view with the mounts and then become the program. This one stays where
/// it can write the log and see all processes.
fn start_behind_mounts(spec: Spec) -> io::Result<Child> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = serde_json::to_vec(&Request::Become(spec))?;
    line.push(b'\n');
    ours.write_all(&line)?;
    // The end of the stream says that the program has taken over.
    line.clear();
    BufReader::new(ours).read_until(b'\n', &mut line)?;
    match serde_json::from_slice(&line) {
        Ok(Reply::Ended(exit)) => {
            child.wait()?;
            Err(io::Error::other(exit.message.unwrap_or_default()))
        }
        _ => Ok(child),
    }
}

/// Becomes the program; returns why it cannot.
pub(super) fn become_program(spec: Spec) -> io::Error {
    let prepared = prctl::set_child_subreaper(false)
        .map_err(io::Error::from)
        .and_then(|()| match spec.mounts.as_slice() {
            [] => Ok(()),
            mounts => mounts::enter(mounts, &spec.stage),
        })
        .and_then(|()| command(&spec));
    match prepared {
        Ok(mut command) => about(&spec, &command.stdin(Stdio::null()).exec()),
        Err(error) => error,
    }
}

fn about(spec: &Spec, error: &io::Error) -> io::Error {
    let name = spec.argv.first().map_or("", String::as_str);
    io::Error::new(error.kind(), format!("exec {name:?}: {error}"))
}

/// The program by its absolute path, so that the cheap `posix_spawn` does.
fn command(spec: &Spec) -> io::Result<Command> {
    let mut argv = spec.argv.iter();
    let name = argv.next().map_or("", String::as_str);
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
    command.arg0(name).args(argv);
    if !spec.inherit {
        command
            .env_clear()
            .envs(own("HOME").map(|home| ("HOME", home)));
    }
    command
        .env("PATH", path)
        .envs(spec.env.iter().map(|(key, value)| (key, value)));
    if let Some(cwd) = &spec.cwd {
        if !cwd.is_dir() {
            let what = format!("workingDir {:?}: no such directory", cwd.display());
            return Err(io::Error::other(what));
        }
        command.current_dir(cwd);
    }
    Ok(command)
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Reaps all children that have ended; returns the exit code of the program if it is among them.
pub(super) fn reap(program: Pid) -> Option<i32> {
    let mut code = None;
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if !matches!(
        waitid(Id::Pid(program), look),
        Ok(WaitStatus::StillAlive) | Err(_)
    ) {
        // In one step for the whole group, which outruns one that forks without end. While its leader is not reaped, the
        // number is nobody else's.
        let _ = killpg(program, Signal::SIGKILL);
    }
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
