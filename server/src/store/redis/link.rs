//! The connection to Redis: one for all requests, one to hear the news, both made anew when lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use gangline_protocol::Durability as Promise;
use redis::aio::PubSubStream;
use redis::cluster::ClusterClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, RedisError, ServerErrorKind,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::connection::Connection;
use super::durability::{Durability, rank};
use super::fitness::{Traits, traits_of};
use super::keys::{NEWS, QUEUES, TOKENS};
use super::scripts::Scripts;
use crate::store::StoreError;

/// How long a connection may take to be made.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

/// How long an answer may take before Redis counts as away.
const ANSWER: Duration = Duration::from_secs(10);

/// How long to wait before the connection is made anew.
const RETRY: Duration = Duration::from_millis(250);

/// Tries of a request on a Redis Cluster whose nodes change or do not answer.
const CLUSTER_RETRIES: u32 = 4;

/// How often Redis is asked how it is: whether it answers, and how full it is.
const PING: Duration = Duration::from_secs(1);

/// How long a replica, or the log, may take to have what was written, in milliseconds.
const CONFIRM_MS: u64 = 5_000;

/// Writes a mark that goes by itself, also when memory is full.
const MARK: &str = "#!lua flags=allow-oom\nredis.call('SET', KEYS[1], '', 'PX', 1000)";

/// Why Redis cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum RedisTrouble {
    /// The URL is no URL of a Redis.
    #[error(
        "{0} is no Redis URL: it must look like redis://[user:password@]host[:port][/db] (rediss:// for \
         TLS, hosts with commas between for a cluster), unix:///path[?pass=password], or \
         redis+sentinel://[user:password@]host[:port][,host]/name[/db]"
    )]
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

impl RedisTrouble {
    /// Tells whether nobody answers there.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Away { what, .. } if *what == UNREACHABLE)
    }
}

/// What is said when nobody answers.
const UNREACHABLE: &str = "cannot be reached";

enum State {
    Up(Connection),
    Down(String),
}

/// The way to Redis.
pub(super) struct Link {
    address: Address,
    durability: Durability,
    state: Mutex<State>,
    lost: Notify,
    percent_full: AtomicU64,
    known: Mutex<Known>,
    confirmed: Confirmed,
}

/// What is known of the Redis that is there, or of all primaries of a cluster.
#[derive(Clone)]
pub(super) struct Known {
    /// Stays the same while nothing acknowledged can have been lost ([`Traits::epoch`]).
    pub(super) epoch: Arc<str>,
    /// What an acknowledgement promises.
    pub(super) promise: Promise,
    /// A reply comes after the sync of what it acknowledges.
    syncs_always: bool,
}

/// Confirmations that requests share: each waits for one that began after its own step.
#[derive(Default)]
struct Confirmed {
    asked: AtomicU64,
    done: AtomicU64,
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Link {
    /// Leaves out the address, which has the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address.shown())
            .finish_non_exhaustive()
    }
}

/// What a connection attempt gives.
pub(super) struct Connected {
    node: ConnectionInfo,
    connection: Connection,
    known: Known,
    news: PubSubStream,
}

impl Link {
    /// Reads the URL; connects nowhere yet.
    pub(super) fn new(url: &str, durability: Durability) -> Result<Self, RedisTrouble> {
        Ok(Self {
            address: Address::parse(url)?,
            durability,
            state: Mutex::new(State::Down("not connected yet".into())),
            lost: Notify::new(),
            percent_full: AtomicU64::new(0),
            known: Mutex::new(Known {
                epoch: Arc::from(""),
                promise: Promise::Memory,
                syncs_always: false,
            }),
            confirmed: Confirmed::default(),
        })
    }

    /// Returns what is known of the Redis that is there.
    pub(super) fn known(&self) -> Known {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// Returns what stands in front of each call: promise, when the queue was last changed as far
    /// as the caller knows, epoch.
    pub(super) fn seal(&self, seen_ms: u64) -> String {
        let Known { epoch, promise, .. } = self.known();
        format!("{} {seen_ms:016} {epoch}", rank(promise))
    }

    /// Refuses what would fill Redis further when it is as full as that already.
    pub(super) fn check_room(&self, percent_max: u64) -> Result<(), StoreError> {
        let percent = self.percent_full.load(Ordering::Relaxed);
        if percent < percent_max {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!(
            "Redis at {} is {percent} % full, and takes no such calls from {percent_max} % on: \
             raise maxmemory, or let workers settle what there is",
            self.address.shown()
        )))
    }

    /// Returns when what was written over this connection is as durable as was asked for.
    pub(super) async fn confirm(
        &self,
        connection: &mut Connection,
        key: &[u8],
    ) -> Result<(), StoreError> {
        let mut cmd = match self.durability {
            Durability::Memory => return Ok(()),
            // The start has seen to that.
            Durability::Aof if self.syncs_before_replies() => return Ok(()),
            Durability::Aof => {
                let mut cmd = redis::cmd("WAITAOF");
                cmd.arg(1).arg(0);
                cmd
            }
            Durability::Replicated => {
                let mut cmd = redis::cmd("WAIT");
                cmd.arg(1);
                cmd
            }
        };
        cmd.arg(CONFIRM_MS);
        if let Connection::Cluster(_) = connection {
            return self.ask_to_confirm(connection, key, &cmd).await;
        }
        let own = self.confirmed.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let _turn = self.confirmed.turn.lock().await;
        if self.confirmed.done.load(Ordering::SeqCst) >= own {
            return Ok(());
        }
        let all = self.confirmed.asked.load(Ordering::SeqCst);
        self.ask_to_confirm(connection, key, &cmd).await?;
        self.confirmed.done.store(all, Ordering::SeqCst);
        Ok(())
    }

    /// Returns when what was read over this connection is as durable as was asked for, whoever has
    /// written it: a failover must not take back what was shown.
    pub(super) async fn confirm_seen(
        &self,
        connection: &mut Connection,
        key: &[u8],
    ) -> Result<(), StoreError> {
        if self.durability == Durability::Memory || self.syncs_before_replies() {
            return Ok(());
        }
        // Redis confirms what a connection has written, and with it all that was written before.
        let mut mark = redis::cmd("EVAL");
        mark.arg(MARK).arg(1).arg([key, b":seen"].concat());
        let marked = connection.send_to_node_of(key, &mark).await;
        marked.map_err(|error| self.failed(&error))?;
        self.confirm(connection, key).await
    }

    /// Tells whether a reply of Redis comes after the sync of all that it shows, as was asked for.
    fn syncs_before_replies(&self) -> bool {
        self.durability == Durability::Aof && self.known().syncs_always
    }

    async fn ask_to_confirm(
        &self,
        connection: &mut Connection,
        key: &[u8],
        cmd: &Cmd,
    ) -> Result<(), StoreError> {
        let answer = connection.send_to_node_of(key, cmd).await;
        let answer = answer.map_err(|error| self.failed(&error))?;
        // WAIT tells how many replicas have it, WAITAOF first whether the log here has.
        let count = match &answer {
            redis::Value::Array(counts) => counts.first(),
            count => Some(count),
        };
        if matches!(count, Some(redis::Value::Int(1..))) {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!(
            "Redis at {} has carried it out, but within {CONFIRM_MS} ms it was not as durable as \
             --redis-durability {} asks for",
            self.address.shown(),
            self.durability
        )))
    }

    /// Looks whether the keys of all queues are the service's own, and whether the user may do what
    /// the service does, by a call that changes nothing.
    pub(super) async fn rehearse(
        &self,
        connected: &Connected,
        scripts: &Scripts,
        call: &Cmd,
    ) -> Result<(), RedisTrouble> {
        let address = self.address.shown();
        let mut connection = connected.connection.clone();
        for (key, own) in [(QUEUES, "zset"), (TOKENS, "hash")] {
            let mut asking = redis::cmd("TYPE");
            let kind = asking.arg(key).query_async(&mut connection).await;
            let kind: String = kind.map_err(|error| away(address, &error))?;
            if kind != "none" && kind != own {
                let (address, what) = (
                    address.to_owned(),
                    format!(
                        "has a {kind} at {key}, which is not this service's: rename it, or use another \
                     database"
                    ),
                );
                return Err(RedisTrouble::Unfit { address, what });
            }
        }
        match scripts.send(&mut connection, call).await {
            Err(error) if error.code() == Some("NOPERM") => Err(away(address, &error)),
            // What is wrong for a while, as when it is full, is told by the calls that it fails.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Lets requests go over a connection.
    pub(super) fn begin(&self, connected: &Connected) {
        self.set_known(connected.known.clone());
        self.set(State::Up(connected.connection.clone()));
    }

    fn set_known(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Returns the connection that all share.
    pub(super) fn connection(&self) -> Result<Connection, StoreError> {
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
        let is_cluster = matches!(self.connection(), Ok(Connection::Cluster(_)));
        if is_cluster {
            // Its connection looks for the nodes by itself, and others go on meanwhile.
            tracing::debug!(%error, "a node of the Redis Cluster has failed");
        } else if is_lost {
            self.set(State::Down(format!(
                "Redis at {}: {error}",
                self.address.shown()
            )));
            self.lost.notify_one();
        } else {
            tracing::warn!(%error, "Redis has refused a script");
        }
        StoreError::Unavailable(format!("Redis at {}: {error}", self.address.shown()))
    }

    /// Connects, looks whether this Redis may be used, and listens for news.
    pub(super) async fn connect(&self) -> Result<Connected, RedisTrouble> {
        let mut nodes = self.address.nodes().await?.into_iter();
        let mut last = None;
        for node in nodes.by_ref() {
            match self.connect_to(node).await {
                Ok(connected) => return Ok(connected),
                Err(trouble) => last = Some(trouble),
            }
        }
        Err(last.unwrap_or_else(|| RedisTrouble::Url(self.address.shown().to_owned())))
    }

    async fn connect_to(&self, node: ConnectionInfo) -> Result<Connected, RedisTrouble> {
        let address = node.addr().to_string();
        let away = |error: RedisError| away(&address, &error);
        let client = Client::open(node.clone()).map_err(away)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = Connection::One(connecting.await.map_err(away)?);
        let traits = traits_of(&mut connection).await.map_err(away)?;
        if traits.iter().any(Traits::is_cluster) {
            let unfit = |what: &str| RedisTrouble::Unfit {
                address: address.clone(),
                what: what.into(),
            };
            if node.redis_settings().db() != 0 {
                return Err(unfit("is a Redis Cluster, which has database 0 only"));
            }
            let seeds = self.address.nodes().await?;
            let cluster = ClusterClient::builder(seeds)
                .connection_timeout(CONNECT)
                .response_timeout(ANSWER)
                .retries(CLUSTER_RETRIES)
                .build()
                .map_err(away)?;
            let cluster = cluster.get_async_connection().await.map_err(away)?;
            connection = Connection::Cluster(cluster);
        }
        let known = self.examine(&mut connection, &address).await?;
        let mut listener = tokio::time::timeout(CONNECT, client.get_async_pubsub())
            .await
            .map_err(|_| away(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?
            .map_err(away)?;
        listener.subscribe(NEWS).await.map_err(away)?;
        let news = listener.into_on_message();
        Ok(Connected {
            node,
            connection,
            known,
            news,
        })
    }

    /// Looks whether every primary keeps what it is given.
    async fn examine(
        &self,
        connection: &mut Connection,
        address: &str,
    ) -> Result<Known, RedisTrouble> {
        let traits = traits_of(connection).await;
        let traits = traits.map_err(|error| away(address, &error))?;
        for one in &traits {
            if let Some(what) = one.unfit(self.durability) {
                let address = address.to_owned();
                return Err(RedisTrouble::Unfit { address, what });
            }
            one.tell(address);
        }
        Ok(self.note(&traits))
    }

    /// Notes how full the fullest is; returns what the weakest promises, and the epoch of all
    /// together.
    fn note(&self, traits: &[Traits]) -> Known {
        let fullest = traits.iter().map(Traits::percent_full).max();
        self.percent_full
            .store(fullest.unwrap_or(0), Ordering::Relaxed);
        let promises = traits.iter().map(|one| one.promise(self.durability));
        let epoch = if self.durability == Durability::Replicated {
            "replicated".into()
        } else {
            let epochs = traits.iter().map(|one| one.epoch(self.durability));
            let mut epochs: Vec<String> = epochs.collect();
            epochs.sort();
            epochs.join(",").into()
        };
        Known {
            epoch,
            promise: promises.max().unwrap_or(Promise::Memory),
            syncs_always: traits.iter().all(Traits::syncs_always),
        }
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
            let Some(now) = connected.take() else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
                match self.connect().await {
                    Ok(again) => {
                        tracing::info!(redis.address = self.address.shown(), "Redis is back");
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
            self.begin(&now);
            hear(None);
            tokio::select! {
                () = self.listen(now.connection, now.news, &stop, &hear) => {}
                () = self.address.until_moved(&now.node) => self.set(State::Down(format!(
                    "Redis at {} has another primary now", self.address.shown()
                ))),
            }
            if self.trouble().is_none() {
                let text = format!("Redis at {}: the connection was lost", self.address.shown());
                self.set(State::Down(text));
            }
        }
    }

    async fn listen(
        &self,
        mut connection: Connection,
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
                    match traits_of(&mut connection).await {
                        Ok(traits) => {
                            // Settings may be changed while it runs.
                            if let Some(what) = traits.iter().find_map(Traits::drops_keys) {
                                let address = self.address.shown();
                                self.set(State::Down(format!("Redis at {address} {what}")));
                                return;
                            }
                            self.set_known(self.note(&traits));
                        }
                        Err(error) => {
                            self.failed(&error);
                            // Of a cluster the other nodes go on.
                            if self.trouble().is_some() {
                                return;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Says why a Redis cannot be used.
fn away(address: &str, error: &RedisError) -> RedisTrouble {
    let what = match error.kind() {
        ErrorKind::AuthenticationFailed => {
            "refuses the credentials (they stand in the URL: redis://user:password@host, or \
             unix:///path?user=user&pass=password)"
        }
        _ if error.code() == Some("NOAUTH") => {
            "wants a password (redis://:password@host, redis://user:password@host, or \
             unix:///path?pass=password)"
        }
        _ if error.code() == Some("NOPERM") => {
            "lets this user do too little (ACL SETUSER USER ~gangline:* &gangline:* +@read +@write \
             +@scripting +@pubsub +@connection +info +config|get +time +wait gives what is needed)"
        }
        ErrorKind::Io if error.to_string().contains("certificate") => {
            "shows a certificate that is not trusted (SSL_CERT_FILE names a file with the \
             certificate authorities that are, in PEM)"
        }
        ErrorKind::Io => UNREACHABLE,
        _ => "cannot be used",
    };
    RedisTrouble::Away {
        address: address.to_owned(),
        what,
        detail: error.to_string(),
    }
}
