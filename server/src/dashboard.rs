//! The page for people: static files in the binary, everything else is the API behind it.

use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderValue, header};

/// The page may load nothing but itself, and may stand in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Names files of the page under their paths.
macro_rules! files {
    ($($kind:ident $path:literal $name:literal,)*) => {
        [$(($path, $kind, include_str!(concat!("dashboard/", $name)))),*]
    };
}

/// Path, content type and content of each file.
#[rustfmt::skip]
const FILES: [(&str, &str, &str); 19] = files![
    HTML "/dashboard" "index.html",
    STYLE "/dashboard/style.css" "style.css",
    STYLE "/dashboard/parts.css" "parts.css",
    IMAGE "/dashboard/icon.svg" "icon.svg",
    SCRIPT "/dashboard/actions.js" "actions.js",
    SCRIPT "/dashboard/app.js" "app.js",
    SCRIPT "/dashboard/certificate.js" "certificate.js",
    SCRIPT "/dashboard/chart.js" "chart.js",
    SCRIPT "/dashboard/dead.js" "dead.js",
    SCRIPT "/dashboard/dom.js" "dom.js",
    SCRIPT "/dashboard/job.js" "job.js",
    SCRIPT "/dashboard/open.js" "open.js",
    SCRIPT "/dashboard/pod.js" "pod.js",
    SCRIPT "/dashboard/pods.js" "pods.js",
    SCRIPT "/dashboard/queues.js" "queues.js",
    SCRIPT "/dashboard/results.js" "results.js",
    SCRIPT "/dashboard/service.js" "service.js",
    SCRIPT "/dashboard/words.js" "words.js",
    SCRIPT "/dashboard/workers.js" "workers.js",
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
