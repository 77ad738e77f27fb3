//! The worker processes of a run: started, replaced when lost, ended with the run.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use gangline_worker::Client;
use gangline_worker::protocol::{QueueName, WorkerName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::commands::exec::ExecArgs;
use crate::error::{Error, Kind};
use crate::output;

/// How long a worker may take to leave once it is told to go.
const GRACE_SECONDS: u64 = 5;

/// A run whose workers are lost so often within [`LOST_SPAN`] does not get better by itself.
const LOST_MAX: usize = 20;
const LOST_SPAN: Duration = Duration::from_secs(10);

struct Exited {
    name: WorkerName,
    jobs: usize,
    status: std::io::Result<ExitStatus>,
}

/// The worker processes of a run.
pub(super) struct Workers {
    client: Client,
    queue: QueueName,
    token: String,
    arguments: Vec<OsString>,
    /// Jobs of the workers that are still to be started.
    to_start: Vec<usize>,
    started: u64,
    pids: Vec<(WorkerName, Pid)>,
    running: FuturesUnordered<JoinHandle<Exited>>,
    /// One that has gone, until everything that follows from it is done.
    gone: Option<Exited>,
    lost: VecDeque<Instant>,
}

impl Workers {
    pub(super) fn new(
        client: &Client,
        queue: &QueueName,
        token: &str,
        attempts: u16,
        exec: &ExecArgs,
        per_worker: Vec<usize>,
    ) -> Self {
        let mut arguments = vec![format!("--attempts={attempts}").into()];
        arguments.extend(exec.as_arguments());
        Self {
            client: client.clone(),
            queue: queue.clone(),
            token: token.to_owned(),
            arguments,
            to_start: per_worker,
            started: 0,
            pids: Vec::new(),
            running: FuturesUnordered::new(),
            gone: None,
            lost: VecDeque::new(),
        }
    }

    /// Starts what is missing, waits until a worker has gone before the end, and makes its items
    /// somebody else's. A wait that is broken off goes on at the next call.
    pub(super) async fn lost(&mut self) -> Result<(), Error> {
        for jobs in std::mem::take(&mut self.to_start) {
            self.start(jobs)?;
        }
        if self.gone.is_none() {
            let Some(exited) = self.running.next().await else {
                return std::future::pending().await;
            };
            self.gone = Some(exited.map_err(Error::disk)?);
        }
        let Some(Exited { name, jobs, status }) = &self.gone else {
            return Ok(());
        };
        self.pids.retain(|(running, _)| running != name);
        let status = status
            .as_ref()
            .map_err(|error| Error::disk(format!("worker {name}: {error}")))?;
        match status.code() {
            // The queue is over, as everybody will see.
            Some(0 | 70) => {
                self.gone = None;
                return Ok(());
            }
            Some(code @ (2 | 77)) => {
                let text = format!("worker {name} could not start: exit code {code}");
                return Err(Error::new(Kind::Failed, text));
            }
            Some(_) | None => {}
        }
        self.client.revoke(&self.queue, name, true).await?;
        output::note(format_args!(
            "gangline: worker {name} was lost ({status}); starting another"
        ));
        let jobs = *jobs;
        self.gone = None;
        let now = Instant::now();
        self.lost.push_back(now);
        while self.lost.front().is_some_and(|at| now - *at > LOST_SPAN) {
            self.lost.pop_front();
        }
        if self.lost.len() > LOST_MAX {
            let text = format!("{LOST_MAX} workers were lost within {LOST_SPAN:?}; giving up");
            return Err(Error::new(Kind::Failed, text));
        }
        self.to_start.push(jobs);
        Ok(())
    }

    fn start(&mut self, jobs: usize) -> Result<(), Error> {
        self.started += 1;
        // A revoked name gets no new session for a while, so each process has a name of its own,
        // in a resumed run, too.
        let name = format!("worker-{}.{}", self.started, std::process::id());
        let name: WorkerName = name.parse().map_err(Error::usage)?;
        let cannot = |error: std::io::Error| Error::disk(format!("cannot start a worker: {error}"));
        let mut child = Command::new(std::env::current_exe().map_err(cannot)?)
            .arg("work")
            .arg(format!("--jobs={jobs}"))
            .arg(format!("--parent={}", std::process::id()))
            .args(&self.arguments)
            .env("GANGLINE_URL", self.client.url())
            .env("GANGLINE_QUEUE", self.queue.full())
            .env("GANGLINE_TOKEN", &self.token)
            .env("GANGLINE_WORKER", name.as_str())
            .env("GANGLINE_GRACE_SECONDS", GRACE_SECONDS.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
            self.pids.push((name.clone(), Pid::from_raw(pid)));
        }
        self.running.push(tokio::spawn(async move {
            let status = Child::wait(&mut child).await;
            Exited { name, jobs, status }
        }));
        Ok(())
    }

    /// Waits until all have gone; unless the queue is over, they are told to.
    pub(super) async fn end(&mut self, over: bool) {
        if !over {
            self.signal(Signal::SIGTERM);
        }
        let gone = async { while self.running.next().await.is_some() {} };
        let wait = Duration::from_secs(GRACE_SECONDS + 1);
        if tokio::time::timeout(wait, gone).await.is_err() {
            self.signal(Signal::SIGKILL);
        }
    }

    fn signal(&self, signal: Signal) {
        for (name, pid) in &self.pids {
            if let Err(error) = kill(*pid, signal) {
                output::note(format_args!(
                    "gangline: cannot signal worker {name}: {error}"
                ));
            }
        }
    }
}
