//! The objects of the cluster: what there is now, and what changed last.
//!
//! One collection a resource, each under a lock of its own that is held for a look-up or a change.
//! Where objects are kept on disk, a change is in the file before anybody sees it. One counter gives all versions, so none is ever given twice.
//! What an object may look like is not judged here.

mod journal;
mod object;
pub(crate) mod resource;
pub(crate) mod selector;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

pub(crate) use journal::JournalError;
use journal::{Journal, Kept, Snapshot};
pub(crate) use object::{Object, field, items_mut, text};
use resource::Resource;

/// Changes that a collection remembers; a watcher further behind has to list again.
const HISTORY_MAX: usize = 8_192;
/// Bytes of objects in these changes, beyond which the oldest are forgotten before there are so many:
/// some 1,500 changes of Pods, which is what 250 Pods that live and die leave behind.
const HISTORY_BYTES_MAX: usize = 4 << 20;
/// Changes whose objects have a tree beside their text: more than there are between a change and the
/// look of those who follow.
const TREES_MAX: usize = 64;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// A change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    pub(crate) version: u64,
    /// The object after the change; what it was last if it is gone.
    pub(crate) object: Arc<Object>,
    pub(crate) before: Option<Arc<Object>>,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Why a write was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// An object of that name is there.
    #[error("the object exists")]
    Exists,
    /// The object is not any more what it was read as.
    #[error("the object has changed")]
    Changed,
    /// It cannot be kept.
    #[error("the object cannot be written to the disk")]
    Failed,
}

/// Changes since that version are not remembered any more, or have not been made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub(crate) struct Expired {
    asked: u64,
    oldest: u64,
}

/// All objects.
#[derive(Debug)]
pub(crate) struct Store {
    version: AtomicU64,
    collections: Vec<Collection>,
    uids: Mutex<Uids>,
    journal: Option<Journal>,
}

#[derive(Debug, Default)]
struct Collection {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By namespace, then by name.
    objects: BTreeMap<String, BTreeMap<String, Arc<Object>>>,
    history: VecDeque<Arc<Change>>,
    history_bytes: usize,
    /// The version from which on every change is in `history`.
    known_since: u64,
}

/// Who there is, and who belongs to whom, by uid.
#[derive(Debug, Default)]
struct Uids {
    live: HashMap<String, Place>,
    dependents: HashMap<String, HashSet<Place>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking task leaves behind is whole: every change of a collection is checked before it begins.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// An empty store in memory whose versions follow `version`.
    pub(crate) fn new(version: u64) -> Self {
        Self::with(version, None)
    }

    /// The store that is kept in `dir`, with versions that follow `version` and all that were given.
    pub(crate) fn open(dir: &Path, version: u64) -> Result<Arc<Self>, JournalError> {
        let (journal, recovered) = Journal::open(dir, journal::LOG_BYTES_MAX)?;
        let version = version.max(recovered.version);
        let mut store = Self::with(version, None);
        for (resource, value, version) in recovered.objects {
            let object = Arc::new(Object::new(value, version));
            object.rest();
            let mut state = lock(&store.collection(resource).state);
            let objects = state.objects.entry(object.namespace().to_owned());
            let name = object.name().to_owned();
            objects.or_default().insert(name, Arc::clone(&object));
            drop(state);
            store.note(resource, None, Some(&object));
        }
        store.journal = Some(journal);
        let store = Arc::new(store);
        let weak = Arc::downgrade(&store);
        if let Some(journal) = &store.journal {
            let all = move || weak.upgrade().map(|store| store.all()).unwrap_or_default();
            journal.start(all).map_err(|source| JournalError::Io {
                path: dir.to_owned(),
                source,
            })?;
        }
        Ok(store)
    }

    /// Waits until all that was written so far is safe on the disk; at once where nothing is kept.
    pub(crate) async fn synced(&self) -> io::Result<()> {
        match &self.journal {
            Some(journal) => journal.synced().await,
            None => Ok(()),
        }
    }

    fn all(&self) -> Snapshot {
        let mut all = Vec::new();
        for resource in Resource::ALL {
            let (objects, _) = self.list(resource, None);
            all.extend(objects.into_iter().map(|object| (resource, object)));
        }
        (all, self.version())
    }

    fn keep(&self, resource: Resource, change: Kept<'_>) -> Result<(), WriteError> {
        match &self.journal {
            Some(journal) => journal
                .keep(resource, change)
                .map_err(|_| WriteError::Failed),
            None => Ok(()),
        }
    }

    fn with(version: u64, journal: Option<Journal>) -> Self {
        let collections = Resource::ALL.iter().map(|_| {
            let collection = Collection::default();
            lock(&collection.state).known_since = version;
            collection
        });
        Self {
            version: AtomicU64::new(version),
            collections: collections.collect(),
            uids: Mutex::default(),
            journal,
        }
    }

    fn collection(&self, resource: Resource) -> &Collection {
        &self.collections[resource as usize]
    }

    pub(crate) fn get(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Object>> {
        let state = lock(&self.collection(resource).state);
        state.objects.get(namespace)?.get(name).cloned()
    }

    /// Objects of one namespace, or of all, ordered by namespace and name, and the version they are read at.
    pub(crate) fn list(
        &self,
        resource: Resource,
        namespace: Option<&str>,
    ) -> (Vec<Arc<Object>>, u64) {
        let state = lock(&self.collection(resource).state);
        let objects = match namespace {
            Some(namespace) => {
                let objects = state.objects.get(namespace);
                objects
                    .into_iter()
                    .flat_map(BTreeMap::values)
                    .cloned()
                    .collect()
            }
            None => state
                .objects
                .values()
                .flat_map(BTreeMap::values)
                .cloned()
                .collect(),
        };
        (objects, self.version.load(Ordering::Acquire))
    }

    /// Adds an object.
    pub(crate) fn create(
        &self,
        resource: Resource,
        value: Value,
    ) -> Result<Arc<Object>, WriteError> {
        let (namespace, name) = (text(&value, "namespace"), text(&value, "name"));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let collection = self.collection(resource);
        let object = {
            let mut state = lock(&collection.state);
            let objects = state.objects.entry(namespace).or_default();
            if objects.contains_key(&name) {
                return Err(WriteError::Exists);
            }
            let object = Arc::new(Object::new(value, self.next_version()));
            self.keep(resource, Kept::Put(&object))?;
            objects.insert(name, Arc::clone(&object));
            state.remember(ChangeKind::Added, object.version(), &object, None);
            self.note(resource, None, Some(&object));
            object
        };
        collection.changed.send_replace(());
        Ok(object)
    }

    /// Makes `value` of the object `before`, if it still is the newest.
    pub(crate) fn replace(
        &self,
        resource: Resource,
        before: &Arc<Object>,
        value: Value,
    ) -> Result<Arc<Object>, WriteError> {
        if *before.value() == value {
            return Ok(Arc::clone(before));
        }
        let collection = self.collection(resource);
        let object = {
            let mut state = lock(&collection.state);
            let newest = state.newest(before).ok_or(WriteError::Changed)?;
            let object = Arc::new(Object::new(value, self.next_version()));
            self.keep(resource, Kept::Put(&object))?;
            *newest = Arc::clone(&object);
            state.remember(
                ChangeKind::Modified,
                object.version(),
                &object,
                Some(before),
            );
            self.note(resource, Some(before), Some(&object));
            object
        };
        collection.changed.send_replace(());
        Ok(object)
    }

    /// Takes the object `before` out, if it still is the newest; `value` is how it is seen last.
    pub(crate) fn remove(
        &self,
        resource: Resource,
        before: &Arc<Object>,
        value: Value,
    ) -> Result<Arc<Object>, WriteError> {
        let collection = self.collection(resource);
        let object = {
            let mut state = lock(&collection.state);
            state.newest(before).ok_or(WriteError::Changed)?;
            let object = Arc::new(Object::new(value, self.next_version()));
            self.keep(resource, Kept::Gone(&object))?;
            if let Some(objects) = state.objects.get_mut(before.namespace()) {
                objects.remove(before.name());
                if objects.is_empty() {
                    state.objects.remove(before.namespace());
                }
            }
            state.remember(ChangeKind::Deleted, object.version(), &object, Some(before));
            self.note(resource, Some(before), None);
            object
        };
        collection.changed.send_replace(());
        Ok(object)
    }

    /// Every change after `version`, oldest first.
    pub(crate) fn changes(
        &self,
        resource: Resource,
        version: u64,
    ) -> Result<Vec<Arc<Change>>, Expired> {
        let state = lock(&self.collection(resource).state);
        if version < state.known_since || version > self.version.load(Ordering::Acquire) {
            return Err(Expired {
                asked: version,
                oldest: state.known_since,
            });
        }
        let from = state
            .history
            .partition_point(|change| change.version <= version);
        Ok(state.history.range(from..).cloned().collect())
    }

    /// Tells of every change of a collection, after it was made.
    pub(crate) fn subscribe(&self, resource: Resource) -> watch::Receiver<()> {
        self.collection(resource).changed.subscribe()
    }

    /// The newest version of anything.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Where the object with this uid is, if it is there.
    pub(crate) fn find(&self, uid: &str) -> Option<Place> {
        lock(&self.uids).live.get(uid).cloned()
    }

    /// The objects that name `uid` as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Place> {
        let uids = lock(&self.uids);
        let places = uids.dependents.get(uid);
        places.into_iter().flatten().cloned().collect()
    }

    /// Only called under the lock of the collection, so that versions stand in order in its history.
    fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn note(&self, resource: Resource, before: Option<&Object>, after: Option<&Object>) {
        let owners = |object: Option<&Object>| -> Vec<String> {
            let references = object.map(Object::owners).unwrap_or_default().iter();
            references.map(|owner| owner.uid.to_string()).collect()
        };
        let (old, new) = (owners(before), owners(after));
        let Some(object) = after.or(before) else {
            return;
        };
        let is_new_or_gone = before.is_some() != after.is_some();
        if old == new && !is_new_or_gone {
            return;
        }
        let place = object.place(resource);
        let mut uids = lock(&self.uids);
        if after.is_none() {
            uids.live.remove(object.uid());
        } else if before.is_none() {
            uids.live.insert(object.uid().to_owned(), place.clone());
        }
        for uid in old {
            if let Some(places) = uids.dependents.get_mut(&uid) {
                places.remove(&place);
                if places.is_empty() {
                    uids.dependents.remove(&uid);
                }
            }
        }
        for uid in new {
            uids.dependents
                .entry(uid)
                .or_default()
                .insert(place.clone());
        }
    }
}

impl State {
    fn newest(&mut self, before: &Arc<Object>) -> Option<&mut Arc<Object>> {
        let objects = self.objects.get_mut(before.namespace())?;
        let newest = objects.get_mut(before.name())?;
        Arc::ptr_eq(newest, before).then_some(newest)
    }

    fn remember(
        &mut self,
        kind: ChangeKind,
        version: u64,
        object: &Arc<Object>,
        before: Option<&Arc<Object>>,
    ) {
        self.history.push_back(Arc::new(Change {
            kind,
            version,
            object: Arc::clone(object),
            before: before.map(Arc::clone),
        }));
        self.history_bytes += object.bytes().len();
        if let Some(older) = self.history.len().checked_sub(TREES_MAX + 1) {
            self.history[older].object.rest();
        }
        while (self.history.len() > HISTORY_MAX || self.history_bytes > HISTORY_BYTES_MAX)
            && let Some(oldest) = self.history.pop_front()
        {
            self.history_bytes -= oldest.object.bytes().len();
            self.known_since = oldest.version;
            oldest.object.rest();
        }
    }
}

#[cfg(test)]
mod tests;
