//! When which Job is looked at next. One time a Job: the earliest that anybody asked for.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::cache::Key;

/// Jobs and the times at which they are due.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    due: HashMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
}

impl Schedule {
    pub(crate) fn at(&mut self, key: Key, time: Instant) {
        match self.due.get(&key) {
            Some(earlier) if *earlier <= time => return,
            Some(later) => {
                self.order.remove(&(*later, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), time);
        self.order.insert((time, key));
    }

    /// Returns when the next Job is due of which `may_start` holds.
    pub(crate) fn next(&self, may_start: impl Fn(&Key) -> bool) -> Option<Instant> {
        self.order
            .iter()
            .find(|(_, key)| may_start(key))
            .map(|(time, _)| *time)
    }

    /// Takes a Job that is due and of which `may_start` holds.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        may_start: impl Fn(&Key) -> bool,
    ) -> Option<Key> {
        let (time, key) = self
            .order
            .iter()
            .take_while(|(time, _)| *time <= now)
            .find(|(_, key)| may_start(key))?
            .clone();
        self.order.remove(&(time, key.clone()));
        self.due.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_job_is_due_once_at_the_earliest_time_that_anybody_asked_for() {
        let (now, mut schedule) = (Instant::now(), Schedule::default());
        let key = |name| Key::new("default", name);
        schedule.at(key("a"), now + Duration::from_secs(9));
        schedule.at(key("a"), now);
        schedule.at(key("a"), now + Duration::from_secs(5));
        schedule.at(key("b"), now);
        let is_not_running = |running: &'static str| move |key: &Key| key.name != running;
        assert_eq!(schedule.take_due(now, is_not_running("a")), Some(key("b")));
        assert_eq!(schedule.take_due(now, is_not_running("a")), None);
        assert_eq!(schedule.next(is_not_running("a")), None);
        assert_eq!(schedule.take_due(now, is_not_running("b")), Some(key("a")));
        assert_eq!(schedule.next(|_| true), None);
    }
}
