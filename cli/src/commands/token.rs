//! `gangline token`: who else may call the service.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use gangline_worker::protocol::{QueueName, Role, TokenId, TokenRequest};

use super::connect::ConnectArgs;
use super::examples;
use crate::error::Error;
use crate::output;

/// Commands on tokens; the caller's own token must have the role admin.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token; it is written to stdout, this once
    #[command(after_help = examples::TOKEN_CREATE)]
    Create {
        /// What its holder may do; may be given several times
        #[arg(long = "role", value_enum, required = true, value_name = "ROLE")]
        roles: Vec<RoleArg>,
        /// The namespace that it holds in, '*' for all; 'default' when absent
        #[arg(long, conflicts_with = "queue")]
        namespace: Option<Box<str>>,
        /// The only queue that it holds for, as in images or team-a.images
        #[arg(long)]
        queue: Option<QueueName>,
        /// For how long it holds, as in 12h or 30days; until it is revoked when absent
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
        expires: Option<Duration>,
        /// What a person should know about it
        #[arg(long, value_name = "TEXT")]
        note: Option<Box<str>>,
        #[command(flatten)]
        connect: ConnectArgs,
    },
    /// List tokens as JSON: ids, roles and scopes, never the tokens
    #[command(after_help = examples::TOKEN_LIST)]
    List {
        #[command(flatten)]
        connect: ConnectArgs,
    },
    /// Revoke a token; whoever holds it is refused from now on
    #[command(after_help = examples::TOKEN_REVOKE)]
    Revoke {
        /// Its id, as create and list show it
        id: TokenId,
        #[command(flatten)]
        connect: ConnectArgs,
    },
}

/// A role on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    /// Pushes, cancels, seals, and sees the status
    Producer,
    /// Leases and settles, and sees the status
    Worker,
    /// Sees everything, changes nothing
    Observer,
    /// Does everything
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Producer => Self::Producer,
            RoleArg::Worker => Self::Worker,
            RoleArg::Observer => Self::Observer,
            RoleArg::Admin => Self::Admin,
        }
    }
}

impl Command {
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        match self {
            Self::Create {
                roles,
                namespace,
                queue,
                expires,
                note,
                connect,
            } => {
                let expires_in_ms = expires.map(|life| life.as_millis().try_into());
                let request = TokenRequest {
                    roles: roles.into_iter().map(Into::into).collect(),
                    namespace,
                    queue,
                    expires_in_ms: expires_in_ms.map(|ms| ms.unwrap_or(u64::MAX)),
                    note,
                    hash: None,
                };
                let made = connect.client()?.create_token(&request).await?;
                output::note(format_args!(
                    "gangline: token {}; gangline token revoke {0} ends it",
                    made.view.id
                ));
                output::line(made.token.as_deref().unwrap_or_default());
            }
            Self::List { connect } => {
                super::queue::show(&connect.client()?.tokens().await?)?;
            }
            Self::Revoke { id, connect } => {
                super::queue::show(&connect.client()?.revoke_token(id).await?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
