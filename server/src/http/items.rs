//! Looks at items, and taking them back.

use axum::extract::State;
use axum::response::Response;
use gangline_protocol::limits::PAGE_ROWS_MAX;
use gangline_protocol::{ItemId, ItemState, ItemView};
use serde::{Deserialize, Serialize};

use super::App;
use super::body::reply;
use super::params::{InItem, InQueue, Params};
use super::problem::Failure;
use crate::queue::{Command, Query, Reply};
use crate::service::unexpected;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListParams {
    state: Option<ItemState>,
    /// The `next` of the page before.
    #[serde(default)]
    cursor: ItemId,
    #[serde(default = "rows_default")]
    max: usize,
}

fn rows_default() -> usize {
    100
}

#[derive(Serialize)]
struct ItemList {
    items: Vec<ItemView>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<ItemId>,
}

pub(super) async fn list(
    State(app): State<App>,
    InQueue(queue): InQueue,
    Params(params): Params<ListParams>,
) -> Result<Response, Failure> {
    let ListParams { state, cursor, max } = params;
    if !(1..=PAGE_ROWS_MAX).contains(&max) {
        return Err(Failure::bound("max", max, &format!("1 to {PAGE_ROWS_MAX}")));
    }
    let query = Query::Items {
        queue,
        state,
        after: cursor,
        max,
    };
    match app.service.query(query).await? {
        Reply::Items(items) => {
            let next = items.last().map(|item| item.id);
            Ok(reply(&ItemList { items, next }))
        }
        other => Err(unexpected(&other).into()),
    }
}

pub(super) async fn get(
    State(app): State<App>,
    InItem(queue, id): InItem,
) -> Result<Response, Failure> {
    show(app.service.query(Query::Item { queue, id }).await?)
}

pub(super) async fn cancel(
    State(app): State<App>,
    InItem(queue, id): InItem,
) -> Result<Response, Failure> {
    show(app.service.execute(Command::Cancel { queue, id }).await?)
}

fn show(answer: Reply) -> Result<Response, Failure> {
    match answer {
        Reply::Item(item) => Ok(reply(&item)),
        Reply::Status(status) => Ok(reply(&status)),
        other => Err(unexpected(&other).into()),
    }
}
