//! Get and list. A list is put together from the objects' own bytes.

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, BytesMut};
use http::StatusCode;
use serde_json::json;

use super::error::{ApiError, Result};
use super::table::{self, Include};
use super::target::{Parameters, Target, number};
use super::{json_reply, object_reply};
use crate::objects::Store;

pub(super) fn get(
    store: &Store,
    target: &Target,
    name: &str,
    as_table: Option<Include>,
) -> Result<Response> {
    let object = store.get(target.resource, target.namespace(), name);
    let object = object.ok_or_else(|| ApiError::not_found(target.resource, name))?;
    let Some(include) = as_table else {
        return Ok(object_reply(StatusCode::OK, &object, &[]));
    };
    let metadata = json!({ "resourceVersion": object.version().to_string() });
    let only = std::iter::once(object.as_ref());
    let table = table::table(target.resource, only, &metadata, include, true);
    Ok(json_reply(StatusCode::OK, Body::from(table.to_string())))
}

/// Where the next page begins, and the version that the first one was read at.
struct Continue {
    version: u64,
    namespace: String,
    name: String,
}

impl Continue {
    fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '.');
        let parts = (|| Some((parts.next()?.parse().ok()?, parts.next()?, parts.next()?)))();
        let (version, namespace, name) = parts
            .ok_or_else(|| ApiError::bad_request(format!("continue key is not valid: {text:?}")))?;
        Ok(Self {
            version,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

pub(super) fn list(
    store: &Store,
    target: &Target,
    parameters: &Parameters,
    as_table: Option<Include>,
) -> Result<Response> {
    let selector = target.selector(parameters)?;
    let limit: Option<usize> = number("limit", &parameters.limit)?;
    let limit = limit.filter(|limit| *limit > 0);
    let (mut objects, mut version) = store.list(target.resource, target.namespace.as_deref());
    if let Some(asked) = number::<u64>("resourceVersion", &parameters.resource_version)?
        && asked > version
    {
        return Err(ApiError::expired(format!(
            "too large resource version: {asked}, current: {version}"
        )));
    }
    if !parameters.continue_.is_empty() {
        let from = Continue::parse(&parameters.continue_)?;
        objects.retain(|object| {
            (object.namespace(), object.name()) > (from.namespace.as_str(), from.name.as_str())
        });
        // What changed between two pages is told by a watch from here.
        version = from.version;
    }
    if !selector.is_empty() {
        objects.retain(|object| selector.matches(object));
    }
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let Some(limit) = limit
        && objects.len() > limit
    {
        metadata["remainingItemCount"] = (objects.len() - limit).into();
        objects.truncate(limit);
        if let Some(last) = objects.last() {
            metadata["continue"] = format!("{version}.{}.{}", last.namespace(), last.name()).into();
        }
    }
    if let Some(include) = as_table {
        let objects = objects.iter().map(AsRef::as_ref);
        let table = table::table(target.resource, objects, &metadata, include, true);
        return Ok(json_reply(StatusCode::OK, Body::from(table.to_string())));
    }
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#,
        target.resource.kind(),
        target.resource.api_version(),
    );
    let bytes: usize = objects.iter().map(|object| object.bytes().len() + 1).sum();
    let mut body = BytesMut::with_capacity(head.len() + bytes + 2);
    body.put_slice(head.as_bytes());
    for (position, object) in objects.iter().enumerate() {
        if position > 0 {
            body.put_u8(b',');
        }
        body.put_slice(object.bytes());
    }
    body.put_slice(b"]}");
    Ok(json_reply(StatusCode::OK, Body::from(body.freeze())))
}
