//! The bodies of requests, in each of the forms that clients send.

use axum::body::{Body, Bytes};
use bytes::{BufMut, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, header};
use serde_json::Value;

use super::error::{ApiError, Result};
use super::protobuf;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// The largest body of a request, as in Kubernetes.
const BYTES_MAX: usize = 3 << 20;
/// How much of a larger one is read past: clients hear the answer once they have said all.
const BYTES_READ_MAX: usize = 64 << 20;

/// Reads a body to its end.
pub(super) async fn read(body: Body) -> Result<Bytes> {
    let mut pieces = body.into_data_stream();
    let (mut whole, mut bytes) = (BytesMut::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            ApiError::bad_request(format!("the body of the request breaks off: {error}"))
        })?;
        bytes += piece.len();
        if bytes <= BYTES_MAX {
            whole.put_slice(&piece);
        } else if bytes > BYTES_READ_MAX {
            break;
        } else {
            whole = BytesMut::new();
        }
    }
    if bytes > BYTES_MAX {
        return Err(ApiError::too_large(BYTES_MAX));
    }
    Ok(whole.freeze())
}

/// The media type of a body; JSON when nothing is said.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let value = value.unwrap_or(JSON);
    value.split(';').next().unwrap_or_default().trim()
}

/// Reads a body as the object that it is.
pub(super) fn object(headers: &HeaderMap, body: &Bytes) -> Result<Value> {
    match content_type(headers) {
        JSON => serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!("the body of the request is no JSON: {error}"))
        }),
        YAML => yaml(body),
        protobuf::MEDIA_TYPE => {
            protobuf::decode(body).map_err(|error| ApiError::bad_request(error.to_string()))
        }
        _ => {
            let known = [JSON, YAML, protobuf::MEDIA_TYPE];
            Err(ApiError::unsupported_media_type(&known))
        }
    }
}

/// Reads YAML, of which JSON is a part.
pub(super) fn yaml(body: &[u8]) -> Result<Value> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    serde_saphyr::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the body of the request is no YAML: {error}"))
    })
}
