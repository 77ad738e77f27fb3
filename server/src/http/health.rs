//! Probes.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gangline_protocol::ErrorCode;

use super::App;
use super::problem::Failure;

/// The process is alive.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store can serve.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    match app.service.trouble() {
        None => "ok\n".into_response(),
        Some(trouble) => Failure::new(ErrorCode::Unavailable, trouble).into_response(),
    }
}
