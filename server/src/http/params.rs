//! Names in the path and values in the query.

use std::collections::HashMap;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path, Query};
use gangline_protocol::{ErrorCode, ItemId, QueueName, WorkerName};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Failure;

/// The queue of the path.
pub(crate) struct InQueue(pub(crate) QueueName);

/// The queue and the item of the path.
pub(crate) struct InItem(pub(crate) QueueName, pub(crate) ItemId);

/// The queue and the worker of the path.
pub(crate) struct InWorker(pub(crate) QueueName, pub(crate) WorkerName);

/// The parameters of the query; unknown ones are refused.
pub(crate) struct Params<T>(pub(crate) T);

async fn path(parts: &mut Parts) -> Result<HashMap<String, String>, Failure> {
    let path = parts
        .extract::<Path<HashMap<String, String>>>()
        .await
        .map_err(|error| Failure::new(ErrorCode::InvalidParameter, error.to_string()))?;
    Ok(path.0)
}

fn queue(path: &HashMap<String, String>) -> Result<QueueName, Failure> {
    let text = path.get("queue").map_or("", String::as_str);
    text.parse().map_err(|error| Failure::id("queue", &error))
}

impl<S: Sync> FromRequestParts<S> for InQueue {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        queue(&path(parts).await?).map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for InItem {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let path = path(parts).await?;
        let text = path.get("id").map_or("", String::as_str);
        let id = text.parse().map(ItemId);
        let id = id.map_err(|_| Failure::parameter("id", "must be the number of an item"))?;
        Ok(Self(queue(&path)?, id))
    }
}

impl<S: Sync> FromRequestParts<S> for InWorker {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let path = path(parts).await?;
        let text = path.get("name").map_or("", String::as_str);
        let name = text
            .parse()
            .map_err(|error| Failure::id("worker", &error))?;
        Ok(Self(queue(&path)?, name))
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = Query::try_from_uri(&parts.uri).map_err(|error| {
            // The outer text only says that the query did not parse.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let detail = cause.unwrap_or_else(|| error.to_string());
            Failure::new(ErrorCode::InvalidParameter, format!("the query: {detail}"))
        })?;
        Ok(Self(query.0))
    }
}
