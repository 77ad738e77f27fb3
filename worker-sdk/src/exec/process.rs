//! One run of a program: its group, its output within bounds, and its end.

use std::io::{self, Write};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use gangline_protocol::limits::{ERROR_BYTES_MAX, PAYLOAD_BYTES_MAX};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How long a program may take to end after SIGTERM, before SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// What is to be run.
pub(super) struct Program {
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) stdin: Option<Vec<u8>>,
}

/// How a run has ended.
pub(super) enum Ended {
    Exited {
        /// None when a signal ended it.
        code: Option<i32>,
        stdout: Vec<u8>,
        /// The end of it.
        stderr: Vec<u8>,
    },
    /// It took longer than allowed, and was ended.
    TooLong(Duration),
    /// It wrote more than a result may have, and was ended.
    TooMuch,
    /// Its result is wanted no more, and it was ended.
    Cancelled,
    /// It does not exist, or may not be run.
    NotStarted(io::Error),
}

impl Program {
    pub(super) async fn run(
        self,
        timeout: Option<Duration>,
        cancelled: &CancellationToken,
    ) -> Ended {
        let mut command = Command::new(&self.arguments[0]);
        command
            .args(&self.arguments[1..])
            .envs(self.environment)
            .stdin(if self.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that what it has started ends with it.
            .process_group(0);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Ended::NotStarted(error),
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let limit = async {
            match timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = watch(&mut child, self.stdin) => ended,
            () = limit => Some(Ended::TooLong(timeout.unwrap_or_default())),
            () = cancelled.cancelled() => Some(Ended::Cancelled),
        };
        match ended {
            Some(ended @ Ended::Exited { .. }) => ended,
            Some(ended) => {
                end(&mut child, group).await;
                ended
            }
            None => {
                end(&mut child, group).await;
                Ended::TooMuch
            }
        }
    }
}

/// Feeds and reads a program until it has exited; nothing when it writes too much.
async fn watch(child: &mut Child, stdin: Option<Vec<u8>>) -> Option<Ended> {
    let (mut input, output, errors) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let (Some(pipe), Some(bytes)) = (&mut input, stdin) {
            // A program need not read what it is given.
            let _ = pipe.write_all(&bytes).await;
        }
        drop(input);
    };
    let (stdout, stderr, ()) = tokio::join!(whole(output), tail(errors), feed);
    let stdout = stdout?;
    let status = child.wait().await.map(|status: ExitStatus| status.code());
    Some(match status {
        Ok(code) => Ended::Exited {
            code,
            stdout,
            stderr,
        },
        Err(error) => Ended::NotStarted(error),
    })
}

/// Reads everything; nothing when it is more than a result may have.
async fn whole(pipe: Option<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let most = PAYLOAD_BYTES_MAX as u64 + 1;
        // A pipe that breaks has ended; what came before counts.
        let _ = pipe.take(most).read_to_end(&mut bytes).await;
    }
    (bytes.len() <= PAYLOAD_BYTES_MAX).then_some(bytes)
}

/// Reads everything and keeps the end, which usually says what went wrong. What is read goes to
/// our own stderr, too.
async fn tail(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else {
        return kept;
    };
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        // Nobody may read our stderr; the program's end is kept all the same.
        let _ = io::stderr().write_all(&chunk[..count]);
        kept.extend_from_slice(&chunk[..count]);
        if kept.len() > 2 * ERROR_BYTES_MAX {
            kept.drain(..kept.len() - ERROR_BYTES_MAX);
        }
    }
    kept.drain(..kept.len().saturating_sub(ERROR_BYTES_MAX - 64));
    kept
}

/// Ends a program and what it has started: SIGTERM, and after a while SIGKILL.
async fn end(child: &mut Child, group: Option<i32>) {
    let Some(group) = group.map(Pid::from_raw) else {
        return;
    };
    // A group that is gone needs no signal.
    let _ = killpg(group, Signal::SIGTERM);
    if tokio::time::timeout(KILL_AFTER, child.wait())
        .await
        .is_err()
    {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait().await;
    }
}
