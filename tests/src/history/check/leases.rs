//! Leases: their numbers, who lives under them, and what is counted.

use std::collections::{BTreeSet, HashMap};

use gangline_protocol::{LeaseNumber, SessionEnd, SessionId, SettleOutcome, SettleStatus};

use super::super::{Call, Event, Moment};
use super::{Checker, Rule};

impl Checker<'_> {
    /// No settle counts under a lease after a newer one was handed out.
    pub(super) fn settles(&mut self) {
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
    pub(super) fn lease_numbers(&mut self) {
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
    pub(super) fn live_leases(&mut self) {
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

    pub(super) fn attempts(&mut self) {
        let dead = self.dead_sessions();
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
                    let is_dead = earlier.session.is_some_and(|s| dead.contains(&s));
                    let mut of_it = settles.get(&id).into_iter().flatten();
                    is_dead
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
    pub(super) fn sessions(&mut self) {
        let mut last: HashMap<&str, SessionId> = HashMap::new();
        let dead = self.dead_sessions();
        for (event, _, heard) in self.answered() {
            if let Some(end @ (SessionEnd::Expired | SessionEnd::Unknown)) = heard.session_end {
                let session = last.get(event.client.as_str()).copied();
                if session.is_none_or(|session| !dead.contains(&session)) {
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
