//! Whether a Redis may be used, and what it promises, from what it tells of itself.

use gangline_protocol::Durability as Promise;
use redis::RedisError;

use super::connection::Connection;
use super::durability::Durability;

/// What `INFO` and `CONFIG` of one Redis tell.
pub(super) struct Traits {
    info: String,
    /// `appendfsync`; nothing where CONFIG is forbidden, as managed services do.
    appendfsync: Option<String>,
}

impl Traits {
    pub(super) fn new(info: String, appendfsync: Option<String>) -> Self {
        Self { info, appendfsync }
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.info.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }

    fn number(&self, name: &str) -> u64 {
        let text = self.field(name).unwrap_or_default();
        text.parse().unwrap_or(0)
    }

    fn version(&self) -> (u32, u32) {
        let text = self.field("redis_version").unwrap_or_default();
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.field("cluster_enabled") == Some("1")
    }

    fn has_log(&self) -> bool {
        self.field("aof_enabled") == Some("1")
    }

    /// A reply comes after the sync of what it acknowledges.
    pub(super) fn syncs_always(&self) -> bool {
        self.has_log() && self.appendfsync.as_deref() == Some("always")
    }

    /// What an acknowledgement promises.
    pub(super) fn promise(&self, durability: Durability) -> Promise {
        match durability {
            Durability::Replicated => Promise::Replicated,
            Durability::Aof => Promise::Synced,
            Durability::Memory if self.syncs_always() => Promise::Synced,
            Durability::Memory if self.has_log() => Promise::Logged,
            Durability::Memory => Promise::Memory,
        }
    }

    /// Percent of `maxmemory` in use; 0 where there is no limit.
    pub(super) fn percent_full(&self) -> u64 {
        let used = self.number("used_memory");
        used.saturating_mul(100)
            .checked_div(self.number("maxmemory"))
            .unwrap_or(0)
    }

    /// Stays the same for as long as nothing that was acknowledged can have been lost: across
    /// restarts of one whose log has it by then, until a replica takes over; else until a restart.
    pub(super) fn epoch(&self, durability: Durability) -> String {
        // Whoever asks for `aof` acknowledges nothing before its sync.
        if self.syncs_always() || self.has_log() && durability == Durability::Aof {
            let before = self.field("master_replid2").unwrap_or("0");
            format!("log-{}", before.trim_start_matches('0'))
        } else {
            self.field("run_id").unwrap_or("unknown").to_owned()
        }
    }

    /// Says that it would drop queues without a word, if it would.
    pub(super) fn drops_keys(&self) -> Option<String> {
        let policy = self.field("maxmemory_policy").unwrap_or("noeviction");
        let drops = self.number("maxmemory") > 0 && policy != "noeviction";
        drops.then(|| {
            format!(
                "drops keys when its memory is full (maxmemory-policy {policy}), and queues with \
                 them: set `maxmemory-policy noeviction`"
            )
        })
    }

    /// Says why it must not be used.
    pub(super) fn unfit(&self, durability: Durability) -> Option<String> {
        let version = self.field("redis_version").unwrap_or("unknown");
        if self.version().0 < 7 {
            return Some(format!("is version {version}; Gangline needs 7.0 or later"));
        }
        if self.field("role") == Some("slave") {
            return Some(
                "is a replica, which takes no writes: give the address of its primary".into(),
            );
        }
        if let Some(what) = self.drops_keys() {
            return Some(what);
        }
        match durability {
            Durability::Memory => None,
            Durability::Aof if !self.has_log() => Some(
                "keeps no log, and --redis-durability aof was asked for: set `appendonly yes`"
                    .into(),
            ),
            Durability::Aof if !self.syncs_always() && self.version() < (7, 2) => Some(format!(
                "is version {version}, which cannot tell when its log is synced, and \
                 --redis-durability aof was asked for: set `appendfsync always`, or use 7.2"
            )),
            Durability::Replicated if self.number("connected_slaves") == 0 => Some(
                "has no replica, and --redis-durability replicated was asked for: add one with \
                 `replicaof`"
                    .into(),
            ),
            Durability::Aof | Durability::Replicated => None,
        }
    }

    /// Tells in the log what a crash of this Redis may lose.
    pub(super) fn tell(&self, address: &str) {
        if self.syncs_always() {
            tracing::info!(
                redis.address = address,
                "Redis syncs every write: what is acknowledged survives its crash"
            );
        } else if self.has_log() {
            tracing::warn!(
                redis.address = address,
                redis.appendfsync = self.appendfsync.as_deref().unwrap_or("unknown"),
                "Redis may lose its last writes in a crash, acknowledged ones too; \
                 appendfsync always rules that out"
            );
        } else {
            tracing::warn!(
                redis.address = address,
                "Redis keeps no log (appendonly no): a restart of it may lose every queue; \
                 appendonly yes with appendfsync always rules that out"
            );
        }
    }
}

/// Asks every primary what it is.
pub(super) async fn traits_of(connection: &mut Connection) -> Result<Vec<Traits>, RedisError> {
    let infos: Vec<String> = connection.ask_all(&redis::cmd("INFO")).await?;
    let mut asking = redis::cmd("CONFIG");
    asking.arg("GET").arg("appendfsync");
    // Managed services forbid CONFIG; then nobody can say.
    let told = connection.ask_all::<Vec<String>>(&asking).await;
    let told = told
        .unwrap_or_default()
        .into_iter()
        .map(|mut one| one.pop());
    // Where the nodes of a cluster differ, the weakest counts.
    let told: Vec<Option<String>> = told.collect();
    let sync = match told.iter().all(|one| one.as_deref() == Some("always")) {
        true => told.first().cloned().flatten(),
        false => told
            .into_iter()
            .find(|one| one.as_deref() != Some("always"))
            .flatten(),
    };
    let traits = infos.into_iter();
    Ok(traits.map(|info| Traits::new(info, sync.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "redis_version:7.0.15\r\nrole:master\r\ncluster_enabled:0\r\nrun_id:r1\r\n\
                        maxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n\
                        master_replid2:0000\r\nconnected_slaves:0\r\nused_memory:850\r\n";

    fn with(from: &str, to: &str) -> Traits {
        Traits::new(GOOD.replace(from, to), Some("always".into()))
    }

    #[test]
    fn a_redis_that_would_lose_queues_is_refused_with_what_to_do() {
        let (memory, aof) = (Durability::Memory, Durability::Aof);
        let replicated = Durability::Replicated;
        assert_eq!(with("", "").unfit(memory), None);
        assert_eq!(with("", "").unfit(aof), None);
        let evicts = with("noeviction", "allkeys-lru");
        assert_eq!(
            evicts.unfit(memory),
            None,
            "nothing is dropped without a limit"
        );
        for (traits, durability, expected) in [
            (with("7.0.15", "6.2.1"), memory, "7.0 or later"),
            (with("role:master", "role:slave"), memory, "primary"),
            (
                with("aof_enabled:1", "aof_enabled:0"),
                aof,
                "appendonly yes",
            ),
            (with("", ""), replicated, "has no replica"),
            (
                Traits::new(GOOD.into(), Some("everysec".into())),
                aof,
                "appendfsync always",
            ),
            (
                with(
                    "maxmemory:0\r\nmaxmemory_policy:no",
                    "maxmemory:9\r\nmaxmemory_policy:x",
                ),
                memory,
                "maxmemory-policy noeviction",
            ),
        ] {
            let told = traits.unfit(durability).expect(expected);
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn an_epoch_lasts_while_nothing_can_be_lost() {
        let (memory, aof) = (Durability::Memory, Durability::Aof);
        let restarted = with("run_id:r1", "run_id:r2");
        assert_eq!(with("", "").epoch(memory), restarted.epoch(memory));
        let taken_over = with("replid2:0000", "replid2:00ab");
        for durability in [memory, aof] {
            let before = with("", "").epoch(durability);
            assert_ne!(before, taken_over.epoch(durability));
        }
        let weak = |info: &str| Traits::new(info.into(), Some("everysec".into()));
        let restarted = weak(&GOOD.replace("run_id:r1", "run_id:r2"));
        assert_ne!(weak(GOOD).epoch(memory), restarted.epoch(memory));
        // What is acknowledged was synced before, though Redis syncs every second only.
        assert_eq!(weak(GOOD).epoch(aof), restarted.epoch(aof));
    }

    #[test]
    fn a_promise_is_no_stronger_than_redis_keeps_it() {
        let lazy = Traits::new(GOOD.into(), Some("everysec".into()));
        for (traits, durability, expected) in [
            (with("", ""), Durability::Memory, Promise::Synced),
            (with("", ""), Durability::Aof, Promise::Synced),
            (with("", ""), Durability::Replicated, Promise::Replicated),
            (lazy, Durability::Memory, Promise::Logged),
            (
                Traits::new(GOOD.into(), None),
                Durability::Memory,
                Promise::Logged,
            ),
            (
                with("aof_enabled:1", "aof_enabled:0"),
                Durability::Memory,
                Promise::Memory,
            ),
        ] {
            assert_eq!(traits.promise(durability), expected);
        }
    }

    #[test]
    fn memory_is_told_in_percent_of_its_limit() {
        assert_eq!(with("", "").percent_full(), 0);
        assert_eq!(with("maxmemory:0", "maxmemory:1000").percent_full(), 85);
    }
}
