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
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use jiff::Timestamp;
use serde_json::json;
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
/// The namespaces that are always there.
const NAMESPACES: [&str; 2] = ["default", "kube-system"];

/// Settings of a local cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Settings of the kubelet.
    pub kubelet: kubelet::Config,
}

/// A cluster of one node: this machine.
///
/// Its objects are in memory, and gone with it.
pub struct LocalCluster {
    api: Arc<Api>,
}

impl LocalCluster {
    /// Opens the cluster. Nothing runs before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// When the kubelet's directory cannot be made, or the cluster's own objects not be written.
    pub fn open(config: Config) -> io::Result<Self> {
        std::fs::create_dir_all(&config.kubelet.root)?;
        // Versions go on from the time, so that they are new to whoever knows an earlier cluster.
        let version = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        let store = Arc::new(Store::new(version));
        for name in NAMESPACES {
            let namespace = json!({ "metadata": { "name": name } });
            api::write::create_own(&store, Resource::Namespaces, None, &namespace)
                .map_err(io::Error::other)?;
        }
        node::register(&store).map_err(io::Error::other)?;
        let pods = Arc::new(NodePods(Arc::clone(&store)));
        let kubelet = Arc::new(Kubelet::new(config.kubelet, pods));
        Ok(Self {
            api: Arc::new(Api { store, kubelet }),
        })
    }

    /// Returns the API as a service in this process, which asks for no token.
    ///
    /// `kube::Client::new(cluster.service(), "default")` is a client of it.
    pub fn service(&self) -> Router {
        api::router(Arc::clone(&self.api))
    }

    /// Runs the kubelet and the collectors of what is to go until `shutdown`; containers go on running.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::join!(
            self.api.kubelet.run(shutdown.clone()),
            collect::run(Arc::clone(&self.api.store), shutdown.clone()),
            expire::run(Arc::clone(&self.api.store), shutdown),
        );
    }

    /// Serves the API on `listener` to whoever shows `token`, until `shutdown`.
    ///
    /// # Errors
    ///
    /// When the listener fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        token: String,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let token: Arc<str> = token.into();
        let guard = middleware::from_fn(move |request, next| {
            let token = Arc::clone(&token);
            async move { guard(&token, request, next).await }
        });
        let router = self.service().layer(guard);
        let server = axum::serve(listener, router)
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        // Watches have no end of their own.
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

async fn guard(token: &str, request: Request, next: Next) -> Response {
    if shows(request.headers(), token) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

/// Tells whether a request shows the token, in a time that does not depend on how much of it is right.
fn shows(headers: &HeaderMap, token: &str) -> bool {
    let value = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes());
    let shown = value.and_then(|value| value.strip_prefix(b"Bearer "));
    shown.is_some_and(|shown| shown.ct_eq(token.as_bytes()).into())
}
