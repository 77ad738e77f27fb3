//! What is known of Jobs and Pods: what the watches said, and what replies to writes said first.
//!
//! A reply goes in at once, so that no plan is made on a state that this controller knows to be
//! past. An older version that the watch brings later changes nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use kube::Resource;

use crate::api::names::JOB_KIND;
use crate::api::{Job, Pod, Uid};
use crate::plan::claim;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

/// How many objects are remembered that the watch has said to be gone; more than there can be writes
/// on their way.
const BURIED_MAX: usize = 10_000;

/// Objects of one kind.
#[derive(Debug)]
pub(crate) struct Store<K> {
    objects: HashMap<Key, Arc<K>>,
    /// Uids that are known to be gone, by a reply or by the watch.
    gone: HashSet<Uid>,
    /// Those that the watch has said to be gone, oldest first: a reply to an earlier write may still
    /// be on its way.
    buried: VecDeque<Uid>,
    /// Keys that the list in progress has brought, if one is in progress.
    listed: Option<HashSet<Key>>,
    /// Keys written since that list began.
    written: HashSet<Key>,
    /// Keys whose state was read, and not brought by the watch yet.
    read: HashSet<Key>,
    complete: bool,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            gone: HashSet::new(),
            buried: VecDeque::new(),
            listed: None,
            written: HashSet::new(),
            read: HashSet::new(),
            complete: false,
        }
    }
}

/// Where an object was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Watch,
    /// The reply to a write: a state that this controller has made.
    Reply,
    /// A reply that shows what others have done too. Nobody has planned with that yet, so it stays
    /// news until the watch has brought it.
    Read,
}

impl<K: Resource> Store<K> {
    /// Tells whether all objects have been listed once.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// Takes an object in, unless a later state is known. Tells whether it is news.
    pub(crate) fn apply(&mut self, object: Arc<K>, source: Source) -> bool {
        let key = Key::of(&*object);
        match source {
            Source::Reply | Source::Read => {
                self.written.insert(key.clone());
            }
            Source::Watch => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
            }
        }
        let meta = object.meta();
        if meta.uid.as_ref().is_some_and(|uid| self.gone.contains(uid)) {
            return false;
        }
        let known = self.objects.get(&key);
        if known.is_some_and(|known| is_at_least(&**known, &*object)) {
            let is_known =
                |known: &Arc<K>| known.meta().resource_version == object.meta().resource_version;
            return source == Source::Watch
                && known.is_some_and(is_known)
                && self.read.remove(&key);
        }
        if source == Source::Read {
            self.read.insert(key.clone());
        } else {
            self.read.remove(&key);
        }
        self.objects.insert(key, object);
        true
    }

    /// Removes an object. A reply may come long before the watch says the same.
    pub(crate) fn remove(
        &mut self,
        key: &Key,
        uid: Option<&Uid>,
        source: Source,
    ) -> Option<Arc<K>> {
        if let Some(uid) = uid {
            self.gone.insert(uid.clone());
            if source == Source::Watch {
                self.bury(uid);
            }
        }
        let is_it = self
            .objects
            .get(key)
            .is_some_and(|known| uid.is_none() || known.meta().uid.as_ref() == uid);
        if is_it {
            self.read.remove(key);
            self.objects.remove(key)
        } else {
            None
        }
    }

    fn bury(&mut self, uid: &Uid) {
        self.buried.push_back(uid.clone());
        if self.buried.len() > BURIED_MAX
            && let Some(oldest) = self.buried.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    pub(crate) fn begin_list(&mut self) {
        self.listed = Some(HashSet::new());
        self.written.clear();
    }

    /// Returns the objects that are gone: not listed, and not written since.
    pub(crate) fn end_list(&mut self) -> Vec<Arc<K>> {
        let listed = self.listed.take().unwrap_or_default();
        let written = std::mem::take(&mut self.written);
        self.gone = self.buried.iter().cloned().collect();
        self.complete = true;
        let missing: Vec<Key> = self
            .objects
            .keys()
            .filter(|key| !listed.contains(*key) && !written.contains(*key))
            .cloned()
            .collect();
        missing
            .into_iter()
            .filter_map(|key| self.objects.remove(&key))
            .collect()
    }
}

/// Resource versions grow. Where one is no number, what comes last is taken for the newest.
fn is_at_least<K: Resource>(known: &K, object: &K) -> bool {
    let version = |object: &K| -> Option<u128> {
        let text = object.meta().resource_version.as_deref()?;
        text.parse().ok()
    };
    match (version(known), version(object)) {
        (Some(known), Some(new)) => known >= new,
        (None, _) | (_, None) => false,
    }
}

/// Pods, found by the Job that manages them.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    store: Store<Pod>,
    by_job: HashMap<Key, HashSet<Key>>,
    unowned: HashMap<String, HashSet<Key>>,
}

impl Pods {
    pub(crate) fn is_complete(&self) -> bool {
        self.store.is_complete()
    }

    /// Returns the Pods that name a Job of this name as their owner.
    pub(crate) fn owned(&self, job: &Key) -> Vec<Arc<Pod>> {
        self.find(self.by_job.get(job))
    }

    /// Returns the Pods of a namespace that nothing manages.
    pub(crate) fn unowned(&self, namespace: &str) -> Vec<Arc<Pod>> {
        self.find(self.unowned.get(namespace))
    }

    fn find(&self, keys: Option<&HashSet<Key>>) -> Vec<Arc<Pod>> {
        let mut pods: Vec<Arc<Pod>> = keys
            .into_iter()
            .flatten()
            .filter_map(|key| self.store.get(key))
            .cloned()
            .collect();
        pods.sort_by(|a, b| a.name().cmp(b.name()));
        pods
    }

    pub(crate) fn apply(&mut self, pod: Arc<Pod>, source: Source) -> bool {
        let key = Key::of(&*pod);
        let before = self.store.get(&key).cloned();
        if !self.store.apply(Arc::clone(&pod), source) {
            return false;
        }
        if let Some(before) = before {
            self.forget(&key, &before);
        }
        match owner(&pod) {
            Owner::Job(job) => self.by_job.entry(job).or_default().insert(key),
            Owner::None => self
                .unowned
                .entry(key.namespace.clone())
                .or_default()
                .insert(key),
            Owner::Other => false,
        };
        true
    }

    pub(crate) fn remove(
        &mut self,
        key: &Key,
        uid: Option<&Uid>,
        source: Source,
    ) -> Option<Arc<Pod>> {
        let pod = self.store.remove(key, uid, source)?;
        self.forget(key, &pod);
        Some(pod)
    }

    pub(crate) fn begin_list(&mut self) {
        self.store.begin_list();
    }

    pub(crate) fn end_list(&mut self) -> Vec<Arc<Pod>> {
        let gone = self.store.end_list();
        for pod in &gone {
            self.forget(&Key::of(&**pod), pod);
        }
        gone
    }

    fn forget(&mut self, key: &Key, pod: &Pod) {
        match owner(pod) {
            Owner::Job(job) => {
                if let Some(keys) = self.by_job.get_mut(&job) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.by_job.remove(&job);
                    }
                }
            }
            Owner::None => {
                if let Some(keys) = self.unowned.get_mut(&key.namespace) {
                    keys.remove(key);
                }
            }
            Owner::Other => {}
        }
    }
}

/// What manages a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A Job of this name.
    Job(Key),
    /// Something else.
    Other,
    /// Nothing.
    None,
}

pub(crate) fn owner(pod: &Pod) -> Owner {
    match pod.controller() {
        None => Owner::None,
        Some(owner) if owner.kind == JOB_KIND && owner.api_version.starts_with("batch/") => {
            Owner::Job(Key::new(pod.namespace(), &owner.name))
        }
        Some(_) => Owner::Other,
    }
}

/// Returns the Jobs that a Pod without an owner could belong to.
pub(crate) fn could_belong_to(jobs: &Store<Job>, pod: &Pod) -> Vec<Key> {
    jobs.values()
        .filter(|job| job.namespace() == pod.namespace())
        .filter(|job| claim::selects(job.spec.selector.as_ref(), pod))
        .map(|job| Key::of(&**job))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str, version: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("default".into());
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(uid.into());
        pod.metadata.resource_version = Some(version.into());
        Arc::new(pod)
    }

    #[test]
    fn what_the_watch_brings_late_does_not_undo_a_reply() {
        let mut pods = Pods::default();
        assert!(pods.apply(pod("a", "u", "7"), Source::Reply));
        assert!(!pods.apply(pod("a", "u", "5"), Source::Watch));
        assert!(!pods.apply(pod("a", "u", "7"), Source::Watch), "no news");
        assert!(pods.apply(pod("a", "u", "10"), Source::Watch));
    }

    #[test]
    fn what_was_only_read_is_still_news_when_the_watch_brings_it() {
        let mut pods = Pods::default();
        pods.apply(pod("a", "u", "5"), Source::Watch);
        pods.apply(pod("a", "u", "7"), Source::Read);
        assert!(!pods.apply(pod("a", "u", "6"), Source::Watch));
        assert!(pods.apply(pod("a", "u", "7"), Source::Watch));
        assert!(!pods.apply(pod("a", "u", "7"), Source::Watch), "once");
        pods.apply(pod("a", "u", "8"), Source::Watch);
        pods.apply(pod("a", "u", "8"), Source::Read);
        assert!(
            !pods.apply(pod("a", "u", "8"), Source::Watch),
            "it came before"
        );
    }

    #[test]
    fn a_reply_that_comes_after_the_end_does_not_bring_a_pod_back() {
        let mut pods = Pods::default();
        let key = Key::new("default", "a");
        pods.apply(pod("a", "u", "7"), Source::Watch);
        pods.remove(&key, Some(&"u".into()), Source::Watch);
        assert!(!pods.apply(pod("a", "u", "8"), Source::Reply));
        pods.begin_list();
        pods.end_list();
        assert!(!pods.apply(pod("a", "u", "8"), Source::Reply));
        assert!(pods.apply(pod("a", "another", "9"), Source::Watch));
    }

    #[test]
    fn a_pod_that_a_reply_called_gone_does_not_come_back() {
        let mut pods = Pods::default();
        let key = Key::new("default", "a");
        pods.apply(pod("a", "u", "7"), Source::Watch);
        assert!(
            pods.remove(&key, Some(&"u".into()), Source::Reply)
                .is_some()
        );
        assert!(!pods.apply(pod("a", "u", "9"), Source::Watch));
        assert!(
            pods.remove(&key, Some(&"u".into()), Source::Watch)
                .is_none()
        );
        assert!(
            pods.apply(pod("a", "v", "11"), Source::Watch),
            "another of that name"
        );
    }

    #[test]
    fn a_list_removes_what_it_does_not_bring_unless_that_was_written_since() {
        let mut pods = Pods::default();
        pods.apply(pod("old", "u", "1"), Source::Watch);
        pods.begin_list();
        pods.apply(pod("listed", "v", "2"), Source::Watch);
        pods.apply(pod("new", "w", "9"), Source::Reply);
        let gone = pods.end_list();
        assert_eq!(
            gone.iter().map(|pod| pod.name()).collect::<Vec<_>>(),
            ["old"]
        );
        assert_eq!(pods.unowned("default").len(), 2);
    }
}
