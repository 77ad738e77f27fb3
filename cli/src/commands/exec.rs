//! How a program is run for an item; the same for `run` and `work`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use gangline_worker::exec::template::Template;
use gangline_worker::exec::{self, ExecOptions, JobLog};

use crate::error::Error;

/// How a program is run for an item.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Program")]
pub(crate) struct ExecArgs {
    /// What stands for the item in the arguments, instead of {}
    #[arg(short = 'I', value_name = "MARK", env = "GANGLINE_REPLACE")]
    replace: Option<String>,
    /// Give the item on stdin instead of as an argument
    #[arg(long, env = "GANGLINE_STDIN")]
    stdin: bool,
    /// Exit codes after which another attempt makes no sense
    #[arg(long, value_name = "CODES", value_delimiter = ',', env = "GANGLINE_DEAD_CODES", value_parser = clap::value_parser!(i32).range(1..=255))]
    dead_codes: Vec<i32>,
    /// How long one run of the program may take, as in 90s or 5m
    #[arg(long, value_name = "TIME", env = "GANGLINE_TIMEOUT", value_parser = positive_duration)]
    timeout: Option<Duration>,
    /// File that gets a line for each run of the program, with the columns of GNU parallel:
    /// Seq Host Starttime JobRuntime Send Receive Exitval Signal Command
    #[arg(long, value_name = "FILE")]
    joblog: Option<PathBuf>,
    /// The program and its arguments. {} is the item, {.} without extension, {/} its base name,
    /// {//} its directory, {/.} base name without extension, {#} its number, {item.FIELD} a field
    /// of a JSON item; without any of them the item is the last argument
    #[arg(last = true, value_name = "PROGRAM", help_heading = None::<&str>)]
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
            joblog: self.joblog.clone(),
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

    /// Returns the variables that give a worker in another place the same options.
    pub(crate) fn as_environment(&self) -> Vec<(&'static str, String)> {
        let Self {
            replace,
            stdin,
            dead_codes,
            timeout,
            // A file of this machine, and the program, which a Job names itself.
            joblog: _,
            program: _,
        } = self;
        let codes: Vec<String> = dead_codes.iter().map(ToString::to_string).collect();
        let variables = [
            ("GANGLINE_REPLACE", replace.clone()),
            ("GANGLINE_STDIN", stdin.then(|| "true".into())),
            (
                "GANGLINE_DEAD_CODES",
                (!codes.is_empty()).then(|| codes.join(",")),
            ),
            (
                "GANGLINE_TIMEOUT",
                timeout.map(|time| humantime::format_duration(time).to_string()),
            ),
        ];
        let given = |(name, value): (_, Option<String>)| Some((name, value?));
        variables.into_iter().filter_map(given).collect()
    }

    /// Returns the program and its arguments.
    pub(crate) fn program_as_text(&self) -> Result<Vec<String>, Error> {
        let text = |word: &OsString| {
            word.to_str().map(str::to_owned).ok_or_else(|| {
                Error::usage(format!("the argument {} is not UTF-8", word.display()))
            })
        };
        self.program.iter().map(text).collect()
    }

    /// Returns the file for a line a run, as it is called from everywhere.
    pub(crate) fn joblog(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.joblog else {
            return Ok(None);
        };
        let path = std::path::absolute(path).map_err(Error::usage)?;
        match path.into_os_string().into_string() {
            Ok(path) => Ok(Some(path)),
            Err(path) => Err(Error::usage(format!(
                "--joblog {} is not UTF-8",
                path.display()
            ))),
        }
    }

    /// Begins the file for a line a run; one of a run that is gone on with is kept.
    pub(crate) fn begin_joblog(&self, resumes: bool) -> Result<(), Error> {
        let Some(path) = self.joblog()? else {
            return Ok(());
        };
        let opened = if resumes {
            JobLog::open(path.as_ref())
        } else {
            JobLog::create(path.as_ref())
        };
        opened.map(drop).map_err(|error| {
            Error::usage(format!("cannot write the job log {path}: {error}"))
                .hint("--joblog names a file in a directory that is there")
        })
    }

    /// Tells whether the item goes to stdin.
    pub(crate) fn is_stdin(&self) -> bool {
        self.stdin
    }

    /// Finds the placeholders in the program's arguments.
    pub(crate) fn template(&self) -> Result<Template, Error> {
        if self.program.is_empty() {
            return Err(Error::usage("no program was given to run for the items")
                .hint("it comes after --, as in: gangline run -a names.txt -- wc -l {}"));
        }
        Template::new(&self.program, self.replace.as_deref(), self.stdin).map_err(Error::usage)
    }

    /// Checks before anything is started that the program is there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.template()?;
        let program = &self.program[0];
        if program.to_string_lossy().contains('{') || exec::is_program(program) {
            return Ok(());
        }
        let text = format!("there is no program {} to run", program.display());
        Err(Error::usage(text).hint("give its path, or put its directory into PATH"))
    }
}
