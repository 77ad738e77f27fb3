//! When to send a call again that was not answered.
//!
//! Every wait is drawn between nothing and a bound that doubles from try to try ("full jitter"):
//! many workers that lost the service in the same moment do not come back in one. What the service
//! asks for itself (`Retry-After`) is waited on top of that.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ClientError;

/// The waits between tries of one kind of call.
///
/// ```
/// use std::time::Duration;
///
/// use gangline_worker::retry::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// assert!(backoff.draw() <= Duration::from_millis(50));
/// assert!(backoff.draw() <= Duration::from_millis(100));
/// backoff.answered();
/// assert!(backoff.draw() <= Duration::from_millis(50));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    bound: Duration,
}

impl Backoff {
    /// Makes one whose waits are at most `first` at the first try, twice that at the next, and
    /// never longer than `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            bound: first,
        }
    }

    /// Begins anew: the last call was answered.
    pub fn answered(&mut self) {
        self.bound = self.first;
    }

    /// Draws the next wait.
    pub fn draw(&mut self) -> Duration {
        let bound = self.bound.min(self.longest);
        self.bound = (bound * 2).min(self.longest);
        part_of(bound)
    }

    /// Draws the next wait after `error`: at least as long as the service has asked for.
    pub fn after(&mut self, error: &ClientError) -> Duration {
        error.retry_after().unwrap_or_default() + self.draw()
    }
}

/// Draws a duration between nothing and `bound`, all equally likely.
fn part_of(bound: Duration) -> Duration {
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random() % nanos.saturating_add(1).max(1))
}

/// Draws a number.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the SDK that draws random numbers"
)]
pub(crate) fn random() -> u64 {
    // Version and variant are fixed bits of either half; folded, each is covered by a random one.
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low.rotate_left(32)
}

/// First and longest bound of the waits of [`until_answered`].
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Makes a call until it is answered, for at most `patience` without a sign of the service. A
/// service that names the time to come again has given one.
///
/// The call must be one that may be repeated: all calls of [`Client`](crate::Client) are, but a
/// push only if its items have keys or it has an idempotency key.
///
/// ```no_run
/// # async fn example(client: gangline_worker::Client) -> Result<(), gangline_worker::ClientError> {
/// use std::time::Duration;
///
/// use gangline_worker::retry::until_answered;
///
/// let queue = "images".parse().expect("it is a name");
/// let status = until_answered(Duration::from_secs(60), || client.status(&queue)).await?;
/// println!("{} items are left", status.counts.left());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The first that [cannot be retried](ClientError::is_retryable), or the last one.
pub async fn until_answered<T, F>(
    patience: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut backoff = Backoff::new(FIRST, LONGEST);
    let mut silent_since = None;
    // Not known to have failed without effect: what is answered later may be the effect of this.
    let mut lost_an_answer = false;
    loop {
        let mut error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        lost_an_answer |= error.may_have_taken_effect();
        let now = Instant::now();
        if error.retry_after().is_some() {
            silent_since = None;
        }
        let since = *silent_since.get_or_insert(now);
        if !error.is_retryable() || now - since >= patience {
            if let ClientError::Unavailable(outage) = &mut error {
                outage.arrived |= lost_an_answer;
            }
            return Err(error);
        }
        tracing::debug!(%error, "not answered; trying again");
        tokio::time::sleep(backoff.after(&error)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Outage;

    fn outage(retry_after: Option<Duration>) -> ClientError {
        ClientError::Unavailable(Outage {
            text: "away".into(),
            retry_after,
            arrived: false,
        })
    }

    #[test]
    fn waits_are_spread_over_all_of_their_bound() {
        let bound = Duration::from_millis(100);
        let drawn: Vec<_> = (0..1_000).map(|_| part_of(bound)).collect();
        assert!(drawn.iter().all(|wait| *wait <= bound));
        // That none of a thousand is in one of the ten parts has a chance of 10^-45.
        for tenth in 0..10 {
            let part = bound * tenth / 10..=bound * (tenth + 1) / 10;
            assert!(drawn.iter().any(|wait| part.contains(wait)), "{tenth}");
        }
    }

    #[test]
    fn bounds_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(150));
        let bounds: Vec<_> = (0..4)
            .map(|_| {
                let bound = backoff.bound.as_millis();
                backoff.draw();
                bound
            })
            .collect();
        assert_eq!(bounds, [50, 100, 150, 150]);
    }

    #[test]
    fn what_the_service_asks_for_is_waited_at_least() {
        let asked = Duration::from_secs(7);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let wait = backoff.after(&outage(Some(asked)));
        assert!((asked..=asked + Duration::from_millis(50)).contains(&wait));
        assert!(backoff.after(&outage(None)) <= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_call_is_made_until_it_is_answered_or_refused_or_patience_ends() {
        let mut tries = 0;
        let answer = until_answered(Duration::from_secs(60), || {
            tries += 1;
            let answer = if tries < 3 {
                Err(outage(None))
            } else {
                Ok(tries)
            };
            async { answer }
        });
        assert_eq!(answer.await.unwrap(), 3);
        let refused = || async { Err::<(), _>(ClientError::Protocol("odd".into())) };
        let error = until_answered(Duration::from_secs(60), refused).await;
        assert!(matches!(error, Err(ClientError::Protocol(_))));
        let away = || async { Err::<(), _>(outage(None)) };
        let error = until_answered(Duration::ZERO, away).await.unwrap_err();
        assert!(error.is_retryable() && !error.may_have_taken_effect());
    }

    #[tokio::test]
    async fn an_answer_lost_at_an_earlier_try_is_not_forgotten() {
        let mut tries = 0;
        let error = until_answered(Duration::from_millis(20), || {
            tries += 1;
            let mut error = outage(None);
            if let ClientError::Unavailable(outage) = &mut error {
                outage.arrived = tries == 1;
            }
            async { Err::<(), _>(error) }
        });
        assert!(error.await.unwrap_err().may_have_taken_effect());
        assert!(tries > 1);
    }
}
