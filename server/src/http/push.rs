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
use super::body::{apart, check_json, check_object, media_type, parse, read, reply};
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
    let trace = traceparent(&parts.headers).map(Box::from);
    let (items, batch) = apart(body, move |body| taken_apart(body, params, key, trace)).await?;
    let command = Command::Push {
        queue,
        items,
        batch,
        seal: params.seal,
    };
    Ok(reply(&execute(&app.service, command).await?))
}

/// Parses and checks a body that is no stream.
fn taken_apart(
    body: &[u8],
    params: PushParams,
    key: Option<Box<str>>,
    trace: Option<Box<str>>,
) -> Result<(Vec<NewItem>, Option<Batch>), Failure> {
    let mut items = parse_items(body)?;
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
            let path = if is_batch(body) {
                format!("items[{at}].")
            } else {
                String::new()
            };
            return Err(Failure::out_of_bounds(&path, bound));
        }
    }
    if let Some(trace) = trace {
        for item in &mut items {
            item.traceparent.get_or_insert_with(|| trace.clone());
        }
    }
    // The header is no part of what is repeated: a client may begin a span for each try.
    let batch = key.map(|key| {
        let mut hash = Sha256::new_with_prefix([u8::from(params.seal)]);
        hash.update(body);
        Batch {
            key,
            part: BatchPart::Whole {
                hash: hash.finalize().into(),
            },
        }
    });
    Ok((items, batch))
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

/// Returns the trace that a push is part of (W3C Trace Context, "traceparent"), unless it is not
/// recorded anyway: each item would carry it for nothing. What is malformed is ignored, as that
/// specification says.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let is_hex = |part: &str| {
        part.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else {
        return None;
    };
    let lengths = [version, trace, parent, flags].map(str::len);
    let is_formed = version == "00" && lengths == [2, 32, 16, 2] && parts.iter().all(|p| is_hex(p));
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let is_sampled = flags & 1 != 0;
    (is_formed && is_sampled && !is_zero(trace) && !is_zero(parent)).then_some(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_when_it_is_whole_and_sampled() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let check = |text: String, taken: bool| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            let expected = taken.then_some(&*text);
            assert_eq!(traceparent(&headers), expected);
        };
        check(format!("00-{trace}-{parent}-01"), true);
        check(format!("00-{trace}-{parent}-03"), true);
        check(format!("00-{trace}-{parent}-00"), false);
        check(format!("00-{trace}-{parent}-01-x"), false);
        check(format!("01-{trace}-{parent}-01"), false);
        check(format!("00-{}-{parent}-01", "0".repeat(32)), false);
        check(format!("00-{trace}-{}-01", "0".repeat(16)), false);
        check(format!("00-{}-{parent}-01", trace.to_uppercase()), false);
        check(format!("00-{trace}-{parent}-zz"), false);
        check("nonsense".into(), false);
        assert_eq!(traceparent(&HeaderMap::new()), None);
    }
}
