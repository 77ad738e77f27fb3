//! Sets of completion indexes, as a Job's status writes them down.

use std::fmt;

/// A set of completion indexes, kept as runs: sorted, apart by at least one index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    /// Reads the text of a status, as far as it makes sense.
    ///
    /// Bad parts are passed over and everything from `completions` on is cut off: the text may
    /// have been written when the Job had more completions.
    #[must_use]
    pub fn parse(text: &str, completions: u32) -> Self {
        let mut runs = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (first.parse::<u32>(), last.parse::<u32>()),
                None => (part.parse::<u32>(), part.parse::<u32>()),
            };
            let Ok(first) = first else { continue };
            if first >= completions {
                break;
            }
            let Ok(last) = last else { continue };
            if first <= last {
                runs.push((first, last.min(completions - 1)));
            }
        }
        Self::from_runs(runs)
    }

    /// Returns the set of `runs`, which may overlap and come in any order.
    #[must_use]
    pub fn from_runs(mut runs: Vec<(u32, u32)>) -> Self {
        runs.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(runs.len());
        for (first, last) in runs {
            match joined.last_mut() {
                Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    /// Returns the runs, lowest first.
    #[must_use]
    pub fn runs(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// Tells whether `index` is in the set.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let after = self.0.partition_point(|run| run.0 <= index);
        after > 0 && index <= self.0[after - 1].1
    }

    /// Returns how many indexes are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0
            .iter()
            .map(|(first, last)| u64::from(last - first) + 1)
            .sum()
    }

    /// Tells whether the set has no index.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns this set and `more`.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = u32>) -> Self {
        let mut runs = self.0.clone();
        runs.extend(more.into_iter().map(|index| (index, index)));
        Self::from_runs(runs)
    }

    /// Returns the union of this set and `other`.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_runs([self.0.as_slice(), other.0.as_slice()].concat())
    }

    /// Returns how many indexes are in both sets.
    #[must_use]
    pub fn common(&self, other: &Self) -> u64 {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = 0;
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                common += u64::from(last - first) + 1;
            }
            if a.1 <= b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        common
    }

    /// Returns the lowest `count` indexes below `completions` that are not in the set.
    #[must_use]
    pub fn lowest_missing(&self, count: usize, completions: u32) -> Vec<u32> {
        let mut missing = Vec::new();
        let mut candidate = 0;
        let end = (completions, completions);
        for (first, last) in self.0.iter().copied().chain([end]) {
            let room = count - missing.len();
            missing.extend((candidate..first.min(completions)).take(room));
            candidate = candidate.max(last.saturating_add(1));
        }
        missing
    }
}

/// `1,3-5`: a run of two is two numbers.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}
