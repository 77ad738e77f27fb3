//! The binary itself, as a child process.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
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

/// Runs a command that reads this to its end.
pub async fn run_with_stdin(command: &mut Command, stdin: &[u8]) -> Left {
    let child = command.stdin(Stdio::piped()).spawn();
    let mut child = child.expect("to start");
    let mut pipe = child.stdin.take().expect("a pipe");
    let write = async move {
        // A command that refuses its arguments does not read.
        let _ = pipe.write_all(stdin).await;
    };
    // What it prints is read meanwhile: else neither would go on when both pipes are full.
    let (left, ()) = tokio::join!(end_of(child), write);
    left
}

/// Runs a command to its end.
pub async fn run(command: &mut Command) -> Left {
    end_of(command.spawn().expect("to start")).await
}

/// Returns every command that its help lists, as `push` and `token create`.
pub async fn commands() -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![String::new()];
    while let Some(name) = waiting.pop() {
        let mut command = gangline(&name.split_whitespace().collect::<Vec<_>>());
        let help = run(command.arg("--help")).await.stdout;
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let listed = listed.take_while(|line| !line.is_empty());
        let below: Vec<String> = listed
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
            .filter(|word| !word.is_empty() && *word != "help")
            .map(|word| format!("{name} {word}").trim().to_owned())
            .collect();
        if below.is_empty() {
            found.push(name);
        } else {
            waiting.extend(below.into_iter().rev());
        }
    }
    found
}
