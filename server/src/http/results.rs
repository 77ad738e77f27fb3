//! Results as a stream of lines, in the order of recording or of pushing.
//!
//! A stream that cannot go on is broken off, and not ended: half of the results must not look like
//! all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use gangline_protocol::item::ResultView;
use gangline_protocol::limits::PAGE_ROWS_MAX;
use gangline_protocol::{ItemId, ItemState, ItemView, Json, QueueName};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::App;
use super::params::{InQueue, Params};
use super::problem::Failure;
use crate::queue::{Query, Reply};
use crate::service::unexpected;
use crate::store::StoreError;

/// How long a follower waits for the end before it looks for new results.
const FOLLOW_STEP: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResultParams {
    /// How many results to skip: those that the client has.
    #[serde(default)]
    cursor: u64,
    /// Goes on until the queue is over.
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    order: Order,
}

/// In which order results come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Order {
    /// In that of recording; the cursor is how many to skip.
    #[default]
    Recorded,
    /// In that of the items' ids; the cursor is the last one.
    Push,
}

struct Follower {
    app: App,
    queue: QueueName,
    cursor: u64,
    follow: bool,
    order: Order,
    /// How many items to look at in one step of following in the order of pushing.
    looked_max: usize,
}

pub(super) async fn results(
    State(app): State<App>,
    InQueue(queue): InQueue,
    Params(params): Params<ResultParams>,
) -> Result<Response, Failure> {
    let ResultParams {
        cursor,
        follow,
        order,
    } = params;
    let mut follower = Follower {
        app,
        queue,
        cursor,
        follow,
        order,
        looked_max: 1,
    };
    // The first page is read before the status goes out: an unknown queue must be a 404.
    let first = follower.page(!follow).await?;
    let state = (Some(first), follower);
    let pages = stream::try_unfold(state, |(page, mut follower)| async move {
        let page = match page {
            Some(page) if !page.is_empty() => Some(page),
            Some(_) | None => follower.next().await?,
        };
        Ok::<_, StoreError>(page.map(|page| (page, (None, follower))))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(pages)).into_response())
}

impl Follower {
    /// Returns the next lines, or nothing at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (service, queue) = (self.app.service.clone(), self.queue.clone());
        loop {
            // Looked at before the page: what was recorded until the end is on the page then.
            let is_last = !self.follow || service.status(&queue).await?.phase.is_over();
            let page = self.page(is_last).await?;
            if !page.is_empty() {
                return Ok(Some(page));
            }
            if is_last {
                return Ok(None);
            }
            service.wait_over(&queue, FOLLOW_STEP).await?;
        }
    }

    /// Returns the next lines that there are; `is_last` when no others come that stand before
    /// them.
    async fn page(&mut self, is_last: bool) -> Result<Bytes, StoreError> {
        let results = match self.order {
            Order::Recorded => self.recorded().await?,
            Order::Push if is_last => self.pushed().await?,
            Order::Push => self.pushed_so_far().await?,
        };
        let mut page = Vec::with_capacity(results.len() * 128);
        for result in &results {
            serde_json::to_writer(&mut page, result).expect("results can be written");
            page.push(b'\n');
        }
        Ok(page.into())
    }

    /// Returns results up to the first item that may still get one: of a dead item nobody knows
    /// whether it is redriven.
    async fn pushed_so_far(&mut self) -> Result<Vec<ResultView>, StoreError> {
        let mut results = Vec::new();
        while results.len() < PAGE_ROWS_MAX {
            let items = self.items(None, self.looked_max).await?;
            let asked = items.len();
            let is_settled =
                |item: &ItemView| matches!(item.state, ItemState::Done | ItemState::Cancelled);
            let settled: Vec<ItemView> = items.into_iter().take_while(is_settled).collect();
            let is_gap = settled.len() < asked || asked == 0;
            self.cursor = settled.last().map_or(self.cursor, |item| item.id.0);
            results.extend(settled.into_iter().filter_map(result_of));
            if is_gap {
                // While the same item is waited for, it alone is looked at.
                self.looked_max = 1;
                break;
            }
            self.looked_max = (self.looked_max * 4).min(PAGE_ROWS_MAX);
        }
        Ok(results)
    }

    async fn pushed(&mut self) -> Result<Vec<ResultView>, StoreError> {
        let items = self.items(Some(ItemState::Done), PAGE_ROWS_MAX).await?;
        self.cursor = items.last().map_or(self.cursor, |item| item.id.0);
        Ok(items.into_iter().filter_map(result_of).collect())
    }

    async fn items(
        &self,
        state: Option<ItemState>,
        max: usize,
    ) -> Result<Vec<ItemView>, StoreError> {
        let query = Query::Items {
            queue: self.queue.clone(),
            state,
            after: ItemId(self.cursor),
            max,
        };
        match self.app.service.query(query).await? {
            Reply::Items(items) => Ok(items),
            other => Err(unexpected(&other)),
        }
    }

    async fn recorded(&mut self) -> Result<Vec<ResultView>, StoreError> {
        let query = Query::Results {
            queue: self.queue.clone(),
            cursor: self.cursor,
            max: PAGE_ROWS_MAX,
        };
        match self.app.service.query(query).await? {
            Reply::Results(results) => {
                self.cursor += results.len() as u64;
                Ok(results)
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn result_of(item: ItemView) -> Option<ResultView> {
    Some(ResultView {
        id: item.id,
        key: item.key,
        result: item.result?,
        attempt: item.attempts,
        took_ms: item.took_ms?,
    })
}

/// Replaces line breaks between the tokens of a result by spaces, before it is recorded, so that
/// it is one line wherever it is shown. (Inside of JSON strings there are none.)
pub(super) fn put_on_one_line(result: &mut Json) {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if result.get().as_bytes().iter().any(is_break) {
        let line = result.get().replace(['\n', '\r'], " ");
        let value = RawValue::from_string(line).expect("spaces may stand where line breaks did");
        *result = Arc::from(value);
    }
}
