//! What a queue looked like at some points of time.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::App;
use super::body::reply;
use super::params::InQueue;
use super::problem::Failure;
use crate::history::Point;

#[derive(Serialize)]
struct HistoryView {
    /// Oldest first: milliseconds since the queue was made, items left, done, dead.
    points: Vec<Point>,
}

pub(super) async fn history(
    State(app): State<App>,
    InQueue(queue): InQueue,
) -> Result<Response, Failure> {
    let mut status = app.service.status(&queue).await?;
    app.complete(&mut status);
    let points = app.history.points(status.uid);
    Ok(reply(&HistoryView { points }))
}
