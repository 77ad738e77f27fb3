//! How many processes each Pod has: a Pod that forks without end is ended before it has taken the
//! machine along.
//!
//! No resource limit of the kernel does that: those on processes count by user, and not at all for root.
//! Control groups do (`supervisor/fence.rs`), but want rights that a user may not have. So somebody looks, too.
//! As long as the whole machine has fewer processes than one Pod may have, that is one line of `/proc` for all Pods.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::identity::Stat;

/// Processes that a Pod may have, unless the kubelet is told otherwise. More than any program needs that
/// means well, and an eighth of what the kernel has numbers for by default (32,768).
pub(super) const PROCESSES_MAX: usize = 4_096;
/// How many processes the kernel lets a container have where it sees to that: a few more than its Pod
/// may have, so that a Pod which wants them is ended all the same.
pub(super) fn fenced(max: usize) -> usize {
    max + max / 8
}

/// How often the machine is looked at. A shell starts some hundred processes in that time.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After how many looks the processes are counted again though they have hardly become more.
const LOOKS_MAX: u32 = 50;

/// Who is whose child, at one moment.
#[derive(Debug, Default)]
pub(super) struct Families(HashMap<i32, Vec<i32>>);

impl Families {
    fn now() -> Self {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        let entries = fs::read_dir("/proc").into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        for pid in pids {
            if let Some(stat) = Stat::of(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        Self(children)
    }

    /// How many processes descend from these.
    pub(super) fn descendants(&self, roots: impl IntoIterator<Item = i32>) -> usize {
        let mut open: Vec<i32> = roots.into_iter().collect();
        let mut count = 0;
        while let Some(parent) = open.pop() {
            let children = self.0.get(&parent).map(Vec::as_slice).unwrap_or_default();
            count += children.len();
            open.extend(children);
        }
        count
    }
}

/// Tells of all processes whenever a Pod might have more than `max`; does not end.
pub(super) async fn look(max: usize, families: watch::Sender<Arc<Families>>) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut counted, mut looks) = (0, 0);
    loop {
        interval.tick().await;
        looks += 1;
        if families.receiver_count() == 0 {
            continue;
        }
        let all = all_tasks();
        // On a machine with many of them, only what comes on top of those that were counted is news.
        let is_news = all >= counted + max / 8 || looks >= LOOKS_MAX;
        if all <= max || !is_news {
            continue;
        }
        (counted, looks) = (all, 0);
        if let Ok(now) = tokio::task::spawn_blocking(Families::now).await {
            families.send_replace(Arc::new(now));
        }
    }
}

/// Processes and threads of the whole machine: `0.20 0.18 0.12 1/80 11206`.
fn all_tasks() -> usize {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let counts = text.split(' ').nth(3).and_then(|part| part.split_once('/'));
    counts.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_theirs_are_counted() {
        let families = Families(HashMap::from([
            (1, vec![2, 3]),
            (3, vec![4]),
            (9, vec![10]),
        ]));
        assert_eq!(families.descendants([1]), 3);
        assert_eq!(families.descendants([3, 9]), 2);
        assert_eq!(families.descendants([]), 0);
    }

    #[test]
    fn this_process_is_among_those_of_the_machine() {
        assert!(all_tasks() > 0);
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = Stat::of(own).unwrap().parent;
        assert!(Families::now().descendants([parent]) > 0);
    }
}
