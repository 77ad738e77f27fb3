//! The Kubernetes API: from requests to the store and back.
//!
//! What is stored is decided by one module a concern; this one only finds it.

mod access;
mod apply;
mod body;
mod decode;
pub(crate) mod delete;
mod discovery;
pub(crate) mod error;
mod jobs;
mod logs;
mod messages;
mod openapi;
mod patch;
mod pods;
mod protobuf;
mod read;
mod scale;
mod strategic;
mod strategy;
mod table;
mod target;
mod watch;
mod within;
pub(crate) mod write;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::JudgeJob;
use crate::kubelet::Kubelet;
use crate::objects::resource::Resource;
use crate::objects::{Object, Store};
use access::REVIEWS;
use error::{ApiError, Result};
use target::{Parameters, Part, Target, is_on};

/// The version of Kubernetes whose API this is.
pub(crate) const VERSION: &str = "v1.33.0+gangline";

/// What requests are answered from.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) judge_job: Option<JudgeJob>,
}

/// Returns the whole API as a service.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let router = Router::new()
        .route("/version", get(version))
        // As the Python client has it.
        .route("/version/", get(version))
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(async || "ok"));
    let reviews = REVIEWS.iter().fold(router, |router, review| {
        let answer =
            move |headers: HeaderMap, body: Bytes| async move { review.answer(&headers, &body) };
        router.route(&review.path(), post(answer))
    });
    reviews.fallback(serve).with_state(api)
}

async fn version() -> axum::Json<Value> {
    axum::Json(json!({
        "major": "1", "minor": "33", "gitVersion": VERSION, "gitCommit": "",
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
    let path = request.uri().path();
    if request.method() == Method::GET
        && let Some(response) = discovery::answer(path, request.headers())
            .or_else(|| openapi::answer(path, request.headers()))
    {
        return Ok(response);
    }
    within::refuse(path, request.headers())?;
    let target = Target::parse(path)?;
    let parameters = Parameters::of(request.uri())?;
    let (parts, body) = request.into_parts();
    let body = body::read(body).await?;
    let store = &api.store;
    let table = table::asked(&parts.headers, &parameters);
    let response = match (&parts.method, &target.name, target.part) {
        (&Method::GET, Some(name), Part::Log) => logs::read(api, &target, name, &parameters),
        (&Method::POST, Some(name), Part::Eviction) => {
            let eviction = body::object(&parts.headers, &body)?;
            delete::evict(store, &target, name, &parameters, &eviction)
        }
        (&Method::GET, Some(name), Part::Scale) => scale::get(store, &target, name),
        (&Method::PUT, Some(name), Part::Scale) => {
            let value = body::object(&parts.headers, &body)?;
            scale::update(api, &target, name, &parameters, |_| Ok(value.clone()))
        }
        (&Method::PATCH, Some(name), Part::Scale) => {
            let patch = patch::Patch::parse(body::content_type(&parts.headers), &body)?;
            scale::update(api, &target, name, &parameters, |mut value| {
                patch.apply(&mut value)?;
                Ok(value)
            })
        }
        (_, _, Part::Log | Part::Eviction | Part::Scale) => Err(ApiError::method_not_allowed()),
        (&Method::GET, None, _) if is_on(&parameters.watch) => {
            watch::watch(store, &target, &parameters, table)
        }
        (&Method::GET, None, _) => read::list(store, &target, &parameters, table),
        (&Method::GET, Some(name), _) => read::get(store, &target, name, table),
        (&Method::POST, None, Part::Main) => {
            let value = body::object(&parts.headers, &body)?;
            within::refuse_typing(&value, &parts.headers)?;
            write::create(api, &target, &parameters, &value)
        }
        (&Method::PUT, Some(name), _) => {
            let value = body::object(&parts.headers, &body)?;
            write::replace(api, &target, name, &parameters, &value)
        }
        (&Method::PATCH, Some(name), _) if is_apply(&parts.headers) => {
            let applied = body::yaml(&body)?;
            apply::apply(api, &target, name, &parameters, &applied)
        }
        (&Method::PATCH, Some(name), _) => {
            let patch = patch::Patch::parse(body::content_type(&parts.headers), &body)?;
            write::patch(api, &target, name, &parameters, &patch)
        }
        (&Method::DELETE, name, Part::Main) => {
            let options = match body.is_empty() {
                true => Value::Null,
                false => body::object(&parts.headers, &body)?,
            };
            let options = delete::Options::parse(&options, &parameters)?;
            match name {
                Some(name) => delete::delete(store, &target, name, &options),
                None => delete::delete_collection(store, &target, &parameters, &options),
            }
        }
        _ => Err(ApiError::method_not_allowed()),
    }?;
    // What is said of a Job outlives this machine; Pods wait for the disk before they run.
    if target.resource == Resource::Jobs && parts.method != Method::GET {
        let synced = store.synced().await;
        synced.map_err(|error| ApiError::internal(&error.to_string()))?;
    }
    Ok(response)
}

fn is_apply(headers: &HeaderMap) -> bool {
    body::content_type(headers) == apply::MEDIA_TYPE
}

/// A tag that tells one document from another.
fn tag(document: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    document.hash(&mut hasher);
    format!("\"{:016X}\"", hasher.finish())
}

/// Whether a client says that it has the document with this tag.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH);
    known.is_some_and(|known| known.as_bytes() == tag.as_bytes())
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
