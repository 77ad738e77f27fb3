//! Settings of the service, checked, as plain data.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What a service is to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What callers must show. Without a token only loopback addresses may be listened on.
    pub token: Option<String>,
    /// Where queues live.
    pub store: StoreConfig,
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
    },
}
