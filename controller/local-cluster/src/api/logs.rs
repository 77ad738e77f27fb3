//! The logs of Pods, which the kubelet keeps.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::header;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Api;
use super::error::{ApiError, Result};
use super::target::{Parameters, Target, is_on, number};
use crate::kubelet::LogOptions;
use crate::objects::resource::Resource;

pub(super) fn read(
    api: &Api,
    target: &Target,
    name: &str,
    parameters: &Parameters,
) -> Result<Response> {
    let pod = api.store.get(Resource::Pods, target.namespace(), name);
    let pod = pod.ok_or_else(|| ApiError::not_found(Resource::Pods, name))?;
    let value = pod.value();
    let container = container(&value, name, &parameters.container)?;
    let options = LogOptions {
        follow: is_on(&parameters.follow),
        tail_lines: number("tailLines", &parameters.tail_lines)?,
        since: since(parameters)?,
        timestamps: is_on(&parameters.timestamps),
        limit_bytes: number("limitBytes", &parameters.limit_bytes)?,
        previous: is_on(&parameters.previous),
        restart_count: number("restartCount", &parameters.restart_count)?,
    };
    let text = api.kubelet.logs(pod.uid(), container, options);
    let text = text.map_err(|error| ApiError::bad_request(format!("{error} in pod {name:?}")))?;
    let body = Body::from_stream(text.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

/// From when on lines are wanted: `sinceTime`, or `sinceSeconds` before now.
fn since(parameters: &Parameters) -> Result<Option<Timestamp>> {
    let seconds: Option<u32> = number("sinceSeconds", &parameters.since_seconds)?;
    if let Some(seconds) = seconds {
        let span = SignedDuration::from_secs(i64::from(seconds));
        return Ok(Timestamp::now().checked_sub(span).ok());
    }
    match parameters.since_time.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!("sinceTime: {text:?} is no time as in RFC 3339"))
        }),
    }
}

fn container<'a>(pod: &'a Value, pod_name: &str, asked: &'a str) -> Result<&'a str> {
    let of = |key: &str| {
        let list = pod["spec"][key].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str())
            .collect::<Vec<_>>()
    };
    let (init, main) = (of("initContainers"), of("containers"));
    match (asked, main.as_slice()) {
        ("", [one]) => Ok(one),
        ("", many) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            many.join(" ")
        ))),
        (asked, main) if main.contains(&asked) || init.contains(&asked) => Ok(asked),
        (asked, _) => Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {pod_name}"
        ))),
    }
}
