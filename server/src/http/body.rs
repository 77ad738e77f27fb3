//! Bodies of requests and replies: bounded, and with errors that name the field.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use gangline_protocol::ErrorCode;
use gangline_protocol::limits::{BODY_BYTES_MAX, BODY_READ_MS_MAX};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::Failure;

/// A JSON request body, parsed; an empty body is refused.
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON request body, or the default of its type when the body is empty.
pub(crate) struct JsonOrDefault<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let body = read(body).await?;
        if !body.is_empty() {
            check_json(&parts.headers)?;
        }
        apart(body, |body| parse(body)).await.map(Self)
    }
}

impl<S: Sync, T: DeserializeOwned + Default + Send + 'static> FromRequest<S> for JsonOrDefault<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let body = read(body).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        check_json(&parts.headers)?;
        apart(body, |body| parse(body)).await.map(Self)
    }
}

/// Reads a whole body, up to its bound.
pub(crate) async fn read(body: Body) -> Result<Bytes, Failure> {
    let time = Duration::from_millis(BODY_READ_MS_MAX);
    let Ok(whole) = timeout(time, to_bytes(body, BODY_BYTES_MAX)).await else {
        let detail = format!("the body must arrive within {BODY_READ_MS_MAX} ms");
        return Err(Failure::new(ErrorCode::RequestTimeout, detail));
    };
    whole.map_err(|error| {
        let error = error.into_inner();
        if error.is::<http_body_util::LengthLimitError>() {
            let detail = format!("the body must be at most {BODY_BYTES_MAX} bytes");
            Failure::new(ErrorCode::BodyTooLarge, detail)
        } else {
            Failure::new(
                ErrorCode::InvalidBody,
                format!("the body ended early: {error}"),
            )
        }
    })
}

/// Bytes from which a body is looked at on a thread of its own: some 100 µs of parsing.
const LARGE_BYTES: usize = 32 << 10;

/// Does what is work of a body's size where it delays nobody else's calls: what is large goes to
/// threads among which the system shares the processors.
pub(crate) async fn apart<T: Send + 'static>(
    body: Bytes,
    work: impl FnOnce(&[u8]) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if body.len() < LARGE_BYTES {
        return work(&body);
    }
    let done = tokio::task::spawn_blocking(move || work(&body)).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "a body could not be looked at");
        Err(Failure::new(
            ErrorCode::Internal,
            "the body could not be looked at",
        ))
    })
}

/// Returns the media type of a request, without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim()
}

/// A page of another origin can send a form, but no `application/json` without being asked.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Failure> {
    match media_type(headers) {
        "application/json" => Ok(()),
        other => Err(Failure::new(
            ErrorCode::UnsupportedMediaType,
            format!("Content-Type must be application/json, got {other:?}"),
        )),
    }
}

/// Parses a JSON object; the error names the path of the field at fault.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    check_object(body)?;
    serde_json::from_slice(body).or_else(|_| parse_slowly(body))
}

/// An array would be taken for the fields of a struct in their order, which is nobody's contract.
pub(crate) fn check_object(body: &[u8]) -> Result<(), Failure> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        let detail = "the body: must be an object, got an array";
        return Err(Failure::new(ErrorCode::InvalidBody, detail));
    }
    Ok(())
}

/// Parses again what did not parse, now keeping the path, which costs too much on the way.
fn parse_slowly<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if path == "." {
            Failure::new(ErrorCode::InvalidBody, format!("the body: {inner}"))
        } else {
            Failure::new(ErrorCode::InvalidBody, format!("{path}: {inner}")).at(path)
        }
    })?;
    let end = deserializer.end();
    end.map_err(|error| Failure::new(ErrorCode::InvalidBody, format!("the body: {error}")))?;
    Ok(value)
}

/// Writes a reply.
pub(crate) fn reply<T: Serialize>(value: &T) -> Response {
    let body = serde_json::to_vec(value).expect("replies can be written");
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], body).into_response()
}
