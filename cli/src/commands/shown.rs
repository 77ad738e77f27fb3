//! How a queue is, after something was done to it: a sentence for people, all of it for programs.

use std::io::IsTerminal;

use clap::ValueEnum;
use gangline_worker::protocol::{Certificate, Phase, QueueName, QueueStatus};

use crate::error::Error;
use crate::output;

/// How to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct ShownArgs {
    /// How to write what came of it: text on a terminal, else json
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        help_heading = None::<&str>
    )]
    output: Option<Format>,
}

/// A sentence, or all that the service says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Yaml,
}

impl ShownArgs {
    /// Whether a format was asked for.
    pub(crate) const fn is_given(&self) -> bool {
        self.output.is_some()
    }

    /// Shows a queue.
    pub(crate) fn status(&self, status: &QueueStatus) -> Result<(), Error> {
        self.show(status, || state(status))
    }

    /// Shows how a queue has ended.
    pub(crate) fn certificate(&self, certificate: &Certificate) -> Result<(), Error> {
        self.show(certificate, || over(&certificate.queue, certificate))
    }

    fn show(
        &self,
        value: &impl serde::Serialize,
        sentence: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let is_read_by_people = std::io::stdout().is_terminal();
        let usual = if is_read_by_people {
            Format::Text
        } else {
            Format::Json
        };
        let text = match self.output.unwrap_or(usual) {
            Format::Text => sentence(),
            Format::Json => serde_json::to_string_pretty(value).map_err(Error::disk)?,
            Format::Yaml => output::yaml(value)?.trim_end().to_owned(),
        };
        output::line(text);
        Ok(())
    }
}

/// Returns so many items, in words.
pub(crate) fn items(count: u64) -> String {
    let items = if count == 1 { "item" } else { "items" };
    format!("{count} {items}")
}

/// Says how a queue is, and what is to be done next.
pub(crate) fn state(status: &QueueStatus) -> String {
    let (queue, counts) = (&status.queue, &status.counts);
    if let Some(certificate) = &status.certificate {
        return over(queue, certificate);
    }
    let parts: Vec<String> = [
        (counts.ready, "ready"),
        (counts.delayed, "delayed"),
        (counts.leased, "leased"),
        (counts.done, "done"),
        (counts.dead, "dead"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    let items = match parts.as_slice() {
        [] => "no items".to_owned(),
        parts => parts.join(", "),
    };
    let (phase, next) = match status.phase {
        Phase::Open => (
            "open",
            format!("when no more come, seal it: gangline seal {queue}"),
        ),
        Phase::Sealed | Phase::Drained | Phase::Stopped => {
            ("sealed", format!("to wait for it: gangline wait {queue}"))
        }
    };
    if status.paused {
        return format!(
            "{queue} is {phase} and paused: {items}; to go on: gangline resume {queue}"
        );
    }
    format!("{queue} is {phase}: {items}; {next}")
}

/// Says how a queue has ended.
pub(crate) fn over(queue: &QueueName, certificate: &Certificate) -> String {
    let counts = &certificate.counts;
    let phase = serde_json::to_value(certificate.phase).unwrap_or_default();
    format!(
        "{queue} is over: {}, {} done, {} dead, {} cancelled, {} abandoned",
        phase.as_str().unwrap_or_default(),
        counts.done,
        counts.dead,
        counts.cancelled,
        counts.abandoned
    )
}
