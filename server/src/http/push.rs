//! Pushes of one item or a batch; streams are handed on to [`stream`](super::stream).

use axum::extract::{Request, State};
use axum::response::Response;
use gangline_protocol::item::PushRequest;
use gangline_protocol::limits::{IDEMPOTENCY_KEY_BYTES_MAX, PUSH_ITEMS_MAX};
use gangline_protocol::{ErrorCode, NewItem, PushReply};
use http::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::App;
use super::body::{check_json, check_object, media_type, parse, read, reply};
use super::params::{InQueue, Params};
use super::problem::Failure;
use super::stream;
use crate::queue::command::{Batch, BatchPart};
use crate::queue::{Command, Reply};
use crate::service::{Service, unexpected};

/// The query of a push.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PushParams {
    /// Seals the queue in the step that takes the last item.
    #[serde(default)]
    pub(super) seal: bool,
    /// How many items the body has; another number is refused.
    pub(super) count: Option<u64>,
}

pub(super) async fn push(
    State(app): State<App>,
    InQueue(queue): InQueue,
    Params(params): Params<PushParams>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?;
    if is_stream(media_type(&parts.headers)) {
        return Ok(reply(
            &stream::push(&app.service, queue, params, key, body).await?,
        ));
    }
    check_json(&parts.headers)?;
    let body = read(body).await?;
    let items = parse_items(&body)?;
    if items.len() > PUSH_ITEMS_MAX {
        let bound = format!(
            "at most {PUSH_ITEMS_MAX} entries (send more as application/x-ndjson with an \
             Idempotency-Key)"
        );
        return Err(Failure::bound("items", items.len(), &bound));
    }
    if let Some(count) = params.count
        && count != items.len() as u64
    {
        return Err(incomplete(items.len() as u64, count, "nothing was taken"));
    }
    for (at, item) in items.iter().enumerate() {
        if let Some(bound) = item.out_of_bounds() {
            let path = if is_batch(&body) {
                format!("items[{at}].")
            } else {
                String::new()
            };
            return Err(Failure::out_of_bounds(&path, bound));
        }
    }
    let batch = key.map(|key| {
        let mut hash = Sha256::new_with_prefix([u8::from(params.seal)]);
        hash.update(&body);
        Batch {
            key,
            part: BatchPart::Whole {
                hash: hash.finalize().into(),
            },
        }
    });
    let command = Command::Push {
        queue,
        items,
        batch,
        seal: params.seal,
    };
    Ok(reply(&execute(&app.service, command).await?))
}

pub(super) async fn execute(service: &Service, command: Command) -> Result<PushReply, Failure> {
    match service.execute(command).await? {
        Reply::Pushed(reply) => Ok(reply),
        other => Err(unexpected(&other).into()),
    }
}

pub(super) fn incomplete(got: u64, wanted: u64, what: &str) -> Failure {
    let detail = format!("count announced {wanted} items and {got} came; {what}");
    Failure::new(ErrorCode::IncompleteStream, detail).at("count")
}

fn is_stream(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines"
    )
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Box<str>>, Failure> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value.to_str().ok();
    match text.filter(|text| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len())) {
        Some(text) => Ok(Some(text.into())),
        None => Err(Failure::bound(
            "Idempotency-Key",
            format!("{} bytes", value.len()),
            &format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters"),
        )),
    }
}

/// Tells a batch from a single item, which has `payload` but no `items`.
fn is_batch(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Shape {
        items: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Shape>(body).is_ok_and(|shape| shape.items.is_some())
}

fn parse_items(body: &[u8]) -> Result<Vec<NewItem>, Failure> {
    check_object(body)?;
    if let Ok(PushRequest { items }) = serde_json::from_slice(body) {
        return Ok(items);
    }
    if is_batch(body) {
        let PushRequest { items } = parse(body)?;
        return Ok(items);
    }
    parse(body).map(|item| vec![item])
}
