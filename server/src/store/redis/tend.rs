//! What a replica does by itself: it looks after queues when their time comes, after those that
//! nobody else looks after, and after those for which it holds calls.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use gangline_protocol::QueueName;
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::fields::Fields;
use super::scripts::{Script, Scripts};
use super::{Inner, keys};
use crate::queue::Signal;
use crate::store::StoreError;

/// How often the registry and the queues with held calls are looked at.
const ROUND: Duration = Duration::from_secs(2);

/// For how long a queue is claimed: at least so often some replica looks after it.
const CLAIM_MS: u64 = 30_000;

/// How long after its time a queue is looked after by others than those who know that time.
const LATE_MS: u64 = 2_000;

/// Queues looked after at a time; the rest is due at once and comes next.
const QUEUES_AT_A_TIME: usize = 64;

/// Before a tick that failed is tried again, in milliseconds.
const TRY_AGAIN_MS: u64 = 1_000;

/// Claims so many queues that nobody has looked after for a while.
pub(super) fn claim(scripts: &Scripts, max: usize) -> Cmd {
    let mut cmd = scripts.call(Script::Claim);
    cmd.arg(1).arg(keys::QUEUES).arg(max).arg(CLAIM_MS);
    cmd
}

impl Inner {
    pub(super) async fn tend(self: Arc<Self>) {
        let mut round = Instant::now();
        loop {
            self.schedule.wait(round).await;
            let due = self.schedule.take_due(QUEUES_AT_A_TIME);
            join_all(due.iter().map(|queue| self.tick_or_retry(queue))).await;
            if round <= Instant::now() {
                round = Instant::now() + ROUND;
                // Redis being away is told by the link, and what is due stays due.
                while matches!(self.claim().await, Ok(true)) {}
                self.ask_for_waiters().await;
            }
        }
    }

    async fn tick_or_retry(&self, queue: &QueueName) {
        if let Err(error) = self.tick(queue).await {
            tracing::debug!(queue.name = %queue, %error, "a tick has failed");
            self.schedule.set(queue, Some(TRY_AGAIN_MS));
        }
    }

    /// Looks after queues that no replica has looked after for a while; tells whether there may be
    /// more of them.
    async fn claim(&self) -> Result<bool, StoreError> {
        let cmd = claim(&self.scripts, QUEUES_AT_A_TIME);
        let mut fields = Fields::of(self.send(&cmd).await?)?;
        let claimed_until = fields.number()?;
        let mut names = fields.list()?;
        let is_full = names.left() == QUEUES_AT_A_TIME;
        let mut queues: Vec<QueueName> = Vec::new();
        while names.left() > 0 {
            queues.extend(names.text()?.parse::<QueueName>());
        }
        let looks = queues
            .iter()
            .map(|queue| self.look_after(queue, claimed_until));
        try_join_all(looks).await?;
        Ok(is_full)
    }

    async fn look_after(&self, queue: &QueueName, claimed_until: u64) -> Result<(), StoreError> {
        match self.head(queue).await {
            Ok(_) => {
                let due_in_ms = self.tick(queue).await?.unwrap_or(CLAIM_MS);
                let left_ms = CLAIM_MS.saturating_sub(due_in_ms.saturating_add(LATE_MS));
                self.claim_until(queue, claimed_until - left_ms).await
            }
            Err(StoreError::Refused(_)) => self.unregister(queue, claimed_until).await,
            Err(error) => Err(error),
        }
    }

    /// Shortens a claim.
    async fn claim_until(&self, queue: &QueueName, until_ms: u64) -> Result<(), StoreError> {
        const SHORTEN: &str = "#!lua flags=allow-oom\n\
                               redis.call('ZADD', KEYS[1], 'XX', ARGV[1], ARGV[2])";
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(SHORTEN)
            .arg(1)
            .arg(keys::QUEUES)
            .arg(until_ms)
            .arg(queue.full());
        self.send_plain::<Value>(&cmd).await?;
        Ok(())
    }

    /// Takes a queue that is gone out of the registry, unless it was made anew meanwhile.
    async fn unregister(&self, queue: &QueueName, claimed_until: u64) -> Result<(), StoreError> {
        const REMOVE: &str = "if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then \
                              redis.call('ZREM', KEYS[1], ARGV[1]) end";
        self.forget(queue);
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(REMOVE)
            .arg(1)
            .arg(keys::QUEUES)
            .arg(queue.full())
            .arg(claimed_until);
        self.send_plain::<Value>(&cmd).await?;
        Ok(())
    }

    /// Wakes held calls whose news was lost on its way.
    async fn ask_for_waiters(&self) {
        for queue in self.hub.awaited() {
            match self.head(&queue).await {
                Ok((head, _)) if head.is_over() => self.hub.tell(&Signal::Over { queue }),
                Ok((_, 0)) => {}
                Ok((_, items)) => self.hub.tell(&Signal::Ready { queue, items }),
                // It is gone: whoever waits asks again, and hears of it.
                Err(StoreError::Refused(_)) => self.hub.tell(&Signal::Over { queue }),
                Err(_) => return,
            }
        }
    }
}
