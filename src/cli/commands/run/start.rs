//! Waits and retries while AWS is unreachable or a table is missing, since no setting is wrong.

use std::time::Duration;

use crate::monitor::Status;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::cli::fault::Fault;

/// The first pause, doubled by each failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Retries `attempt` while AWS is unreachable or throttles, or while the table of a group that has
/// begun is missing. Meanwhile the status says why the process has not started.
///
/// # Errors
///
/// The first failure that a later attempt cannot help.
pub async fn once_reached<T, F>(status: &Status, mut attempt: impl FnMut() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut pause = FIRST;
    loop {
        let outcome = attempt().await;
        let fault = match outcome {
            Err(fault) if fault.passes() => fault,
            Ok(done) => {
                if pause > FIRST {
                    info!("the start continues");
                }
                return Ok(done);
            }
            failed => return failed,
        };
        status.start_failed(fault.to_string());
        warn!(error = %fault, "the start waits and is retried in {} s", pause.as_secs());
        sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        pause = (pause * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use crate::Clock;
    use crate::stores::source::SourceError;

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_out_a_throttle_and_not_a_wrong_setting() {
        let status = Status::starting(Clock::system());
        let mut answers = [
            Err(Fault::setting(SourceError::Throttled(
                "slow down".to_owned(),
            ))),
            Err(Fault::setting(SourceError::Throttled(
                "slow down".to_owned(),
            ))),
            Ok(()),
        ]
        .into_iter();
        once_reached(&status, || std::future::ready(answers.next().unwrap()))
            .await
            .unwrap();
        let why = status.ready().unwrap_err().to_string();
        assert!(why.contains("slow down"), "{why}");
        assert!(answers.next().is_none());
        let mut calls = 0;
        let wrong = once_reached(&status, || {
            calls += 1;
            std::future::ready(Err::<(), _>(Fault::wrong("no such table")))
        });
        assert!(matches!(wrong.await, Err(Fault::Setting(_))));
        assert_eq!(calls, 1);
    }
}
