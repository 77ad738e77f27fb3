//! Probes.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gangline_protocol::{ErrorCode, Timestamp};
use http::header;

use super::App;
use super::problem::Failure;
use crate::queue::{Query, Reply};
use crate::service::unexpected;

/// The process is alive.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// All series, for Prometheus.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Failure> {
    let queues = match app.service.query(Query::List).await? {
        Reply::Queues(queues) => queues,
        other => return Err(unexpected(&other).into()),
    };
    let oldest = match app.service.query(Query::OldestReady).await? {
        Reply::OldestReady(oldest) => oldest,
        other => return Err(unexpected(&other).into()),
    };
    let now_ms = app.history.now();
    let ages = oldest
        .into_iter()
        .map(|(queue, Timestamp(pushed_ms))| (queue, now_ms.saturating_sub(pushed_ms)));
    let text = app.gate.metrics.text(queues, &ages.collect());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The store can serve.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    match app.service.trouble() {
        None => "ok\n".into_response(),
        Some(trouble) => Failure::new(ErrorCode::Unavailable, trouble).into_response(),
    }
}
