//! Tokens: who may do what, known to the service by their hashes alone.
//!
//! All of them are in memory, so that checking one costs a look into a map; the [`TokenStore`]
//! keeps them beside the queues. A hash is found by its first 64 bits, which are no secret, and
//! then compared in constant time.

mod file;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use gangline_protocol::limits::TOKENS_MAX;
use gangline_protocol::{Role, Scope, Timestamp, TokenHash, TokenId, TokenView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock::{Clock, Random};

pub use file::TokenFile;

/// What a token that the service mints begins with, so that a leaked one is recognised.
const PREFIX: &str = "glt_";

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Token {
    /// Its SHA-256.
    pub hash: TokenHash,
    /// What its holder may do.
    pub roles: Vec<Role>,
    /// Where.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What a person should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<str>>,
}

impl Token {
    fn holds_at(&self, now_ms: u64) -> bool {
        self.expires_at.is_none_or(|Timestamp(end)| now_ms < end)
    }

    /// Returns what may be shown of it.
    #[must_use]
    pub fn view(&self) -> TokenView {
        TokenView {
            id: self.hash.id(),
            roles: self.roles.clone(),
            namespace: self.scope.namespace().unwrap_or("*").into(),
            queue: match &self.scope {
                Scope::Queue(queue) => Some(queue.clone()),
                Scope::All | Scope::Namespace(_) => None,
            },
            created_at: self.created_at,
            expires_at: self.expires_at,
            note: self.note.clone(),
        }
    }
}

/// The future of a token store's answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A place that keeps tokens. What it has answered survives a crash.
pub trait TokenStore: Send + Sync + 'static {
    /// Returns all tokens.
    fn load(&self) -> Answer<'_, Vec<Token>>;

    /// Keeps a token; one of the same id goes. `all` are those that hold afterwards, for a store
    /// that can only keep them as a whole.
    fn put<'a>(&'a self, token: &'a Token, all: Vec<Token>) -> Answer<'a, ()>;

    /// Forgets a token; `all` are those that hold afterwards.
    fn remove(&self, id: TokenId, all: Vec<Token>) -> Answer<'_, ()>;

    /// Tells whether other servers keep their tokens in the same place. Then the service looks
    /// again now and then ([`Tokens::reload`]).
    fn is_shared(&self) -> bool {
        false
    }
}

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There are too many.
    #[error("there are {TOKENS_MAX} tokens already; revoke some, or let them expire")]
    TooMany,
    /// There is no such token, as far as the caller may see.
    #[error("there is no token {0}")]
    NotFound(TokenId),
    /// The hash belongs to a token that the caller may not change.
    #[error("the token {0} is there already, elsewhere")]
    Foreign(TokenId),
    /// The store did not keep it.
    #[error("the tokens cannot be kept")]
    Store(#[source] io::Error),
}

/// All tokens of a service. Cloning it shares them.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    held: RwLock<HashMap<TokenId, Arc<Token>>>,
    /// One change at a time: the file is written as a whole.
    changes: tokio::sync::Mutex<()>,
    store: Box<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// What a token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What its holder may do.
    pub roles: Vec<Role>,
    /// Where.
    pub scope: Scope,
    /// For how long, in milliseconds.
    pub life_ms: Option<u64>,
    /// What a person should know about it.
    pub note: Option<Box<str>>,
}

impl Tokens {
    /// Reads the tokens of a store.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or are damaged.
    pub async fn open(
        store: Box<dyn TokenStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> io::Result<Self> {
        let tokens = Self(Arc::new(Inner {
            held: RwLock::default(),
            changes: tokio::sync::Mutex::default(),
            store,
            clock,
            random,
        }));
        tokens.reload().await?;
        Ok(tokens)
    }

    /// Reads the tokens again, for a store that other servers write to.
    ///
    /// # Errors
    ///
    /// When they cannot be read; those known so far stay.
    pub async fn reload(&self) -> io::Result<()> {
        let _alone = self.0.changes.lock().await;
        let loaded = self.0.store.load().await?;
        let loaded = loaded.into_iter();
        let held = loaded
            .map(|token| (token.hash.id(), Arc::new(token)))
            .collect();
        *self.0.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }

    /// Tells whether [`Tokens::reload`] is worth calling now and then.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.store.is_shared()
    }

    /// Returns the token that a caller shows, if it is one and still holds.
    #[must_use]
    pub fn find(&self, shown: &str) -> Option<Arc<Token>> {
        let hash = hash(shown);
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        let token = held.get(&hash.id())?;
        let same: bool = token.hash.0.ct_eq(&hash.0).into();
        (same && token.holds_at(self.0.clock.now_ms())).then(|| token.clone())
    }

    /// Returns those that lie in a scope, oldest first.
    #[must_use]
    pub fn list(&self, scope: &Scope) -> Vec<TokenView> {
        let mut tokens = self.all_but(None);
        tokens.retain(|token| scope.contains(&token.scope));
        tokens.iter().map(Token::view).collect()
    }

    /// Mints a token and keeps it; returns it, for the only time.
    ///
    /// # Errors
    ///
    /// When there are too many, or the store fails.
    pub async fn mint(&self, new: NewToken) -> Result<(Box<str>, TokenView), TokenError> {
        let mut secret = Sha256::new();
        // Eight draws of 64 bits hold more than the 256 that come out.
        for _ in 0..8 {
            secret.update(self.0.random.draw().to_be_bytes());
        }
        let secret = TokenHash(secret.finalize().into());
        let text: Box<str> = format!("{PREFIX}{secret}").into();
        let scope = new.scope.clone();
        let view = self.register(hash(&text), new, &scope).await?;
        Ok((text, view))
    }

    /// Keeps a token that the caller has made, by its hash. A repeat takes the place of the first,
    /// if that one lies in the caller's scope.
    ///
    /// # Errors
    ///
    /// When there are too many, the hash is that of a token elsewhere, or the store fails.
    pub async fn register(
        &self,
        hash: TokenHash,
        new: NewToken,
        caller: &Scope,
    ) -> Result<TokenView, TokenError> {
        let NewToken {
            roles,
            scope,
            life_ms,
            note,
        } = new;
        let now_ms = self.0.clock.now_ms();
        let token = Token {
            hash,
            roles,
            scope,
            created_at: Timestamp(now_ms),
            expires_at: life_ms.map(|life| Timestamp(now_ms + life)),
            note,
        };
        let _alone = self.0.changes.lock().await;
        {
            let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
            let before = held.get(&hash.id());
            if before.is_some_and(|before| !caller.contains(&before.scope)) {
                return Err(TokenError::Foreign(hash.id()));
            }
        }
        let mut all = self.all_but(Some(hash.id()));
        if all.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        all.push(token.clone());
        let kept = self.0.store.put(&token, all).await;
        kept.map_err(TokenError::Store)?;
        let view = token.view();
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, token| token.holds_at(now_ms));
        held.insert(hash.id(), Arc::new(token));
        Ok(view)
    }

    /// Revokes a token that lies in the caller's scope; it is refused from now on.
    ///
    /// # Errors
    ///
    /// When there is none, or the store fails; then the token may hold again after a restart.
    pub async fn revoke(&self, id: TokenId, scope: &Scope) -> Result<TokenView, TokenError> {
        let _alone = self.0.changes.lock().await;
        let token = {
            let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
            let mine = held
                .get(&id)
                .is_some_and(|token| scope.contains(&token.scope));
            let token = if mine { held.remove(&id) } else { None };
            token.ok_or(TokenError::NotFound(id))?
        };
        let removed = self.0.store.remove(id, self.all_but(None)).await;
        removed.map_err(TokenError::Store)?;
        Ok(token.view())
    }

    /// Returns the tokens that hold, oldest first, but one.
    fn all_but(&self, id: Option<TokenId>) -> Vec<Token> {
        let now_ms = self.0.clock.now_ms();
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut tokens: Vec<Token> = held
            .values()
            .filter(|token| Some(token.hash.id()) != id && token.holds_at(now_ms))
            .map(|token| Token::clone(token))
            .collect();
        tokens.sort_by_key(|token| (token.created_at, token.hash.id()));
        tokens
    }
}

/// Returns the hash of a token.
#[must_use]
pub fn hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemRandom};

    async fn open(dir: &std::path::Path, clock: &Arc<ManualClock>) -> Tokens {
        let file = Box::new(TokenFile::new(dir));
        let tokens = Tokens::open(file, clock.clone(), Arc::new(SystemRandom)).await;
        tokens.unwrap()
    }

    fn worker(life_ms: Option<u64>) -> NewToken {
        NewToken {
            roles: vec![Role::Worker],
            scope: Scope::Queue("team.q".parse().unwrap()),
            life_ms,
            note: Some("a note".into()),
        }
    }

    #[tokio::test]
    async fn a_minted_token_survives_a_restart_and_its_text_is_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(1_000_000));
        let (text, view) = open(dir.path(), &clock)
            .await
            .mint(worker(None))
            .await
            .unwrap();
        let file = std::fs::read_to_string(dir.path().join("tokens.json")).unwrap();
        assert!(!file.contains(&text[PREFIX.len()..]));
        let tokens = open(dir.path(), &clock).await;
        assert_eq!(tokens.find(&text).unwrap().view(), view);
        assert!(tokens.find(&text[..text.len() - 1]).is_none());
        assert!(tokens.find("").is_none());
    }

    #[tokio::test]
    async fn a_revoked_token_is_refused_at_once_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(1_000_000));
        let tokens = open(dir.path(), &clock).await;
        let (text, view) = tokens.mint(worker(None)).await.unwrap();
        let foreign = Scope::new(Some("other"), None).unwrap();
        let refused = tokens.revoke(view.id, &foreign).await;
        assert!(matches!(refused, Err(TokenError::NotFound(_))));
        assert!(tokens.find(&text).is_some());
        tokens.revoke(view.id, &Scope::All).await.unwrap();
        assert!(tokens.find(&text).is_none());
        assert!(open(dir.path(), &clock).await.find(&text).is_none());
    }

    #[tokio::test]
    async fn a_token_expires_at_its_time_and_is_forgotten_with_the_next_change() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(1_000_000));
        let tokens = open(dir.path(), &clock).await;
        let (text, _) = tokens.mint(worker(Some(10))).await.unwrap();
        clock.advance_ms(9);
        assert!(tokens.find(&text).is_some());
        clock.advance_ms(1);
        assert!(tokens.find(&text).is_none());
        assert!(tokens.list(&Scope::All).is_empty());
        let (_, view) = tokens.mint(worker(None)).await.unwrap();
        assert_eq!(open(dir.path(), &clock).await.list(&Scope::All), [view]);
    }

    #[tokio::test]
    async fn a_registered_hash_is_that_of_the_callers_token_and_may_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(1_000_000));
        let tokens = open(dir.path(), &clock).await;
        for _ in 0..2 {
            let hash = hash("made elsewhere");
            tokens
                .register(hash, worker(None), &Scope::All)
                .await
                .unwrap();
        }
        assert!(tokens.find("made elsewhere").is_some());
        let foreign = Scope::new(Some("other"), None).unwrap();
        let refused = tokens.register(hash("made elsewhere"), worker(None), &foreign);
        assert!(matches!(refused.await, Err(TokenError::Foreign(_))));
        assert_eq!(tokens.list(&Scope::All).len(), 1);
    }
}
