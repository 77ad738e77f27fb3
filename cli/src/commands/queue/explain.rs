//! `gangline explain`: why a queue is not over yet, a sentence a term.

use std::fmt::Write as _;

use clap::ValueEnum;
use gangline_worker::protocol::{Explanation, HeldItem, Term};

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
    format!(
        "#{}{key}: {} for {}, attempt {}{slow}",
        item.id,
        item.worker,
        span(item.held_ms),
        item.attempt
    )
}

fn span(ms: u64) -> humantime::FormattedDuration {
    // Nobody reads the milliseconds of a minute.
    let ms = if ms > 10_000 { ms - ms % 1_000 } else { ms };
    humantime::format_duration(std::time::Duration::from_millis(ms))
}
