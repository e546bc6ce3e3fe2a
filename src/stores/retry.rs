//! Repeats calls with full jitter between the attempts.
//!
//! Every caller uses a [`Policy`] from here, so that all of them can be compared. Four loops are
//! elsewhere: a shard's reader sleeps between reads anyway, the search for children changes its
//! question, a start reports why it waits, and a hand-over pauses as its worker's settings say.

use std::future::Future;
use std::time::Duration;

use anyhow::anyhow;
use tracing::warn;

use crate::core::backoff::Backoff;

/// How a call is repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// The first and the longest pause, in milliseconds.
    pauses: (u64, u64),
    /// The most attempts. `None`: no limit.
    tries: Option<u32>,
    /// The timeout of one attempt.
    limit: Option<Duration>,
}

/// A call whose answer must come.
pub(crate) const UNTIL_ANSWERED: Policy = Policy::new((100, 5_000), None);

/// A write that collided with another write of the same row. Many takes collide at a dead worker's row,
/// and many letters at one lease, so the pauses are short.
pub(crate) const CONFLICT: Policy = Policy::new((20, 200), Some(10));

/// The ledger, before an email is sent: the record waits meanwhile and can be retried as a whole.
pub(crate) const LEDGER: Policy =
    Policy::new((100, 10_000), Some(3)).within(Duration::from_secs(10));

/// The ledger, after an email was sent: an unrecorded outcome becomes a doubt. A few minutes, with the
/// pauses.
pub(crate) const OUTCOME: Policy =
    Policy::new((100, 20_000), Some(20)).within(Duration::from_secs(10));

/// The dead-letter store during a redrive, which a person may be watching.
pub(crate) const REDRIVE: Policy = Policy::new((200, 5_000), Some(5));

/// A copy of a dead letter: its caller decides when to give up.
#[cfg(feature = "sqs")]
pub(crate) const COPY: Policy = Policy::new((100, 5_000), None).within(Duration::from_secs(10));

impl Policy {
    const fn new(pauses: (u64, u64), tries: Option<u32>) -> Self {
        Self {
            pauses,
            tries,
            limit: None,
        }
    }

    /// The same, with a timeout for each attempt.
    pub const fn within(self, limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// The pause after this many attempts.
    pub fn pause(&self, tries: u32, rng: &mut fastrand::Rng) -> Duration {
        let (base, cap) = self.pauses;
        let (base, cap) = (Duration::from_millis(base), Duration::from_millis(cap));
        Backoff { base, cap }.wait(tries, rng)
    }

    /// Calls until there is an answer, `passes` rejects the error, or the attempts are used up.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub async fn call<T, F>(
        &self,
        rng: &mut fastrand::Rng,
        mut passes: impl FnMut(&anyhow::Error) -> bool,
        call: impl Fn() -> F,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = match self.limit {
                None => call().await,
                Some(limit) => tokio::time::timeout(limit, call())
                    .await
                    .unwrap_or_else(|_| Err(anyhow!("no answer within {limit:?}"))),
            };
            match answer {
                Err(error) if self.tries.is_none_or(|most| tries < most) && passes(&error) => {}
                answer => return answer,
            }
            tokio::time::sleep(self.pause(tries, rng)).await;
        }
    }
}

/// Repeats a call whose answer must come, each attempt for at most `limit`, and logs each failure as
/// `what`.
pub(crate) async fn persist<T, F: Future<Output = anyhow::Result<T>>>(
    limit: Duration,
    mut rng: fastrand::Rng,
    what: &'static str,
    call: impl Fn() -> F,
) -> T {
    let policy = UNTIL_ANSWERED.within(limit);
    let failed = |error: &anyhow::Error| {
        warn!(error = format!("{error:#}"), "{what} failed and is retried");
        true
    };
    loop {
        if let Ok(answer) = policy.call(&mut rng, failed, &call).await {
            return answer;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use std::cell::Cell;

    use tokio::time::Instant;

    async fn tries(policy: Policy, fail: u32) -> (anyhow::Result<u32>, u32) {
        let made = Cell::new(0);
        let call = || {
            made.set(made.get() + 1);
            let made = made.get();
            async move {
                if made > fail {
                    Ok(made)
                } else {
                    Err(anyhow!("no {made}"))
                }
            }
        };
        let mut rng = fastrand::Rng::with_seed(1);
        let answer = policy.call(&mut rng, |_| true, call).await;
        (answer, made.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_repeated_until_it_succeeds_or_its_tries_are_used_up() {
        assert_eq!(tries(CONFLICT, 9).await.0.unwrap(), 10);
        let (answer, made) = tries(CONFLICT, 100).await;
        assert_eq!(
            (answer.unwrap_err().to_string(), made),
            ("no 10".to_owned(), 10)
        );
        assert_eq!(tries(UNTIL_ANSWERED, 1_000).await.0.unwrap(), 1_001);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_does_not_pass_is_final() {
        let mut rng = fastrand::Rng::with_seed(1);
        let call = || async { Err::<(), _>(anyhow!("denied")) };
        let answer = UNTIL_ANSWERED.call(&mut rng, |_| false, call).await;
        assert_eq!(answer.unwrap_err().to_string(), "denied");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_hangs_is_given_up_and_repeated() {
        let began = Instant::now();
        let hangs = || std::future::pending::<anyhow::Result<()>>();
        let mut rng = fastrand::Rng::with_seed(1);
        let policy = CONFLICT.within(Duration::from_secs(10));
        let answer = policy.call(&mut rng, |_| true, hangs).await;
        assert_eq!(answer.unwrap_err().to_string(), "no answer within 10s");
        assert!(began.elapsed() >= Duration::from_secs(100), "ten tries");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_the_longest() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (tries, most) in [(1, 100), (2, 200), (7, 5_000), (u32::MAX, 5_000)] {
            for _ in 0..100 {
                let pause = UNTIL_ANSWERED.pause(tries, &mut rng);
                assert!(pause <= Duration::from_millis(most), "{tries}: {pause:?}");
            }
        }
    }
}
