//! The page for people: static files in the binary, everything else is the API behind it.

use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderValue, header};

/// The page may load nothing but itself, and may stand in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type and content of each file.
const FILES: [(&str, &str, &str); 7] = [
    (
        "/dashboard",
        "text/html; charset=utf-8",
        include_str!("dashboard/index.html"),
    ),
    (
        "/dashboard/page.css",
        "text/css; charset=utf-8",
        include_str!("dashboard/page.css"),
    ),
    (
        "/dashboard/icon.svg",
        "image/svg+xml",
        include_str!("dashboard/icon.svg"),
    ),
    (
        "/dashboard/page.js",
        SCRIPT,
        include_str!("dashboard/page.js"),
    ),
    (
        "/dashboard/service.js",
        SCRIPT,
        include_str!("dashboard/service.js"),
    ),
    (
        "/dashboard/view.js",
        SCRIPT,
        include_str!("dashboard/view.js"),
    ),
    (
        "/dashboard/words.js",
        SCRIPT,
        include_str!("dashboard/words.js"),
    ),
];

/// Makes the routes of the page.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let home = Router::new().route("/", get(|| async { Redirect::temporary("/dashboard") }));
    FILES.iter().fold(home, |router, (path, kind, text)| {
        router.route(path, get(move || async move { file(kind, text) }))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, text).into_response()
}
