//! How much memory the program and all that it has started may have; with more, it is ended as a cluster ends it.
//!
//! Where the kernel bounds it (`fence.rs`), this only asks whether it had to. Elsewhere somebody must look, the sooner the
//! less is left.

use std::fs;
use std::time::{Duration, Instant};

use super::fence::Fence;
use super::wait::now;
use crate::kubelet::identity::descendants;

/// Bytes a second that a program takes when it takes them as fast as it can: page faults of one or two processors.
const GROWTH: u64 = 2 << 30;
/// Bounds of the time between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// A look may cost this part of one processor.
const COST: u32 = 20;
const KIBIBYTE: u64 = 1024;

/// Who goes first when the whole machine has no memory left.
const SCORE: &str = "/proc/self/oom_score_adj";
/// As a cluster has it for a Pod without requests: before all that is not a Pod's.
const FIRST: &str = "1000";

/// Starts a program that goes before this process, and before the server, when the machine has no memory left.
pub(super) fn start_expendable<T>(start: impl FnOnce() -> T) -> T {
    let own = fs::read_to_string(SCORE);
    let _ = fs::write(SCORE, FIRST);
    let started = start();
    if let Ok(own) = own {
        let _ = fs::write(SCORE, own.trim());
    }
    started
}

/// The watch over the memory of a run.
pub(super) struct Memory {
    max: u64,
    supervisor: i32,
    /// How often the kernel had ended something of this group before the run; nothing where it bounds no memory.
    kills: Option<u64>,
    next: Instant,
}

impl Memory {
    /// Bounds the memory of what this supervisor starts; nothing to watch without a bound.
    pub(super) fn bound(max: Option<u64>, supervisor: i32, fence: Option<&Fence>) -> Option<Self> {
        let fenced = fence.is_some_and(|fence| fence.allow_memory(max).is_ok());
        Some(Self {
            max: max?,
            supervisor,
            kills: fence.filter(|_| fenced).and_then(Fence::kills),
            next: now(),
        })
    }

    /// How long until the next look.
    pub(super) fn due(&self) -> Duration {
        self.next.saturating_duration_since(now())
    }

    /// Whether the program has more than it may have; looks if it is time to.
    pub(super) fn is_over(&mut self, fence: Option<&Fence>) -> bool {
        if !self.due().is_zero() {
            return false;
        }
        let begun = now();
        let (is_over, pause) = match self.kills {
            Some(before) => (self.was_ended(fence, before), PAUSE.1),
            None => {
                let family = fence.and_then(Fence::members);
                let family = family.unwrap_or_else(|| family_of(self.supervisor));
                let has = total(&family, self.supervisor, self.max);
                (has > self.max, pause(self.max.saturating_sub(has)))
            }
        };
        let end = now();
        self.next = end + pause.max((end - begun) * COST);
        is_over
    }

    /// Whether the kernel has ended something of the run that had too much.
    pub(super) fn has_ended_some(&self, fence: Option<&Fence>) -> bool {
        self.kills
            .is_some_and(|before| self.was_ended(fence, before))
    }

    fn was_ended(&self, fence: Option<&Fence>, before: u64) -> bool {
        fence
            .and_then(Fence::kills)
            .is_some_and(|kills| kills > before)
    }
}

/// The time in which nothing can have taken so many bytes.
fn pause(left: u64) -> Duration {
    let millis = left.saturating_mul(1000) / GROWTH;
    Duration::from_millis(millis).clamp(PAUSE.0, PAUSE.1)
}

/// What these processes have, in bytes. Pages that several of them share are told apart only if it comes to that.
fn total(family: &[i32], supervisor: i32, max: u64) -> u64 {
    let sum = |of: fn(i32) -> Option<u64>| {
        let others = family.iter().filter(|pid| **pid != supervisor);
        others.filter_map(|pid| of(*pid)).sum::<u64>()
    };
    let most = sum(resident);
    if most <= max {
        return most;
    }
    sum(|pid| proportional(pid).or_else(|| resident(pid)))
}

/// Memory that cannot be had back by dropping it: not what is read from files.
fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kibibytes(&status, &["RssAnon:", "RssShmem:", "VmSwap:"]))
}

/// The same, with pages that several processes share divided among them (since Linux 5.4).
fn proportional(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let has_parts = rollup.contains("Pss_Anon:");
    has_parts.then(|| kibibytes(&rollup, &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]))
}

/// The sum of the named lines, in bytes: `RssAnon:      1234 kB`.
fn kibibytes(text: &str, names: &[&str]) -> u64 {
    let value = |line: &str| {
        let rest = names.iter().find_map(|name| line.strip_prefix(name))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    text.lines().filter_map(value).sum::<u64>() * KIBIBYTE
}

/// All that descends from the process: by the kernel's lists of children, where it keeps them.
fn family_of(root: i32) -> Vec<i32> {
    let children = |pid: i32| {
        let mut all = Vec::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            match fs::read_to_string(task.path().join("children")) {
                Ok(text) => all.extend(
                    text.split_whitespace()
                        .filter_map(|pid| pid.parse::<i32>().ok()),
                ),
                // A thread that has just ended has none; a kernel without these lists has a thread that is still there.
                Err(_) if task.path().exists() => return None,
                Err(_) => {}
            }
        }
        Some(all)
    };
    let Some(mut family) = children(root) else {
        return descendants(root);
    };
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        family.extend(children(*pid).unwrap_or_default());
        next += 1;
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_sooner_the_less_is_left() {
        for (left, millis) in [(0, 5), (64 << 20, 31), (256 << 20, 125), (8 << 30, 250)] {
            assert_eq!(pause(left), Duration::from_millis(millis), "{left}");
        }
    }

    #[test]
    fn only_the_named_lines_count() {
        let text = "RssAnon:\t    1000 kB\nRssFile:\t 500 kB\nRssShmem:\t 24 kB\nThreads:\t1\n";
        assert_eq!(kibibytes(text, &["RssAnon:", "RssShmem:"]), 1024 * 1024);
    }

    #[test]
    fn this_process_has_memory_and_a_parent_whose_it_is() {
        let own = i32::try_from(std::process::id()).unwrap();
        let has = resident(own).unwrap();
        assert!(has > 0 && proportional(own).unwrap_or(has) > 0);
        let parent = crate::kubelet::identity::Stat::of(own).unwrap().parent;
        assert!(family_of(parent).contains(&own));
        assert_eq!(total(&[own], own, 0), 0);
    }
}
