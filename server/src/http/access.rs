//! Who may call: the token, and the checks that keep pages of other origins out.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gangline_protocol::ErrorCode;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::problem::Failure;

/// What a caller must show.
#[derive(Debug, Clone)]
pub enum Access {
    /// Nothing; the service listens on loopback only, and answers to loopback names only.
    Loopback,
    /// This token, kept as its SHA-256.
    Token([u8; 32]),
}

impl Access {
    /// Asks for a token.
    #[must_use]
    pub fn token(token: &str) -> Self {
        Self::Token(Sha256::digest(token.as_bytes()).into())
    }
}

pub(crate) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.allows(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

impl Access {
    fn allows(&self, headers: &HeaderMap) -> Result<(), Failure> {
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
            Self::Loopback => Ok(()),
            Self::Token(wanted) => {
                let shown = text(headers, header::AUTHORIZATION)
                    .and_then(|value| value.split_once(' '))
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                    .map(|(_, token)| token.trim());
                let Some(shown) = shown else {
                    let detail = "the call needs a token: Authorization: Bearer TOKEN";
                    return Err(Failure::new(ErrorCode::Unauthenticated, detail));
                };
                // Both sides are hashed, so that the time of the comparison tells nothing.
                if Sha256::digest(shown.as_bytes()).as_slice() == wanted {
                    Ok(())
                } else {
                    let detail = "the token is not one of this service";
                    Err(Failure::new(ErrorCode::Unauthenticated, detail))
                }
            }
        }
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
        assert_eq!(access.allows(&headers(pairs)).is_ok(), wanted, "{pairs:?}");
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

    #[test]
    fn a_wrong_or_missing_token_is_refused() {
        let access = Access::token("secret");
        check_allowed(&access, &[], false);
        check_allowed(&access, &[(header::AUTHORIZATION, "Bearer secre")], false);
        check_allowed(&access, &[(header::AUTHORIZATION, "Basic secret")], false);
        check_allowed(&access, &[(header::AUTHORIZATION, "bearer secret")], true);
    }
}
