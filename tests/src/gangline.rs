//! The binary itself, as a child process.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};

/// Returns a program of the workspace, which lies beside the directory of the test binaries.
#[must_use]
pub fn built(program: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let binary = target.join(program);
    assert!(
        binary.exists(),
        "build it first: cargo build --workspace --bins"
    );
    binary
}

/// Returns a command of the binary, without what the environment says of Gangline.
#[must_use]
pub fn gangline(arguments: &[&str]) -> Command {
    let mut command = Command::new(built("gangline"));
    command.args(arguments);
    for name in [
        "URL",
        "QUEUE",
        "TOKEN",
        "WORKER",
        "GRACE_SECONDS",
        "RUN_DIR",
        "LOG",
    ] {
        command.env_remove(format!("GANGLINE_{name}"));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What a command has left.
#[derive(Debug)]
pub struct Left {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Waits for a command's end.
pub async fn end_of(child: Child) -> Left {
    let output = child.wait_with_output().await.expect("its output");
    Left {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Runs a command to its end.
pub async fn run(command: &mut Command) -> Left {
    end_of(command.spawn().expect("to start")).await
}
