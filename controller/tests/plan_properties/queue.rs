//! A queue as a Job sees it, item by item, and what must hold of a Job that works on it.

use std::collections::{BTreeMap, HashSet};

use gangline_controller::api::{Job, Pod};
use gangline_controller::plan::queue::{ItemsSource, latched_uid, workers};
use gangline_controller::plan::{Plan, QueueAction, QueueSnapshot, QueueView};
use gangline_protocol::{
    Certificate, Counts, EndCause, EndPhase, Phase, QueueSettings, QueueStatus, QueueUid,
    SessionId, StopOutcome, Timestamp as Wire, WorkerView,
};
use jiff::Timestamp;

/// A queue, and the service that keeps it.
#[derive(Debug)]
pub(crate) struct Queue {
    uid: u128,
    is_there: bool,
    is_away: bool,
    phase: Phase,
    paused: bool,
    counts: Counts,
    created: Timestamp,
    last_done: Option<Timestamp>,
    certificate: Option<Certificate>,
    /// Open sessions by Pod: what each holds, and since when it has held nothing.
    sessions: BTreeMap<String, (u32, Timestamp)>,
    /// Pods that ever had one.
    had_session: HashSet<String>,
    pub(crate) fills: u32,
}

impl Queue {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            uid: 1,
            is_there: false,
            is_away: false,
            phase: Phase::Open,
            paused: false,
            counts: Counts::default(),
            created: now,
            last_done: None,
            certificate: None,
            sessions: BTreeMap::new(),
            had_session: HashSet::new(),
            fills: 0,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.certificate.is_some()
    }

    pub(crate) fn is_away(&self) -> bool {
        self.is_away
    }

    pub(crate) fn go_away(&mut self, is_away: bool) {
        self.is_away = is_away;
    }

    /// What the controller sees of it, later than the Pods.
    pub(crate) fn view(&self, pods: &[Pod]) -> QueueView {
        if self.is_away {
            return QueueView::Unavailable("away".into());
        }
        if !self.is_there {
            return QueueView::Missing;
        }
        let never_worked = pods
            .iter()
            .filter(|pod| pod.has_succeeded() && !self.had_session.contains(pod.uid()))
            .map(|pod| pod.uid().to_owned());
        QueueView::Seen(Box::new(QueueSnapshot {
            status: self.status(),
            workers: self.workers(),
            never_worked: if self.is_over() {
                HashSet::new()
            } else {
                never_worked.collect()
            },
            outlived_a_job: false,
        }))
    }

    fn status(&self) -> QueueStatus {
        QueueStatus {
            queue: "default.j".parse().unwrap(),
            uid: QueueUid(self.uid),
            phase: self.phase,
            paused: self.paused,
            counts: self.counts,
            retried: 0,
            sessions: self.sessions.len() as u64,
            created_at: wire(self.created),
            first_lease_at: None,
            last_done_at: self.last_done.map(wire),
            rate: None,
            eta_ms: None,
            durability: None,
            settings: QueueSettings::default(),
            certificate: self.certificate.clone(),
        }
    }

    fn workers(&self) -> Vec<WorkerView> {
        let sessions = self.sessions.iter();
        sessions
            .map(|(pod, (holds, idle))| WorkerView {
                worker: format!("{pod}.main").parse().unwrap(),
                session: SessionId(1),
                holds: *holds,
                done: 0,
                opened_at: wire(self.created),
                idle_since: (*holds == 0).then_some(wire(*idle)),
            })
            .collect()
    }

    /// A running Pod asks for an item.
    pub(crate) fn lease(&mut self, pod: &str, now: Timestamp) {
        if !self.is_there || self.is_over() || self.is_away {
            return;
        }
        self.had_session.insert(pod.to_owned());
        let (holds, _) = self.sessions.entry(pod.to_owned()).or_insert((0, now));
        if self.counts.ready > 0 && !self.paused {
            (self.counts.ready, self.counts.leased) =
                (self.counts.ready - 1, self.counts.leased + 1);
            *holds += 1;
        }
    }

    /// A Pod has done what it holds, or has found it to be hopeless.
    pub(crate) fn settle(&mut self, pod: &str, is_done: bool, now: Timestamp) {
        let Some((holds, idle)) = self.sessions.get_mut(pod).filter(|(holds, _)| *holds > 0) else {
            return;
        };
        if self.is_away || self.certificate.is_some() {
            return;
        }
        let settled = u64::from(*holds);
        (*holds, *idle) = (0, now);
        self.counts.leased -= settled;
        if is_done {
            self.counts.done += settled;
            self.last_done = Some(now);
        } else {
            self.counts.dead += settled;
        }
        self.drain(now);
    }

    pub(crate) fn push(&mut self, items: u64) {
        if self.phase == Phase::Open && !self.is_away {
            self.is_there = true;
            self.counts.ready += items;
        }
    }

    pub(crate) fn seal(&mut self, now: Timestamp) {
        if self.phase == Phase::Open && self.is_there && !self.is_away {
            self.phase = Phase::Sealed;
            self.drain(now);
        }
    }

    pub(crate) fn delete(&mut self) {
        if self.is_there && !self.is_away {
            let (uid, created) = (self.uid + 1, self.created);
            *self = Self {
                uid,
                ..Self::new(created)
            };
        }
    }

    fn drain(&mut self, now: Timestamp) {
        if self.phase == Phase::Sealed && self.counts.left() == 0 {
            self.end(EndPhase::Drained, StopOutcome::Success, now);
        }
    }

    pub(crate) fn end(&mut self, phase: EndPhase, outcome: StopOutcome, now: Timestamp) {
        if !self.is_there || self.is_over() || self.is_away {
            return;
        }
        let left = self.counts.left();
        (self.counts.ready, self.counts.leased) = (0, 0);
        self.counts.abandoned += left;
        for (holds, _) in self.sessions.values_mut() {
            *holds = 0;
        }
        self.phase = match phase {
            EndPhase::Drained => Phase::Drained,
            EndPhase::Stopped => Phase::Stopped,
        };
        self.certificate = Some(Certificate {
            queue: "default.j".parse().unwrap(),
            uid: QueueUid(self.uid),
            phase,
            cause: EndCause::Stop,
            outcome,
            reason: None,
            ended_by: None,
            created_at: wire(self.created),
            ended_at: wire(now),
            counts: self.counts,
            digest: "d".into(),
            history_uncertain: false,
            durability: None,
        });
    }

    /// What holds of every plan for a Job that works on this queue.
    pub(crate) fn check_plan(&self, job: &Job, pods: &[Pod], plan: &Plan) {
        if plan.skip.is_some() {
            return;
        }
        let created = plan.create.iter().map(Vec::len).sum::<usize>();
        let is_seen = !self.is_away && self.is_there;
        if !is_seen || self.is_over() {
            assert_eq!(
                created, 0,
                "a Pod is made for a queue that is over or not seen"
            );
        }
        if self.is_away && plan.end.is_none() && !job.is_suspended() {
            let active = pods.iter().filter(|pod| pod.is_active()).count();
            let allowed = usize::try_from(job.parallelism()).unwrap();
            let surplus = active.saturating_sub(allowed);
            assert!(
                plan.delete.len() <= surplus,
                "Pods go because of the unknown"
            );
        }
        let others: Vec<&QueueAction> = plan
            .queue_actions
            .iter()
            .filter(|action| !matches!(action, QueueAction::Create))
            .collect();
        assert!(is_seen || others.is_empty(), "{others:?} of the unknown");
        for action in &plan.queue_actions {
            if let QueueAction::Revoke { worker, .. } = action {
                let uid = workers::pod_uid(worker).unwrap();
                let pod = pods.iter().find(|pod| pod.uid() == uid);
                assert!(
                    pod.is_none_or(workers::is_dead),
                    "the session of a Pod that lives is revoked"
                );
            }
        }
        // Without suspension or less parallelism, a busy Pod is never let go before the end.
        let active = pods.iter().filter(|pod| pod.is_active()).count();
        let is_crowded = active > usize::try_from(job.parallelism()).unwrap();
        if plan.end.is_none() && !job.is_suspended() && !is_crowded {
            for deletion in &plan.delete {
                let held = self.sessions.get(deletion.pod.uid());
                assert!(held.is_none_or(|(holds, _)| *holds == 0), "a busy Pod goes");
            }
        }
        if let Some(latched) = latched_uid(job)
            && is_seen
            && latched != QueueUid(self.uid)
        {
            assert!(plan.end.is_some(), "the Job goes on with another queue");
        }
    }

    /// Does what the controller asks for; the latch is the Job's.
    pub(crate) fn carry_out(&mut self, action: &QueueAction, now: Timestamp) {
        match action {
            QueueAction::Latch(_) => {}
            QueueAction::Create => self.is_there = true,
            QueueAction::Fill(ItemsSource::Range { first, last }) => {
                self.fills += 1;
                self.push(last - first + 1);
                self.seal(now);
            }
            QueueAction::Fill(ItemsSource::ConfigMap(_)) => unreachable!("no Job here has one"),
            QueueAction::Pause => self.paused = true,
            QueueAction::Stop { outcome, .. } => self.end(EndPhase::Stopped, *outcome, now),
            QueueAction::Revoke { worker, .. } => {
                let uid = workers::pod_uid(worker).unwrap();
                if let Some((holds, _)) = self.sessions.remove(uid) {
                    self.counts.leased -= u64::from(holds);
                    self.counts.ready += u64::from(holds);
                }
            }
        }
    }
}

fn wire(time: Timestamp) -> Wire {
    Wire(u64::try_from(time.as_millisecond()).unwrap())
}
