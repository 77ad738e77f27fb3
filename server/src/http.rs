//! The HTTP API: parses requests into commands and writes replies.
//!
//! No rule of the queue lives here. Every error leaves through `problem`.

mod access;
mod body;
mod events;
mod health;
mod items;
mod params;
mod problem;
mod push;
mod queues;
mod rates;
mod results;
mod stream;
mod workers;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};

pub use access::Access;
use problem::Failure;

use crate::service::Service;
use rates::Rates;

/// What every handler may use.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) service: Service,
    pub(crate) rates: Rates,
}

/// Makes the routes of the API over a service.
pub fn router(service: Service, access: Access) -> Router {
    let app = App {
        service,
        rates: Rates::default(),
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
        .route("/redrive", post(queues::redrive))
        .route("/stop", post(queues::stop))
        .route("/exchange", post(workers::exchange))
        .route("/lease", post(workers::lease))
        .route("/settle", post(workers::settle))
        .route("/heartbeat", post(workers::heartbeat))
        .route("/leave", post(workers::leave))
        .route("/workers", get(workers::list))
        .route("/workers/{name}/revoke", post(workers::revoke))
        .route("/results", get(results::results))
        .route("/wait", get(queues::wait));
    let api = Router::new()
        .route("/v1/queues", get(queues::list))
        .nest("/v1/queues/{queue}", queue)
        .route("/v1/events", get(events::events))
        .layer(axum::middleware::from_fn_with_state(access, access::check));
    Router::new()
        .merge(api)
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .merge(crate::dashboard::router())
        .fallback(|uri: http::Uri| async move { Failure::no_such_path(&uri) })
        .method_not_allowed_fallback(|method: http::Method, uri: http::Uri| async move {
            Failure::method_not_allowed(&method, &uri)
        })
        // Handlers read bodies themselves, each under its own bound.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}
