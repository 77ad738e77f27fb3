//! Progress on stderr: a bar on a terminal, now and then a line elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use gangline_worker::protocol::{Phase, QueueStatus};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::output;

/// How often a plain line is written.
const LINE_STEP: Duration = Duration::from_secs(5);

/// What a person sees while the job runs.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    line_at: Instant,
    line: String,
    watched: Watched,
}

/// Whose job it is that is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watched {
    /// The process's own, which reads the items; so many had ended before it began.
    Own {
        /// Items that had ended.
        ended_before: u64,
    },
    /// That of others, who may be away.
    Others,
}

impl Progress {
    pub(crate) fn start(watched: Watched) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            bar,
            line_at: Instant::now() + LINE_STEP,
            line: String::new(),
            watched,
        }
    }

    pub(crate) fn show(&mut self, status: &QueueStatus) {
        let counts = &status.counts;
        let ended = counts.total() - counts.left();
        let mut text = Vec::new();
        if let Some(rate) = status.rate {
            text.push(format!("{rate:.0}/s"));
        }
        if let Some(eta) = status.eta_ms {
            let eta = Duration::from_secs(eta.div_ceil(1_000));
            text.push(format!("{} left", humantime::format_duration(eta)));
        }
        text.push(format!("{} leased", counts.leased));
        for (count, what) in [(status.retried, "retried"), (counts.dead, "dead")] {
            if count > 0 {
                text.push(format!("{count} {what}"));
            }
        }
        match (self.watched, status.phase) {
            (Watched::Own { .. }, Phase::Open) => text.push("reading items".into()),
            (Watched::Others, Phase::Open) => text.push("not sealed".into()),
            _ => {}
        }
        if status.paused {
            text.push("paused".into());
        } else if status.sessions == 0 && counts.ready > 0 {
            text.push("no worker".into());
        }
        let text = text.join(", ");
        let is_news = match self.watched {
            Watched::Own { ended_before } => ended > ended_before,
            Watched::Others => true,
        };
        match &self.bar {
            Some(bar) => {
                bar.set_length(counts.total());
                bar.set_position(ended);
                bar.set_message(text);
            }
            None if Instant::now() >= self.line_at && is_news => {
                self.line_at = Instant::now() + LINE_STEP;
                let line = format!("{ended} of {} items, {text}", counts.total());
                if line != self.line {
                    output::note(&line);
                    self.line = line;
                }
            }
            None => {}
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
