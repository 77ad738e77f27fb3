//! Why a queue is not over yet: what both stores know of it, put into terms and sentences.

use std::collections::BinaryHeap;

use gangline_protocol::limits::{EXPLAIN_LEASES_LOOKED_MAX, EXPLAIN_LEASES_MAX};
use gangline_protocol::{
    Explanation, HeldBack, HeldItem, ItemId, LeaseNumber, QueueStatus, Term, TermKind, Timestamp,
};

use super::state::Queue;

/// A held item is called slow when it takes this many times the usual, ...
const SLOW_TIMES: u64 = 10;

/// ... and longer than this, in milliseconds: below it nobody waits for it.
const SLOW_MS: u64 = 2_000;

/// How long items took: how many of them needed so many binary digits for their milliseconds.
///
/// Enough to name the usual time to a factor of two, at no cost that grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Took(Vec<u64>);

impl Took {
    /// The last row takes all that is longer: beyond 24 days.
    pub(crate) const ROWS: usize = 32;

    pub(super) fn note(&mut self, ms: u64) {
        let row = ((u64::BITS - ms.leading_zeros()) as usize).min(Self::ROWS - 1);
        if self.0.len() <= row {
            self.0.resize(row + 1, 0);
        }
        self.0[row] += 1;
    }

    #[cfg(test)]
    pub(super) fn of(ms: u64) -> Self {
        let mut took = Self::default();
        took.note(ms);
        took
    }

    pub(crate) fn of_rows(rows: Vec<u64>) -> Self {
        Self(rows)
    }

    /// Returns the time that half of the items did not need, rounded up to a power of two.
    pub(crate) fn typical_ms(&self) -> Option<u64> {
        let all: u64 = self.0.iter().sum();
        let mut below = 0;
        let half = |count: &u64| {
            below += count;
            below * 2 >= all
        };
        let row = self.0.iter().position(half)?;
        Some(1 << row)
    }
}

/// What stands behind the terms.
#[derive(Debug)]
pub(crate) struct Grounds {
    pub(crate) status: QueueStatus,
    pub(crate) next_due_ms: Option<u64>,
    pub(crate) took: Took,
    /// All that is ready waits for an attempt alone.
    pub(crate) only_alone: bool,
    /// Bytes of all results.
    pub(crate) results_bytes: u64,
    /// Those held longest, the longest first; how long is told by [`Grounds::explain`].
    pub(crate) oldest: Vec<HeldItem>,
}

impl Queue {
    pub(super) fn grounds(&self) -> Grounds {
        // The younger ones leave the heap first.
        let mut oldest = BinaryHeap::new();
        let held = self
            .sessions
            .by_worker()
            .flat_map(|(_, session)| session.holds.iter())
            .take(EXPLAIN_LEASES_LOOKED_MAX);
        for id in held {
            let since = self.items.live(*id).and_then(|item| item.extra.as_ref());
            oldest.push((since.map_or(0, |extra| extra.leased_ms), *id));
            if oldest.len() > EXPLAIN_LEASES_MAX {
                oldest.pop();
            }
        }
        let oldest = oldest.into_sorted_vec().into_iter();
        Grounds {
            status: self.status(),
            next_due_ms: self.delayed.first().map(|(due_ms, _)| *due_ms),
            took: self.took.clone(),
            only_alone: self.lanes.has_only_alone(),
            results_bytes: self.results_bytes,
            oldest: oldest.filter_map(|(_, id)| self.held_item(id)).collect(),
        }
    }

    fn held_item(&self, id: ItemId) -> Option<HeldItem> {
        let extra = self.items.live(id)?.extra.as_ref()?;
        let holder = extra.holder?;
        Some(HeldItem {
            id,
            key: self.items.key(id).cloned(),
            lease: LeaseNumber(extra.lease),
            attempt: extra.attempt,
            session: holder.session,
            worker: self.sessions.get(holder.session)?.worker.clone(),
            since: Timestamp(extra.leased_ms),
            held_ms: 0,
            progress: self.progress.get(&id).cloned(),
            slow: false,
        })
    }
}

impl Grounds {
    /// Puts into terms why the queue is not over.
    pub(crate) fn explain(self, now_ms: u64) -> Explanation {
        let status = &self.status;
        let mut terms = Vec::new();
        if status.certificate.is_none() {
            terms.extend(self.paused());
            terms.extend(self.ready());
            terms.extend(self.leased(now_ms));
            terms.extend(self.delayed(now_ms));
            terms.extend(self.not_sealed());
        }
        Explanation {
            queue: status.queue.clone(),
            uid: status.uid,
            at: Timestamp(now_ms),
            terms,
            certificate: self.status.certificate,
        }
    }

    fn paused(&self) -> Option<Term> {
        self.status.paused.then(|| Term {
            trouble: true,
            ..self.with_help(
                TermKind::Paused,
                "it is paused: nothing is handed out until somebody resumes it",
                "resume",
            )
        })
    }

    fn ready(&self) -> Option<Term> {
        let QueueStatus {
            counts, settings, ..
        } = &self.status;
        let count = Some(counts.ready).filter(|count| *count > 0)?;
        let bytes_max = settings.results_bytes_max;
        let is_full = bytes_max.is_some_and(|max| self.results_bytes >= max);
        let because = if self.status.paused {
            Some(HeldBack::Paused)
        } else if is_full {
            Some(HeldBack::ResultsFull)
        } else if self.status.sessions == 0 {
            Some(HeldBack::NoWorker)
        } else if settings.max_leased.is_some_and(|max| counts.leased >= max) {
            Some(HeldBack::LimitReached)
        } else if self.only_alone {
            Some(HeldBack::LastAttemptAlone)
        } else {
            None
        };
        let why = match because {
            None => String::new(),
            Some(HeldBack::Paused) => ", and the queue is paused".into(),
            Some(HeldBack::NoWorker) => ", and none is here".into(),
            Some(HeldBack::LimitReached) => format!(
                ": at most {} may be leased at a time (maxLeased)",
                settings.max_leased.unwrap_or_default()
            ),
            Some(HeldBack::ResultsFull) => format!(
                ", and there are {} bytes of results, of at most {} (resultsBytesMax)",
                self.results_bytes,
                bytes_max.unwrap_or_default()
            ),
            Some(HeldBack::LastAttemptAlone) => {
                " that holds nothing else: all attempts so far took their worker along".into()
            }
        };
        let text = format!("{} for a worker{why}", said(count, "waits", "wait"));
        let mut term = Term {
            because,
            ..term(TermKind::Ready, text, count)
        };
        if because == Some(HeldBack::NoWorker) {
            let queue = &self.status.queue;
            let command = format!("GANGLINE_QUEUE={queue} gangline work -- PROGRAM");
            (term.trouble, term.command) = (true, Some(command.into()));
        }
        if because == Some(HeldBack::ResultsFull) {
            let queue = &self.status.queue;
            (term.trouble, term.call) = (true, Some(format!("PUT /v1/queues/{queue}").into()));
        }
        Some(term)
    }

    fn leased(&self, now_ms: u64) -> Option<Term> {
        let count = Some(self.status.counts.leased).filter(|count| *count > 0)?;
        let typical_ms = self.took.typical_ms();
        let slow_ms = typical_ms.map(|ms| ms.saturating_mul(SLOW_TIMES).max(SLOW_MS));
        let oldest: Vec<HeldItem> = self
            .oldest
            .iter()
            .cloned()
            .map(|item| {
                let held_ms = now_ms.saturating_sub(item.since.0);
                let slow = slow_ms.is_some_and(|slow_ms| held_ms > slow_ms);
                HeldItem {
                    held_ms,
                    slow,
                    ..item
                }
            })
            .collect();
        let text = said(count, "is being worked on", "are being worked on");
        Some(Term {
            typical_ms,
            more: count.saturating_sub(oldest.len() as u64),
            oldest,
            looked: (count > EXPLAIN_LEASES_LOOKED_MAX as u64)
                .then_some(EXPLAIN_LEASES_LOOKED_MAX as u64),
            ..term(TermKind::Leased, text, count)
        })
    }

    fn delayed(&self, now_ms: u64) -> Option<Term> {
        let count = Some(self.status.counts.delayed).filter(|count| *count > 0)?;
        let left = self.next_due_ms.map(|due_ms| due_ms.saturating_sub(now_ms));
        let next = left.map_or(String::new(), |left| match left {
            0 => ", the next is due now".into(),
            left => format!(", the next is due in {}", span(left)),
        });
        let whose = "the time of the next attempt, or that the producer gave";
        let text = format!("{} for {whose}{next}", said(count, "waits", "wait"));
        Some(Term {
            next_due_at: self.next_due_ms.map(Timestamp),
            ..term(TermKind::Delayed, text, count)
        })
    }

    fn not_sealed(&self) -> Option<Term> {
        let status = &self.status;
        let idle_ms = status.settings.seal_when_idle_ms;
        let itself = idle_ms.map_or(String::new(), |ms| {
            format!("; it seals itself after {} with nothing to do", span(ms))
        });
        let text = format!("it is not sealed: a producer may still push more{itself}");
        (status.phase == gangline_protocol::Phase::Open).then(|| Term {
            trouble: status.counts.left() == 0 && idle_ms.is_none(),
            ..self.with_help(TermKind::NotSealed, &text, "seal")
        })
    }

    /// A term that a call ends.
    fn with_help(&self, kind: TermKind, text: &str, call: &str) -> Term {
        let queue = &self.status.queue;
        Term {
            command: Some(format!("gangline {call} {queue}").into()),
            call: Some(format!("POST /v1/queues/{queue}/{call}").into()),
            ..term(kind, text.into(), 0)
        }
    }
}

fn term(term: TermKind, text: String, items: u64) -> Term {
    Term {
        term,
        text: text.into(),
        trouble: false,
        items,
        because: None,
        command: None,
        call: None,
        next_due_at: None,
        typical_ms: None,
        oldest: Vec::new(),
        more: 0,
        looked: None,
    }
}

fn said(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 item {one}"),
        count => format!("{count} items {many}"),
    }
}

/// Writes a time for people.
fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1_000);
    match seconds {
        _ if ms < 1_000 => format!("{ms} ms"),
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_time_is_the_median_rounded_up() {
        for (times, typical_ms) in [
            (&[][..], None),
            (&[0], Some(1)),
            (&[1], Some(2)),
            (&[3, 1_000], Some(4)),
            (&[3, 1_000, 1_024], Some(1_024)),
            (&[u64::MAX], Some(1 << 31)),
        ] {
            let mut took = Took::default();
            for ms in times {
                took.note(*ms);
            }
            assert_eq!(took.typical_ms(), typical_ms, "{times:?}");
        }
    }
}
