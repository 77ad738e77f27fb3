//! The bodies of requests, in each of the forms that clients send.

use axum::body::Bytes;
use http::{HeaderMap, header};
use serde_json::Value;

use super::error::{ApiError, Result};
use super::protobuf;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

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
