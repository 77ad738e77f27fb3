//! `gangline server`: the queue service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use gangline_server::{Config, Server, StoreConfig};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::output;
use crate::signals;

/// Arguments of `gangline server`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, env = "GANGLINE_LISTEN", default_value = "127.0.0.1:4264")]
    listen: SocketAddr,
    /// Directory that keeps the queues; made if there is none
    #[arg(long, env = "GANGLINE_DATA_DIR", default_value = "gangline-data")]
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
    #[command(flatten)]
    token: TokenArgs,
}

/// The token that callers must show.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// Token that callers must show; better in the environment or a file, since arguments can be
    /// seen by other users of the machine
    #[arg(long, env = "GANGLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the token
    #[arg(long, env = "GANGLINE_TOKEN_FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// Returns the token, if one is given.
    pub(crate) fn token(self) -> Result<Option<String>, Error> {
        let Some(file) = self.token_file else {
            return match self.token {
                Some(token) if token.is_empty() => Err(Error::usage("--token is empty")),
                token => Ok(token),
            };
        };
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Error::usage(format!("cannot read {}: {error}", file.display())))?;
        match text.trim() {
            "" => Err(Error::usage(format!(
                "{} has no token in it",
                file.display()
            ))),
            token => Ok(Some(token.to_owned())),
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Error> {
    let Args {
        listen,
        data_dir,
        redis,
        token,
    } = args;
    let config = Config {
        listen,
        token: token.token()?,
        store: match redis {
            Some(url) => StoreConfig::Redis { url },
            None => StoreConfig::Embedded { data_dir },
        },
    };
    let server = Server::bind(config).await?;
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone())?;
    let address = server.address();
    output::note(format_args!(
        "gangline: listening on http://{address}, dashboard at http://{address}/dashboard"
    ));
    server.run(shutdown).await?;
    Ok(ExitCode::SUCCESS)
}
