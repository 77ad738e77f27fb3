//! What every call passes on its way in: origin, token, role, rate; and what is noted of it on
//! its way out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gangline_protocol::ErrorCode;
use gangline_protocol::limits::REFUSAL_DELAY_MS;
use tokio::time::Instant;

use super::access::{Access, Caller};
use super::params::InQueue;
use super::problem::Failure;
use super::routes::{self, Need, ROUTES};
use crate::metrics::Metrics;
use crate::rate::RateLimit;
use crate::tokens::Tokens;

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
    let response = match gate.admit(ROUTES[place].need, place, request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    let took = started.elapsed();
    let status = response.status();
    gate.metrics.requests[place].note(status, took);
    tracing::debug!(
        http.method = ROUTES[place].method,
        http.route = ROUTES[place].path,
        http.status = status.as_u16(),
        took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "answered"
    );
    response
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
            tracing::trace!(queue.name = ?queue, "allowed");
            if let Some(namespace) = caller.scope().namespace()
                && !self.rate.allows(namespace, Instant::now())
            {
                self.metrics.requests_refused.inc();
                // Refused at once, a client that does not listen would ask again at once.
                tokio::time::sleep(Duration::from_millis(REFUSAL_DELAY_MS)).await;
                let detail = format!(
                    "the namespace {namespace} sends more than {} requests a second",
                    self.rate.per_second()
                );
                return Err(Failure::new(ErrorCode::TooManyRequests, detail));
            }
        }
        parts.extensions.insert(caller);
        Ok(Request::from_parts(parts, body))
    }
}
