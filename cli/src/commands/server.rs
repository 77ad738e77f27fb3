//! `gangline server`: the queue service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use gangline_server::store::redis::Durability;
use gangline_server::{Config, LimitsConfig, Server, StoreConfig, TlsConfig};
use gangline_worker::protocol::limits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::examples;
use crate::error::Error;
use crate::output;
use crate::signals;

/// Arguments of `gangline server`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::SERVER)]
pub(crate) struct Args {
    /// Address to listen on; port 0 takes any free one
    #[arg(
        long,
        env = "GANGLINE_LISTEN",
        default_value = "127.0.0.1:4264",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,
    /// Directory that keeps the queues; made if there is none
    #[arg(
        long,
        env = "GANGLINE_DATA_DIR",
        default_value = "gangline-data",
        value_name = "DIR"
    )]
    data_dir: PathBuf,
    /// Redis that keeps the queues instead, as in redis://user:password@host:6379/0; any number
    /// of services may share it. Better in the environment when it holds a password
    #[arg(
        long,
        env = "GANGLINE_REDIS",
        hide_env_values = true,
        value_name = "URL",
        conflicts_with = "data_dir"
    )]
    redis: Option<String>,
    /// What has happened to a step in Redis before it is acknowledged: memory (Redis has it), aof
    /// (it is synced to its log), replicated (a replica has it, too)
    #[arg(
        long,
        env = "GANGLINE_REDIS_DURABILITY",
        value_name = "LEVEL",
        default_value_t = Durability::Memory
    )]
    redis_durability: Durability,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What callers are shown.
#[derive(Debug, clap::Args)]
struct TlsArgs {
    /// Certificate to serve https with, in PEM form, those between it and its CA after it; read
    /// again when it changes
    #[arg(
        long,
        env = "GANGLINE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM form
    #[arg(
        long,
        env = "GANGLINE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
}

impl TlsArgs {
    fn config(self) -> Option<TlsConfig> {
        let (cert, key) = self.tls_cert.zip(self.tls_key)?;
        Some(TlsConfig { cert, key })
    }
}

/// What callers may take.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Open connections; as many as the system allows when that is less
    #[arg(long, env = "GANGLINE_CONNECTIONS_MAX", default_value_t = limits::CONNECTIONS_MAX, value_name = "N")]
    connections_max: usize,
    /// Requests a second of the tokens of one namespace
    #[arg(
        long,
        env = "GANGLINE_NAMESPACE_REQUESTS_PER_SECOND",
        default_value_t = limits::NAMESPACE_REQUESTS_PER_SECOND,
        value_name = "N"
    )]
    namespace_requests_per_second: u32,
    /// Queues of one namespace
    #[arg(
        long,
        env = "GANGLINE_NAMESPACE_QUEUES_MAX",
        default_value_t = limits::NAMESPACE_QUEUES_MAX,
        value_name = "N"
    )]
    namespace_queues_max: usize,
}

/// File descriptors that are not for connections: the log, the runtime, what is piped.
const FILES_APART: u64 = 64;

impl LimitArgs {
    /// Asks the system for as many file descriptors as it gives, and stays within them.
    fn config(self) -> Result<LimitsConfig, Error> {
        let Self {
            connections_max,
            namespace_requests_per_second,
            namespace_queues_max,
        } = self;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::disk)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(Error::disk)?;
        let files = usize::try_from(most.saturating_sub(FILES_APART)).unwrap_or(usize::MAX);
        Ok(LimitsConfig {
            connections_max: connections_max.min(files),
            namespace_requests_per_second,
            namespace_queues_max,
        })
    }
}

/// The token that callers must show.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// Token that callers must show; better in the environment or a file, since arguments can be
    /// seen by other users of the machine
    #[arg(long, env = "GANGLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the token
    #[arg(
        long,
        env = "GANGLINE_TOKEN_FILE",
        conflicts_with = "token",
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// Returns the token, if one is given.
    pub(crate) fn token(self) -> Result<Option<String>, Error> {
        let Some(file) = self.token_file else {
            return match self.token {
                Some(token) if token.is_empty() => Err(Error::usage("--token is empty")
                    .hint("leave it out, and GANGLINE_TOKEN unset, for a service without tokens")),
                token => Ok(token),
            };
        };
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Error::usage(format!("cannot read {}: {error}", file.display())))
            .map_err(|error| {
                error.hint("--token-file names a file with the token and nothing else")
            })?;
        match text.trim() {
            "" => Err(
                Error::usage(format!("{} has no token in it", file.display()))
                    .hint("gangline token create writes a token to stdout"),
            ),
            token => Ok(Some(token.to_owned())),
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let Args {
        listen,
        data_dir,
        redis,
        redis_durability,
        token,
        tls,
        limits,
    } = args;
    let tls = tls.config();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let config = Config {
        listen,
        token: token.token()?,
        store: match redis {
            Some(url) => StoreConfig::Redis {
                url,
                durability: redis_durability,
            },
            None => StoreConfig::Embedded { data_dir },
        },
        limits: limits.config()?,
        tls,
    };
    let server = Server::bind(config).await?;
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone())?;
    let address = server.address();
    output::note(format_args!(
        "gangline: listening on {scheme}://{address}, dashboard at {scheme}://{address}/dashboard"
    ));
    server.run(shutdown).await?;
    Ok(ExitCode::SUCCESS)
}
