//! The queue service, in this process, on a free port and a data directory of its own.

use std::net::SocketAddr;
use std::path::Path;

use gangline_server::store::redis::Durability;
use gangline_server::{Config, LimitsConfig, Server, StoreConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The token that test servers want.
pub const TOKEN: &str = "a-token-for-tests";

/// A running queue service; dropping it stops it.
#[derive(Debug)]
pub struct TestServer {
    /// Where it listens, as in `http://127.0.0.1:1234`.
    pub url: String,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
    /// Goes with the service.
    dir: Option<TempDir>,
}

impl TestServer {
    /// Starts a service on an empty data directory.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut server = Self::start_in(dir.path()).await;
        server.dir = Some(dir);
        server
    }

    /// Starts a service on an empty data directory, with limits of its own.
    pub async fn start_with(limits: LimitsConfig) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut server = Self::start_as(dir.path(), ([127, 0, 0, 1], 0).into(), limits).await;
        server.dir = Some(dir);
        server
    }

    /// Starts a service on a data directory that outlives it.
    pub async fn start_in(dir: &Path) -> Self {
        Self::start_at(dir, ([127, 0, 0, 1], 0).into()).await
    }

    /// Starts a service on a data directory and an address.
    pub async fn start_at(dir: &Path, listen: SocketAddr) -> Self {
        Self::start_as(dir, listen, LimitsConfig::default()).await
    }

    async fn start_as(dir: &Path, listen: SocketAddr, limits: LimitsConfig) -> Self {
        let data_dir = dir.to_owned();
        Self::serve(listen, StoreConfig::Embedded { data_dir }, limits).await
    }

    /// Starts a service whose queues are in a Redis.
    pub async fn start_on_redis(url: &str) -> Self {
        Self::start_on_redis_as(url, Durability::Memory).await
    }

    /// Starts a service whose queues are in a Redis, and are as durable there as this says.
    pub async fn start_on_redis_as(url: &str, durability: Durability) -> Self {
        let store = StoreConfig::Redis {
            url: url.to_owned(),
            durability,
        };
        Self::serve(([127, 0, 0, 1], 0).into(), store, LimitsConfig::default()).await
    }

    async fn serve(listen: SocketAddr, store: StoreConfig, limits: LimitsConfig) -> Self {
        let config = Config {
            listen,
            token: Some(TOKEN.into()),
            store,
            limits,
            tls: None,
        };
        let server = Server::bind(config).await.expect("a free port");
        let shutdown = CancellationToken::new();
        let url = format!("http://{}", server.address());
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { server.run(stop).await.expect("to serve") });
        Self {
            url,
            shutdown,
            task: Some(task),
            dir: None,
        }
    }

    /// Stops the service and waits until it has gone.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(task) = self.task.take() {
            task.await.expect("the service has not panicked");
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
