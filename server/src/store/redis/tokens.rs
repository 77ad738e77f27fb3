//! Tokens in a hash of the Redis, for all replicas.

use std::io;

use gangline_protocol::TokenId;
use redis::Cmd;

use super::Redis;
use super::keys::TOKENS;
use crate::store::StoreError;
use crate::tokens::{Answer, Token, TokenStore};

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

/// The tokens beside the queues of a Redis store.
#[derive(Debug, Clone)]
pub struct RedisTokens(std::sync::Arc<super::Inner>);

impl Redis {
    /// Returns the place of the tokens.
    #[must_use]
    pub fn tokens(&self) -> RedisTokens {
        RedisTokens(self.inner.clone())
    }
}

impl TokenStore for RedisTokens {
    fn load(&self) -> Answer<'_, Vec<Token>> {
        Box::pin(async {
            let mut cmd = Cmd::new();
            cmd.arg("HVALS").arg(TOKENS);
            let texts: Vec<Vec<u8>> = self.0.send_plain(&cmd).await?;
            let tokens = texts.iter().map(|text| serde_json::from_slice(text));
            tokens.collect::<Result<_, _>>().map_err(|error| {
                io::Error::other(format!("a token in {TOKENS} is damaged: {error}"))
            })
        })
    }

    fn put<'a>(&'a self, token: &'a Token, _: Vec<Token>) -> Answer<'a, ()> {
        Box::pin(async {
            let mut cmd = Cmd::new();
            let id = token.hash.id().to_string();
            cmd.arg("HSET")
                .arg(TOKENS)
                .arg(id)
                .arg(serde_json::to_vec(token)?);
            Ok(self.0.send_plain(&cmd).await?)
        })
    }

    fn remove(&self, id: TokenId, _: Vec<Token>) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut cmd = Cmd::new();
            cmd.arg("HDEL").arg(TOKENS).arg(id.to_string());
            Ok(self.0.send_plain(&cmd).await?)
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}
