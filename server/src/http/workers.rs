//! What workers say, and looks at who works.

use axum::extract::State;
use axum::response::Response;
use gangline_protocol::item::OutOfBounds;
use gangline_protocol::limits::{
    DELAY_MS_MAX, PAYLOAD_BYTES_MAX, PROGRESS_TEXT_BYTES_MAX, SESSION_LEASES_MAX, SETTLES_MAX,
    SPAWN_ITEMS_MAX,
};
use gangline_protocol::queue::RevokeRequest;
use gangline_protocol::{
    ErrorCode, ExchangeRequest, ItemProgress, SessionId, Settle, SettleOutcome, WorkerView,
};
use serde::Serialize;

use super::App;
use super::body::{Json, JsonOrDefault, reply};
use super::params::{InQueue, InWorker};
use super::problem::Failure;
use super::traces::Traces;
use crate::queue::{Command, Query, Reply};
use crate::service::unexpected;

type Answer = Result<Response, Failure>;

pub(super) async fn exchange(
    State(app): State<App>,
    InQueue(queue): InQueue,
    Json(mut request): Json<ExchangeRequest>,
) -> Answer {
    check(&request)?;
    for result in request
        .settles
        .iter_mut()
        .filter_map(|settle| settle.result.as_mut())
    {
        super::results::put_on_one_line(result);
    }
    let Some(asked) = Traces::asked(&request) else {
        return Ok(reply(&app.service.exchange(queue, request).await?));
    };
    let answer = app.service.exchange(queue.clone(), request).await?;
    app.traces.answered(&queue, &asked, &answer);
    Ok(reply(&answer))
}

/// Refuses the parts of an exchange that a simple form does not have.
async fn simple(
    app: State<App>,
    queue: InQueue,
    request: ExchangeRequest,
    call: &str,
    own: &[&str],
) -> Answer {
    let parts = [
        ("settles", !request.settles.is_empty()),
        ("started", !request.started.is_empty()),
        ("progress", !request.progress.is_empty()),
        ("heartbeat", request.heartbeat.is_some()),
        ("lease", request.lease.is_some()),
        ("leave", request.leave),
    ];
    for (part, present) in parts {
        if present && !own.contains(&part) {
            let detail = format!("{part}: a {call} has none; use exchange");
            return Err(Failure::new(ErrorCode::InvalidBody, detail).at(part));
        }
    }
    exchange(app, queue, Json(request)).await
}

pub(super) async fn lease(
    app: State<App>,
    queue: InQueue,
    Json(request): Json<ExchangeRequest>,
) -> Answer {
    if request.lease.is_none() {
        let detail = "lease: a lease call needs it, as in {\"lease\":{\"number\":1,\"max\":1}}";
        return Err(Failure::new(ErrorCode::InvalidBody, detail).at("lease"));
    }
    simple(app, queue, request, "lease", &["lease", "started"]).await
}

pub(super) async fn settle(
    app: State<App>,
    queue: InQueue,
    Json(request): Json<ExchangeRequest>,
) -> Answer {
    simple(app, queue, request, "settle", &["settles"]).await
}

pub(super) async fn heartbeat(
    app: State<App>,
    queue: InQueue,
    Json(mut request): Json<ExchangeRequest>,
) -> Answer {
    request.heartbeat = Some(request.heartbeat.unwrap_or_default());
    simple(
        app,
        queue,
        request,
        "heartbeat",
        &["heartbeat", "started", "progress"],
    )
    .await
}

pub(super) async fn leave(
    app: State<App>,
    queue: InQueue,
    Json(mut request): Json<ExchangeRequest>,
) -> Answer {
    request.leave = true;
    simple(app, queue, request, "leave", &["leave", "settles"]).await
}

/// Checks what the type of a request does not say.
fn check(request: &ExchangeRequest) -> Result<(), Failure> {
    if request.settles.len() > SETTLES_MAX {
        let bound = format!("at most {SETTLES_MAX} entries");
        return Err(Failure::bound("settles", request.settles.len(), &bound));
    }
    if request.started.len() > SESSION_LEASES_MAX {
        let bound = format!("at most {SESSION_LEASES_MAX} entries");
        return Err(Failure::bound("started", request.started.len(), &bound));
    }
    if request.lease.is_some_and(|lease| lease.max == 0) {
        let bound = format!("1 to {SESSION_LEASES_MAX}");
        return Err(Failure::bound("lease.max", 0, &bound));
    }
    for (at, settle) in request.settles.iter().enumerate() {
        check_settle(at, settle)?;
    }
    if request.progress.len() > SESSION_LEASES_MAX {
        let bound = format!("at most {SESSION_LEASES_MAX} entries");
        return Err(Failure::bound("progress", request.progress.len(), &bound));
    }
    for (at, said) in request.progress.iter().enumerate() {
        check_progress(at, said)?;
    }
    Ok(())
}

fn check_progress(at: usize, said: &ItemProgress) -> Result<(), Failure> {
    let ItemProgress {
        id: _,
        lease: _,
        fraction,
        text,
    } = said;
    if let Some(fraction) = fraction.filter(|fraction| !(0.0..=1.0).contains(fraction)) {
        let field = format!("progress[{at}].fraction");
        return Err(Failure::bound(&field, fraction, "0 to 1"));
    }
    let bytes = text.as_ref().map_or(0, |text| text.len());
    if bytes > PROGRESS_TEXT_BYTES_MAX {
        let field = format!("progress[{at}].text");
        let bound = format!("at most {PROGRESS_TEXT_BYTES_MAX} bytes");
        return Err(Failure::bound(&field, bytes, &bound));
    }
    Ok(())
}

fn check_settle(at: usize, settle: &Settle) -> Result<(), Failure> {
    let Settle {
        id: _,
        lease: _,
        outcome,
        result,
        error,
        delay_ms,
        spawn,
        stop: _,
    } = settle;
    let (done, retry, dead) = match outcome {
        SettleOutcome::Done => (true, false, false),
        SettleOutcome::Retry => (false, true, false),
        SettleOutcome::Dead => (false, false, true),
        SettleOutcome::Release => (false, false, false),
    };
    let misplaced = [
        ("result", result.is_some() && !done, "done"),
        ("spawn", !spawn.is_empty() && !done, "done"),
        (
            "error",
            error.is_some() && !(retry || dead),
            "retry and dead",
        ),
        ("delayMs", delay_ms.is_some() && !retry, "retry"),
    ];
    for (field, misplaced, with) in misplaced {
        if misplaced {
            let field = format!("settles[{at}].{field}");
            let detail = format!("{field} goes with the outcome {with} only");
            return Err(Failure::new(ErrorCode::InvalidBody, detail).at(field));
        }
    }
    let bounds = [
        (
            "result",
            result
                .as_ref()
                .map_or(0, |result| result.get().len() as u64),
            PAYLOAD_BYTES_MAX as u64,
            "bytes",
        ),
        ("delayMs", delay_ms.unwrap_or(0), DELAY_MS_MAX, "ms"),
        ("spawn", spawn.len() as u64, SPAWN_ITEMS_MAX as u64, "items"),
    ];
    for (field, value, max, unit) in bounds {
        if value > max {
            let bound = OutOfBounds {
                field,
                value,
                min: 0,
                max,
                unit,
            };
            return Err(Failure::out_of_bounds(&format!("settles[{at}]."), bound));
        }
    }
    for (nth, item) in spawn.iter().enumerate() {
        if let Some(bound) = item.out_of_bounds() {
            let path = format!("settles[{at}].spawn[{nth}].");
            return Err(Failure::out_of_bounds(&path, bound));
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct WorkerList {
    workers: Vec<WorkerView>,
}

pub(super) async fn list(State(app): State<App>, InQueue(queue): InQueue) -> Answer {
    match app.service.query(Query::Workers { queue }).await? {
        Reply::Workers(workers) => Ok(reply(&WorkerList { workers })),
        other => Err(unexpected(&other).into()),
    }
}

pub(super) async fn look(State(app): State<App>, InWorker(queue, worker): InWorker) -> Answer {
    match app.service.query(Query::Worker { queue, worker }).await? {
        Reply::Worker(record) => Ok(reply(&record)),
        other => Err(unexpected(&other).into()),
    }
}

#[derive(Serialize)]
struct RevokeReply {
    /// The session that ended; absent when none was open.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
}

pub(super) async fn revoke(
    State(app): State<App>,
    InWorker(queue, worker): InWorker,
    JsonOrDefault(request): JsonOrDefault<RevokeRequest>,
) -> Answer {
    let command = Command::Revoke {
        queue,
        worker,
        counted: request.counted,
    };
    match app.service.execute(command).await? {
        Reply::Revoked(session) => Ok(reply(&RevokeReply { session })),
        other => Err(unexpected(&other).into()),
    }
}
