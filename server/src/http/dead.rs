//! Dead items: what they died of, and giving them another life.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use gangline_protocol::limits::{
    COPY_STEP_MAX, DEAD_GROUPS_MAX, DEAD_LOOKED_MAX, PAGE_ROWS_MAX, REDRIVE_LOOKED_MAX,
    REDRIVE_STEP_MAX,
};
use gangline_protocol::{
    DeadGroup, DeadItems, ErrorCode, ItemId, NewItem, PushReply, QueueName, QueueUid,
    RedriveRequest, Redriven,
};

use super::App;
use super::access::Caller;
use super::body::{JsonOrDefault, reply};
use super::params::InQueue;
use super::problem::Failure;
use super::routes::Need;
use crate::queue::command::DeadItem;
use crate::queue::{Command, Query, Reply, Selection};
use crate::service::unexpected;

type Answer = Result<Response, Failure>;

/// Returns what is common to errors of one kind: numbers and quoted texts are left out.
fn kind_of(error: &str) -> String {
    let mut kind = String::with_capacity(error.len());
    let mut rest = error;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        let quoted = matches!(first, '"' | '\'' | '`')
            .then(|| after.split_once(first))
            .flatten();
        if let Some((_, behind)) = quoted {
            kind.push('…');
            rest = behind;
        } else if first.is_ascii_digit() {
            kind.push('N');
            rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        } else {
            kind.push(first);
            rest = after;
        }
    }
    kind
}

pub(super) async fn list(State(app): State<App>, InQueue(queue): InQueue) -> Answer {
    let dead = app.service.status(&queue).await?.counts.dead;
    let mut groups: HashMap<Option<String>, DeadGroup> = HashMap::new();
    let mut after = ItemId(0);
    for _ in 0..DEAD_LOOKED_MAX / PAGE_ROWS_MAX {
        let page = app.dead_after(&queue, after, PAGE_ROWS_MAX).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for item in page {
            let kind = item.error.as_deref().map(kind_of);
            let group = groups.entry(kind).or_insert_with(|| DeadGroup {
                error: item.error.clone(),
                same: true,
                count: 0,
                first_at: item.since,
                last_at: item.since,
                example: item.id,
            });
            group.count += 1;
            group.same &= group.error == item.error;
            group.first_at = group.first_at.min(item.since);
            group.last_at = group.last_at.max(item.since);
        }
    }
    let mut groups: Vec<DeadGroup> = groups.into_values().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.count), group.example));
    groups.truncate(DEAD_GROUPS_MAX);
    let grouped: u64 = groups.iter().map(|group| group.count).sum();
    // Items may have died, or come back, while they were looked at.
    let dead = dead.max(grouped);
    let ungrouped = dead - grouped;
    Ok(reply(&DeadItems {
        dead,
        groups,
        ungrouped,
    }))
}

/// What dead items must have to be chosen.
struct Wanted {
    ids: Option<Vec<ItemId>>,
    /// None of an error when empty.
    kind: Option<String>,
    contains: Option<Box<str>>,
}

impl Wanted {
    fn has(&self, item: &DeadItem) -> bool {
        let error = item.error.as_deref().unwrap_or_default();
        self.kind
            .as_ref()
            .is_none_or(|kind| *kind == kind_of(error))
            && self
                .contains
                .as_ref()
                .is_none_or(|text| error.contains(&**text))
            && self
                .ids
                .as_ref()
                .is_none_or(|ids| ids.binary_search(&item.id).is_ok())
    }

    /// Where the next look begins: before the next of the wanted ids, if there are such.
    fn skip(&self, cursor: ItemId) -> Option<ItemId> {
        let Some(ids) = &self.ids else {
            return Some(cursor);
        };
        let next = ids.get(ids.partition_point(|id| *id <= cursor))?;
        Some(ItemId(next.0 - 1))
    }
}

/// Where dead items go.
enum Destination {
    InPlace,
    Into { queue: QueueName, origin: QueueUid },
}

/// Gives dead items another life, in bounded steps.
pub(super) async fn redrive(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    InQueue(queue): InQueue,
    JsonOrDefault(request): JsonOrDefault<RedriveRequest>,
) -> Answer {
    let RedriveRequest {
        mut ids,
        error,
        contains,
        max,
        into,
        cursor,
    } = request;
    if let Some(ids) = &mut ids {
        if ids.len() > PAGE_ROWS_MAX {
            let bound = format!("at most {PAGE_ROWS_MAX} items");
            return Err(Failure::bound("ids", ids.len(), &bound));
        }
        // The number of no item.
        ids.retain(|id| id.0 > 0);
        ids.sort_unstable();
    }
    let wanted = Wanted {
        ids,
        kind: error.as_deref().map(kind_of),
        contains,
    };
    let destination = match into {
        None => Destination::InPlace,
        Some(into) if into == queue => {
            let detail = "into: must be another queue; without it items are redriven in place";
            return Err(Failure::new(ErrorCode::InvalidBody, detail).at("into"));
        }
        Some(into) => {
            caller.check(Need::Produce, Some(&into))?;
            let origin = app.service.status(&queue).await?.uid;
            Destination::Into {
                queue: into,
                origin,
            }
        }
    };
    let mut left = max.unwrap_or(u64::MAX);
    let mut done = Redriven {
        redriven: 0,
        duplicates: 0,
        next: Some(cursor),
    };
    let mut looked = 0;
    // At least one step, so that what is refused is refused, whatever is dead.
    loop {
        let (chosen, next) = app.choose(&queue, &wanted, done.next, left).await?;
        left -= chosen.len() as u64;
        looked += REDRIVE_STEP_MAX;
        app.revive(&queue, &destination, chosen, &mut done).await?;
        done.next = next;
        if next.is_none() || left == 0 || looked >= REDRIVE_LOOKED_MAX {
            return Ok(reply(&done));
        }
    }
}

impl App {
    async fn dead_after(
        &self,
        queue: &QueueName,
        after: ItemId,
        max: usize,
    ) -> Result<Vec<DeadItem>, Failure> {
        let queue = queue.clone();
        match self
            .service
            .query(Query::Dead { queue, after, max })
            .await?
        {
            Reply::Dead(items) => Ok(items),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Looks at a step's worth of dead items; returns those that are wanted, and where to go on
    /// if there are more.
    async fn choose(
        &self,
        queue: &QueueName,
        wanted: &Wanted,
        cursor: Option<ItemId>,
        left: u64,
    ) -> Result<(Vec<ItemId>, Option<ItemId>), Failure> {
        let Some(after) = cursor.and_then(|cursor| wanted.skip(cursor)) else {
            return Ok((Vec::new(), None));
        };
        let page = self.dead_after(queue, after, REDRIVE_STEP_MAX).await?;
        let is_last = page.len() < REDRIVE_STEP_MAX;
        let mut chosen = Vec::new();
        for (place, item) in page.iter().enumerate() {
            if chosen.len() as u64 == left {
                let before = place.checked_sub(1).map_or(after, |place| page[place].id);
                return Ok((chosen, wanted.skip(before)));
            }
            if wanted.has(item) {
                chosen.push(item.id);
            }
        }
        let next = page.last().filter(|_| !is_last);
        Ok((chosen, next.and_then(|item| wanted.skip(item.id))))
    }

    async fn revive(
        &self,
        queue: &QueueName,
        destination: &Destination,
        chosen: Vec<ItemId>,
        done: &mut Redriven,
    ) -> Result<(), Failure> {
        let (into, origin) = match destination {
            Destination::InPlace => {
                let command = Command::Redrive {
                    queue: queue.clone(),
                    selection: Selection::Items(chosen),
                };
                return match self.service.execute(command).await? {
                    Reply::Redriven(items) => {
                        done.redriven += items;
                        Ok(())
                    }
                    other => Err(unexpected(&other).into()),
                };
            }
            Destination::Into { queue, origin } => (queue, origin),
        };
        for ids in chosen.chunks(COPY_STEP_MAX) {
            let query = Query::Copies {
                queue: queue.clone(),
                ids: ids.to_vec(),
            };
            let copies = match self.service.query(query).await? {
                Reply::Copies(copies) => copies,
                other => return Err(unexpected(&other).into()),
            };
            let items = copies.into_iter().map(|(id, item)| NewItem {
                key: format!("{origin}/{id}").parse().ok(),
                ..item
            });
            let command = Command::Push {
                queue: into.clone(),
                items: items.collect(),
                batch: None,
                seal: false,
            };
            match self.service.execute(command).await? {
                Reply::Pushed(PushReply {
                    added, duplicates, ..
                }) => {
                    done.redriven += added;
                    done.duplicates += duplicates;
                }
                other => return Err(unexpected(&other).into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn errors_of_a_kind_differ_in_numbers_and_quoted_texts_only() {
        for (error, kind) in [
            ("", ""),
            ("took 31 ms of 5000", "took N ms of N"),
            ("cannot open 'a.jpg': \"no\" `x`", "cannot open …: … …"),
            ("it isn't there", "it isn't there"),
            ("ä 'ö' 7ü", "ä … Nü"),
        ] {
            assert_eq!(kind_of(error), kind);
        }
    }
}
