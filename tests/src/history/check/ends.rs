//! The end of a queue, and what was shown before it.

use gangline_protocol::digest::Digest;
use gangline_protocol::{EndPhase, ItemId, ItemState, SettleStatus};

use super::super::Call;
use super::{Checker, Rule};

impl Checker<'_> {
    /// What a look has shown is there at every later look.
    pub(super) fn shown(&mut self) {
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

    pub(super) fn over(&mut self) {
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

    pub(super) fn end(&mut self) {
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
