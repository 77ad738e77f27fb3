//! How a program is run for an item; the same for `run` and `work`.

use std::ffi::OsString;
use std::time::Duration;

use gangline_worker::exec::template::Template;
use gangline_worker::exec::{self, ExecOptions};

use crate::error::Error;

/// How a program is run for an item.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExecArgs {
    /// What stands for the item in the arguments, instead of {}
    #[arg(short = 'I', value_name = "MARK")]
    replace: Option<String>,
    /// Give the item on stdin instead of as an argument
    #[arg(long)]
    stdin: bool,
    /// Exit codes after which another attempt makes no sense
    #[arg(long, value_name = "CODES", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(1..=255))]
    dead_codes: Vec<i32>,
    /// How long one run of the program may take, as in 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    timeout: Option<Duration>,
    /// The program and its arguments. {} is the item, {.} without extension, {/} its base name,
    /// {//} its directory, {/.} base name without extension, {#} its number, {item.FIELD} a field
    /// of a JSON item; without any of them the item is the last argument
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err("must be more than 0".into()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

impl ExecArgs {
    pub(crate) fn options(&self) -> ExecOptions {
        ExecOptions {
            program: self.program.clone(),
            replace: self.replace.clone(),
            stdin: self.stdin,
            dead_codes: self.dead_codes.clone(),
            timeout: self.timeout,
        }
    }

    /// Returns the arguments that give a worker process the same options.
    pub(crate) fn as_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(replace) = &self.replace {
            arguments.extend(["-I".into(), replace.into()]);
        }
        if self.stdin {
            arguments.push("--stdin".into());
        }
        for code in &self.dead_codes {
            arguments.push(format!("--dead-codes={code}").into());
        }
        if let Some(timeout) = self.timeout {
            arguments.push(format!("--timeout={}ns", timeout.as_nanos()).into());
        }
        arguments.push("--".into());
        arguments.extend(self.program.iter().cloned());
        arguments
    }

    /// Checks before anything is started that the program is there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.program.is_empty() {
            return Err(Error::usage("no program was given to run for the items")
                .hint("it comes after --, as in: gangline run -a names.txt -- wc -l {}"));
        }
        Template::new(&self.program, self.replace.as_deref(), self.stdin).map_err(Error::usage)?;
        let program = &self.program[0];
        if program.to_string_lossy().contains('{') || exec::is_program(program) {
            return Ok(());
        }
        let text = format!("there is no program {} to run", program.display());
        Err(Error::usage(text).hint("give its path, or put its directory into PATH"))
    }
}
