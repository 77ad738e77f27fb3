//! A worker around any program: one run of it for each item.
//!
//! The program knows nothing of Gangline. Its item comes as an argument, or on stdin; its stdout
//! is the result; its exit code says how it went. Nothing goes through a shell.

mod child;
mod joblog;
mod output;
mod process;
pub mod shell;
pub mod template;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use futures::future::BoxFuture;
use gangline_protocol::Json;
use gangline_protocol::limits::{ERROR_BYTES_MAX, PAYLOAD_BYTES_MAX};
use serde_json::value::RawValue;

use crate::item::{HandlerError, Item};
use crate::worker::{End, Outcome, Worker};
use child::{Exit, Launcher};
use joblog::Entry;
pub use joblog::JobLog;
use process::{Ended, Program};
use template::Template;

/// How a program is run for an item.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// The program and its arguments, with placeholders.
    pub program: Vec<OsString>,
    /// What stands for the item instead of `{}`.
    pub replace: Option<String>,
    /// Gives the item on stdin instead of as an argument.
    pub stdin: bool,
    /// Exit codes after which another attempt makes no sense.
    pub dead_codes: Vec<i32>,
    /// How long one run may take.
    pub timeout: Option<Duration>,
    /// File that gets a line for each run, with the columns of GNU parallel's `--joblog`.
    pub joblog: Option<PathBuf>,
}

/// What tells a program which item it is run for.
const ITEM_ID: &str = "GANGLINE_ITEM_ID";
const ITEM_ATTEMPT: &str = "GANGLINE_ITEM_ATTEMPT";
const ITEM_KEY: &str = "GANGLINE_ITEM_KEY";
/// Where programs look for the trace that they are part of (OpenTelemetry, "Environment Variables
/// as Context Propagation Carriers").
const TRACEPARENT: &str = "TRACEPARENT";

/// Tells whether there is a program of this name or path to run, as `execvp` looks for it.
#[must_use]
pub fn is_program(name: &OsStr) -> bool {
    process::is_there(name)
}

/// Runs the program for one item after the other until the queue is over.
pub fn run(worker: Worker, options: ExecOptions) -> BoxFuture<'static, End> {
    Box::pin(work(worker, options))
}

async fn work(worker: Worker, options: ExecOptions) -> End {
    let template = match Template::new(&options.program, options.replace.as_deref(), options.stdin)
    {
        Ok(template) => template,
        Err(error) => return End::Misconfigured(error.to_string()),
    };
    // What the worker may do is not for the program, and not for what it prints.
    let hidden = ["GANGLINE_TOKEN", ITEM_ID, ITEM_ATTEMPT, ITEM_KEY];
    let launcher = match Launcher::new(&hidden) {
        Ok(launcher) => launcher,
        Err(error) => return End::Misconfigured(format!("cannot run programs: {error}")),
    };
    let joblog = match options.joblog.as_deref().map(JobLog::open).transpose() {
        Ok(joblog) => joblog,
        Err(error) => return End::Misconfigured(format!("cannot write the job log: {error}")),
    };
    let exec = Arc::new(Exec {
        launcher,
        joblog,
        file: process::find(&options.program[0]),
        quiet: AtomicBool::new(true),
        template,
        options,
    });
    worker
        .run_raw(Arc::new(move |item| {
            let exec = exec.clone();
            Box::pin(async move { exec.handle(item).await })
        }))
        .await
}

/// Output in bytes above which the next program is not expected to be quiet: half of what a pipe
/// takes.
const QUIET_BYTES: usize = 32 << 10;

struct Exec {
    launcher: Launcher,
    template: Template,
    options: ExecOptions,
    joblog: Option<JobLog>,
    /// Where the program is, if its name is the same for all items.
    file: Option<PathBuf>,
    /// Whether the last program wrote little.
    quiet: AtomicBool,
}

impl Exec {
    async fn handle(&self, item: Item<Json>) -> Outcome {
        let text = template::text_of(&item.payload);
        let arguments = self
            .template
            .fill(&text, &item.payload, item.id.0)
            .map_err(HandlerError::permanent)?;
        let stdin = self.options.stdin.then_some(&*text);
        let log = self.joblog.as_ref().map(|log| {
            let entry = Entry::start(item.id.0, &arguments, stdin);
            (log, entry)
        });
        // A name with placeholders may be another program for each item.
        let named = self.options.program[0].to_str() == Some(&arguments[0]);
        let mut environment = vec![
            (ITEM_ID, item.id.to_string()),
            (ITEM_ATTEMPT, item.attempt.to_string()),
            (
                ITEM_KEY,
                item.key.as_ref().map_or(String::new(), ToString::to_string),
            ),
        ];
        if let Some(trace) = &item.traceparent {
            environment.push((TRACEPARENT, trace.to_string()));
        }
        let program = Program {
            file: self.file.as_deref().filter(|_| named),
            arguments,
            quiet: self.quiet.load(Ordering::Relaxed),
            environment,
            stdin: stdin.map(|text| text.as_bytes().to_vec()),
        };
        let ended = program
            .run(&self.launcher, self.options.timeout, &item.cancellation())
            .await;
        if let Some((log, entry)) = log
            && let Err(error) = log.note(entry, &ended)
        {
            tracing::warn!(%error, "a run is missing in the job log");
        }
        if let Ended::Exited { stdout, stderr, .. } = &ended {
            // Of stderr only the end is kept: what nearly fills that may have been much more.
            let quiet = stdout.len() <= QUIET_BYTES && stderr.len() < ERROR_BYTES_MAX / 2;
            self.quiet.store(quiet, Ordering::Relaxed);
        }
        match ended {
            Ended::Exited {
                exit: Exit::Code(0),
                stdout,
                ..
            } => result_of(stdout),
            Ended::Exited {
                exit: exit @ Exit::Code(126 | 127),
                stderr,
                ..
            } => {
                // What sh, env and xargs answer when the program itself cannot be run.
                Err(HandlerError::fatal(describe(exit, &stderr)))
            }
            Ended::Exited { exit, stderr, .. } => {
                let text = describe(exit, &stderr);
                let is_dead = |code| self.options.dead_codes.contains(&code);
                if matches!(exit, Exit::Code(code) if is_dead(code)) {
                    Err(HandlerError::permanent(text))
                } else {
                    Err(text.into())
                }
            }
            Ended::TooLong(limit) => {
                Err(format!("the program ran longer than {} s", limit.as_secs_f64()).into())
            }
            Ended::TooMuch => Err(HandlerError::permanent(format!(
                "stdout must be at most {PAYLOAD_BYTES_MAX} bytes as JSON; write large results \
                 to a file and print its name"
            ))),
            Ended::Cancelled => Err("cancelled".into()),
            Ended::NotStarted(error) => {
                let program = self.options.program.first().cloned().unwrap_or_default();
                let text = format!("cannot run {}: {error}", program.display());
                Err(HandlerError::fatal(text))
            }
        }
    }
}

/// A text is the result as JSON string; other bytes as `{"base64": …}`.
fn result_of(stdout: Vec<u8>) -> Outcome {
    let json = match String::from_utf8(stdout) {
        Ok(text) => serde_json::to_string(&text),
        Err(error) => serde_json::to_string(&serde_json::json!({
            "base64": STANDARD.encode(error.as_bytes()),
        })),
    };
    let json = json.expect("strings can be written");
    if json.len() > PAYLOAD_BYTES_MAX {
        let bytes = json.len();
        let text = format!(
            "stdout must be at most {PAYLOAD_BYTES_MAX} bytes as JSON, got {bytes}; write large \
             results to a file and print its name"
        );
        return Err(HandlerError::permanent(text));
    }
    let value = RawValue::from_string(json).expect("it was written as JSON a line above");
    Ok(value.into())
}

/// Returns the bytes of a result that was no text, if it is one.
#[must_use]
pub fn bytes_of(result: &Json) -> Option<Vec<u8>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bytes {
        base64: String,
    }
    let Bytes { base64 } = serde_json::from_str(result.get()).ok()?;
    STANDARD.decode(base64).ok()
}

fn describe(exit: Exit, stderr: &[u8]) -> String {
    let end = String::from_utf8_lossy(stderr);
    let end = end.trim_end();
    let how = match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("killed by {signal}"),
    };
    if end.is_empty() {
        how
    } else {
        format!("{how}: {end}")
    }
}
