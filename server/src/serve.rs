//! Puts the parts together and serves until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::{SystemClock, SystemRandom};
use crate::config::{Config, LimitsConfig, StoreConfig};
use crate::connections;
use crate::history::{self, History};
use crate::http::{Access, Gate, router};
use crate::hub::Hub;
use crate::jobs::{JobStore, JobsInMemory};
use crate::metrics::Metrics;
use crate::rate::RateLimit;
use crate::service::Service;
use crate::store::Store;
use crate::store::disk::DataDir;
use crate::store::embedded::Embedded;
use crate::store::guarded::Guarded;
use crate::store::metered::Metered;
use crate::store::redis::{Redis, RedisTrouble, Time};
use crate::tls::{Tls, TlsTrouble};
use crate::tokens::{TokenFile, TokenStore, Tokens};

/// How long running requests may take to end once the service is told to stop. Held calls do not
/// end by themselves; whoever holds one asks again.
const GRACE: Duration = Duration::from_millis(500);

/// How soon a token that another replica has made or revoked is known here.
const TOKENS_STEP: Duration = Duration::from_secs(2);

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
    /// What callers were to be shown is not to be used.
    #[error(transparent)]
    Tls(#[from] TlsTrouble),
    /// Redis is not there, or not to be used as it is.
    #[error(transparent)]
    Redis(#[from] RedisTrouble),
    /// The tokens cannot be read.
    #[error("cannot read the tokens")]
    Tokens(#[source] io::Error),
    /// The store has failed for good; what was acknowledged is on disk.
    #[error("the store has failed: {0}")]
    Store(String),
}

/// A service that is open and bound, and not serving yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    gate: Gate,
    limits: LimitsConfig,
    tls: Option<Tls>,
    service: Service,
    store: Open,
    history: History,
    jobs: Arc<dyn JobStore>,
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

    /// Returns the place of what controllers say of their Jobs.
    fn jobs(&self) -> Arc<dyn JobStore> {
        match self {
            Self::Embedded(_) => Arc::new(JobsInMemory::default()),
            Self::Redis(store) => Arc::new(store.jobs()),
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
    pub fn bind(config: Config) -> BoxFuture<'static, Result<Self, ServeError>> {
        Box::pin(Self::open(config))
    }

    async fn open(config: Config) -> Result<Self, ServeError> {
        let Config {
            listen,
            token,
            store,
            limits,
            tls,
        } = config;
        let access = match &token {
            Some(token) => Access::token(token),
            None if listen.ip().is_loopback() => Access::Loopback,
            None => return Err(ServeError::TokenNeeded(listen)),
        };
        let tls = tls.map(Tls::open).transpose()?;
        let cannot_listen = |source| ServeError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let hub = Hub::default();
        let metrics = Arc::new(Metrics::default());
        let (store, kept) = open(store, hub.clone(), metrics.clone()).await?;
        let jobs = store.jobs();
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let tokens = Tokens::open(kept, clock, random).await;
        let gate = Gate {
            access,
            tokens: tokens.map_err(ServeError::Tokens)?,
            rate: Arc::new(RateLimit::new(limits.namespace_requests_per_second)),
            metrics: metrics.clone(),
        };
        let guarded = Guarded::new(store.store(), metrics, limits.namespace_queues_max);
        Ok(Self {
            listener,
            address,
            gate,
            limits,
            tls,
            service: Service::new(Arc::new(guarded), hub),
            store,
            history: History::new(Arc::new(SystemClock)),
            jobs,
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
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), ServeError>> {
        Box::pin(self.serve(shutdown))
    }

    async fn serve(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self {
            listener,
            address: _,
            gate,
            limits,
            tls,
            service,
            store,
            history,
            jobs,
        } = self;
        let store_stopped = store.stopped();
        let stop = CancellationToken::new();
        let (metrics, tokens) = (gate.metrics.clone(), gate.tokens.clone());
        let router = router(service.clone(), gate, history.clone(), jobs);
        let places = limits.connections_max;
        let acceptor = tls.as_ref().map(Tls::acceptor);
        let serve = connections::serve(listener, acceptor, router, places, metrics, stop.clone());
        tokio::pin!(serve);
        let result = tokio::select! {
            () = keep_up(tokens) => Ok(()),
            () = keep_certificate(tls) => Ok(()),
            () = history::keep(&service, &history) => Ok(()),
            () = &mut serve => Ok(()),
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

/// Opens a store, and the place of the tokens beside it.
async fn open(
    store: StoreConfig,
    hub: Hub,
    metrics: Arc<Metrics>,
) -> Result<(Open, Box<dyn TokenStore>), ServeError> {
    let random = Arc::new(SystemRandom);
    match store {
        StoreConfig::Embedded { data_dir } => {
            let cannot_open = |source| ServeError::Open {
                dir: data_dir.display().to_string(),
                source,
            };
            let disk = DataDir::open(&data_dir).map_err(cannot_open)?;
            let disk = Box::new(Metered::new(disk, metrics));
            let clock = Arc::new(SystemClock);
            let store = Embedded::open(disk, clock, random, hub).map_err(cannot_open)?;
            let tokens = Box::new(TokenFile::new(&data_dir));
            Ok((Open::Embedded(Arc::new(store)), tokens))
        }
        StoreConfig::Redis { url, durability } => {
            let store = Redis::open(&url, durability, Time::Redis, random, hub).await?;
            let tokens = Box::new(store.tokens());
            Ok((Open::Redis(Arc::new(store)), tokens))
        }
    }
}

async fn keep_certificate(tls: Option<Tls>) {
    match tls {
        Some(tls) => tls.keep_up().await,
        None => std::future::pending().await,
    }
}

/// Looks now and then at what other replicas have done to the tokens.
async fn keep_up(tokens: Tokens) {
    if !tokens.is_shared() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(TOKENS_STEP).await;
        if let Err(error) = tokens.reload().await {
            tracing::warn!(%error, "the tokens cannot be read again");
        }
    }
}
