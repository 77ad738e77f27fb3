//! Queues, and what is in them.

use std::time::Duration;

use gangline_worker::Client;
use gangline_worker::protocol::item::{Attempt, ItemView};
use gangline_worker::protocol::queue::WorkerView;
use gangline_worker::protocol::{
    DeadGroup, DeadItems, ItemId, ItemKey, ItemState, QueueName, QueueStatus, Timestamp,
};
use serde::Serialize;

use crate::commands::table::{NONE, Row, Shape, View, age, columns, json, short};
use crate::error::Error;
use crate::output;

/// Items asked for at a time.
const PAGE_ITEMS: u64 = 1_000;

/// What is asked of the service.
pub(super) enum What {
    /// Queues, or the one of a name.
    Queues {
        name: Option<QueueName>,
        namespace: Option<String>,
    },
    Workers(QueueName),
    /// Items in a state, and how many at most.
    Items(QueueName, Option<ItemState>, u64),
    /// What the dead items died of.
    Errors(QueueName),
    /// The attempts at items in a state, and at how many items at most.
    Attempts(QueueName, Option<ItemState>, u64),
}

/// A queue service.
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) what: What,
}

impl Source {
    pub(super) async fn look(&self) -> Result<View, Error> {
        match &self.what {
            What::Queues { name, namespace } => {
                let (queues, shape) = match name {
                    Some(name) => (vec![self.client.status(name).await?], Shape::One),
                    None => (self.client.queues().await?, Shape::Many),
                };
                let is_wanted = |status: &&QueueStatus| {
                    let own = status.queue.namespace();
                    namespace.as_deref().is_none_or(|wanted| wanted == own)
                };
                view_of_queues(queues.iter().filter(is_wanted), shape)
            }
            What::Workers(queue) => view_of_workers(&self.client.workers(queue).await?),
            What::Errors(queue) => view_of_errors(&self.client.dead(queue).await?),
            What::Attempts(queue, state, limit) => {
                view_of_attempts(&self.items(queue, *state, *limit).await?)
            }
            What::Items(queue, state, limit) => {
                let items = self.items(queue, *state, *limit).await?;
                match state {
                    Some(ItemState::Dead) => view_of_dead(&items),
                    _ => view_of_items(&items),
                }
            }
        }
    }

    async fn items(
        &self,
        queue: &QueueName,
        state: Option<ItemState>,
        limit: u64,
    ) -> Result<Vec<ItemView>, Error> {
        let mut items = Vec::new();
        let mut cursor = ItemId(0);
        loop {
            let wanted = (limit - items.len() as u64).min(PAGE_ITEMS);
            let page = self
                .client
                .items(queue, state, cursor, usize::try_from(wanted).unwrap_or(1))
                .await?;
            items.extend(page.items);
            match page.next {
                None => return Ok(items),
                Some(_) if items.len() as u64 >= limit => {
                    output::note(format_args!(
                        "gangline: only the first {limit} items; --limit gives more"
                    ));
                    return Ok(items);
                }
                Some(next) => cursor = next,
            }
        }
    }
}

fn view_of_queues<'a>(
    queues: impl Iterator<Item = &'a QueueStatus>,
    shape: Shape,
) -> Result<View, Error> {
    let row = |status: &QueueStatus| {
        let counts = &status.counts;
        let phase = word(status.phase);
        let phase = if status.paused {
            format!("{phase},paused")
        } else {
            phase
        };
        let mut cells = vec![status.queue.to_string(), phase];
        let numbers = [
            counts.ready,
            counts.delayed,
            counts.leased,
            counts.done,
            counts.dead,
        ];
        cells.extend(numbers.map(|number| number.to_string()));
        let version = cells.join(" ");
        cells.push(age(status.created_at));
        let more = [
            counts.cancelled,
            counts.abandoned,
            status.retried,
            status.sessions,
        ];
        cells.extend(more.map(|number| number.to_string()));
        cells.push(
            status
                .rate
                .map_or(NONE.into(), |rate| format!("{rate:.0}/s")),
        );
        let left = status.eta_ms.map(Duration::from_millis);
        cells.push(left.map_or(NONE.into(), short));
        let ended = status.certificate.as_ref();
        let promised = ended.map_or(status.durability, |proof| proof.durability);
        cells.push(promised.map_or(NONE.into(), |promised| promised.to_string()));
        cells.push(status.uid.to_string());
        Ok(Row {
            name: format!("queue/{}", status.queue),
            version,
            cells,
            json: json(status)?,
        })
    };
    Ok(View {
        columns: columns(
            &[
                "NAME", "PHASE", "READY", "DELAYED", "LEASED", "DONE", "DEAD", "AGE",
            ],
            &[
                "CANCELLED",
                "ABANDONED",
                "RETRIED",
                "WORKERS",
                "RATE",
                "ETA",
                "DURABILITY",
                "UID",
            ],
        ),
        rows: queues.map(row).collect::<Result<_, Error>>()?,
        shape,
    })
}

fn ago(time: Option<Timestamp>) -> String {
    time.map_or(NONE.into(), age)
}

fn view_of_workers(workers: &[WorkerView]) -> Result<View, Error> {
    let row = |worker: &WorkerView| {
        Ok(Row {
            name: format!("worker/{}", worker.worker),
            version: format!("{} {} {}", worker.session, worker.holds, worker.done),
            cells: vec![
                worker.worker.to_string(),
                worker.holds.to_string(),
                worker.done.to_string(),
                ago(worker.idle_since),
                age(worker.opened_at),
                worker.session.to_string(),
            ],
            json: json(worker)?,
        })
    };
    Ok(View {
        columns: columns(&["NAME", "HOLDS", "DONE", "IDLE", "AGE"], &["SESSION"]),
        rows: workers.iter().map(row).collect::<Result<_, Error>>()?,
        shape: Shape::Many,
    })
}

fn one_line(text: &str) -> String {
    text.replace(|letter: char| letter.is_control(), " ")
}

/// Returns what an item is called, what it holds, and its error, as cells.
fn texts(item: &ItemView) -> [String; 3] {
    let key = item.key.as_ref().map(|key| one_line(key.as_str()));
    let payload = item.payload.as_ref().map(|payload| one_line(payload.get()));
    let error = item.error.as_deref().map(one_line);
    [key, payload, error].map(|text| text.unwrap_or_else(|| NONE.into()))
}

fn row_of_item(item: &ItemView, state: String, cells: Vec<String>) -> Result<Row, Error> {
    Ok(Row {
        name: format!("item/{}", item.id),
        version: format!("{state} {} {:?}", item.attempts, item.lease),
        cells,
        json: json(item)?,
    })
}

fn view_of_items(items: &[ItemView]) -> Result<View, Error> {
    let row = |item: &ItemView| {
        let state = word(item.state);
        let worker = item.worker.as_ref().map(ToString::to_string);
        let [key, payload, error] = texts(item);
        let cells = vec![
            item.id.to_string(),
            state.clone(),
            key,
            item.attempts.to_string(),
            worker.unwrap_or_else(|| NONE.into()),
            ago(item.since),
            payload,
            error,
        ];
        row_of_item(item, state, cells)
    };
    Ok(View {
        columns: columns(
            &["ID", "STATE", "KEY", "ATTEMPTS", "WORKER", "SINCE"],
            &["PAYLOAD", "ERROR"],
        ),
        rows: items.iter().map(row).collect::<Result<_, Error>>()?,
        shape: Shape::Many,
    })
}

fn view_of_errors(dead: &DeadItems) -> Result<View, Error> {
    if dead.ungrouped > 0 {
        output::note(format_args!(
            "gangline: {} dead items more, of rarer errors, or too many to look at",
            dead.ungrouped
        ));
    }
    let row = |group: &DeadGroup| {
        let error = group.error.as_deref().map_or(NONE.into(), one_line);
        let like = if group.same { "" } else { " (and the like)" };
        Ok(Row {
            name: format!("item/{}", group.example),
            version: format!("{} {:?}", group.count, group.last_at),
            cells: vec![
                group.count.to_string(),
                age(group.first_at),
                age(group.last_at),
                group.example.to_string(),
                format!("{}{like}", error.trim()),
            ],
            json: json(group)?,
        })
    };
    Ok(View {
        columns: columns(&["ITEMS", "FIRST", "LAST", "EXAMPLE", "ERROR"], &[]),
        rows: dead.groups.iter().map(row).collect::<Result<_, Error>>()?,
        shape: Shape::Many,
    })
}

/// An attempt, and at what.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptAt<'a> {
    id: ItemId,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a ItemKey>,
    #[serde(flatten)]
    attempt: &'a Attempt,
}

fn view_of_attempts(items: &[ItemView]) -> Result<View, Error> {
    let mut rows = Vec::new();
    for item in items {
        let [key, ..] = texts(item);
        for attempt in &item.history {
            let worker = attempt.worker.as_ref().map(ToString::to_string);
            let took_ms = attempt.ended_at.0.saturating_sub(attempt.leased_at.0);
            let error = attempt.error.as_deref().map(one_line);
            rows.push(Row {
                // Those that did not count have the number of the next one.
                name: format!("attempt/{}/{}", item.id, attempt.leased_at.0),
                version: format!("{} {:?}", attempt.ended_at.0, attempt.outcome),
                cells: vec![
                    item.id.to_string(),
                    key.clone(),
                    attempt.attempt.to_string(),
                    word(attempt.outcome),
                    worker.unwrap_or_else(|| NONE.into()),
                    short(Duration::from_millis(took_ms)),
                    age(attempt.ended_at),
                    error.unwrap_or_else(|| NONE.into()),
                ],
                json: json(&AttemptAt {
                    id: item.id,
                    key: item.key.as_ref(),
                    attempt,
                })?,
            });
        }
    }
    Ok(View {
        columns: columns(
            &[
                "ID", "KEY", "ATTEMPT", "OUTCOME", "WORKER", "TOOK", "SINCE", "ERROR",
            ],
            &[],
        ),
        rows,
        shape: Shape::Many,
    })
}

/// Returns a name as it goes over the wire.
fn word(name: impl Serialize) -> String {
    match serde_json::to_value(name) {
        Ok(serde_json::Value::String(name)) => name,
        _ => NONE.into(),
    }
}

fn view_of_dead(items: &[ItemView]) -> Result<View, Error> {
    let row = |item: &ItemView| {
        let [key, payload, error] = texts(item);
        let cells = vec![
            item.id.to_string(),
            key,
            item.attempts.to_string(),
            ago(item.since),
            error,
            payload,
        ];
        row_of_item(item, "dead".into(), cells)
    };
    Ok(View {
        columns: columns(&["ID", "KEY", "ATTEMPTS", "SINCE", "ERROR"], &["PAYLOAD"]),
        rows: items.iter().map(row).collect::<Result<_, Error>>()?,
        shape: Shape::Many,
    })
}
