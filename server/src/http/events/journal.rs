//! Which queues have changed since when, so that a client that comes again gets only what it has
//! missed.
//!
//! Each look of a client at its queues is compared with the looks of all clients before it. What
//! differs gets the next version; so a client that was told a version has, for each queue of its
//! own, what the journal had then, and misses exactly what has a later one. The queues as such are
//! not kept, only their hashes. Another process, a restart above all, has another journal.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use gangline_protocol::limits::EVENTS_GONE_MAX;
use gangline_protocol::{QueueName, Scope};

/// The journal of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    changes: Arc<Mutex<Changes>>,
    /// Draws its keys at random, so that no other process gives the same marks.
    hashes: Arc<RandomState>,
}

#[derive(Debug, Default)]
struct Changes {
    version: u64,
    queues: BTreeMap<QueueName, Seen>,
    /// What was there before, with the version that says so; oldest first.
    gone: VecDeque<(QueueName, u64)>,
    /// The newest version that says of a queue that it has gone, and is forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct Seen {
    hash: u64,
    version: u64,
}

/// Which queues a client wants to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    pub(super) scope: Scope,
    pub(super) queue: Option<QueueName>,
}

impl About {
    fn has(&self, queue: &QueueName) -> bool {
        self.scope.has(queue) && self.queue.as_ref().is_none_or(|only| only == queue)
    }
}

/// What a client has been told: the id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventId {
    /// Of the journal, and of what the client wants to know of.
    mark: u64,
    version: u64,
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{}", self.mark, self.version)
    }
}

impl EventId {
    /// Reads what a client shows; nothing when it is not an id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mark, version) = text.split_once('-')?;
        Some(Self {
            mark: u64::from_str_radix(mark, 16).ok()?,
            version: version.parse().ok()?,
        })
    }
}

/// What is new for a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) changed: Vec<QueueName>,
    pub(super) gone: Vec<QueueName>,
}

impl Journal {
    /// Takes a look at all queues that a client wants to know of, and returns what it has been
    /// told with it, and what of that is new since it was told `since`; nothing when that cannot
    /// be said.
    pub(super) fn note(
        &self,
        about: &About,
        now: &BTreeMap<QueueName, Vec<u8>>,
        since: Option<EventId>,
    ) -> (EventId, Option<News>) {
        let text = (about.scope.to_string(), &about.queue);
        let mark = self.hashes.hash_one(text);
        let hashes = now.iter().map(|(queue, json)| {
            let hash = self.hashes.hash_one(json);
            (queue, hash)
        });
        let hashes: Vec<_> = hashes.collect();
        // Nothing in here panics halfway, so a poisoned journal is still whole.
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.note(about, now, hashes);
        let id = EventId {
            mark,
            version: changes.version,
        };
        let since = since.filter(|since| since.mark == mark && since.version <= id.version);
        let news = since.and_then(|since| changes.since(about, since.version));
        (id, news)
    }
}

impl Changes {
    fn note(
        &mut self,
        about: &About,
        now: &BTreeMap<QueueName, Vec<u8>>,
        hashes: Vec<(&QueueName, u64)>,
    ) {
        let version = self.version + 1;
        for (queue, hash) in hashes {
            match self.queues.get_mut(queue) {
                Some(seen) if seen.hash == hash => {}
                Some(seen) => {
                    *seen = Seen { hash, version };
                    self.version = version;
                }
                None => {
                    self.queues.insert(queue.clone(), Seen { hash, version });
                    self.version = version;
                }
            }
        }
        let (gone, version_now) = (&mut self.gone, &mut self.version);
        self.queues.retain(|queue, _| {
            let is_gone = about.has(queue) && !now.contains_key(queue);
            if is_gone {
                gone.push_back((queue.clone(), version));
                *version_now = version;
            }
            !is_gone
        });
        while self.gone.len() > EVENTS_GONE_MAX
            && let Some((_, version)) = self.gone.pop_front()
        {
            self.forgotten = version;
        }
    }

    fn since(&self, about: &About, version: u64) -> Option<News> {
        if version < self.forgotten {
            return None;
        }
        let mine = self.queues.iter().filter(|(queue, _)| about.has(queue));
        let changed = mine.filter(|(_, seen)| seen.version > version);
        let changed = changed.map(|(queue, _)| queue.clone()).collect();
        let gone = self.gone.iter().filter(|(queue, at)| {
            *at > version && about.has(queue) && !self.queues.contains_key(queue)
        });
        let gone: BTreeSet<QueueName> = gone.map(|(queue, _)| queue.clone()).collect();
        Some(News {
            changed,
            gone: gone.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> About {
        About {
            scope: Scope::All,
            queue: None,
        }
    }

    fn name(text: &str) -> QueueName {
        text.parse().unwrap()
    }

    fn queues(all: &[(&str, &str)]) -> BTreeMap<QueueName, Vec<u8>> {
        let all = all.iter();
        all.map(|(queue, json)| (name(queue), json.as_bytes().to_vec()))
            .collect()
    }

    fn news(changed: &[&str], gone: &[&str]) -> Option<News> {
        let names = |texts: &[&str]| texts.iter().map(|text| name(text)).collect();
        Some(News {
            changed: names(changed),
            gone: names(gone),
        })
    }

    #[test]
    fn a_client_that_comes_again_gets_what_it_has_missed_and_no_more() {
        let journal = Journal::default();
        let note = |now: &[(&str, &str)], since| journal.note(&all(), &queues(now), since);
        let (first, nothing) = note(&[("a", "1"), ("b", "1"), ("c", "1")], None);
        assert_eq!(nothing, None);
        assert_eq!(
            note(&[("a", "1"), ("b", "1"), ("c", "1")], Some(first)),
            (first, news(&[], &[]))
        );
        let (second, missed) = note(&[("a", "2"), ("b", "1")], Some(first));
        assert_eq!(missed, news(&["a"], &["c"]));
        // What has come back is not gone, and what has been told is not told again.
        let now = [("a", "2"), ("b", "1"), ("c", "2")];
        assert_eq!(note(&now, Some(first)).1, news(&["a", "c"], &[]));
        assert_eq!(note(&now, Some(second)).1, news(&["c"], &[]));
    }

    #[test]
    fn clients_of_another_scope_see_nothing_gone_that_they_do_not_look_at() {
        let journal = Journal::default();
        let (all_told, _) = journal.note(&all(), &queues(&[("a", "1"), ("b", "1")]), None);
        let about_a = About {
            scope: Scope::All,
            queue: Some(name("a")),
        };
        let (told, _) = journal.note(&about_a, &queues(&[("a", "1")]), None);
        let (_, missed) = journal.note(&about_a, &queues(&[]), Some(told));
        assert_eq!(missed, news(&[], &["a"]));
        let (_, missed) = journal.note(&all(), &queues(&[("b", "1")]), Some(all_told));
        assert_eq!(missed, news(&[], &["a"]));
        // An id says what it is about.
        let (_, missed) = journal.note(&all(), &queues(&[("b", "1")]), Some(told));
        assert_eq!(missed, None);
    }

    #[test]
    fn ids_of_another_journal_or_of_the_future_say_nothing() {
        let now = queues(&[("a", "1")]);
        let journal = Journal::default();
        let (id, _) = journal.note(&all(), &now, None);
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        let later = EventId {
            version: id.version + 1,
            ..id
        };
        assert_eq!(journal.note(&all(), &now, Some(later)).1, None);
        assert_eq!(Journal::default().note(&all(), &now, Some(id)).1, None);
        for text in ["", "1", "x-1", "1-", "00-18446744073709551616"] {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_has_gone_is_remembered_up_to_a_bound() {
        let journal = Journal::default();
        let (told, _) = journal.note(&all(), &queues(&[("a", "1")]), None);
        for number in 0..=EVENTS_GONE_MAX {
            let queue = format!("q{number}");
            journal.note(&all(), &queues(&[("a", "1"), (&queue, "1")]), None);
        }
        // The first of them has gone with the second look.
        let (now, missed) = journal.note(&all(), &queues(&[("a", "1")]), Some(told));
        assert_eq!(missed, None);
        let (_, missed) = journal.note(&all(), &queues(&[("a", "2")]), Some(now));
        assert_eq!(missed, news(&["a"], &[]));
    }
}
