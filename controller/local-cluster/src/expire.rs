//! Jobs that are finished are deleted when their time is over (`ttlSecondsAfterFinished`).

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::api::delete::{Options, Propagation, delete_object};
use crate::objects::resource::Resource;
use crate::objects::{Change, ChangeKind, Object, Store, text};

/// How long to sleep when no Job has a time to go.
const IDLE: SignedDuration = SignedDuration::from_hours(1);

/// When a Job is to go, if it ever is.
pub(crate) fn due_at(job: &Value) -> Option<Timestamp> {
    if !text(job, "deletionTimestamp").is_empty() {
        return None;
    }
    let seconds = job["spec"]["ttlSecondsAfterFinished"].as_i64()?;
    let mut conditions = job["status"]["conditions"].as_array()?.iter();
    let end = conditions.find(|condition| {
        matches!(condition["type"].as_str(), Some("Complete" | "Failed"))
            && condition["status"] == "True"
    })?;
    let finished: Timestamp = end["lastTransitionTime"].as_str()?.parse().ok()?;
    finished
        .checked_add(SignedDuration::from_secs(seconds))
        .ok()
}

/// Deletes Jobs whose time is over, until `shutdown`.
pub(crate) async fn run(store: Arc<Store>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow(&store) => {}
    }
}

/// A Job that is to go, by the time when.
type Due = BTreeSet<(Timestamp, String, String)>;

async fn follow(store: &Store) {
    let mut changed = store.subscribe(Resource::Jobs);
    let mut due = Due::new();
    let mut version = list(store, &mut due);
    loop {
        changed.mark_unchanged();
        match store.changes(Resource::Jobs, version) {
            Ok(changes) => {
                for change in changes {
                    version = change.version;
                    note_change(&mut due, &change);
                }
            }
            Err(_) => version = list(store, &mut due),
        }
        let now = Timestamp::now();
        while due.first().is_some_and(|(at, _, _)| *at <= now) {
            if let Some((_, namespace, name)) = due.pop_first() {
                expire(store, &namespace, &name, now);
            }
        }
        let wait = due
            .first()
            .map_or(IDLE, |(at, _, _)| at.duration_since(now));
        let wait = wait.min(IDLE).unsigned_abs();
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn list(store: &Store, due: &mut Due) -> u64 {
    let (jobs, version) = store.list(Resource::Jobs, None);
    for job in jobs {
        note(due, &job);
    }
    version
}

fn note(due: &mut Due, job: &Object) {
    if let Some(at) = due_at(job.value()) {
        due.insert((at, job.namespace().to_owned(), job.name().to_owned()));
    }
}

fn note_change(due: &mut Due, change: &Change) {
    if change.kind != ChangeKind::Deleted {
        note(due, &change.object);
    }
}

/// Judges the newest form of the Job, since its time may have been changed.
fn expire(store: &Store, namespace: &str, name: &str, now: Timestamp) {
    let Some(job) = store.get(Resource::Jobs, namespace, name) else {
        return;
    };
    if due_at(job.value()).is_none_or(|at| at > now) {
        return;
    }
    let options = Options::own(Propagation::Foreground, job.uid());
    if let Err(error) = delete_object(store, (Resource::Jobs, namespace, name), &options) {
        tracing::debug!(%error, object.name = name, "a finished Job was not deleted");
    }
}
