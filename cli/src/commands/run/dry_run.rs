//! `gangline run --dry-run`: what would run, without running it.

use std::process::ExitCode;

use clap::ValueEnum;
use gangline_worker::exec::shell;
use gangline_worker::exec::template::text_of;

use crate::commands::exec::ExecArgs;
use crate::commands::input::InputArgs;
use crate::error::Error;
use crate::output;

/// What to print instead of running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DryRun {
    /// The commands, one a line
    Commands,
    /// A Job for a Kubernetes cluster
    Client,
}

/// Prints the command of each item as a line for a shell.
pub(super) fn print_commands(exec: &ExecArgs, input: InputArgs) -> Result<ExitCode, Error> {
    let template = exec.template()?;
    let mut all_good = true;
    // A run numbers its items from 1.
    for (number, item) in (1..).zip(input.open()?) {
        let payload = item?.payload;
        let text = text_of(&payload);
        let line = match template.fill(&text, &payload, number) {
            Ok(words) => shell::line(words),
            // A run goes on without it, too.
            Err(error) => {
                output::note(format_args!(
                    "gangline: item {number} would be dead: {error}"
                ));
                all_good = false;
                continue;
            }
        };
        let line = if exec.is_stdin() {
            format!("printf %s {} | {line}\n", shell::quote(&text))
        } else {
            line + "\n"
        };
        output::data(line.as_bytes()).map_err(|error| Error::disk(format!("stdout: {error}")))?;
    }
    Ok(ExitCode::from(u8::from(!all_good)))
}
