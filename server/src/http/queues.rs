//! Queues: settings, status, and their phases.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use gangline_protocol::limits::{HOLD_MS_MAX, REASON_BYTES_MAX};
use gangline_protocol::queue::StopRequest;
use gangline_protocol::{QueueStatus, Scope, SettingsPatch};
use serde::{Deserialize, Serialize};

use super::App;
use super::access::Caller;
use super::body::{Json, JsonOrDefault, reply};
use super::params::{InQueue, Params};
use super::problem::Failure;
use crate::queue::{Command, Query, Reply};
use crate::service::unexpected;

type Answer = Result<Response, Failure>;

#[derive(Serialize)]
struct QueueList {
    queues: Vec<QueueStatus>,
}

impl App {
    /// Carries out a command whose answer is the status of a queue.
    async fn change(&self, command: Command) -> Answer {
        match self.service.execute(command).await? {
            Reply::Status(status) => Ok(self.show(*status)),
            other => Err(unexpected(&other).into()),
        }
    }

    fn show(&self, mut status: QueueStatus) -> Response {
        self.complete(&mut status);
        reply(&status)
    }

    /// Fills in what the store promises and what follows from what was seen before, and remembers what is seen now.
    pub(super) fn complete(&self, status: &mut QueueStatus) {
        self.rates.complete(status);
        status.durability = Some(self.service.durability());
        self.history.note(status, self.history.now());
    }

    /// Returns the queues of a scope with their rates.
    pub(super) async fn all(&self, scope: &Scope) -> Result<Vec<QueueStatus>, Failure> {
        match self.service.query(Query::List).await? {
            Reply::Queues(mut queues) => {
                queues.retain(|status| scope.has(&status.queue));
                for status in &mut queues {
                    self.complete(status);
                }
                Ok(queues)
            }
            other => Err(unexpected(&other).into()),
        }
    }
}

pub(super) async fn list(State(app): State<App>, Extension(caller): Extension<Caller>) -> Answer {
    let queues = app.all(caller.scope()).await?;
    Ok(reply(&QueueList { queues }))
}

pub(super) async fn configure(
    State(app): State<App>,
    InQueue(queue): InQueue,
    JsonOrDefault(patch): JsonOrDefault<SettingsPatch>,
) -> Answer {
    app.change(Command::Configure { queue, patch }).await
}

pub(super) async fn status(State(app): State<App>, InQueue(queue): InQueue) -> Answer {
    Ok(app.show(app.service.status(&queue).await?))
}

pub(super) async fn explain(State(app): State<App>, InQueue(queue): InQueue) -> Answer {
    match app.service.query(Query::Explain { queue }).await? {
        Reply::Explanation(explanation) => Ok(reply(&explanation)),
        other => Err(unexpected(&other).into()),
    }
}

pub(super) async fn delete(State(app): State<App>, InQueue(queue): InQueue) -> Answer {
    let deleted = app
        .change(Command::Delete {
            queue: queue.clone(),
        })
        .await?;
    app.jobs.forget(&queue).await;
    Ok(deleted)
}

pub(super) async fn seal(State(app): State<App>, InQueue(queue): InQueue) -> Answer {
    app.change(Command::Seal { queue }).await
}

pub(super) async fn pause(State(app): State<App>, InQueue(queue): InQueue) -> Answer {
    app.change(Command::Pause {
        queue,
        paused: true,
    })
    .await
}

pub(super) async fn resume(State(app): State<App>, InQueue(queue): InQueue) -> Answer {
    app.change(Command::Pause {
        queue,
        paused: false,
    })
    .await
}

pub(super) async fn stop(
    State(app): State<App>,
    InQueue(queue): InQueue,
    Json(request): Json<StopRequest>,
) -> Answer {
    let StopRequest {
        outcome,
        reason,
        by,
    } = request;
    for (field, text) in [("reason", &reason), ("by", &by)] {
        let bytes = text.as_ref().map_or(0, |text| text.len());
        if bytes > REASON_BYTES_MAX {
            let bound = format!("at most {REASON_BYTES_MAX} bytes");
            return Err(Failure::bound(field, bytes, &bound));
        }
    }
    let command = Command::Stop {
        queue,
        outcome,
        reason,
        by,
    };
    app.change(command).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WaitParams {
    #[serde(default)]
    until: Until,
    /// How long the answer may be held, in milliseconds.
    #[serde(default = "hold_ms_max")]
    wait_ms: u64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum Until {
    #[default]
    Over,
}

fn hold_ms_max() -> u64 {
    HOLD_MS_MAX
}

pub(super) async fn wait(
    State(app): State<App>,
    InQueue(queue): InQueue,
    Params(params): Params<WaitParams>,
) -> Answer {
    let Until::Over = params.until;
    let hold = Duration::from_millis(params.wait_ms);
    Ok(app.show(app.service.wait_over(&queue, hold).await?))
}
