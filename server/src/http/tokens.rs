//! Tokens: making, listing and revoking them.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use gangline_protocol::{CreatedToken, ErrorCode, Role, Scope, TokenRequest, TokenView};
use serde::Serialize;

use super::access::Caller;
use super::body::{Json, reply};
use super::problem::Failure;
use crate::tokens::{NewToken, TokenError, Tokens};

type Answer = Result<Response, Failure>;

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match &error {
            TokenError::TooMany => Self::new(ErrorCode::TooManyTokens, error.to_string()),
            TokenError::NotFound(_) => Self::new(ErrorCode::TokenNotFound, error.to_string()),
            TokenError::Foreign(_) => Self::new(ErrorCode::Forbidden, error.to_string()),
            TokenError::Store(cause) => {
                tracing::error!(error = %cause, "the tokens cannot be kept");
                Self::new(ErrorCode::Unavailable, error.to_string())
            }
        }
    }
}

pub(super) async fn create(
    State(tokens): State<Tokens>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<TokenRequest>,
) -> Answer {
    if let Some(bound) = request.out_of_bounds() {
        return Err(Failure::out_of_bounds("", bound));
    }
    let TokenRequest {
        mut roles,
        namespace,
        queue,
        expires_in_ms,
        note,
        hash,
    } = request;
    let scope = Scope::new(namespace.as_deref(), queue)
        .map_err(|detail| Failure::new(ErrorCode::InvalidBody, detail).at("namespace"))?;
    if !caller.scope().contains(&scope) {
        let detail = format!("a token for {} cannot make one for {scope}", caller.scope());
        return Err(Failure::new(ErrorCode::Forbidden, detail));
    }
    roles.sort_unstable();
    roles.dedup();
    let new = NewToken {
        roles,
        scope,
        life_ms: expires_in_ms,
        note,
    };
    let (token, view) = match hash {
        Some(hash) => (None, tokens.register(hash, new, caller.scope()).await?),
        None => {
            let (token, view) = tokens.mint(new).await?;
            (Some(token), view)
        }
    };
    tracing::info!(token.id = %view.id, "a token was made");
    Ok(reply(&CreatedToken { token, view }))
}

#[derive(Serialize)]
struct TokenList {
    tokens: Vec<TokenView>,
}

pub(super) async fn list(
    State(tokens): State<Tokens>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let tokens = tokens.list(caller.scope());
    Ok(reply(&TokenList { tokens }))
}

pub(super) async fn revoke(
    State(tokens): State<Tokens>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    let id = id.parse().map_err(|error| Failure::id("id", &error))?;
    let view = tokens.revoke(id, caller.scope()).await?;
    tracing::info!(token.id = %view.id, "a token was revoked");
    Ok(reply(&view))
}

/// What a caller may do, for the caller.
#[derive(Serialize)]
struct Identity<'a> {
    roles: &'a [Role],
    #[serde(flatten)]
    scope: &'a Scope,
}

pub(super) async fn whoami(Extension(caller): Extension<Caller>) -> Answer {
    Ok(reply(&Identity {
        roles: caller.roles(),
        scope: caller.scope(),
    }))
}
