//! Watches: the changes of a collection, a line each, from bytes that all watchers share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::StatusCode;
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::error::{ApiError, Result};
use super::json_reply;
use super::table::{self, Include};
use super::target::{Parameters, Target, is_on, number};
use crate::objects::selector::Selector;
use crate::objects::{Change, ChangeKind, Object, Store};

/// How often a watcher is told how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts when its client does not say.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How much a watcher is told in one piece; what it has not taken yet stands in the store alone.
const PIECE_BYTES: usize = 64 << 10;

struct Watcher {
    store: Arc<Store>,
    target: Target,
    selector: Selector,
    changed: Receiver<()>,
    version: u64,
    ready: VecDeque<Event>,
    as_table: Option<Include>,
    /// The client knows the table's columns.
    has_columns: bool,
    bookmarks: Option<Interval>,
    ends_at: Instant,
    has_ended: bool,
}

/// What is to be said, before it is put into words.
enum Event {
    Change(&'static str, Arc<Object>),
    Said(Bytes),
}

pub(super) fn watch(
    store: &Arc<Store>,
    target: &Target,
    parameters: &Parameters,
    as_table: Option<Include>,
) -> Result<Response> {
    let asked: u64 = number("resourceVersion", &parameters.resource_version)?.unwrap_or(0);
    let initial = is_on(&parameters.send_initial_events)
        || (asked == 0 && parameters.send_initial_events.is_empty());
    let bookmarks = is_on(&parameters.allow_watch_bookmarks);
    let timeout: Option<u64> = number("timeoutSeconds", &parameters.timeout_seconds)?;
    let timeout = timeout
        .filter(|seconds| *seconds > 0)
        .map_or(TIMEOUT, Duration::from_secs);
    let now = Instant::now();
    let mut watcher = Watcher {
        store: Arc::clone(store),
        target: target.clone(),
        selector: target.selector(parameters)?,
        // Before the first look, so that nothing falls between the two.
        changed: store.subscribe(target.resource),
        version: if asked == 0 { store.version() } else { asked },
        ready: VecDeque::new(),
        as_table,
        has_columns: false,
        bookmarks: bookmarks.then(|| {
            let mut interval = tokio::time::interval_at(now + BOOKMARK_EVERY, BOOKMARK_EVERY);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }),
        ends_at: now + timeout,
        has_ended: false,
    };
    if initial {
        let (objects, version) = store.list(target.resource, target.namespace.as_deref());
        let selector = &watcher.selector;
        let selected = objects
            .into_iter()
            .filter(|object| selector.matches(object));
        let events = selected.map(|object| Event::Change("ADDED", object));
        watcher.ready.extend(events);
        watcher.version = version;
        if is_on(&parameters.send_initial_events) && bookmarks {
            let bookmark = watcher.bookmark(true);
            watcher.ready.push_back(Event::Said(bookmark));
        }
    }
    let lines = stream::unfold(watcher, |mut watcher| async {
        let line = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), watcher))
    });
    Ok(json_reply(StatusCode::OK, Body::from_stream(lines)))
}

impl Watcher {
    /// What there is to say, as much as goes into one piece; nothing at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.ready.is_empty() {
                return Some(self.take());
            }
            if self.has_ended {
                return None;
            }
            self.look();
            if !self.ready.is_empty() {
                continue;
            }
            let bookmark_due = async {
                match &mut self.bookmarks {
                    Some(interval) => interval.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changed.changed() => self.has_ended = changed.is_err(),
                _ = bookmark_due => {
                    let bookmark = self.bookmark(false);
                    self.ready.push_back(Event::Said(bookmark));
                }
                () = tokio::time::sleep_until(self.ends_at) => self.has_ended = true,
            }
        }
    }

    fn take(&mut self) -> Bytes {
        let mut lines = BytesMut::new();
        while lines.len() < PIECE_BYTES
            && let Some(event) = self.ready.pop_front()
        {
            let line = match event {
                Event::Change(what, object) => self.line(what, &object),
                Event::Said(line) => line,
            };
            // Mostly there is one.
            if lines.is_empty() && self.ready.is_empty() {
                return line;
            }
            lines.put_slice(&line);
        }
        lines.freeze()
    }

    fn look(&mut self) {
        self.changed.mark_unchanged();
        match self.store.changes(self.target.resource, self.version) {
            Ok(changes) => {
                for change in changes {
                    self.version = change.version;
                    if let Some(what) = self.seen(&change) {
                        let object = Arc::clone(&change.object);
                        self.ready.push_back(Event::Change(what, object));
                    }
                }
            }
            Err(expired) => {
                let status = ApiError::expired(expired.to_string())
                    .to_status()
                    .to_string();
                let said = line("ERROR", status.as_bytes());
                self.ready.push_back(Event::Said(said));
                self.has_ended = true;
            }
        }
    }

    /// What a change is to this watcher: an object that is selected no more is as good as deleted.
    fn seen(&self, change: &Change) -> Option<&'static str> {
        let namespace = self.target.namespace.as_deref();
        if namespace.is_some_and(|namespace| namespace != change.object.namespace()) {
            return None;
        }
        let fits = |object: &Object| self.selector.matches(object);
        let before = change.before.as_deref().is_some_and(fits);
        let after = change.kind != ChangeKind::Deleted && fits(&change.object);
        match (before, after) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    fn line(&mut self, what: &str, object: &Object) -> Bytes {
        let Some(include) = self.as_table else {
            return line(what, object.bytes());
        };
        let metadata = json!({ "resourceVersion": object.version().to_string() });
        let with_columns = !std::mem::replace(&mut self.has_columns, true);
        let only = std::iter::once(object);
        let resource = self.target.resource;
        let table = table::table(resource, only, &metadata, include, with_columns);
        line(what, table.to_string().as_bytes())
    }

    fn bookmark(&self, ends_initial: bool) -> Bytes {
        let metadata = json!({ "resourceVersion": self.version.to_string() });
        let resource = self.target.resource;
        let mut object = match self.as_table {
            Some(include) => table::table(resource, std::iter::empty(), &metadata, include, false),
            None => json!({
                "kind": resource.kind(), "apiVersion": resource.api_version(), "metadata": metadata,
            }),
        };
        if ends_initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        line("BOOKMARK", object.to_string().as_bytes())
    }
}

fn line(what: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(br#"{"type":""#);
    line.put_slice(what.as_bytes());
    line.put_slice(br#"","object":"#);
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}
