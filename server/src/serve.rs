//! Puts the parts together and serves until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::{SystemClock, SystemRandom};
use crate::config::{Config, StoreConfig};
use crate::http::{Access, router};
use crate::hub::Hub;
use crate::service::Service;
use crate::store::Store;
use crate::store::disk::DataDir;
use crate::store::embedded::Embedded;
use crate::store::redis::{Redis, RedisTrouble, Time};

/// How long running requests may take to end once the service is told to stop. Held calls do not
/// end by themselves; whoever holds one asks again.
const GRACE: Duration = Duration::from_millis(500);

/// Why a service did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Everybody could use it.
    #[error(
        "without a token the service listens on loopback only, and {0} is not a loopback \
         address: give it a token, or listen on 127.0.0.1"
    )]
    TokenNeeded(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The store does not open.
    #[error("cannot open the data directory {dir}")]
    Open {
        /// The directory.
        dir: String,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// Redis is not there, or not to be used as it is.
    #[error(transparent)]
    Redis(#[from] RedisTrouble),
    /// The store has failed for good; what was acknowledged is on disk.
    #[error("the store has failed: {0}")]
    Store(String),
    /// The listener failed.
    #[error("cannot go on serving")]
    Serve(#[source] io::Error),
}

/// A service that is open and bound, and not serving yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    access: Access,
    service: Service,
    store: Open,
}

/// A store that is open.
#[derive(Debug)]
enum Open {
    Embedded(Arc<Embedded>),
    Redis(Arc<Redis>),
}

impl Open {
    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Redis(store) => store.clone(),
        }
    }

    /// Is cancelled when the store cannot serve ever again. Redis may always come back.
    fn stopped(&self) -> CancellationToken {
        match self {
            Self::Embedded(store) => store.stopped(),
            Self::Redis(_) => CancellationToken::new(),
        }
    }

    /// Whoever opens the data directory next must find it free.
    async fn close(self) {
        match self {
            Self::Embedded(store) => {
                store.stop();
                store.stopped().cancelled().await;
            }
            Self::Redis(_) => {}
        }
    }
}

impl Server {
    /// Opens the store and binds the address.
    ///
    /// # Errors
    ///
    /// A [`ServeError`] that says what is in the way.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let Config {
            listen,
            token,
            store,
        } = config;
        let access = match &token {
            Some(token) => Access::token(token),
            None if listen.ip().is_loopback() => Access::Loopback,
            None => return Err(ServeError::TokenNeeded(listen)),
        };
        let cannot_listen = |source| ServeError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let hub = Hub::default();
        let store = open(store, hub.clone()).await?;
        Ok(Self {
            listener,
            address,
            access,
            service: Service::new(store.store(), hub),
            store,
        })
    }

    /// Returns the address that it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then lets running requests end for half a second. When it returns,
    /// the data directory is closed.
    ///
    /// # Errors
    ///
    /// [`ServeError::Store`] when the store fails meanwhile.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self {
            listener,
            address: _,
            access,
            service,
            store,
        } = self;
        let store_stopped = store.stopped();
        // Replies are small and written whole: waiting for more to send only delays them.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
        });
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let serve = axum::serve(listener, router(service.clone(), access))
            .with_graceful_shutdown(async move { stopping.cancelled().await })
            .into_future();
        tokio::pin!(serve);
        let result = tokio::select! {
            result = &mut serve => return result.map_err(ServeError::Serve),
            () = shutdown.cancelled() => Ok(()),
            () = store_stopped.cancelled() => {
                let trouble = service.trouble();
                Err(ServeError::Store(trouble.unwrap_or_else(|| "it has panicked".into())))
            }
        };
        stop.cancel();
        // Whatever has not ended by then is cut off with the connection.
        let _ = tokio::time::timeout(GRACE, &mut serve).await;
        store.close().await;
        result
    }
}

async fn open(store: StoreConfig, hub: Hub) -> Result<Open, ServeError> {
    let random = Arc::new(SystemRandom);
    match store {
        StoreConfig::Embedded { data_dir } => {
            let cannot_open = |source| ServeError::Open {
                dir: data_dir.display().to_string(),
                source,
            };
            let disk = DataDir::open(&data_dir).map_err(cannot_open)?;
            let clock = Arc::new(SystemClock);
            let store = Embedded::open(Box::new(disk), clock, random, hub).map_err(cannot_open)?;
            Ok(Open::Embedded(Arc::new(store)))
        }
        StoreConfig::Redis { url } => {
            let store = Redis::open(&url, Time::Redis, random, hub).await?;
            Ok(Open::Redis(Arc::new(store)))
        }
    }
}
