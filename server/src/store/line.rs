//! The line at the store's door: whoever asks much waits for those who ask little.
//!
//! Each namespace has a lane. They take turns, and in a turn each gets the same amount of work done
//! (deficit round robin: Shreedhar and Varghese, 1995), so that a request waits for one turn of
//! every other namespace at most, however many requests those have. Within a lane the order is that
//! of coming.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is done in one turn of a namespace: some 100 µs.
const TURN: u64 = 64;

/// The most that one request counts for: a lane that has a dearer one waits no longer for it than
/// for others.
const COST_MAX: u64 = 64 * TURN;

/// A line of requests.
#[derive(Debug)]
pub(super) struct Line<T> {
    state: Mutex<State<T>>,
    /// Somebody has come, or it was closed.
    news: Condvar,
}

#[derive(Debug)]
struct State<T> {
    lanes: HashMap<Box<str>, Lane<T>>,
    /// The namespaces that have a lane, in the order of their turns.
    turns: VecDeque<Box<str>>,
    /// Requests in all lanes.
    waiting: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Lane<T> {
    requests: VecDeque<(u64, T)>,
    /// What may still be done in this turn.
    credit: u64,
}

/// Why a request is not in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    Full,
    Closed,
}

impl<T> Line<T> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                lanes: HashMap::new(),
                turns: VecDeque::new(),
                waiting: 0,
                is_closed: false,
            }),
            news: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request into its namespace's lane, unless so many wait already.
    pub(super) fn join(
        &self,
        namespace: &str,
        cost: u64,
        request: T,
        waiting_max: usize,
    ) -> Result<(), NoPlace> {
        let mut state = self.state();
        if state.is_closed {
            return Err(NoPlace::Closed);
        }
        if state.waiting >= waiting_max {
            return Err(NoPlace::Full);
        }
        state.waiting += 1;
        let request = (cost.clamp(1, COST_MAX), request);
        if let Some(lane) = state.lanes.get_mut(namespace) {
            lane.requests.push_back(request);
        } else {
            let lane = Lane {
                requests: VecDeque::from([request]),
                credit: TURN,
            };
            state.lanes.insert(namespace.into(), lane);
            state.turns.push_back(namespace.into());
        }
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// Takes no more requests; those that wait can still be taken.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.news.notify_one();
    }

    /// Takes the next request, if there is one, with what it costs.
    pub(super) fn take(&self) -> Option<(u64, T)> {
        self.state().take()
    }

    /// Takes the next request, and waits for it for so long. The line's end is told at once.
    pub(super) fn wait(&self, longest: Duration) -> Waited<T> {
        let state = self.state();
        let idle = |state: &mut State<T>| state.waiting == 0 && !state.is_closed;
        let waited = self.news.wait_timeout_while(state, longest, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.take() {
            Some((cost, request)) => Waited::Request(cost, request),
            None if state.is_closed => Waited::End,
            None => Waited::Nothing,
        }
    }
}

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited<T> {
    Request(u64, T),
    Nothing,
    /// The line is closed, and everybody in it was served.
    End,
}

impl<T> State<T> {
    fn take(&mut self) -> Option<(u64, T)> {
        loop {
            let namespace = self.turns.front()?;
            let lane = self.lanes.get_mut(namespace).expect("a turn has a lane");
            let (cost, _) = lane.requests.front().expect("a lane has a request");
            if *cost > lane.credit {
                // The next one's turn. At most COST_MAX / TURN rounds until somebody's credit does.
                lane.credit += TURN;
                self.turns.rotate_left(1);
                continue;
            }
            let taken = lane.requests.pop_front()?;
            lane.credit -= taken.0;
            self.waiting -= 1;
            if lane.requests.is_empty() {
                // Credit is not kept: who comes back later gets no more than others.
                let namespace = self.turns.pop_front()?;
                self.lanes.remove(&namespace);
            }
            return Some(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets requests of a cost join, each named by its namespace and its number.
    fn join(line: &Line<(char, u64)>, namespace: char, cost: u64, count: u64) {
        for number in 0..count {
            let name = namespace.to_string();
            line.join(&name, cost, (namespace, number), usize::MAX)
                .unwrap();
        }
    }

    fn all(line: &Line<(char, u64)>) -> Vec<(char, u64)> {
        std::iter::from_fn(|| line.take())
            .map(|(_, request)| request)
            .collect()
    }

    #[test]
    fn a_request_waits_for_one_turn_of_each_other_namespace() {
        for cost in [1, 7, TURN, 3 * TURN, COST_MAX, u64::MAX] {
            let line = Line::new();
            join(&line, 'f', cost, 1_000);
            join(&line, 'g', cost, 1_000);
            // Some of theirs are under way when the others come.
            for _ in 0..10 {
                line.take();
            }
            join(&line, 'q', 1, 1);
            let taken = all(&line);
            let before = taken.iter().position(|(who, _)| *who == 'q').unwrap();
            let one_turn = (TURN / cost).max(1) as usize;
            // A turn may have some credit of the one before.
            assert!(before <= 2 * one_turn + 2, "{cost}: {before} were before");
        }
    }

    #[test]
    fn work_is_shared_evenly_whatever_a_request_costs() {
        let line = Line::new();
        join(&line, 'd', 32, 1_000);
        join(&line, 'c', 1, 10_000);
        let mut done: HashMap<char, u64> = HashMap::new();
        for _ in 0..5_000 {
            let (cost, (who, _)) = line.take().unwrap();
            *done.entry(who).or_default() += cost;
        }
        assert!(done[&'d'].abs_diff(done[&'c']) <= 2 * TURN, "{done:?}");
    }

    #[test]
    fn within_a_namespace_the_order_is_that_of_coming() {
        let line = Line::new();
        join(&line, 'a', 5 * TURN, 20);
        join(&line, 'b', 1, 300);
        let taken = all(&line);
        assert_eq!(taken.len(), 320);
        for who in ['a', 'b'] {
            let numbers = taken.iter().filter(|one| one.0 == who).map(|one| one.1);
            assert!(numbers.is_sorted());
        }
        assert!(line.state().lanes.is_empty());
    }

    #[test]
    fn a_full_line_and_a_closed_one_take_nobody() {
        let line = Line::new();
        assert_eq!(line.wait(Duration::ZERO), Waited::Nothing);
        assert_eq!(line.join("a", 1, 1, 2), Ok(()));
        assert_eq!(line.join("b", 1, 2, 2), Ok(()));
        assert_eq!(line.join("c", 1, 3, 2), Err(NoPlace::Full));
        line.close();
        assert_eq!(line.join("a", 1, 4, 2), Err(NoPlace::Closed));
        let waited = [(); 3].map(|()| line.wait(Duration::MAX));
        assert_eq!(
            waited,
            [Waited::Request(1, 1), Waited::Request(1, 2), Waited::End]
        );
    }
}
