//! What is left of Pods whose objects went while no kubelet ran: their processes are ended and their state removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::container::lost;
use super::identity::Identity;
use super::run::Run;

/// How often the end of a run is looked for.
const POLL: Duration = Duration::from_millis(50);

/// The state of a Pod that does not exist.
pub(super) struct Leftover {
    dir: PathBuf,
    runs: Vec<Run>,
}

/// Finds the directories below `root` that are a Pod's by what they hold, and no known one's.
pub(super) fn find(root: &Path, is_known: impl Fn(&str) -> bool) -> Vec<Leftover> {
    let leftover = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let unknown = !is_known(name.to_str()?);
        let dir = entry.path();
        let runs: Vec<Run> = fs::read_dir(&dir)
            .ok()?
            .filter_map(|file| Run::found(file.ok()?.path()))
            .collect();
        (unknown && !runs.is_empty()).then_some(Leftover { dir, runs })
    };
    fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| leftover(entry.ok()?))
        .collect()
}

impl Leftover {
    /// Ends what still runs, each within the grace that its Pod gave it, and removes the state.
    pub(super) async fn clear(self) {
        let Self { dir, runs } = self;
        let live = |run: &&Run| run.exit().is_none();
        for run in runs.iter().filter(live) {
            if let Some(supervisor) = run.supervisor().filter(Identity::alive) {
                let _ = kill(Pid::from_raw(supervisor.pid), Signal::SIGTERM);
            }
        }
        for run in &runs {
            loop {
                // In this order: the supervisor writes the end before it goes.
                let supervised = run.supervisor().is_some_and(|known| known.alive());
                if run.exit().is_some() {
                    break;
                }
                if !supervised {
                    lost(run);
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
        }
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(%error, dir = %dir.display(), "the state of a Pod that is gone was not removed");
        }
    }
}
