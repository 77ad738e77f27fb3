//! What is remembered of a Job between two syncs. All of it can be lost.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

use tokio::time::Instant;

use crate::api::Uid;
use crate::plan::queue::Forgiven;
use crate::plan::{BackoffRecord, GonePod};

/// Pods whose objects are gone that are remembered; their sessions end by themselves in the end.
const GONE_MAX: usize = 1_000;

/// What is remembered of one Job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) backoff: BackoffRecord,
    pub(crate) forgiven: Forgiven,
    /// Names of Pods of which nobody knows whether they were made.
    pub(crate) unresolved: Vec<String>,
    /// Pods whose objects are gone.
    pub(crate) gone: Vec<GonePod>,
    /// Pods that exited 0, and whether they had ever had a session.
    pub(crate) worked: HashMap<Uid, bool>,
    /// States that have been said.
    pub(crate) said: HashSet<String>,
    /// Syncs that failed in a row.
    pub(crate) failures: u32,
    /// When the progress was written last.
    pub(crate) progress_at: Option<Instant>,
}

impl Memory {
    pub(crate) fn remember_gone(&mut self, pod: GonePod) {
        self.gone.retain(|other| other.uid != pod.uid);
        if self.gone.len() >= GONE_MAX {
            self.gone.remove(0);
        }
        self.gone.push(pod);
    }
}

/// Returns a number that nobody can foresee.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
