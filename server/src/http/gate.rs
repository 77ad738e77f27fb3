//! What every call passes on its way in: origin, token, role, rate; and what is noted of it on
//! its way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gangline_protocol::ErrorCode;
use gangline_protocol::limits::REFUSAL_DELAY_MS;
use tokio::time::Instant;
use tracing::{Instrument, Level, Span};

use super::access::{Access, Caller};
use super::params::InQueue;
use super::problem::Failure;
use super::routes::{self, Need, ROUTES, Route};
use crate::metrics::Metrics;
use crate::rate::{RateLimit, Turn};
use crate::tokens::Tokens;

/// Longest name of a request that is taken from its `X-Request-Id`, in bytes: a UUID and as much
/// again.
const REQUEST_ID_BYTES_MAX: usize = 72;

/// Who may pass, and who counts it.
#[derive(Debug, Clone)]
pub struct Gate {
    /// What a caller must show.
    pub access: Access,
    /// The tokens that were made.
    pub tokens: Tokens,
    /// Requests of each namespace.
    pub rate: Arc<RateLimit>,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
}

pub(crate) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or("", MatchedPath::as_str);
    let Some(place) = routes::find(request.method().as_str(), path) else {
        // Another method of a path that is there. (Or a route that the table does not know.)
        return Failure::method_not_allowed(request.method(), request.uri()).into_response();
    };
    let span = span_of(&request, &ROUTES[place]);
    let answer = async {
        let response = match gate.admit(ROUTES[place].need, place, request).await {
            Ok(request) => next.run(request).await,
            Err(failure) => failure.into_response(),
        };
        let took = started.elapsed();
        let status = response.status();
        gate.metrics.requests[place].note(status, took);
        tracing::debug!(
            http.status = status.as_u16(),
            took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
        response
    };
    answer.instrument(span).await
}

/// Returns what is said of a call with each line that is logged while it is answered. At the usual
/// level that is nothing, and costs nothing.
fn span_of(request: &Request, route: &Route) -> Span {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if !tracing::enabled!(Level::DEBUG) {
        return Span::none();
    }
    let queue = match route.is_in_queue() {
        true => request.uri().path().split('/').nth(3),
        false => None,
    };
    // What the client or a proxy calls it, so that their logs and this one go together.
    let named = request.headers().get("x-request-id");
    let named = named.and_then(|id| id.to_str().ok());
    let named = named.filter(|id| id.len() <= REQUEST_ID_BYTES_MAX);
    let id = named.map_or_else(
        || (LAST.fetch_add(1, Ordering::Relaxed) + 1).to_string(),
        str::to_owned,
    );
    let traceparent = request.headers().get("traceparent");
    tracing::debug_span!(
        "request",
        traceparent = traceparent.and_then(|text| text.to_str().ok()),
        request.id = id,
        http.method = route.method,
        http.route = route.path,
        queue.name = queue,
    )
}

impl Gate {
    async fn admit(&self, need: Need, place: usize, request: Request) -> Result<Request, Failure> {
        let (mut parts, body) = request.into_parts();
        self.access.check_origin(&parts.headers)?;
        if need == Need::Open {
            return Ok(Request::from_parts(parts, body));
        }
        let caller = self.access.caller(&parts.headers, &self.tokens)?;
        if let Caller::Holder(_) = &caller {
            // The name is read just as the handler reads it, or one could say two things.
            let queue = match ROUTES[place].is_in_queue() {
                true => Some(InQueue::from_request_parts(&mut parts, &()).await?.0),
                false => None,
            };
            caller.check(need, queue.as_ref())?;
            if let Some(namespace) = caller.scope().namespace() {
                self.wait_for_turn(namespace).await?;
            }
        }
        parts.extensions.insert(caller);
        Ok(Request::from_parts(parts, body))
    }

    /// Waits until the namespace may send another request, or refuses it.
    async fn wait_for_turn(&self, namespace: &str) -> Result<(), Failure> {
        match self.rate.turn(namespace, Instant::now()) {
            Turn::After(Duration::ZERO) => Ok(()),
            Turn::After(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Turn::Never => {
                self.metrics.requests_refused.inc();
                // Refused at once, a client that does not listen would ask again at once.
                tokio::time::sleep(Duration::from_millis(REFUSAL_DELAY_MS)).await;
                let detail = format!(
                    "the namespace {namespace} sends more than {} requests a second",
                    self.rate.per_second()
                );
                Err(Failure::new(ErrorCode::TooManyRequests, detail))
            }
        }
    }
}
