//! Queries, in bounded looks.

use futures::future::try_join_all;
use gangline_protocol::limits::{
    COPY_STEP_MAX, EXPLAIN_LEASES_LOOKED_MAX, EXPLAIN_LEASES_MAX, PAGE_ROWS_MAX,
};
use gangline_protocol::{
    ItemId, ItemState, ItemView, QueueName, QueueStatus, Timestamp, WorkerView,
};
use redis::Cmd;

use super::encode::{at_most, exact};
use super::fields::Fields;
use super::head::Head;
use super::scripts::Script;
use super::{Inner, keys, not_found, record, replies, unexpected};
use crate::queue::{Query, Refusal, Reply};
use crate::store::StoreError;

/// Items, results or sessions in one look.
const LOOK_ROWS: usize = 256;

/// Looks for one page of items, before it is cut short with what was found.
const LOOKS_MAX: usize = 1_024;

/// Queues asked at a time.
const QUEUES_AT_A_TIME: usize = 64;

impl Inner {
    pub(super) async fn query(&self, query: Query) -> Result<Reply, StoreError> {
        match query {
            Query::Status { queue } => {
                let (head, _) = self.head(&queue).await?;
                Ok(Reply::Status(Box::new(head.status(&queue))))
            }
            Query::List => Ok(Reply::Queues(self.all().await?)),
            Query::OldestReady => Ok(Reply::OldestReady(self.oldest_ready().await?)),
            Query::Item { queue, id } => {
                let mut cmd = self.look(&queue, "item");
                cmd.arg(exact(id.0));
                let missing = || StoreError::from(Refusal::ItemNotFound(queue.clone(), id));
                let mut fields = self.read(&queue, &cmd, "item").await?.ok_or_else(missing)?;
                Ok(Reply::Item(Box::new(record::item(&mut fields)?)))
            }
            Query::Items {
                queue,
                state,
                after,
                max,
            } => Ok(Reply::Items(self.items(&queue, state, after, max).await?)),
            Query::Results { queue, cursor, max } => {
                let mut results = Vec::new();
                let max = max.min(PAGE_ROWS_MAX);
                loop {
                    let wanted = (max - results.len()).min(LOOK_ROWS);
                    let mut cmd = self.look(&queue, "results");
                    cmd.arg(at_most(cursor.saturating_add(results.len() as u64)))
                        .arg(wanted);
                    let mut fields = self.must_read(&queue, &cmd, "results").await?;
                    let page = record::results(&mut fields, wanted)?;
                    let is_last = page.len() < wanted || wanted == 0;
                    results.extend(page);
                    if is_last || results.len() == max {
                        return Ok(Reply::Results(results));
                    }
                }
            }
            Query::Workers { queue } => Ok(Reply::Workers(self.workers(&queue).await?)),
            Query::Worker { queue, worker } => {
                let mut cmd = self.look(&queue, "worker");
                cmd.arg(worker.as_str());
                let mut fields = self.must_read(&queue, &cmd, "worker").await?;
                let record = replies::worker(&mut fields, worker)?;
                Ok(Reply::Worker(Box::new(record)))
            }
            Query::Dead { queue, after, max } => {
                let mut cmd = self.look(&queue, "dead");
                cmd.arg(at_most(after.0)).arg(max.min(PAGE_ROWS_MAX));
                let mut fields = self.must_read(&queue, &cmd, "dead").await?;
                Ok(Reply::Dead(record::dead(&mut fields)?))
            }
            Query::Copies { queue, ids } => {
                let mut cmd = self.look(&queue, "copies");
                for id in ids.iter().take(COPY_STEP_MAX) {
                    cmd.arg(exact(id.0));
                }
                let mut fields = self.must_read(&queue, &cmd, "copies").await?;
                Ok(Reply::Copies(record::copies(&mut fields)?))
            }
            Query::Explain { queue } => {
                let mut cmd = self.look(&queue, "explain");
                cmd.arg(EXPLAIN_LEASES_MAX).arg(EXPLAIN_LEASES_LOOKED_MAX);
                let mut fields = self.must_read(&queue, &cmd, "explain").await?;
                let now_ms = fields.number()?;
                let grounds = replies::grounds(&mut fields, &queue)?;
                Ok(Reply::Explanation(Box::new(grounds.explain(now_ms))))
            }
            Query::Stream { queue, key } => {
                let mut cmd = self.call(Script::Look, &queue, Some(&key));
                cmd.arg("stream");
                let mut fields = self.must_read(&queue, &cmd, "stream").await?;
                Ok(Reply::Stream(replies::stream(&mut fields)?))
            }
        }
    }

    fn look(&self, queue: &QueueName, what: &str) -> Cmd {
        let mut cmd = self.call(Script::Look, queue, None);
        cmd.arg(what);
        cmd
    }

    /// Looks at a queue; nothing when there is the queue but not what was looked for.
    async fn read(
        &self,
        queue: &QueueName,
        cmd: &Cmd,
        wanted: &str,
    ) -> Result<Option<Fields>, StoreError> {
        let mut fields = Fields::of(self.send_and_confirm_seen(cmd).await?)?;
        match fields.text()?.as_str() {
            tag if tag == wanted => Ok(Some(fields)),
            "item_not_found" => Ok(None),
            "not_found" => Err(not_found(queue)),
            tag => Err(unexpected(tag)),
        }
    }

    async fn must_read(
        &self,
        queue: &QueueName,
        cmd: &Cmd,
        wanted: &str,
    ) -> Result<Fields, StoreError> {
        let fields = self.read(queue, cmd, wanted).await?;
        fields.ok_or_else(|| unexpected("item_not_found"))
    }

    /// Returns the head of a queue, and how many of its items could be leased now.
    pub(super) async fn head(&self, queue: &QueueName) -> Result<(Head, u64), StoreError> {
        let cmd = self.look(queue, "status");
        let mut fields = self.must_read(queue, &cmd, "status").await?;
        let head = Head::of(&mut fields)?;
        fields.integer()?;
        Ok((head, fields.number()?))
    }

    /// Returns the names of all queues in the registry.
    pub(super) async fn names(&self) -> Result<Vec<QueueName>, StoreError> {
        let range = redis::cmd("ZRANGE")
            .arg(keys::QUEUES)
            .arg(0)
            .arg(-1)
            .clone();
        let names: Vec<String> = self.send_plain(&range).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns when the oldest ready item of each queue was pushed, of those that have one.
    async fn oldest_ready(&self) -> Result<Vec<(QueueName, Timestamp)>, StoreError> {
        let names = self.names().await?;
        let mut found = Vec::new();
        for part in names.chunks(QUEUES_AT_A_TIME) {
            let looks = part.iter().map(|queue| async move {
                let cmd = self.look(queue, "oldest");
                match self.must_read(queue, &cmd, "oldest").await {
                    Ok(mut fields) => {
                        let pushed_ms = fields.optional_number()?;
                        Ok(pushed_ms.map(|at_ms| (queue.clone(), Timestamp(at_ms))))
                    }
                    // In the registry first, or still.
                    Err(StoreError::Refused(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            });
            found.extend(try_join_all(looks).await?.into_iter().flatten());
        }
        found.sort();
        Ok(found)
    }

    async fn all(&self) -> Result<Vec<QueueStatus>, StoreError> {
        let names = self.names().await?;
        let mut statuses = Vec::with_capacity(names.len());
        for part in names.chunks(QUEUES_AT_A_TIME) {
            let looks = part.iter().map(|queue| async move {
                match self.head(queue).await {
                    Ok((head, _)) => Ok(Some(head.status(queue))),
                    // In the registry first, or still.
                    Err(StoreError::Refused(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            });
            statuses.extend(try_join_all(looks).await?.into_iter().flatten());
        }
        statuses.sort_by(|a, b| a.queue.cmp(&b.queue));
        Ok(statuses)
    }

    async fn items(
        &self,
        queue: &QueueName,
        state: Option<ItemState>,
        after: ItemId,
        max: usize,
    ) -> Result<Vec<ItemView>, StoreError> {
        let max = max.min(PAGE_ROWS_MAX);
        let mut items = Vec::new();
        let mut after = at_most(after.0);
        for look in 0.. {
            let mut cmd = self.look(queue, "items");
            cmd.arg(after)
                .arg(max - items.len())
                .arg(state.map_or("", record::state_name))
                .arg(LOOK_ROWS);
            let mut fields = self.must_read(queue, &cmd, "items").await?;
            items.extend(record::items(&mut fields)?);
            after = fields.number()?;
            let is_end = fields.integer()? == 1;
            let is_cut = look >= LOOKS_MAX && !items.is_empty();
            if is_end || is_cut || items.len() >= max {
                break;
            }
        }
        Ok(items)
    }

    async fn workers(&self, queue: &QueueName) -> Result<Vec<WorkerView>, StoreError> {
        let mut views: Vec<WorkerView> = Vec::new();
        let mut cursor = String::from("0");
        loop {
            let mut cmd = self.look(queue, "workers");
            cmd.arg(&cursor);
            let mut fields = self.must_read(queue, &cmd, "workers").await?;
            cursor = fields.text()?;
            views.extend(replies::workers(&mut fields)?);
            if cursor == "0" {
                break;
            }
        }
        // A scan may show a session twice.
        views.sort_by(|a, b| a.worker.cmp(&b.worker));
        views.dedup_by(|a, b| a.worker == b.worker);
        Ok(views)
    }
}
