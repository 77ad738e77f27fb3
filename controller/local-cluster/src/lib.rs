//! A small Kubernetes-compatible API server whose kubelet runs processes.
//!
//! It knows Jobs as objects only: a Job controller runs against its API as against any other.

mod api;
mod collect;
mod expire;
pub mod kubelet;
mod node;
mod objects;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{HeaderMap, header};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use api::Api;
use api::error::ApiError;
use kubelet::Kubelet;
use node::NodePods;
use objects::Store;
use objects::resource::Resource;

/// How long requests that have begun may take to come to their end at shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);
/// The user name of those who show their token as a password.
const USER: &str = "gangline";
/// The namespaces that are always there.
const NAMESPACES: [&str; 2] = ["default", "kube-system"];

/// Settings of a local cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Settings of the kubelet.
    pub kubelet: kubelet::Config,
    /// Where objects are kept; without it, they are in memory and gone with the cluster.
    pub objects: Option<PathBuf>,
    /// What is wrong with a Job beside what Kubernetes itself finds; asked before a Job is written.
    pub judge_job: Option<JudgeJob>,
}

/// Finds what is wrong with a Job that is about to be written, by its JSON.
pub type JudgeJob = fn(&Value) -> Option<FieldError>;

/// What is wrong with one field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The path of the field, as in `spec.template.spec.containers[0].name`.
    pub field: String,
    /// What the field is.
    pub value: Value,
    /// What it must be.
    pub why: String,
}

/// A cluster of one node: this machine.
pub struct LocalCluster {
    api: Arc<Api>,
}

impl LocalCluster {
    /// Opens the cluster. Nothing runs before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// When the kubelet's directory cannot be made, the objects not be read, or the cluster's own not be
    /// written.
    pub fn open(config: Config) -> io::Result<Self> {
        std::fs::create_dir_all(&config.kubelet.root)?;
        // Versions go on from the time, so that they are new to whoever knows an earlier cluster.
        let version = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        let store = match &config.objects {
            Some(dir) => Store::open(dir, version).map_err(io::Error::other)?,
            None => Arc::new(Store::new(version)),
        };
        for name in NAMESPACES {
            let namespace = json!({ "metadata": { "name": name } });
            match api::write::create_own(&store, Resource::Namespaces, None, &namespace) {
                Err(error) if !error.is_already_exists() => return Err(io::Error::other(error)),
                _ => {}
            }
        }
        node::register(&store).map_err(io::Error::other)?;
        let pods = Arc::new(NodePods(Arc::clone(&store)));
        let kubelet = Arc::new(Kubelet::new(config.kubelet, pods));
        Ok(Self {
            api: Arc::new(Api {
                store,
                kubelet,
                judge_job: config.judge_job,
            }),
        })
    }

    /// Returns the API as a service in this process, which asks for no token.
    ///
    /// `kube::Client::new(cluster.service(), "default")` is a client of it.
    pub fn service(&self) -> Router {
        api::router(Arc::clone(&self.api))
    }

    /// Runs the kubelet and the collectors of what is to go until `shutdown`; containers go on running.
    pub fn run(&self, shutdown: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::join!(
                self.api.kubelet.run(shutdown.clone()),
                collect::run(Arc::clone(&self.api.store), shutdown.clone()),
                expire::run(Arc::clone(&self.api.store), shutdown),
            );
        })
    }

    /// Serves the API on `listener` to whoever shows `token`, until `shutdown`.
    ///
    /// # Errors
    ///
    /// When the listener fails.
    pub fn serve(
        &self,
        listener: TcpListener,
        token: String,
        shutdown: CancellationToken,
    ) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.serve_guarded(listener, token, shutdown))
    }

    async fn serve_guarded(
        &self,
        listener: TcpListener,
        token: String,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let key = Arc::new(Key::new(&token));
        let end = shutdown.clone();
        let guard = middleware::from_fn(move |request, next| {
            let (key, end) = (Arc::clone(&key), end.clone());
            async move { guard(&key, end, request, next).await }
        });
        let router = self.service().layer(guard);
        let server = axum::serve(listener, router)
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        // Whoever does not read on holds nothing up.
        let cut = async {
            shutdown.cancelled().await;
            tokio::time::sleep(SHUTDOWN_MAX).await;
        };
        tokio::select! {
            result = server => result,
            () = cut => Ok(()),
        }
    }
}

/// A kubeconfig for a cluster that is served at `address` to whoever shows `token`.
///
/// The token stands in the URL too: over plain HTTP, `kubectl` keeps the other one to itself.
#[must_use]
pub fn kubeconfig(address: SocketAddr, token: &str) -> String {
    let name = node::NODE_NAME;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{ "name": name, "cluster": { "server": format!("http://{USER}:{token}@{address}") } }],
        "users": [{ "name": name, "user": { "token": token } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
    });
    format!("{config:#}\n")
}

/// The values of `Authorization` that open the API.
struct Key {
    bearer: String,
    basic: String,
}

impl Key {
    fn new(token: &str) -> Self {
        let pair = ByteString(format!("{USER}:{token}").into_bytes());
        let pair = json!(pair);
        Self {
            bearer: format!("Bearer {token}"),
            basic: format!("Basic {}", pair.as_str().unwrap_or_default()),
        }
    }

    /// Compares in a time that does not depend on how much of what is shown is right.
    fn opens(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(header::AUTHORIZATION);
        let shown = shown.map(|value| value.as_bytes()).unwrap_or_default();
        let is_right = shown.ct_eq(self.bearer.as_bytes()) | shown.ct_eq(self.basic.as_bytes());
        is_right.into()
    }
}

async fn guard(key: &Key, end: CancellationToken, request: Request, next: Next) -> Response {
    if !key.opens(request.headers()) {
        return ApiError::unauthorized().into_response();
    }
    let query = request.uri().query().unwrap_or_default();
    // Watches, and logs that are followed, have no end of their own.
    let is_endless = query.contains("watch=") || query.contains("follow=");
    let response = next.run(request).await;
    if !is_endless {
        return response;
    }
    response.map(|body| {
        let pieces = body.into_data_stream();
        Body::from_stream(pieces.take_until(end.cancelled_owned()))
    })
}
