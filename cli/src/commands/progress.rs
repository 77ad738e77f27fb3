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
    ended_before: u64,
}

impl Progress {
    pub(crate) fn start(ended_before: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            bar,
            line_at: Instant::now() + LINE_STEP,
            ended_before,
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
        text.push(format!("{} in flight", counts.leased));
        for (count, what) in [(status.retried, "retried"), (counts.dead, "dead")] {
            if count > 0 {
                text.push(format!("{count} {what}"));
            }
        }
        if status.phase == Phase::Open {
            text.push("reading items".into());
        }
        let text = text.join(", ");
        match &self.bar {
            Some(bar) => {
                bar.set_length(counts.total());
                bar.set_position(ended);
                bar.set_message(text);
            }
            None if Instant::now() >= self.line_at && ended > self.ended_before => {
                self.line_at = Instant::now() + LINE_STEP;
                output::note(format_args!("{ended} of {} items, {text}", counts.total()));
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
