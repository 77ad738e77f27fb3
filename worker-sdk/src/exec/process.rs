//! One run of a program: its group, its output within bounds, and its end.

use std::ffi::OsStr;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;
use tokio_util::sync::CancellationToken;

use super::child::{Child, Exit, Launcher, Streams};
use super::output::{Output, Tail, TooMuch, Whole};

/// How long a program may take to end after SIGTERM, before SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// How long the output of a program that writes little is left in its pipes. Most programs that
/// end sooner need one wake-up of ours then, instead of three.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// What is to be run.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) arguments: Vec<String>,
    /// The file to run, where that is known; otherwise the first argument says it.
    pub(super) file: Option<&'a Path>,
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) stdin: Option<Vec<u8>>,
    /// Whether it is expected to write no more than a pipe takes.
    pub(super) quiet: bool,
}

/// How a run has ended.
pub(super) enum Ended {
    Exited {
        exit: Exit,
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

/// Tells whether a program is where `execvp` looks for it.
pub(super) fn is_there(program: &OsStr) -> bool {
    if program.as_bytes().contains(&b'/') {
        return runs(Path::new(program));
    }
    candidates(program).any(|path| runs(&path))
}

/// Looks a program up as `execvp` does, once instead of at every start.
pub(super) fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return None;
    }
    // A relative entry means another file once somebody changes the directory.
    candidates(program)
        .find(|path| runs(path))
        .filter(|path| path.is_absolute())
}

/// Returns where a program of this name may be, in the order of `PATH`.
fn candidates(program: &OsStr) -> impl Iterator<Item = PathBuf> {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let paths: Vec<PathBuf> = std::env::split_paths(&directories)
        .map(|directory| directory.join(program))
        .collect();
    paths.into_iter()
}

fn runs(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

impl Program<'_> {
    pub(super) async fn run(
        self,
        launcher: &Launcher,
        timeout: Option<Duration>,
        cancelled: &CancellationToken,
    ) -> Ended {
        let Running {
            mut child,
            stdin,
            quiet,
            stdout,
            stderr,
        } = match self.start(launcher) {
            Ok(running) => running,
            Err(error) => return Ended::NotStarted(error),
        };
        let limit = async {
            match timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = watch(&mut child, stdin, quiet, stdout, stderr) => {
                ended.unwrap_or(Ended::TooMuch)
            }
            () = limit => Ended::TooLong(timeout.unwrap_or_default()),
            () = cancelled.cancelled() => Ended::Cancelled,
        };
        if !matches!(ended, Ended::Exited { .. }) {
            end(&mut child).await;
        }
        ended
    }

    fn start(self, launcher: &Launcher) -> io::Result<Running> {
        let (stdout, stdout_writer) = Output::new()?;
        let (stderr, stderr_writer) = Output::new()?;
        let (stdin, stdin_reader) = match self.stdin {
            Some(bytes) => {
                let (reader, writer) = io::pipe()?;
                (Some((writer, bytes)), Some(reader))
            }
            None => (None, None),
        };
        let streams = Streams {
            stdin: stdin_reader.as_ref().map(AsFd::as_fd),
            stdout: stdout_writer.as_fd(),
            stderr: stderr_writer.as_fd(),
        };
        // Our copies of its ends of the pipes go at the end of this, so that the pipes can end.
        let child = launcher.start(self.file, &self.arguments, &self.environment, &streams)?;
        Ok(Running {
            child,
            stdin,
            quiet: self.quiet,
            stdout,
            stderr,
        })
    }
}

struct Running {
    child: Child,
    stdin: Option<(PipeWriter, Vec<u8>)>,
    quiet: bool,
    stdout: Output<Whole>,
    stderr: Output<Tail>,
}

/// Feeds and reads a program until it has exited and nobody is left who could write.
async fn watch(
    child: &mut Child,
    stdin: Option<(PipeWriter, Vec<u8>)>,
    quiet: bool,
    mut stdout: Output<Whole>,
    mut stderr: Output<Tail>,
) -> Result<Ended, TooMuch> {
    if quiet
        && stdin.is_none()
        && let Ok(status) = tokio::time::timeout(FIRST_LOOK, child.wait()).await
        // Both are read, also when the first has not ended.
        && stdout.read_ready()? & stderr.read_ready()?
    {
        return Ok(exited(status, stdout.into_kept(), stderr.into_kept()));
    }
    let feed = async {
        if let Some((pipe, bytes)) = stdin {
            // A program need not read what it is given.
            let _ = write(pipe.into(), &bytes).await;
        }
        Ok(())
    };
    let (stdout, stderr, ()) = tokio::try_join!(stdout.read_to_end(), stderr.read_to_end(), feed)?;
    Ok(exited(child.wait().await, stdout, stderr))
}

async fn write(pipe: OwnedFd, bytes: &[u8]) -> io::Result<()> {
    Sender::from_owned_fd(pipe)?.write_all(bytes).await
}

fn exited(exit: io::Result<Exit>, stdout: Whole, stderr: Tail) -> Ended {
    match exit {
        Ok(exit) => Ended::Exited {
            exit,
            stdout: stdout.0,
            stderr: stderr.into_bytes(),
        },
        Err(error) => Ended::NotStarted(error),
    }
}

/// Ends a program and what it has started: SIGTERM, and after a while SIGKILL.
async fn end(child: &mut Child) {
    child.signal(Signal::SIGTERM);
    if tokio::time::timeout(KILL_AFTER, child.wait())
        .await
        .is_err()
    {
        child.signal(Signal::SIGKILL);
        let _ = child.wait().await;
    }
}
