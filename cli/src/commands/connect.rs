//! How a client command finds the service.

use gangline_worker::{Client, ClientError};

use super::server::TokenArgs;
use crate::error::{Error, Kind};

/// Where the service is.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// Address of the queue service
    #[arg(long, env = "GANGLINE_URL", default_value = "http://127.0.0.1:4264")]
    url: String,
    #[command(flatten)]
    token: TokenArgs,
}

impl ConnectArgs {
    /// Returns the address, and the token if one is given.
    pub(crate) fn parts(self) -> Result<(String, Option<String>), Error> {
        Ok((self.url, self.token.token()?))
    }

    pub(crate) fn client(self) -> Result<Client, Error> {
        Client::new(&self.url, self.token.token()?)
            .map_err(|error| Error::usage(format!("--url: {error}")))
    }
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
            ClientError::Refused(_) => Self::new(Kind::Failed, text),
            ClientError::Unauthorized(_) => Self::new(Kind::Credentials, text)
                .hint("--token-file FILE, or GANGLINE_TOKEN in the environment"),
            ClientError::Unavailable(_) => Self::new(Kind::ServiceLost, text)
                .hint("is it running? gangline server starts one; --url says where it is"),
            ClientError::Protocol(_) => Self::new(Kind::ServiceLost, text),
        }
    }
}
