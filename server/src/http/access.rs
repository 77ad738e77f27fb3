//! Who may call: the token, and the checks that keep pages of other origins out.

use std::sync::Arc;

use gangline_protocol::{ErrorCode, QueueName, Role, Scope, TokenHash};
use http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use super::problem::Failure;
use super::routes::Need;
use crate::tokens::{self, Token, Tokens};

/// What a caller must show.
#[derive(Debug, Clone)]
pub enum Access {
    /// Nothing; the service listens on loopback only, and answers to loopback names only.
    Loopback,
    /// This token, which allows everything, or one that was made with it; kept as its SHA-256.
    Token(TokenHash),
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Whoever runs the service.
    Root,
    /// The holder of a token.
    Holder(Arc<Token>),
}

impl Caller {
    pub(crate) fn roles(&self) -> &[Role] {
        match self {
            Self::Root => &[Role::Admin],
            Self::Holder(token) => &token.roles,
        }
    }

    pub(crate) fn scope(&self) -> &Scope {
        match self {
            Self::Root => &Scope::All,
            Self::Holder(token) => &token.scope,
        }
    }

    /// Checks that the caller's roles allow a call, and its scope the queue of the call.
    pub(crate) fn check(&self, need: Need, queue: Option<&QueueName>) -> Result<(), Failure> {
        let forbidden = |detail| Err(Failure::new(ErrorCode::Forbidden, detail));
        if !self.roles().iter().any(|role| need.allows(*role)) {
            let roles: Vec<&str> = self.roles().iter().map(|role| role.as_str()).collect();
            return forbidden(format!(
                "the call needs the role {}; the token has {}",
                need.roles(),
                roles.join(", ")
            ));
        }
        match (need, self.scope(), queue) {
            (_, scope, Some(queue)) if !scope.has(queue) => forbidden(format!(
                "the token is for {scope}, not for the queue {queue}"
            )),
            (Need::Measure, scope, _) if *scope != Scope::All => forbidden(format!(
                "the call needs a token for all namespaces; this one is for {scope}"
            )),
            _ => Ok(()),
        }
    }
}

impl Access {
    /// Asks for a token.
    #[must_use]
    pub fn token(token: &str) -> Self {
        Self::Token(tokens::hash(token))
    }

    /// Keeps out pages of other origins, and names that only point at this machine.
    pub(crate) fn check_origin(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let host = text(headers, header::HOST);
        if let Some(origin) = text(headers, header::ORIGIN) {
            let same = origin
                .split_once("://")
                .is_some_and(|(_, origin_host)| Some(origin_host) == host);
            if !same {
                let detail = format!("a page of the origin {origin} may not call this service");
                return Err(Failure::new(ErrorCode::Forbidden, detail));
            }
        }
        match self {
            // A name that somebody has pointed at this machine is not a name of this machine.
            Self::Loopback if !host.is_none_or(is_loopback) => {
                let detail = "without a token this service answers to localhost, 127.0.0.1 and \
                              [::1] only; the Host header has another name";
                Err(Failure::new(ErrorCode::Forbidden, detail))
            }
            Self::Loopback | Self::Token(_) => Ok(()),
        }
    }

    /// Tells who calls.
    pub(crate) fn caller(&self, headers: &HeaderMap, tokens: &Tokens) -> Result<Caller, Failure> {
        let shown = text(headers, header::AUTHORIZATION)
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let detail = match (self, shown) {
            (Self::Loopback, None) => return Ok(Caller::Root),
            (Self::Token(_), None) => "the call needs a token: Authorization: Bearer TOKEN",
            (_, Some(shown)) => {
                if let Self::Token(root) = self
                    && root.0.ct_eq(&tokens::hash(shown).0).into()
                {
                    return Ok(Caller::Root);
                }
                match (tokens.find(shown), self) {
                    (Some(token), _) => return Ok(Caller::Holder(token)),
                    // A client may have one for elsewhere; here none is asked for.
                    (None, Self::Loopback) => return Ok(Caller::Root),
                    (None, Self::Token(_)) => "the token is not one of this service, or no longer",
                }
            }
        };
        Err(Failure::new(ErrorCode::Unauthenticated, detail))
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest.split(']').next() == Some("::1"),
        None => host.split(':').next().unwrap_or(""),
    };
    name == "localhost"
        || name
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        pairs
            .map(|(name, value)| (name, http::HeaderValue::from_static(value)))
            .collect()
    }

    #[track_caller]
    fn check_allowed(access: &Access, pairs: &[(header::HeaderName, &'static str)], wanted: bool) {
        let allowed = access.check_origin(&headers(pairs)).is_ok();
        assert_eq!(allowed, wanted, "{pairs:?}");
    }

    #[test]
    fn without_a_token_only_loopback_names_are_answered() {
        for host in [
            "localhost",
            "localhost:4264",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:4264",
        ] {
            check_allowed(&Access::Loopback, &[(header::HOST, host)], true);
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:4264",
            "10.0.0.1",
            "[::2]",
        ] {
            check_allowed(&Access::Loopback, &[(header::HOST, host)], false);
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused_even_with_the_token() {
        let access = Access::token("secret");
        let token = (header::AUTHORIZATION, "Bearer secret");
        let host = (header::HOST, "localhost:1");
        check_allowed(&access, &[token.clone(), host.clone()], true);
        let same = (header::ORIGIN, "http://localhost:1");
        check_allowed(&access, &[token.clone(), host.clone(), same], true);
        for origin in ["http://localhost:2", "https://evil.example", "null"] {
            let other = (header::ORIGIN, origin);
            check_allowed(&access, &[token.clone(), host.clone(), other], false);
        }
    }

    #[tokio::test]
    async fn a_wrong_or_missing_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = Box::new(tokens::TokenFile::new(dir.path()));
        let clock = Arc::new(crate::clock::SystemClock);
        let random = Arc::new(crate::clock::SystemRandom);
        let tokens = Tokens::open(file, clock, random).await.unwrap();
        let access = Access::token("secret");
        let root = |pairs: &[(header::HeaderName, &'static str)]| {
            access.caller(&headers(pairs), &tokens).is_ok()
        };
        assert!(!root(&[]));
        assert!(!root(&[(header::AUTHORIZATION, "Bearer secre")]));
        assert!(!root(&[(header::AUTHORIZATION, "Basic secret")]));
        assert!(root(&[(header::AUTHORIZATION, "bearer secret")]));
    }
}
