//! Whether a history can be true.

mod ends;
mod leases;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use gangline_protocol::{
    ItemId, ItemState, LeaseNumber, SessionEnd, SessionId, SettleOutcome, SettleStatus,
};

use super::{Call, Event, Heard, History, Leased, Moment};

/// What a history has broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Every acknowledged push is there in the end, once.
    Push,
    /// Every item has one result at most: the one that was acknowledged.
    Result,
    /// An item has one live lease, and an older one changes nothing.
    Lease,
    /// Over is over.
    Over,
    /// Attempts are counted for failures and dead workers only.
    Attempt,
    /// What was shown is not taken back.
    Shown,
    /// The queue ends.
    End,
}

/// One rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How, with the items and clients that it is about.
    pub words: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.words)
    }
}

impl History {
    /// Returns every rule that this history breaks.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut checker = Checker {
            history: self,
            found: Vec::new(),
        };
        checker.pushes();
        checker.results();
        checker.spawned();
        checker.settles();
        checker.lease_numbers();
        checker.live_leases();
        checker.attempts();
        checker.sessions();
        checker.shown();
        checker.over();
        checker.end();
        checker.found
    }
}

struct Checker<'a> {
    history: &'a History,
    found: Vec<Violation>,
}

/// A lease as a worker got it.
#[derive(Clone, Copy)]
struct Held<'a> {
    worker: &'a str,
    session: Option<SessionId>,
    leased: Leased,
    heard: Moment,
}

/// A settle; `status` is none for one whose answer nobody heard.
struct Settled<'a> {
    worker: &'a str,
    lease: LeaseNumber,
    outcome: SettleOutcome,
    result: Option<&'a str>,
    spawn: &'a [String],
    asked: Moment,
    status: Option<SettleStatus>,
    /// The answer said that the session had ended before.
    is_late: bool,
}

impl Settled<'_> {
    /// Tells whether this settle may be the one that counted. A late one whose first answer was lost
    /// is not known again: nobody remembers answers for a session that is gone.
    fn may_have_counted(&self) -> bool {
        match self.status {
            None | Some(SettleStatus::Ok) => true,
            Some(SettleStatus::AlreadySettled) => self.is_late,
            Some(_) => false,
        }
    }
}

impl<'a> Checker<'a> {
    fn broken(&mut self, rule: Rule, words: String) {
        self.found.push(Violation { rule, words });
    }

    /// All that were answered, with the moments between which they were carried out.
    fn answered(&self) -> impl Iterator<Item = (&'a Event, Moment, &'a Heard)> + use<'a> {
        let events = self.history.events.iter();
        events.filter_map(|event| {
            let (moment, heard) = event.heard.as_ref()?;
            Some((event, *moment, heard))
        })
    }

    fn leases(&self) -> BTreeMap<ItemId, Vec<Held<'a>>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (event, moment, heard) in self.answered() {
            for leased in &heard.leased {
                all.entry(leased.id).or_default().push(Held {
                    worker: &event.client,
                    session: heard.session,
                    leased: *leased,
                    heard: moment,
                });
            }
        }
        for held in all.values_mut() {
            held.sort_by_key(|held| held.leased.lease);
        }
        all
    }

    fn all_settles(&self) -> BTreeMap<ItemId, Vec<Settled<'a>>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in &self.history.events {
            let Call::Settle {
                id,
                lease,
                outcome,
                result,
                spawn,
            } = &event.call
            else {
                continue;
            };
            all.entry(*id).or_default().push(Settled {
                worker: &event.client,
                lease: *lease,
                outcome: *outcome,
                result: result.as_deref(),
                spawn,
                asked: event.asked,
                status: event.heard.as_ref().and_then(|(_, heard)| heard.settled),
                is_late: (event.heard.as_ref())
                    .is_some_and(|(_, heard)| heard.session_end.is_some()),
            });
        }
        all
    }

    /// The sessions whose workers died, or that somebody else has ended.
    fn dead_sessions(&self) -> HashSet<SessionId> {
        let mut dead = HashSet::new();
        let mut last: HashMap<&str, SessionId> = HashMap::new();
        for event in &self.history.events {
            if let Call::Crash(session) = event.call {
                dead.extend(session);
            }
            let Some((_, heard)) = &event.heard else {
                continue;
            };
            if let Some(SessionEnd::Replaced | SessionEnd::Revoked) = heard.session_end {
                dead.extend(last.get(event.client.as_str()));
            }
            if let Some(session) = heard.session {
                last.insert(&event.client, session);
            }
        }
        dead
    }

    fn pushes(&mut self) {
        let ends: HashMap<ItemId, ItemState> = self.history.ending.items.iter().copied().collect();
        let mut ids: BTreeMap<&str, ItemId> = BTreeMap::new();
        let mut keys: HashMap<ItemId, &str> = HashMap::new();
        let mut added = BTreeSet::new();
        for (event, _, heard) in self.answered() {
            let Call::Push(pushed) = &event.call else {
                continue;
            };
            for (key, (id, is_new)) in pushed.iter().zip(&heard.pushed) {
                let first = *ids.entry(key).or_insert(*id);
                if first != *id {
                    self.broken(
                        Rule::Push,
                        format!("key {key} was acknowledged as item {first} and as item {id}"),
                    );
                }
                let other = *keys.entry(*id).or_insert(key);
                if other != key {
                    self.broken(
                        Rule::Push,
                        format!("item {id} was acknowledged for key {other} and for key {key}"),
                    );
                }
                if *is_new && !added.insert(*id) {
                    self.broken(
                        Rule::Push,
                        format!("item {id} (key {key}) was acknowledged as new twice"),
                    );
                }
            }
        }
        for (key, id) in ids {
            match ends.get(&id) {
                None => self.broken(
                    Rule::Push,
                    format!("item {id} (key {key}) was acknowledged and is lost"),
                ),
                Some(ItemState::Ready | ItemState::Delayed | ItemState::Leased) => self.broken(
                    Rule::Push,
                    format!("item {id} (key {key}) was acknowledged and has not ended"),
                ),
                Some(
                    ItemState::Done | ItemState::Dead | ItemState::Cancelled | ItemState::Abandoned,
                ) => {}
            }
        }
    }

    fn results(&mut self) {
        let mut recorded: HashMap<ItemId, &str> = HashMap::new();
        for (id, result) in &self.history.ending.results {
            if let Some(other) = recorded.insert(*id, result) {
                self.broken(
                    Rule::Result,
                    format!("item {id} has two results: {other} and {result}"),
                );
            }
        }
        let settles = self.all_settles();
        for (id, settles) in &settles {
            let counted = settles.iter().filter(|settle| {
                settle.outcome == SettleOutcome::Done && settle.status == Some(SettleStatus::Ok)
            });
            let mut first: Option<&Settled<'_>> = None;
            for settle in counted {
                if let Some(first) = first.filter(|first| first.lease != settle.lease) {
                    self.broken(
                        Rule::Result,
                        format!(
                            "item {id} was acknowledged as done twice: under lease {} by {} and \
                             under lease {} by {}",
                            first.lease, first.worker, settle.lease, settle.worker
                        ),
                    );
                }
                first = first.or(Some(settle));
                let given = settle.result.unwrap_or("null");
                match recorded.get(id) {
                    None => self.broken(
                        Rule::Result,
                        format!(
                            "the result of item {id} was acknowledged to {} and is lost",
                            settle.worker
                        ),
                    ),
                    Some(result) if *result != given => self.broken(
                        Rule::Result,
                        format!(
                            "item {id} has the result {result}, and {given} was acknowledged to {}",
                            settle.worker
                        ),
                    ),
                    Some(_) => {}
                }
            }
        }
        for (id, result) in &self.history.ending.results {
            let given = settles.get(id).into_iter().flatten().any(|settle| {
                settle.outcome == SettleOutcome::Done
                    && settle.result.unwrap_or("null") == result
                    && settle.may_have_counted()
            });
            if !given {
                self.broken(
                    Rule::Result,
                    format!("item {id} has the result {result}, which no settle that counts gave"),
                );
            }
        }
    }

    /// What a settle has spawned is there once, and nothing is there that nobody gave.
    fn spawned(&mut self) {
        let mut there: HashMap<&str, ItemId> = HashMap::new();
        for (id, key) in &self.history.ending.keys {
            if let Some(other) = there.insert(key, *id) {
                let words = format!("key {key} is there twice: as item {other} and as item {id}");
                self.broken(Rule::Push, words);
            }
        }
        let mut given: HashSet<&str> = HashSet::new();
        for event in &self.history.events {
            if let Call::Push(keys) = &event.call {
                given.extend(keys.iter().map(String::as_str));
            }
        }
        let ends: HashMap<ItemId, ItemState> = self.history.ending.items.iter().copied().collect();
        for (id, settles) in self.all_settles() {
            for settle in settles {
                if settle.may_have_counted() {
                    given.extend(settle.spawn.iter().map(String::as_str));
                }
                if settle.status != Some(SettleStatus::Ok) {
                    continue;
                }
                for key in settle.spawn {
                    if !there.contains_key(key.as_str()) {
                        let words = format!("key {key}, spawned by item {id}, is lost");
                        self.broken(Rule::Push, words);
                    }
                }
                let end = ends.get(&id);
                if settle.outcome == SettleOutcome::Dead && end != Some(&ItemState::Dead) {
                    let words = format!(
                        "item {id} was acknowledged to {} as dead, and is {end:?}",
                        settle.worker
                    );
                    self.broken(Rule::Result, words);
                }
            }
        }
        for (key, id) in there {
            if !given.contains(key) {
                self.broken(
                    Rule::Push,
                    format!("item {id} (key {key}) was given by nobody"),
                );
            }
        }
    }
}
