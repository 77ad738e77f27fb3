//! How a client command finds the service.

use std::path::PathBuf;

use gangline_worker::protocol::ErrorCode;
use gangline_worker::{Client, ClientError};

use super::server::TokenArgs;
use crate::error::{Error, Kind};

/// Where the service is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Queue service")]
pub(crate) struct ConnectArgs {
    /// Address of the queue service
    #[arg(long, env = "GANGLINE_URL", default_value = "http://127.0.0.1:4264")]
    url: String,
    /// Certificates of the CAs that vouch for a service at an https address, in PEM form; those of
    /// the system, or of SSL_CERT_FILE, when absent
    #[arg(long, env = "GANGLINE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    token: TokenArgs,
}

impl ConnectArgs {
    /// Returns a client, and the token that it shows, if one is given.
    pub(crate) fn parts(self) -> Result<(Client, Option<String>), Error> {
        let Self { url, ca, token } = self;
        let token = token.token()?;
        let Some(file) = ca else {
            let client = Client::new(&url, token.clone());
            return Ok((client.map_err(|error| misnamed("--url", error))?, token));
        };
        let name = file.display();
        let ca = std::fs::read(&file)
            .map_err(|error| Error::usage(format!("--ca: cannot read {name}: {error}")))
            .map_err(|error| error.hint("it names a file with certificates in PEM form"))?;
        let client = Client::with_ca(&url, token.clone(), &ca);
        let client = client.map_err(|error| misnamed(&format!("--url, or --ca {name}"), error))?;
        Ok((client, token))
    }

    pub(crate) fn client(self) -> Result<Client, Error> {
        Ok(self.parts()?.0)
    }
}

/// Says that an address, or what vouches for it, is none.
fn misnamed(name: &str, error: ClientError) -> Error {
    let text = match error {
        ClientError::Protocol(text) => text,
        other => other.to_string(),
    };
    Error::usage(format!("{name}: {text}"))
        .hint("as in http://127.0.0.1:4264, where gangline server listens")
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::from_call(&error, &error)
    }
}

impl Error {
    /// Says `text` of a call that has failed, with what is known of such errors.
    pub(crate) fn from_call(error: &ClientError, text: impl std::fmt::Display) -> Self {
        match error {
            ClientError::Refused(problem) => Self::new(Kind::Failed, text).hint(hint(problem.code)),
            ClientError::Unauthorized(_) => Self::new(Kind::Credentials, text)
                .hint("--token-file FILE, or GANGLINE_TOKEN in the environment"),
            ClientError::Unavailable(outage)
                if outage.text.contains("invalid peer certificate") =>
            {
                Self::new(Kind::ServiceLost, text).hint(
                    "--ca FILE names the certificate of the CA that vouches for the service, which \
                     must be for the host of --url",
                )
            }
            ClientError::Unavailable(_) => Self::new(Kind::ServiceLost, text)
                .hint("is it running? gangline server starts one; --url says where it is"),
            ClientError::Protocol(_) => Self::new(Kind::ServiceLost, text)
                .hint("--url names a gangline server, as in http://127.0.0.1:4264"),
        }
    }
}

/// Says what to do about a refusal.
fn hint(code: ErrorCode) -> String {
    use ErrorCode as E;
    let hint = match code {
        E::QueueNotFound => {
            "gangline get queues shows those that there are; gangline push makes one"
        }
        E::QueueSealed | E::QueueOver => {
            "gangline get queues shows how queues are; a new batch needs a queue of another name"
        }
        E::ItemNotFound => "gangline get items QUEUE shows those that there are",
        E::WorkerNotFound => "gangline get workers QUEUE shows those that there are",
        E::TokenNotFound => "gangline token list shows those that there are",
        E::TooManyQueues => "gangline delete QUEUE removes one with its results",
        E::TooManyTokens => "gangline token revoke ID makes room for another",
        E::TooManyRequests | E::RequestTimeout | E::Unavailable => {
            "the same command may succeed later; nothing that was acknowledged is lost"
        }
        E::Unauthenticated | E::Forbidden => {
            "--token-file FILE, or GANGLINE_TOKEN in the environment"
        }
        E::IdempotencyMismatch | E::IncompleteStream => {
            "push the same items again: those that are there already are not taken twice"
        }
        E::InvalidBody
        | E::OutOfBounds
        | E::InvalidParameter
        | E::UnsupportedMediaType
        | E::BodyTooLarge
        | E::NotFound
        | E::MethodNotAllowed
        | E::LeaseNumberOutOfOrder
        | E::Internal => return format!("docs/errors.md explains {}", code.as_str()),
    };
    hint.to_owned()
}
