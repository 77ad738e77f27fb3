//! A store behind a guard: one namespace cannot take it all, and what it does is counted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gangline_protocol::limits::{NAMESPACE_REQUESTS_MAX, QUEUES_MAX};
use gangline_protocol::{Durability, LeaseReply, QueueName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{Answer, Store, StoreError};
use crate::metrics::{Metrics, StoreSeries};
use crate::queue::{Command, Query, Refusal, Reply};

/// Another store, guarded.
pub struct Guarded {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    queues_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Places in the store, by namespace. Who waits for one is served in the order of coming.
    places: HashMap<Box<str>, Arc<Semaphore>>,
    /// Queues that are known to exist, or did a moment ago.
    known: HashSet<QueueName>,
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

impl Guarded {
    /// Guards a store, in which a namespace may have so many queues.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>, queues_max: usize) -> Self {
        Self {
            inner,
            metrics,
            queues_max,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place of the namespace.
    async fn place(&self, queue: Option<&QueueName>) -> Option<OwnedSemaphorePermit> {
        let namespace = queue?.namespace();
        let places = {
            let mut state = self.state();
            match state.places.get(namespace) {
                Some(places) => places.clone(),
                None => {
                    if state.places.len() >= QUEUES_MAX {
                        // Only where nobody is in, or waits: those would hold an old semaphore.
                        state
                            .places
                            .retain(|_, places| Arc::strong_count(places) > 1);
                    }
                    let places = Arc::new(Semaphore::new(NAMESPACE_REQUESTS_MAX));
                    state.places.insert(namespace.into(), places.clone());
                    places
                }
            }
        };
        places.acquire_owned().await.ok()
    }

    /// Refuses to make a queue where its namespace has as many as it may; returns one that was
    /// not known.
    ///
    /// Calls that come at the same time may each find the last place: the bound holds but for
    /// those, of which there are at most [`NAMESPACE_REQUESTS_MAX`].
    async fn check_new(&self, queue: &QueueName) -> Result<Option<QueueName>, StoreError> {
        if self.state().known.contains(queue) {
            return Ok(None);
        }
        let query = Query::Status {
            queue: queue.clone(),
        };
        match self.inner.query(query).await {
            Ok(_) => {}
            Err(StoreError::Refused(Refusal::QueueNotFound(_))) => {
                let Reply::Queues(queues) = self.inner.query(Query::List).await? else {
                    return Ok(None);
                };
                let namespace = queue.namespace();
                let own = queues
                    .iter()
                    .filter(|one| one.queue.namespace() == namespace);
                if own.count() >= self.queues_max {
                    return Err(StoreError::NamespaceFull {
                        namespace: namespace.into(),
                        queues_max: self.queues_max,
                    });
                }
            }
            Err(error) => return Err(error),
        }
        Ok(Some(queue.clone()))
    }

    /// Remembers a queue that a command was carried out on.
    fn remember(&self, queue: QueueName) {
        let mut state = self.state();
        if state.known.len() >= QUEUES_MAX {
            state.known.clear();
        }
        state.known.insert(queue);
    }

    async fn guarded(&self, command: Command) -> Result<Reply, StoreError> {
        let started = Instant::now();
        let series = &self.metrics.store;
        let _place = self.place(command.queue()).await;
        let mut took = &series.command;
        let (mut made, mut deleted) = (None, None);
        match &command {
            Command::Push { queue, items, .. } => {
                took = &series.push;
                series.pushed_items.observe(size(items.len()));
                made = self.check_new(queue).await?;
            }
            Command::Configure { queue, .. } | Command::Seal { queue } => {
                made = self.check_new(queue).await?;
            }
            Command::Exchange { request, .. } => {
                took = &series.exchange;
                if !request.settles.is_empty() {
                    series.settles.observe(size(request.settles.len()));
                }
            }
            Command::Delete { queue } => deleted = Some(queue.clone()),
            Command::Pause { .. }
            | Command::Stop { .. }
            | Command::Cancel { .. }
            | Command::Redrive { .. }
            | Command::Revoke { .. }
            | Command::Tick => {}
        }
        let answer = self.inner.execute(command).await;
        took.observe(started.elapsed().as_secs_f64());
        note(series, &answer);
        // A command that was refused has made none.
        if let (Some(queue), Ok(_)) = (made, &answer) {
            self.remember(queue);
        }
        if let Some(queue) = deleted {
            self.state().known.remove(&queue);
        }
        answer
    }

    async fn looked(&self, query: Query) -> Result<Reply, StoreError> {
        let started = Instant::now();
        let _place = self.place(query.queue()).await;
        let answer = self.inner.query(query).await;
        let series = &self.metrics.store;
        series.query.observe(started.elapsed().as_secs_f64());
        note(series, &answer);
        answer
    }
}

impl Store for Guarded {
    fn execute(&self, command: Command) -> Answer<'_> {
        Box::pin(self.guarded(command))
    }

    fn query(&self, query: Query) -> Answer<'_> {
        Box::pin(self.looked(query))
    }

    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of batches are small")]
fn size(items: usize) -> f64 {
    items as f64
}

fn note(series: &StoreSeries, answer: &Result<Reply, StoreError>) {
    match answer {
        Ok(Reply::Exchange(reply)) => {
            for settled in &reply.settled {
                series.note_settle(settled.status);
            }
            if let Some(LeaseReply::Items(items)) = &reply.lease {
                series.leased_items.observe(size(items.len()));
            }
        }
        Err(StoreError::Unavailable(_) | StoreError::Busy(_)) => {
            series.failures.inc();
        }
        Ok(_) | Err(_) => {}
    }
}
