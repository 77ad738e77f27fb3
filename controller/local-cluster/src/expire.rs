//! What is only wanted for a time: finished Jobs (`ttlSecondsAfterFinished`) and events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::api::delete::{Options, Propagation, delete_object};
use crate::objects::resource::Resource;
use crate::objects::{Change, ChangeKind, Object, Store, text};

/// How long an event is kept, as in Kubernetes.
const EVENT_AGE_MAX: SignedDuration = SignedDuration::from_hours(1);
/// How many events are kept; the oldest go first.
const EVENTS_MAX: usize = 20_000;
/// How often events are looked through.
const EVENTS_EVERY: Duration = Duration::from_secs(60);
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

/// Deletes what has had its time, until `shutdown`.
pub(crate) async fn run(store: Arc<Store>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow(&store) => {}
        () = forget_events(&store) => {}
    }
}

async fn forget_events(store: &Store) {
    let mut look = tokio::time::interval(EVENTS_EVERY);
    loop {
        look.tick().await;
        let (mut events, _) = store.list(Resource::Events, None);
        events.sort_by_key(|event| event.version());
        let surplus = events.len().saturating_sub(EVENTS_MAX);
        let now = Timestamp::now();
        for (position, event) in events.iter().enumerate() {
            if position < surplus || is_old(&event.value(), now) {
                let place = (Resource::Events, event.namespace(), event.name());
                delete(store, place, event.uid(), Propagation::Background);
            }
        }
    }
}

/// Whether an event was last seen too long ago.
fn is_old(event: &Value, now: Timestamp) -> bool {
    let times = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ];
    let mut times = times.iter().filter_map(|path| {
        let time: Timestamp = event.pointer(path)?.as_str()?.parse().ok()?;
        Some(time)
    });
    let seen = times.next();
    seen.is_some_and(|seen| now.duration_since(seen) > EVENT_AGE_MAX)
}

fn delete(store: &Store, place: (Resource, &str, &str), uid: &str, propagation: Propagation) {
    let options = Options::own(propagation, uid);
    if let Err(error) = delete_object(store, place, &options) {
        tracing::debug!(%error, object.name = place.2, "what has had its time was not deleted");
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
    if let Some(at) = due_at(&job.value()) {
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
    if due_at(&job.value()).is_none_or(|at| at > now) {
        return;
    }
    let place = (Resource::Jobs, namespace, name);
    delete(store, place, job.uid(), Propagation::Foreground);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_old_an_hour_after_it_was_last_seen() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let event = json!({
            "eventTime": "2026-01-01T10:00:00Z", "lastTimestamp": "2026-01-01T11:00:00Z",
        });
        assert!(!is_old(&event, now));
        assert!(is_old(&event, now + SignedDuration::from_secs(1)));
        let fresh = json!({ "metadata": { "creationTimestamp": "2026-01-01T11:59:00Z" } });
        assert!(!is_old(&fresh, now));
    }
}
