//! The program of a run: how it is found and started, and how its end is seen.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Spec;

/// Starts the program with an absolute path, so that the cheap `posix_spawn` does.
pub(super) fn start(spec: Spec) -> io::Result<Child> {
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

/// Reaps all children that have ended; returns the exit code of the program if it is among them.
pub(super) fn reap(program: Pid) -> Option<i32> {
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
