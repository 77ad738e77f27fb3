//! How many processes each Pod has: a Pod that forks without end is ended before it has taken the
//! machine along.
//!
//! No resource limit of the kernel does that: those on processes count by user, and not at all for root.
//! Control groups do (`supervisor/fence.rs`), but want rights that a user may not have. So somebody looks, too.
//! As long as the whole machine has fewer processes than one Pod may have, that is one line of `/proc` for all Pods.
//! When they become many at once, counting them is too slow: programs are held until it is known whose they are.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::identity::{Identity, Stat};
use super::run::Run;

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
/// How often while processes become more.
const LOOK_QUICKLY: Duration = Duration::from_millis(10);
/// How long the processes are not counted again when they have hardly become more.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The programs that run, so that they can be held without asking anybody.
#[derive(Debug, Default)]
pub(super) struct Programs(Mutex<Listed>);

#[derive(Debug, Default)]
struct Listed {
    last: u64,
    /// The Pod's uid and the run, by an arbitrary number.
    runs: HashMap<u64, (String, Run)>,
}

/// A program is listed for as long as this lives.
pub(super) struct Listing<'a>(&'a Programs, u64);

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        self.0.listed().runs.remove(&self.1);
    }
}

impl Programs {
    pub(super) fn list(&self, uid: &str, run: &Run) -> Listing<'_> {
        let mut listed = self.listed();
        listed.last += 1;
        let number = listed.last;
        listed.runs.insert(number, (uid.to_owned(), run.clone()));
        Listing(self, number)
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the process groups of all programs: whatever starts more processes in its own group starts none then.
    fn hold(&self) -> Vec<Held> {
        let listed = self.listed();
        let running = listed.runs.values().filter_map(|(uid, run)| {
            let program = run.program().filter(Identity::alive)?;
            killpg(Pid::from_raw(program.pid), Signal::SIGSTOP).ok()?;
            Some(Held {
                uid: uid.clone(),
                supervisor: run.supervisor()?.pid,
                program,
            })
        });
        running.collect()
    }
}

/// A program that has been stopped.
struct Held {
    uid: String,
    supervisor: i32,
    program: Identity,
}

/// Lets go on what belongs to no Pod with more than `max` processes; who has more is ended as it is.
fn release(held: &[Held], families: &Families, max: usize) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for one in held {
        *counts.entry(&one.uid).or_default() += families.descendants([one.supervisor]);
    }
    for one in held {
        if counts
            .get(one.uid.as_str())
            .is_none_or(|count| *count <= max)
        {
            go_on(&one.program);
        }
    }
}

/// Has a program go on that may have been held.
pub(super) fn go_on(program: &Identity) {
    if program.alive() {
        let _ = killpg(Pid::from_raw(program.pid), Signal::SIGCONT);
    }
}

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
pub(super) async fn look(max: usize, programs: &Programs, families: watch::Sender<Arc<Families>>) {
    let (mut before, mut counted) = (all_tasks(), 0);
    let mut unseen = Duration::ZERO;
    let mut pause = LOOK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        unseen += pause;
        let all = all_tasks();
        let grown = all.saturating_sub(before);
        before = all;
        pause = if grown > max / 64 {
            LOOK_QUICKLY
        } else {
            LOOK_EVERY
        };
        if families.receiver_count() == 0 {
            continue;
        }
        // On a machine with many of them, only what comes on top of those that were counted is news.
        let is_news = all >= counted + max / 8 || unseen >= COUNT_EVERY;
        if all <= max || !is_news {
            continue;
        }
        (counted, unseen) = (all, Duration::ZERO);
        let held = if grown > max / 16 {
            programs.hold()
        } else {
            Vec::new()
        };
        if let Ok(now) = tokio::task::spawn_blocking(Families::now).await {
            release(&held, &now, max);
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
    fn programs_are_held_until_it_is_known_that_they_have_few_processes() {
        use std::os::unix::process::CommandExt;
        use std::process::Command;

        let mut program = Command::new("sleep");
        let mut program = program.arg("1000").process_group(0).spawn().unwrap();
        let pid = i32::try_from(program.id()).unwrap();
        let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let run = Run::new(dir.path().join("c.0"));
        assert!(run.claim(&own).unwrap());
        let identity = Identity::of(pid).unwrap();
        run.set_program(&identity, jiff::Timestamp::now()).unwrap();
        let programs = Programs::default();
        assert!(programs.hold().is_empty(), "it is not listed yet");
        let listing = programs.list("uid", &run);
        let until = |is_held: bool| {
            // The kernel sends a signal at once, and a process that sleeps takes it when it has a turn.
            while (Stat::of(pid).unwrap().state == 'T') != is_held {
                std::thread::yield_now();
            }
        };
        let held = programs.hold();
        until(true);
        let families = |children: &[i32]| Families(HashMap::from([(own.pid, children.to_vec())]));
        release(&held, &families(&[1, 2, 3]), 2);
        assert_eq!(Stat::of(pid).unwrap().state, 'T', "it is one of too many");
        release(&held, &families(&[1, 2]), 2);
        until(false);
        drop(listing);
        assert!(programs.hold().is_empty(), "it is listed no more");
        program.kill().unwrap();
        program.wait().unwrap();
    }

    #[test]
    fn this_process_is_among_those_of_the_machine() {
        assert!(all_tasks() > 0);
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = Stat::of(own).unwrap().parent;
        assert!(Families::now().descendants([parent]) > 0);
    }
}
