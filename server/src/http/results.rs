//! Results as a stream of lines, in the order of recording or of pushing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use gangline_protocol::item::ResultView;
use gangline_protocol::limits::PAGE_ROWS_MAX;
use gangline_protocol::{ItemId, ItemState, Json, QueueName};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::App;
use super::params::{InQueue, Params};
use super::problem::Failure;
use crate::queue::{Query, Reply};
use crate::service::unexpected;

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
    if follow && order == Order::Push {
        let detail =
            "cannot follow in the order of pushing: later results may stand before the cursor";
        return Err(Failure::parameter("follow", detail));
    }
    let mut follower = Follower {
        app,
        queue,
        cursor,
        follow,
        order,
    };
    // The first page is read before the status goes out: an unknown queue must be a 404.
    let first = follower.page().await?;
    let state = (Some(first), follower);
    let pages = stream::unfold(state, |(page, mut follower)| async move {
        let page = match page {
            Some(page) if !page.is_empty() => page,
            Some(_) | None => follower.next().await?,
        };
        Some((Ok::<_, Infallible>(page), (None, follower)))
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
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            // Looked at before the page: what was recorded until the end is on the page then.
            let over = !self.follow
                || self
                    .app
                    .service
                    .status(&self.queue)
                    .await
                    .ok()?
                    .phase
                    .is_over();
            let page = self.page().await.ok()?;
            if !page.is_empty() {
                return Some(page);
            }
            if over {
                return None;
            }
            self.app
                .service
                .wait_over(&self.queue, FOLLOW_STEP)
                .await
                .ok()?;
        }
    }

    async fn page(&mut self) -> Result<Bytes, Failure> {
        let results = match self.order {
            Order::Recorded => self.recorded().await?,
            Order::Push => self.pushed().await?,
        };
        let mut page = Vec::with_capacity(results.len() * 128);
        for result in &results {
            serde_json::to_writer(&mut page, result).expect("results can be written");
            page.push(b'\n');
        }
        Ok(page.into())
    }

    async fn pushed(&mut self) -> Result<Vec<ResultView>, Failure> {
        let query = Query::Items {
            queue: self.queue.clone(),
            state: Some(ItemState::Done),
            after: ItemId(self.cursor),
            max: PAGE_ROWS_MAX,
        };
        let items = match self.app.service.query(query).await? {
            Reply::Items(items) => items,
            other => return Err(unexpected(&other).into()),
        };
        self.cursor = items.last().map_or(self.cursor, |item| item.id.0);
        let results = items.into_iter().filter_map(|item| {
            Some(ResultView {
                id: item.id,
                key: item.key,
                result: item.result?,
                attempt: item.attempts,
                took_ms: item.took_ms?,
            })
        });
        Ok(results.collect())
    }

    async fn recorded(&mut self) -> Result<Vec<ResultView>, Failure> {
        let query = Query::Results {
            queue: self.queue.clone(),
            cursor: self.cursor,
            max: PAGE_ROWS_MAX,
        };
        let Reply::Results(results) = (match self.app.service.query(query).await? {
            reply @ Reply::Results(_) => reply,
            other => return Err(unexpected(&other).into()),
        }) else {
            unreachable!("any other reply was refused above")
        };
        self.cursor += results.len() as u64;
        Ok(results)
    }
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
