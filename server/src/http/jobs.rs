//! What the controller says of the Job behind a queue.

use axum::extract::State;
use axum::response::Response;
use gangline_protocol::JobReport;
use serde::Serialize;
use serde_json::value::RawValue;

use super::App;
use super::body::{Json, reply};
use super::params::InQueue;
use super::problem::Failure;

#[derive(Serialize)]
struct JobView<'a> {
    /// Null when nobody has said anything.
    job: Option<&'a RawValue>,
}

pub(super) async fn put(
    State(app): State<App>,
    InQueue(queue): InQueue,
    Json(report): Json<JobReport>,
) -> Result<Response, Failure> {
    if let Some(bound) = report.out_of_bounds() {
        return Err(Failure::out_of_bounds("", bound));
    }
    let text = serde_json::value::to_raw_value(&report).expect("a report can be written");
    let bytes = text.get().to_owned().into();
    app.jobs.put(&queue, bytes).await?;
    Ok(reply(&JobView { job: Some(&text) }))
}

pub(super) async fn get(
    State(app): State<App>,
    InQueue(queue): InQueue,
) -> Result<Response, Failure> {
    let bytes = app.jobs.get(&queue).await?;
    // Nobody but `put` writes it, so what does not parse is as good as none.
    let job = bytes
        .as_deref()
        .and_then(|bytes| serde_json::from_slice(bytes).ok());
    Ok(reply(&JobView { job }))
}
