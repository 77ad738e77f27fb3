//! The Kubernetes API: from requests to the store and back.
//!
//! What is stored is decided by one module a concern; this one only finds it.

mod access;
mod decode;
pub(crate) mod delete;
pub(crate) mod error;
mod jobs;
mod logs;
mod patch;
mod pods;
mod read;
mod strategic;
mod strategy;
mod table;
mod target;
mod watch;
pub(crate) mod write;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::kubelet::Kubelet;
use crate::objects::{Object, Store};
use error::{ApiError, Result};
use target::{Parameters, Part, Target, is_on};

/// The largest body of a request, as in Kubernetes.
const BODY_BYTES_MAX: usize = 3 << 20;

/// What requests are answered from.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) kubelet: Arc<Kubelet>,
}

/// Returns the whole API as a service.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/version", get(version))
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(async || "ok"))
        .route(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            post(access::review),
        )
        .fallback(serve)
        .with_state(api)
}

async fn version() -> axum::Json<Value> {
    axum::Json(json!({
        "major": "1", "minor": "33", "gitVersion": "v1.33.0+gangline", "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}

async fn serve(State(api): State<Arc<Api>>, request: Request) -> Response {
    match answer(&api, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(api: &Arc<Api>, request: Request) -> Result<Response> {
    let target = Target::parse(request.uri().path())?;
    let parameters = Parameters::of(request.uri())?;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|_| ApiError::too_large(BODY_BYTES_MAX))?;
    let store = &api.store;
    let table = table::asked(&parts.headers, &parameters);
    match (&parts.method, &target.name, target.part) {
        (&Method::GET, Some(name), Part::Log) => logs::read(api, &target, name, &parameters),
        (_, _, Part::Log) => Err(ApiError::method_not_allowed()),
        (&Method::GET, None, _) if is_on(&parameters.watch) => {
            watch::watch(store, &target, &parameters, table)
        }
        (&Method::GET, None, _) => read::list(store, &target, &parameters, table),
        (&Method::GET, Some(name), _) => read::get(store, &target, name, table),
        (&Method::POST, None, Part::Main) => {
            let value = json_body(&parts.headers, &body)?;
            write::create(store, &target, &parameters, &value)
        }
        (&Method::PUT, Some(name), _) => {
            let value = json_body(&parts.headers, &body)?;
            write::replace(store, &target, name, &parameters, &value)
        }
        (&Method::PATCH, Some(name), _) => {
            let patch = patch::Patch::parse(content_type(&parts.headers), &body)?;
            write::patch(store, &target, name, &parameters, &patch)
        }
        (&Method::DELETE, name, Part::Main) => {
            let options = match body.is_empty() {
                true => Value::Null,
                false => json_body(&parts.headers, &body)?,
            };
            let options = delete::Options::parse(&options, &parameters)?;
            match name {
                Some(name) => delete::delete(store, &target, name, &options),
                None => delete::delete_collection(store, &target, &parameters, &options),
            }
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let value = value.unwrap_or("application/json");
    value.split(';').next().unwrap_or_default().trim()
}

fn json_body(headers: &HeaderMap, body: &Bytes) -> Result<Value> {
    if content_type(headers) != "application/json" {
        return Err(ApiError::unsupported_media_type(&["application/json"]));
    }
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the body of the request is no JSON: {error}"))
    })
}

/// An object as a reply, with warnings in the form that clients print.
fn object_reply(code: StatusCode, object: &Object, warnings: &[String]) -> Response {
    let mut response = json_reply(code, Body::from(object.bytes().clone()));
    for warning in warnings {
        let text = warning.replace(['\\', '"'], "'");
        if let Ok(value) = format!("299 - \"{text}\"").parse() {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

fn json_reply(code: StatusCode, body: Body) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
