//! `gangline explain`: why a queue is not over yet, a sentence a term.

use std::fmt::Write as _;

use clap::ValueEnum;
use gangline_worker::protocol::{Explanation, HeldItem, Progress, Term};

use super::{Target, examples, show};
use crate::commands::shown::over;
use crate::error::Error;
use crate::output;

/// Arguments of `gangline explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::EXPLAIN)]
pub(crate) struct Args {
    /// How to write it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Sentences
    Text,
    /// All that the service says
    Json,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), Error> {
        let Self {
            target,
            output: format,
        } = self;
        let (client, queue) = target.open()?;
        let explanation = client.explain(&queue).await?;
        match format {
            Format::Json => show(&explanation)?,
            Format::Text => output::line(sentences(&explanation)),
        }
        Ok(())
    }
}

fn sentences(explanation: &Explanation) -> String {
    let Explanation { queue, terms, .. } = explanation;
    if let Some(certificate) = &explanation.certificate {
        return over(queue, certificate);
    }
    let mut text = format!("{queue} is not over:");
    for term in terms {
        add(&mut text, term);
    }
    text
}

fn add(text: &mut String, term: &Term) {
    let _ = write!(text, "\n- {}", term.text);
    if let Some(typical_ms) = term.typical_ms {
        let _ = write!(
            text,
            "; half of those done took less than {}",
            span(typical_ms)
        );
    }
    for item in &term.oldest {
        let _ = write!(text, "\n    {}", held(item));
    }
    if term.more > 0 {
        let _ = write!(text, "\n    and {} more", term.more);
        if let Some(looked) = term.looked {
            let _ = write!(text, "; only {looked} of them were looked at");
        }
    }
    if let Some(command) = &term.command {
        let _ = write!(text, "\n    {command}");
    }
}

fn held(item: &HeldItem) -> String {
    let key = item
        .key
        .as_ref()
        .map_or(String::new(), |key| format!(" {key}"));
    let slow = if item.slow { ", unusually long" } else { "" };
    let progress = item
        .progress
        .as_ref()
        .map_or(String::new(), |progress| format!(", {}", so_far(progress)));
    format!(
        "#{}{key}: {} for {}, attempt {}{slow}{progress}",
        item.id,
        item.worker,
        span(item.held_ms),
        item.attempt
    )
}

/// Returns how far a worker is, on one line.
pub(crate) fn so_far(progress: &Progress) -> String {
    // Rounded down: 100 % means all of it.
    let percent = |fraction: f64| format!("{} %", (fraction * 100.0).floor());
    let text = progress.text.as_deref();
    let text = text.map(|text| text.replace(|letter: char| letter.is_control(), " "));
    let parts = progress.fraction.map(percent).into_iter().chain(text);
    parts.collect::<Vec<_>>().join(" ")
}

fn span(ms: u64) -> humantime::FormattedDuration {
    // Nobody reads the milliseconds of a minute.
    let ms = if ms > 10_000 { ms - ms % 1_000 } else { ms };
    humantime::format_duration(std::time::Duration::from_millis(ms))
}
