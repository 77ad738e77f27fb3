//! Settings of the service, checked, as plain data.

use std::net::SocketAddr;
use std::path::PathBuf;

use gangline_protocol::limits;

use crate::store::redis::Durability;

/// What a service is to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What callers must show. Without a token only loopback addresses may be listened on.
    pub token: Option<String>,
    /// Where queues live.
    pub store: StoreConfig,
    /// What callers may take.
    pub limits: LimitsConfig,
    /// What callers are shown; without it calls are not encrypted.
    pub tls: Option<TlsConfig>,
}

/// A certificate and its key, each in a file in PEM form. They are read again when they change.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The certificate, and those between it and its CA after it.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What callers may take; the defaults are those of [`gangline_protocol::limits`].
#[derive(Debug, Clone, Copy)]
pub struct LimitsConfig {
    /// Open connections.
    pub connections_max: usize,
    /// Requests a second of callers whose token is bound to a namespace, for each namespace.
    pub namespace_requests_per_second: u32,
    /// Queues of each namespace.
    pub namespace_queues_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            namespace_requests_per_second: limits::NAMESPACE_REQUESTS_PER_SECOND,
            namespace_queues_max: limits::NAMESPACE_QUEUES_MAX,
        }
    }
}

/// Where queues live.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// In this process, with a log in a directory of its own.
    Embedded {
        /// The directory; made if there is none.
        data_dir: PathBuf,
    },
    /// In a Redis, which any number of services may share.
    Redis {
        /// As in `redis://user:password@host:6379/0`.
        url: String,
        /// What has happened to a step before it is acknowledged.
        durability: Durability,
    },
}
