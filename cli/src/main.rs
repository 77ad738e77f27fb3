//! Gangline: a work queue for parallel workers. Every role is a subcommand of this binary.

mod commands;
mod error;
#[cfg(test)]
mod examples;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod private;
#[cfg(test)]
mod reference;
mod signals;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use commands::Command;

/// Process N things with many workers until all of it is done
#[derive(Debug, Parser)]
#[command(name = "gangline", version, max_term_width = 100, after_help = commands::EXAMPLES)]
struct Args {
    /// What to log, on stderr: a level, or directives as in `info,gangline_server=debug`
    #[arg(
        long,
        global = true,
        env = "GANGLINE_LOG",
        default_value = "warn",
        display_order = 900
    )]
    log: String,
    /// How to write it: for people, or as one object of JSON a line
    #[arg(
        long,
        global = true,
        env = "GANGLINE_LOG_FORMAT",
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        display_order = 901
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

/// How log lines look. Its values have no help of their own, which would make that of every
/// command twice as long.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    // Not a command: it has no arguments and must cost nothing, since Pods wait for it.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|role| role == commands::SUPERVISE)
    {
        return gangline_local_cluster::kubelet::supervisor::main();
    }
    let Args {
        log,
        log_format,
        command,
    } = Args::parse();
    // What it returns goes on as long as the command runs.
    let ended = start_logging(&log, log_format).and_then(|_logging| command.run());
    match ended {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            error.exit_code()
        }
    }
}

/// What logging needs beside the subscriber, until the end.
#[cfg(feature = "otlp")]
type Logging = Option<otlp::Exporting>;
#[cfg(not(feature = "otlp"))]
type Logging = ();

fn start_logging(directives: &str, format: LogFormat) -> Result<Logging, error::Error> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(directives)
        .map_err(|error| {
            error::Error::usage(format!("--log {directives:?}: {error}"))
                .hint("a level, as in info, or directives, as in info,gangline_server=debug")
        })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    {
        let (spans, exporting) = otlp::layer()?.unzip();
        subscriber.with(spans).init();
        Ok(exporting)
    }
    #[cfg(not(feature = "otlp"))]
    {
        subscriber.init();
        Ok(())
    }
}
