//! Whether a history can be true.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use gangline_protocol::{
    EndPhase, ItemId, ItemState, LeaseNumber, SessionEnd, SessionId, SettleOutcome, SettleStatus,
};
use gangline_server::queue::digest::Digest;

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
    asked: Moment,
    status: Option<SettleStatus>,
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
            } = &event.call
            else {
                continue;
            };
            all.entry(*id).or_default().push(Settled {
                worker: &event.client,
                lease: *lease,
                outcome: *outcome,
                result: result.as_deref(),
                asked: event.asked,
                status: event.heard.as_ref().and_then(|(_, heard)| heard.settled),
            });
        }
        all
    }

    fn crashed(&self) -> HashSet<SessionId> {
        let events = self.history.events.iter();
        events
            .filter_map(|event| match event.call {
                Call::Crash(session) => session,
                _ => None,
            })
            .collect()
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
                    && matches!(settle.status, None | Some(SettleStatus::Ok))
            });
            if !given {
                self.broken(
                    Rule::Result,
                    format!("item {id} has the result {result}, which no settle that counts gave"),
                );
            }
        }
    }

    /// No settle counts under a lease after a newer one was handed out.
    fn settles(&mut self) {
        let leases = self.leases();
        for (id, settles) in self.all_settles() {
            for settle in &settles {
                if settle.status != Some(SettleStatus::Ok) {
                    continue;
                }
                let newer = leases
                    .get(&id)
                    .into_iter()
                    .flatten()
                    .find(|held| held.leased.lease > settle.lease && held.heard < settle.asked);
                if let Some(newer) = newer {
                    self.broken(
                        Rule::Lease,
                        format!(
                            "item {id}: a settle by {} under lease {} counted, first sent after \
                             {} had the newer lease {}",
                            settle.worker, settle.lease, newer.worker, newer.leased.lease
                        ),
                    );
                }
            }
        }
    }

    /// Lease numbers grow, and none is given to two calls.
    fn lease_numbers(&mut self) {
        let mut calls: Vec<(Moment, Moment, LeaseNumber, &Event)> = Vec::new();
        for (event, moment, heard) in self.answered() {
            let numbers: BTreeSet<LeaseNumber> =
                heard.leased.iter().map(|leased| leased.lease).collect();
            calls.extend(numbers.into_iter().map(|n| (event.asked, moment, n, event)));
        }
        let mut by_number: HashMap<LeaseNumber, &Event> = HashMap::new();
        for (_, _, number, event) in &calls {
            if let Some(other) = by_number.insert(*number, event) {
                let words = format!(
                    "lease number {number} was handed out twice: to {} for {} and to {} for {}",
                    other.client,
                    items_under(other, *number),
                    event.client,
                    items_under(event, *number)
                );
                self.broken(Rule::Lease, words);
            }
        }
        // By turns: all that were heard before this one was asked.
        let mut heard = calls.clone();
        heard.sort_by_key(|(_, heard, ..)| *heard);
        calls.sort_by_key(|(asked, ..)| *asked);
        let mut before = heard.iter().peekable();
        let mut newest: Option<(LeaseNumber, &Event)> = None;
        for (asked, _, number, event) in &calls {
            while let Some((_, _, earlier, by)) = before.next_if(|(_, heard, ..)| heard < asked) {
                if newest.is_none_or(|(newest, _)| newest < *earlier) {
                    newest = Some((*earlier, by));
                }
            }
            if let Some((earlier, by)) = newest.filter(|(earlier, _)| earlier >= number) {
                let words = format!(
                    "lease number {number} ({}, {}) is not above {earlier} ({}, {}), which was \
                     handed out before",
                    event.client,
                    items_under(event, *number),
                    by.client,
                    items_under(by, earlier)
                );
                self.broken(Rule::Lease, words);
            }
        }
    }

    /// Nobody is told to hold an item still that somebody else has got.
    fn live_leases(&mut self) {
        let settles = self.all_settles();
        for (id, leases) in self.leases() {
            for (n, held) in leases.iter().enumerate() {
                let Some(newer) = leases[n + 1..]
                    .iter()
                    .find(|newer| newer.session != held.session)
                else {
                    continue;
                };
                // From its settle on, the worker itself says that it does not hold it.
                let of_it = settles.get(&id).into_iter().flatten();
                let let_go = of_it
                    .filter(|settle| settle.lease == held.leased.lease)
                    .map(|settle| settle.asked)
                    .min();
                let told = self.answered().find(|(event, _, heard)| {
                    event.asked > newer.heard
                        && let_go.is_none_or(|let_go| event.asked < let_go)
                        && held.session.is_some()
                        && heard.session == held.session
                        && heard.session_end.is_none()
                        && heard.over.is_none()
                        && !heard.lost.contains(&id)
                });
                if let Some((event, ..)) = told {
                    self.broken(
                        Rule::Lease,
                        format!(
                            "item {id} has two live leases: {} was told to hold it still under \
                             lease {}, after {} had got it under lease {}",
                            event.client, held.leased.lease, newer.worker, newer.leased.lease
                        ),
                    );
                }
            }
        }
    }

    fn attempts(&mut self) {
        let crashed = self.crashed();
        let settles = self.all_settles();
        // A client that died may have been given items without having heard of it.
        let unheard: Vec<Moment> = self
            .history
            .events
            .iter()
            .filter(|event| event.heard.is_none() && matches!(event.call, Call::Lease))
            .map(|event| event.asked)
            .collect();
        for (id, leases) in self.leases() {
            for (n, held) in leases.iter().enumerate() {
                let counted = leases[..n].iter().filter(|earlier| {
                    let has_crashed = earlier.session.is_some_and(|s| crashed.contains(&s));
                    let mut of_it = settles.get(&id).into_iter().flatten();
                    has_crashed
                        || of_it.any(|settle| {
                            settle.lease == earlier.leased.lease
                                && settle.outcome == SettleOutcome::Retry
                                && matches!(settle.status, None | Some(SettleStatus::Ok))
                        })
                });
                let unheard = unheard.iter().filter(|asked| **asked < held.heard);
                let most = 1 + counted.count() + unheard.count();
                if usize::from(held.leased.attempt) > most {
                    self.broken(
                        Rule::Attempt,
                        format!(
                            "item {id} was handed to {} as attempt {}, and no more than {} \
                             attempts before it failed or died",
                            held.worker,
                            held.leased.attempt,
                            most - 1
                        ),
                    );
                }
            }
        }
    }

    /// A session whose worker lives does not expire.
    fn sessions(&mut self) {
        let mut last: HashMap<&str, SessionId> = HashMap::new();
        let crashed = self.crashed();
        for (event, _, heard) in self.answered() {
            if let Some(end @ (SessionEnd::Expired | SessionEnd::Unknown)) = heard.session_end {
                let session = last.get(event.client.as_str()).copied();
                if session.is_none_or(|session| !crashed.contains(&session)) {
                    self.broken(
                        Rule::Attempt,
                        format!(
                            "the session of {} is {end:?}, and it was alive",
                            event.client
                        ),
                    );
                }
            }
            if let Some(session) = heard.session {
                last.insert(&event.client, session);
            }
        }
    }

    /// What a look has shown is there at every later look.
    fn shown(&mut self) {
        let mut looks: Vec<_> = self
            .answered()
            .filter_map(|(event, moment, heard)| Some((event, moment, heard.status?)))
            .collect();
        let mut heard = looks.clone();
        heard.sort_by_key(|(_, heard, _)| *heard);
        looks.sort_by_key(|(event, ..)| event.asked);
        let mut before = heard.into_iter().peekable();
        let (mut total, mut done) = (0, 0);
        for (event, _, shown) in looks {
            while let Some((_, _, earlier)) = before.next_if(|(_, heard, _)| *heard < event.asked) {
                total = total.max(earlier.total);
                done = done.max(earlier.done);
            }
            for (what, earlier, now) in [
                ("items", total, shown.total),
                ("items done", done, shown.done),
            ] {
                if now < earlier {
                    self.broken(
                        Rule::Shown,
                        format!(
                            "{} saw {now} {what} after {earlier} were shown",
                            event.client
                        ),
                    );
                }
            }
        }
    }

    fn over(&mut self) {
        let told = self
            .answered()
            .filter_map(|(event, moment, heard)| Some((event, moment, heard.over.as_ref()?)))
            .min_by_key(|(_, moment, _)| *moment);
        let sealed = self
            .answered()
            .filter(|(event, ..)| matches!(event.call, Call::Seal))
            .map(|(_, moment, _)| moment)
            .min();
        for (event, _, heard) in self.answered() {
            let is_new = |(_, (id, is_new)): (&String, &(ItemId, bool))| is_new.then_some(*id);
            let added = match &event.call {
                Call::Push(keys) => keys.iter().zip(&heard.pushed).find_map(is_new),
                _ => None,
            };
            if let Some(id) = added.filter(|_| sealed.is_some_and(|sealed| event.asked > sealed)) {
                let words = format!("item {id} was taken from {} after the seal", event.client);
                self.broken(Rule::Over, words);
            }
            let Some((first, moment, certificate)) = told else {
                continue;
            };
            if let Some(other) = heard.over.as_ref().filter(|other| *other != certificate) {
                let words = format!(
                    "{} was shown another certificate than {}: {other:?}, not {certificate:?}",
                    event.client, first.client
                );
                self.broken(Rule::Over, words);
            }
            if event.asked <= moment {
                continue;
            }
            let what = if let Some(id) = added {
                format!("item {id} was taken from {}", event.client)
            } else if let Some(leased) = heard.leased.first() {
                format!("item {} was leased to {}", leased.id, event.client)
            } else if let (Some(SettleStatus::Ok), Call::Settle { id, .. }) =
                (heard.settled, &event.call)
            {
                format!("a settle of item {id} by {} counted", event.client)
            } else if heard.status.is_some_and(|shown| !shown.phase.is_over()) {
                format!("{} saw a queue that is not over", event.client)
            } else {
                continue;
            };
            let words = format!(
                "{what} after {} had been told that it is over",
                first.client
            );
            self.broken(Rule::Over, words);
        }
    }

    fn end(&mut self) {
        let ending = &self.history.ending;
        let Some(certificate) = &ending.certificate else {
            let words = "the queue has not ended: there is no certificate".to_owned();
            return self.broken(Rule::End, words);
        };
        for (event, _, heard) in self.answered() {
            if heard.over.as_ref().is_some_and(|told| told != certificate) {
                let words = format!(
                    "{} was shown another certificate than there is in the end",
                    event.client
                );
                self.broken(Rule::Over, words);
            }
        }
        let in_state = |state| {
            let of_it = ending.items.iter().filter(|(_, of)| *of == state);
            of_it.count() as u64
        };
        let counts = certificate.counts;
        for (what, certified, seen) in [
            ("ready", counts.ready, 0),
            ("delayed", counts.delayed, 0),
            ("leased", counts.leased, 0),
            ("done", counts.done, in_state(ItemState::Done)),
            ("dead", counts.dead, in_state(ItemState::Dead)),
            (
                "cancelled",
                counts.cancelled,
                in_state(ItemState::Cancelled),
            ),
            (
                "abandoned",
                counts.abandoned,
                in_state(ItemState::Abandoned),
            ),
        ] {
            if certified != seen {
                self.broken(
                    Rule::End,
                    format!("the certificate has {certified} items {what}, and there are {seen}"),
                );
            }
        }
        if certificate.phase == EndPhase::Drained && counts.abandoned > 0 {
            let words = format!(
                "it is drained, and {} items are abandoned",
                counts.abandoned
            );
            self.broken(Rule::End, words);
        }
        let mut digest = Digest::default();
        for (id, result) in &ending.results {
            digest.add(*id, result);
        }
        let digest = digest.to_hex();
        if digest != certificate.digest {
            let words = format!(
                "the digest of the results is {digest}, and the certificate has {}",
                certificate.digest
            );
            self.broken(Rule::End, words);
        }
    }
}

/// The items that a call was given under a lease number.
fn items_under(event: &Event, number: LeaseNumber) -> String {
    let leased = event.heard.iter().flat_map(|(_, heard)| &heard.leased);
    let ids: Vec<String> = leased
        .filter(|leased| leased.lease == number)
        .map(|leased| leased.id.to_string())
        .collect();
    format!("item {}", ids.join(", "))
}
