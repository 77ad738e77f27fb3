//! The connection to Redis: one for all requests, one to hear the news, both made anew when lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::keys::NEWS;
use crate::store::StoreError;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// How long an answer may take before Redis counts as away.
const ANSWER: Duration = Duration::from_secs(10);

/// How long to wait before the connection is made anew.
const RETRY: Duration = Duration::from_millis(250);

/// How often an idle connection is tried.
const PING: Duration = Duration::from_secs(2);

/// Why Redis cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum RedisTrouble {
    /// The URL is no URL of a Redis.
    #[error("{0} is no Redis URL: it must look like redis://[user:password@]host[:port][/db]")]
    Url(String),
    /// It cannot be reached, or refuses the credentials.
    #[error("Redis at {address} {what}: {detail}")]
    Away {
        /// Where it is looked for.
        address: String,
        /// What is wrong.
        what: &'static str,
        /// What it or the system says.
        detail: String,
    },
    /// It runs, but must not be used like this.
    #[error("Redis at {address} {what}")]
    Unfit {
        /// Where it runs.
        address: String,
        /// What is wrong, and what to do about it.
        what: String,
    },
}

enum State {
    Up(MultiplexedConnection),
    Down(String),
}

/// The way to Redis.
pub(super) struct Link {
    client: Client,
    address: String,
    state: Mutex<State>,
    lost: Notify,
}

impl std::fmt::Debug for Link {
    /// Leaves out the client, which has the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a connection attempt gives.
pub(super) struct Connected {
    connection: MultiplexedConnection,
    news: PubSubStream,
}

impl Link {
    /// Reads the URL; connects nowhere yet.
    pub(super) fn new(url: &str) -> Result<Self, RedisTrouble> {
        // A URL may hold a password, and must not come back whole.
        let shown = || {
            url.rsplit_once('@')
                .map_or(url, |(_, host)| host)
                .to_owned()
        };
        let client = Client::open(url).map_err(|_| RedisTrouble::Url(shown()))?;
        let address = client.get_connection_info().addr().to_string();
        Ok(Self {
            client,
            address,
            state: Mutex::new(State::Down("not connected yet".into())),
            lost: Notify::new(),
        })
    }

    /// Lets requests go over a connection.
    pub(super) fn begin(&self, connected: &Connected) {
        self.set(State::Up(connected.connection.clone()));
    }

    /// Returns the connection that all share.
    pub(super) fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Up(connection) => Ok(connection.clone()),
            State::Down(why) => Err(StoreError::Unavailable(why.clone())),
        }
    }

    /// Tells why Redis cannot be used just now, if it cannot.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Up(_) => None,
            State::Down(why) => Some(why.clone()),
        }
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Says what an error means for the caller, and has the connection made anew if it is lost.
    pub(super) fn failed(&self, error: &RedisError) -> StoreError {
        let is_lost = match error.kind() {
            ErrorKind::Io | ErrorKind::Parse => true,
            ErrorKind::Server(kind) => matches!(
                kind,
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::BusyLoading
            ),
            _ => error.is_connection_dropped() || error.is_timeout(),
        };
        if is_lost {
            self.set(State::Down(format!("Redis at {}: {error}", self.address)));
            self.lost.notify_one();
        } else {
            tracing::warn!(%error, "Redis has refused a script");
        }
        StoreError::Unavailable(format!("Redis at {}: {error}", self.address))
    }

    /// Connects, looks whether this Redis may be used, and listens for news.
    pub(super) async fn connect(&self) -> Result<Connected, RedisTrouble> {
        let away = |error: RedisError| self.away(&error);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(away)?;
        self.examine(&mut connection).await?;
        let mut listener = tokio::time::timeout(CONNECT, self.client.get_async_pubsub())
            .await
            .map_err(|_| {
                self.away(&RedisError::from(std::io::Error::from(
                    std::io::ErrorKind::TimedOut,
                )))
            })?
            .map_err(away)?;
        listener.subscribe(NEWS).await.map_err(away)?;
        Ok(Connected {
            connection,
            news: listener.into_on_message(),
        })
    }

    fn away(&self, error: &RedisError) -> RedisTrouble {
        let what = match error.kind() {
            ErrorKind::AuthenticationFailed => {
                "refuses the credentials (they stand in the URL: redis://user:password@host)"
            }
            _ if error.code() == Some("NOAUTH") => {
                "wants a password (redis://:password@host, or redis://user:password@host)"
            }
            ErrorKind::Io => "cannot be reached",
            _ => "cannot be used",
        };
        RedisTrouble::Away {
            address: self.address.clone(),
            what,
            detail: error.to_string(),
        }
    }

    /// Looks whether this Redis keeps what it is given.
    async fn examine(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisTrouble> {
        let info: String = redis::cmd("INFO")
            .query_async(connection)
            .await
            .map_err(|error| self.away(&error))?;
        if let Some(what) = unfit(&info) {
            let address = self.address.clone();
            return Err(RedisTrouble::Unfit { address, what });
        }
        let mut asking = redis::cmd("CONFIG");
        asking.arg("GET").arg("appendfsync");
        // Managed services forbid CONFIG; then nobody can say.
        let told = asking.query_async::<Vec<String>>(connection).await;
        let appendfsync = told.ok().and_then(|values| values.into_iter().nth(1));
        let aof = field(&info, "aof_enabled") == Some("1");
        match (aof, appendfsync.as_deref()) {
            (true, Some("always")) => tracing::info!(
                redis.address = self.address,
                "Redis syncs every write: what is acknowledged survives its crash"
            ),
            (true, sync) => tracing::warn!(
                redis.address = self.address,
                redis.appendfsync = sync.unwrap_or("unknown"),
                "Redis may lose its last writes in a crash, acknowledged ones too; \
                 appendfsync always rules that out"
            ),
            (false, _) => tracing::warn!(
                redis.address = self.address,
                "Redis keeps no log (appendonly no): a restart of it may lose every queue"
            ),
        }
        Ok(())
    }

    /// Keeps the connection until told to stop. `hear` gets every piece of news, and nothing
    /// after each new connection: then anything may have happened.
    pub(super) async fn keep(
        self: Arc<Self>,
        first: Connected,
        stop: CancellationToken,
        hear: impl Fn(Option<&str>),
    ) {
        let mut connected = Some(first);
        let mut known = String::new();
        while !stop.is_cancelled() {
            let Some(Connected { connection, news }) = connected.take() else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
                match self.connect().await {
                    Ok(again) => {
                        tracing::info!(redis.address = self.address, "Redis is back");
                        known.clear();
                        connected = Some(again);
                    }
                    Err(trouble) => {
                        let text = trouble.to_string();
                        if text != known {
                            tracing::error!(error = text, "Redis is away");
                            known.clone_from(&text);
                        }
                        self.set(State::Down(text));
                    }
                }
                continue;
            };
            self.set(State::Up(connection.clone()));
            hear(None);
            self.listen(connection, news, &stop, &hear).await;
            if self.trouble().is_none() {
                let text = format!("Redis at {}: the connection was lost", self.address);
                self.set(State::Down(text));
            }
        }
    }

    async fn listen(
        &self,
        mut connection: MultiplexedConnection,
        mut news: PubSubStream,
        stop: &CancellationToken,
        hear: &impl Fn(Option<&str>),
    ) {
        let mut pings = tokio::time::interval(PING);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.lost.notified() => {
                    if self.trouble().is_some() {
                        return;
                    }
                }
                message = news.next() => match message {
                    Some(message) => hear(Some(&String::from_utf8_lossy(message.get_payload_bytes()))),
                    None => return,
                },
                _ = pings.tick() => {
                    let pong = redis::cmd("PING").query_async::<String>(&mut connection).await;
                    if let Err(error) = pong {
                        self.failed(&error);
                        return;
                    }
                }
            }
        }
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// Says why a Redis must not be used, from what it tells of itself.
fn unfit(info: &str) -> Option<String> {
    let version = field(info, "redis_version").unwrap_or("unknown");
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 7) {
        return Some(format!("is version {version}; Gangline needs 7.0 or later"));
    }
    if field(info, "role") == Some("slave") {
        return Some("is a replica, which takes no writes: give the address of its primary".into());
    }
    if field(info, "cluster_enabled") == Some("1") {
        return Some("is a node of a Redis Cluster, which this version cannot use yet".into());
    }
    let policy = field(info, "maxmemory_policy").unwrap_or("noeviction");
    if field(info, "maxmemory").is_some_and(|bytes| bytes != "0") && policy != "noeviction" {
        return Some(format!(
            "drops keys when its memory is full (maxmemory-policy {policy}), and queues with \
             them: set `maxmemory-policy noeviction`"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "redis_version:7.0.15\r\nrole:master\r\ncluster_enabled:0\r\n\
                        maxmemory:0\r\nmaxmemory_policy:noeviction\r\n";

    #[test]
    fn a_redis_that_would_lose_queues_is_refused_with_what_to_do() {
        assert_eq!(unfit(GOOD), None);
        for (from, to, expected) in [
            ("7.0.15", "6.2.1", "7.0 or later"),
            ("role:master", "role:slave", "primary"),
            ("cluster_enabled:0", "cluster_enabled:1", "Cluster"),
        ] {
            let told = unfit(&GOOD.replace(from, to)).unwrap();
            assert!(told.contains(expected), "{told}");
        }
        let evicts = GOOD.replace("noeviction", "allkeys-lru");
        assert_eq!(unfit(&evicts), None, "without a limit nothing is dropped");
        let told = unfit(&evicts.replace("maxmemory:0", "maxmemory:1000000")).unwrap();
        assert!(told.contains("maxmemory-policy noeviction"), "{told}");
    }

    #[test]
    fn a_password_in_a_bad_url_is_not_shown() {
        let told = Link::new("http://me:secret@host").unwrap_err().to_string();
        assert!(!told.contains("secret"), "{told}");
    }
}
