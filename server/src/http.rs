//! The HTTP API: parses requests into commands and writes replies.
//!
//! No rule of the queue lives here. Every error leaves through `problem`.

mod access;
mod body;
mod dead;
mod events;
mod gate;
mod health;
mod history;
mod items;
mod jobs;
mod openapi;
mod params;
mod problem;
mod push;
mod queues;
mod rates;
mod results;
mod routes;
mod stream;
mod tokens;
mod traces;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::FromRef;
use axum::routing::{delete, get, post, put};

pub use access::Access;
pub use gate::Gate;
use problem::Failure;
pub use routes::{Need, ROUTES, Route};

use crate::history::History;
use crate::jobs::JobStore;
use crate::service::Service;
use crate::tokens::Tokens;
use rates::Rates;

/// What every handler may use.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) service: Service,
    pub(crate) rates: Rates,
    pub(crate) gate: Gate,
    pub(crate) history: History,
    pub(crate) jobs: Arc<dyn JobStore>,
    journal: events::Journal,
    traces: traces::Traces,
}

impl FromRef<App> for Tokens {
    fn from_ref(app: &App) -> Self {
        app.gate.tokens.clone()
    }
}

/// Makes the routes of the API over a service, and what it knows beside its queues.
pub fn router(service: Service, gate: Gate, history: History, jobs: Arc<dyn JobStore>) -> Router {
    let app = App {
        service,
        rates: Rates::default(),
        gate: gate.clone(),
        history,
        jobs,
        journal: events::Journal::default(),
        traces: traces::Traces::default(),
    };
    let queue = Router::new()
        .route(
            "/",
            put(queues::configure)
                .get(queues::status)
                .delete(queues::delete),
        )
        .route("/items", get(items::list).post(push::push))
        .route("/items/{id}", get(items::get).delete(items::cancel))
        .route("/seal", post(queues::seal))
        .route("/pause", post(queues::pause))
        .route("/resume", post(queues::resume))
        .route("/dead", get(dead::list))
        .route("/redrive", post(dead::redrive))
        .route("/stop", post(queues::stop))
        .route("/exchange", post(workers::exchange))
        .route("/lease", post(workers::lease))
        .route("/settle", post(workers::settle))
        .route("/heartbeat", post(workers::heartbeat))
        .route("/leave", post(workers::leave))
        .route("/workers", get(workers::list))
        .route("/workers/{name}", get(workers::look))
        .route("/workers/{name}/revoke", post(workers::revoke))
        .route("/explain", get(queues::explain))
        .route("/history", get(history::history))
        .route("/job", get(jobs::get).put(jobs::put))
        .route("/results", get(results::results))
        .route("/wait", get(queues::wait));
    let api = Router::new()
        .route("/v1/queues", get(queues::list))
        .nest("/v1/queues/{queue}", queue)
        .route("/v1/events", get(events::events))
        .route("/v1/whoami", get(tokens::whoami))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .layer(axum::middleware::from_fn_with_state(gate, gate::pass));
    Router::new()
        .merge(api)
        .merge(crate::dashboard::router())
        .fallback(|uri: http::Uri| async move { Failure::no_such_path(&uri) })
        .method_not_allowed_fallback(|method: http::Method, uri: http::Uri| async move {
            Failure::method_not_allowed(&method, &uri)
        })
        // Handlers read bodies themselves, each under its own bound.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}
