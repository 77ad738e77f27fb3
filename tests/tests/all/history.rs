//! The checker of histories finds what cannot be true, and nothing in what can.

use std::time::Duration;

use gangline_protocol::digest::Digest;
use gangline_protocol::{
    Certificate, Counts, EndCause, EndPhase, ItemId, ItemState, LeaseNumber, Phase, QueueUid,
    SessionEnd, SessionId, SettleOutcome, SettleStatus, StopOutcome, Timestamp,
};
use gangline_tests::history::{Call, Ending, Event, Heard, History, Leased, Rule, Shown};

/// A history that is being forged. Calls come one after the other, a millisecond each.
#[derive(Default)]
struct Forged {
    history: History,
    now: u64,
}

impl Forged {
    fn call(&mut self, client: &str, call: Call, heard: Option<Heard>) {
        let asked = Duration::from_millis(2 * self.now);
        self.now += 1;
        let answered = asked + Duration::from_millis(1);
        self.history.events.push(Event {
            client: client.to_owned(),
            asked,
            heard: heard.map(|heard| (answered, heard)),
            call,
        });
    }

    fn push(&mut self, rows: &[(&str, u64, bool)]) {
        let keys = rows.iter().map(|(key, ..)| (*key).to_owned()).collect();
        let pushed = rows.iter().map(|(_, id, is_new)| (ItemId(*id), *is_new));
        let heard = Heard {
            pushed: pushed.collect(),
            ..Heard::default()
        };
        self.call("producer", Call::Push(keys), Some(heard));
    }

    fn lease(&mut self, worker: u64, lease: u64, items: &[(u64, u16)]) {
        let leased = items.iter().map(|(id, attempt)| Leased {
            id: ItemId(*id),
            lease: LeaseNumber(lease),
            attempt: *attempt,
        });
        let heard = Heard {
            session: Some(SessionId(worker)),
            leased: leased.collect(),
            ..Heard::default()
        };
        self.call(&format!("w{worker}"), Call::Lease, Some(heard));
    }

    fn settle(
        &mut self,
        worker: u64,
        (id, lease): (u64, u64),
        result: &str,
        status: Option<SettleStatus>,
    ) {
        let call = Call::Settle {
            id: ItemId(id),
            lease: LeaseNumber(lease),
            outcome: SettleOutcome::Done,
            result: Some(result.to_owned()),
            // What `a` spawns.
            spawn: Vec::from_iter((id == 1).then(|| "c".to_owned())),
        };
        let heard = status.map(|status| Heard {
            settled: Some(status),
            session: Some(SessionId(worker)),
            ..Heard::default()
        });
        self.call(&format!("w{worker}"), call, heard);
    }

    fn retry(&mut self, worker: u64, id: u64, lease: u64) {
        let call = Call::Settle {
            id: ItemId(id),
            lease: LeaseNumber(lease),
            outcome: SettleOutcome::Retry,
            result: None,
            spawn: Vec::new(),
        };
        let heard = Heard {
            settled: Some(SettleStatus::Ok),
            ..Heard::default()
        };
        self.call(&format!("w{worker}"), call, Some(heard));
    }

    fn alive(&mut self, worker: u64) {
        let heard = Heard {
            session: Some(SessionId(worker)),
            ..Heard::default()
        };
        self.call(&format!("w{worker}"), Call::Say, Some(heard));
    }

    fn ended(&mut self, worker: u64, end: SessionEnd) {
        let heard = Heard {
            session_end: Some(end),
            ..Heard::default()
        };
        self.call(&format!("w{worker}"), Call::Say, Some(heard));
    }

    fn look(&mut self, phase: Phase, total: u64, done: u64) {
        let status = Some(Shown { phase, total, done });
        let heard = Heard {
            status,
            ..Heard::default()
        };
        self.call("observer", Call::Look, Some(heard));
    }

    fn told_over(&mut self, client: &str, certificate: &Certificate) {
        let heard = Heard {
            over: Some(certificate.clone()),
            ..Heard::default()
        };
        self.call(client, Call::Say, Some(heard));
    }

    /// Ends it with these results, and items that are dead.
    fn end(mut self, results: &[(u64, &str)], dead: &[u64]) -> History {
        let ending = ending(results, dead);
        let certificate = ending.certificate.clone().unwrap();
        self.told_over("w1", &certificate);
        self.history.ending = ending;
        self.history
    }
}

fn ending(results: &[(u64, &str)], dead: &[u64]) -> Ending {
    let mut digest = Digest::default();
    for (id, result) in results {
        digest.add(ItemId(*id), result);
    }
    let done = results.iter().map(|(id, _)| (ItemId(*id), ItemState::Done));
    let dead = dead.iter().map(|id| (ItemId(*id), ItemState::Dead));
    let items: Vec<_> = done.chain(dead).collect();
    let counts = Counts {
        done: results.len() as u64,
        dead: (items.len() - results.len()) as u64,
        ..Counts::default()
    };
    let keys = items.iter().map(|(id, _)| {
        let key = ["", "a", "b", "c", "d"][usize::try_from(id.0).unwrap()];
        (*id, key.to_owned())
    });
    Ending {
        keys: keys.collect(),
        certificate: Some(Certificate {
            queue: "forged".parse().unwrap(),
            uid: QueueUid(1),
            phase: EndPhase::Drained,
            cause: EndCause::Drained,
            outcome: StopOutcome::Success,
            reason: None,
            ended_by: None,
            created_at: Timestamp(0),
            ended_at: Timestamp(1),
            counts,
            digest: digest.to_hex(),
            history_uncertain: false,
            durability: None,
        }),
        items,
        results: results
            .iter()
            .map(|(id, result)| (ItemId(*id), (*result).to_owned()))
            .collect(),
    }
}

/// Three items: `a` is done at once, `b` fails once, `c` is held by a worker that dies.
fn right() -> Forged {
    let mut forged = Forged::default();
    forged.push(&[("a", 1, true), ("b", 2, true)]);
    forged.push(&[("b", 2, false), ("c", 3, true)]);
    forged.look(Phase::Open, 3, 0);
    forged.call("producer", Call::Seal, Some(Heard::default()));
    forged.lease(1, 10, &[(1, 1), (2, 1)]);
    forged.lease(2, 11, &[(3, 1)]);
    forged.settle(1, (1, 10), "A", Some(SettleStatus::Ok));
    forged.retry(1, 2, 10);
    forged.call("w2", Call::Crash(Some(SessionId(2))), None);
    forged.lease(3, 12, &[(2, 2), (3, 2)]);
    forged.settle(2, (3, 11), "C", Some(SettleStatus::StaleLease));
    forged.alive(1);
    forged.look(Phase::Sealed, 3, 1);
    // The reply to this one was lost with the client.
    forged.settle(3, (2, 12), "B", None);
    forged.settle(3, (3, 12), "C", Some(SettleStatus::Ok));
    forged.look(Phase::Drained, 3, 3);
    forged
}

const RESULTS: [(u64, &str); 3] = [(1, "A"), (2, "B"), (3, "C")];

/// The forged history breaks this rule, in words that have all of these in them.
#[track_caller]
fn caught(history: &History, rule: Rule, words: &[&str]) {
    let violations = history.violations();
    assert!(
        violations
            .iter()
            .any(|one| one.rule == rule && words.iter().all(|word| one.words.contains(word))),
        "no {rule:?} with {words:?} among {violations:#?}"
    );
}

#[test]
fn a_right_history_passes() {
    assert_eq!(right().end(&RESULTS, &[]).violations(), []);
}

#[test]
fn a_lost_push_is_caught() {
    let history = right().end(&RESULTS[..2], &[]);
    caught(&history, Rule::Push, &["item 3 (key c)", "is lost"]);
    let mut forged = right();
    forged.push(&[("c", 4, true)]);
    let history = forged.end(&RESULTS, &[4]);
    caught(&history, Rule::Push, &["key c", "item 3", "item 4"]);
    let mut history = right().end(&RESULTS, &[]);
    history.ending.items[2].1 = ItemState::Leased;
    caught(&history, Rule::Push, &["item 3 (key c)", "has not ended"]);
    let mut forged = right();
    forged.push(&[("d", 3, true)]);
    let history = forged.end(&RESULTS, &[]);
    caught(&history, Rule::Push, &["item 3", "key c", "key d"]);
    caught(&history, Rule::Push, &["item 3 (key d)", "new twice"]);
}

#[test]
fn a_lost_or_doubled_spawn_is_caught() {
    let history = right().end(&RESULTS[..2], &[]);
    caught(&history, Rule::Push, &["key c, spawned by item 1, is lost"]);
    let mut history = right().end(&RESULTS, &[]);
    history.ending.keys.push((ItemId(4), "c".to_owned()));
    caught(
        &history,
        Rule::Push,
        &["key c is there twice", "item 3", "item 4"],
    );
    let history = right().end(&RESULTS, &[4]);
    caught(
        &history,
        Rule::Push,
        &["item 4 (key d) was given by nobody"],
    );
}

#[test]
fn an_undone_failure_is_caught() {
    let mut forged = right();
    let call = Call::Settle {
        id: ItemId(3),
        lease: LeaseNumber(12),
        outcome: SettleOutcome::Dead,
        result: None,
        spawn: Vec::new(),
    };
    let heard = Heard {
        settled: Some(SettleStatus::Ok),
        ..Heard::default()
    };
    forged.call("w3", call, Some(heard));
    let history = forged.end(&RESULTS, &[]);
    caught(&history, Rule::Result, &["item 3", "w3 as dead", "Done"]);
}

#[test]
fn a_second_result_is_caught() {
    let history = right().end(&[(1, "A"), (2, "B"), (3, "C"), (3, "C")], &[]);
    caught(&history, Rule::Result, &["item 3 has two results"]);
    let mut forged = right();
    forged.settle(2, (3, 11), "C", Some(SettleStatus::Ok));
    let history = forged.end(&RESULTS, &[]);
    let words = ["item 3", "done twice", "lease 12 by w3", "lease 11 by w2"];
    caught(&history, Rule::Result, &words);
}

/// What a late settle did whose first answer was lost: its repeat cannot be known as one.
#[test]
fn a_late_result_whose_answer_was_lost_passes_and_one_in_time_is_caught() {
    for (end, passes) in [(Some(SessionEnd::Revoked), true), (None, false)] {
        let mut history = right().end(&RESULTS, &[]);
        let mut events = history.events.iter_mut();
        let unheard =
            |event: &&mut Event| matches!(event.call, Call::Settle { .. }) && event.heard.is_none();
        let event = events.find(unheard).unwrap();
        let heard = Heard {
            settled: Some(SettleStatus::AlreadySettled),
            session_end: end,
            ..Heard::default()
        };
        event.heard = Some((event.asked + Duration::from_millis(1), heard));
        if passes {
            assert_eq!(history.violations(), []);
        } else {
            caught(&history, Rule::Result, &["item 2", "B, which no settle"]);
        }
    }
}

#[test]
fn a_lost_or_changed_result_is_caught() {
    let history = right().end(&RESULTS[..2], &[3]);
    caught(&history, Rule::Result, &["result of item 3", "w3", "lost"]);
    let history = right().end(&[(1, "A"), (2, "B"), (3, "D")], &[]);
    caught(
        &history,
        Rule::Result,
        &["item 3 has the result D", "C was"],
    );
    caught(&history, Rule::Result, &["item 3", "D, which no settle"]);
}

#[test]
fn a_settle_under_an_older_lease_that_counts_is_caught() {
    let mut forged = right();
    forged.retry(2, 3, 11);
    let history = forged.end(&RESULTS, &[]);
    let words = [
        "item 3",
        "by w2 under lease 11",
        "w3 had the newer lease 12",
    ];
    caught(&history, Rule::Lease, &words);
}

#[test]
fn a_lease_number_that_repeats_or_goes_back_is_caught() {
    let mut forged = right();
    forged.lease(4, 12, &[(7, 1)]);
    let history = forged.end(&RESULTS, &[]);
    caught(
        &history,
        Rule::Lease,
        &["12 was handed out twice", "w3", "2, 3", "w4 for item 7"],
    );
    let mut forged = right();
    forged.lease(4, 9, &[(7, 1)]);
    let history = forged.end(&RESULTS, &[]);
    caught(
        &history,
        Rule::Lease,
        &["9 (w4, item 7)", "not above 12 (w3"],
    );
}

#[test]
fn two_live_leases_are_caught() {
    let mut forged = Forged::default();
    forged.push(&[("a", 1, true)]);
    forged.lease(1, 10, &[(1, 1)]);
    forged.lease(2, 11, &[(1, 1)]);
    forged.alive(1);
    forged.settle(2, (1, 11), "A", Some(SettleStatus::Ok));
    let history = forged.end(&RESULTS[..1], &[]);
    caught(
        &history,
        Rule::Lease,
        &["item 1 has two live leases", "w1", "w2", "11"],
    );
}

#[test]
fn an_attempt_counted_for_nothing_is_caught() {
    let mut forged = right();
    // As if an outage had ended the session of w3, which held it under lease 12.
    forged.lease(4, 13, &[(3, 3)]);
    let history = forged.end(&RESULTS, &[]);
    caught(
        &history,
        Rule::Attempt,
        &["item 3", "w4 as attempt 3", "than 1"],
    );
    let mut forged = right();
    forged.ended(1, SessionEnd::Expired);
    let history = forged.end(&RESULTS, &[]);
    caught(&history, Rule::Attempt, &["session of w1 is Expired"]);
    let mut forged = right();
    forged.ended(2, SessionEnd::Expired);
    assert_eq!(forged.end(&RESULTS, &[]).violations(), [], "w2 is dead");
}

#[test]
fn anything_after_the_end_is_caught() {
    let certificate = ending(&RESULTS, &[]).certificate.unwrap();
    let over = || {
        let mut forged = right();
        forged.told_over("w9", &certificate);
        forged
    };
    let mut forged = over();
    forged.push(&[("d", 4, true)]);
    let history = forged.end(&RESULTS, &[4]);
    caught(&history, Rule::Over, &["item 4", "producer", "after w9"]);
    caught(&history, Rule::Over, &["item 4", "after the seal"]);
    let mut forged = over();
    forged.lease(4, 13, &[(3, 1)]);
    let history = forged.end(&RESULTS, &[]);
    caught(&history, Rule::Over, &["item 3 was leased to w4 after w9"]);
    let mut forged = over();
    forged.settle(3, (3, 12), "C", Some(SettleStatus::Ok));
    let history = forged.end(&RESULTS, &[]);
    caught(
        &history,
        Rule::Over,
        &["settle of item 3 by w3 counted after w9"],
    );
    let mut forged = over();
    forged.look(Phase::Sealed, 3, 3);
    let history = forged.end(&RESULTS, &[]);
    caught(&history, Rule::Over, &["observer saw", "not over after w9"]);
    let mut other = certificate.clone();
    other.counts.done = 2;
    let mut forged = over();
    forged.told_over("w8", &other);
    let history = forged.end(&RESULTS, &[]);
    caught(&history, Rule::Over, &["w8 was shown another certificate"]);
    // A repeat that adds nothing is answered then, too.
    let mut forged = over();
    forged.push(&[("c", 3, false)]);
    assert_eq!(forged.end(&RESULTS, &[]).violations(), []);
}

#[test]
fn what_was_shown_and_is_taken_back_is_caught() {
    let mut forged = right();
    forged.look(Phase::Drained, 2, 3);
    let history = forged.end(&RESULTS, &[]);
    caught(&history, Rule::Shown, &["observer saw 2 items after 3"]);
    let mut forged = right();
    forged.look(Phase::Drained, 3, 2);
    let history = forged.end(&RESULTS, &[]);
    caught(&history, Rule::Shown, &["2 items done after 3"]);
}

#[test]
fn a_queue_that_does_not_end_or_does_not_add_up_is_caught() {
    let mut history = right().end(&RESULTS, &[]);
    history.ending.certificate = None;
    caught(&history, Rule::End, &["has not ended"]);
    let mut history = right().end(&RESULTS, &[]);
    let certificate = history.ending.certificate.as_mut().unwrap();
    certificate.counts.leased = 1;
    certificate.counts.done = 2;
    certificate.digest = "00".into();
    caught(&history, Rule::End, &["1 items leased"]);
    caught(&history, Rule::End, &["2 items done, and there are 3"]);
    caught(&history, Rule::End, &["digest", "00"]);
    let mut history = right().end(&RESULTS, &[]);
    let certificate = history.ending.certificate.as_mut().unwrap();
    certificate.counts.abandoned = 1;
    caught(&history, Rule::End, &["drained, and 1 items are abandoned"]);
}
