//! An effect from its claim on, in a task of its own.
//!
//! A shard can move, or a time limit can pass, before the answer arrives. Nobody waits for the answer
//! then, but only this process can still find out how the effect ended.

use std::any::Any;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::OnceSettings;
use super::attempt::{Claimed, EffectBegun, Request};
use super::claims::{Claims, LOOK_AGAIN, SLACK};
use super::job::{Job, Stop};
use super::outcome::{Counted, Outcome};
use super::payload::Payload;
use super::window::Passage;
use crate::core::claim::{ClaimRule, Entry, Happened, OnAmbiguous};
use crate::engine::handler::Failure;
use crate::stores::ledger::{EffectKey, Ledger};

/// The future of an effect.
pub(super) type Action = BoxFuture<'static, Result<Outcome, Failure>>;

/// An effect to claim, and to perform if the claim succeeds.
pub(super) struct Performance<L> {
    pub(super) claims: Arc<Claims<L>>,
    pub(super) job: Job,
    pub(super) nonce: u64,
    pub(super) effect: Action,
    pub(super) request: Request,
    pub(super) pass: Passage,
    pub(super) report: oneshot::Sender<AttemptReport>,
}

/// What the caller learns, if it still waits.
pub(super) enum AttemptReport {
    /// The attempt has ended.
    Ended(Result<(), Failure>),
    /// The row has changed what to perform.
    Again(Box<Job>),
    /// The effect panicked.
    Panicked(Box<dyn Any + Send>),
}

/// How the effect ended.
enum End {
    Returned(Result<Outcome, Failure>),
    Panicked(Box<dyn Any + Send>),
    /// The caller stopped waiting, and the effect has not begun.
    GivenUp,
    /// It took longer than this.
    Late(Duration),
}

impl<L: Ledger> Performance<L> {
    pub(super) async fn run(self) {
        let Self {
            claims,
            mut job,
            nonce,
            mut effect,
            request,
            pass,
            mut report,
        } = self;
        let start_by = Instant::now() + claims.settings.longest_start + SLACK / 2;
        let OnceSettings {
            on_ambiguous,
            provider_remembers,
            ..
        } = &claims.settings;
        // Else no effect is ever repeated.
        let repeats = *on_ambiguous == OnAmbiguous::Resend || provider_remembers.is_some();
        let payload = request.payload.map(|bytes| Payload::of(&bytes, repeats));
        let payload = payload.unwrap_or_default();
        let entry = match claims.claim(&mut job, &payload, nonce).await {
            Ok(entry) => entry,
            Err(Stop::Changed) => {
                return send_report(Some(report), AttemptReport::Again(Box::new(job)));
            }
            Err(stop) => {
                let result = claims.stopped(&job, stop);
                return send_report(Some(report), AttemptReport::Ended(result));
            }
        };
        let (claimed, begun) = Claimed::new(&job.context, start_by);
        // The effect waits for this.
        let _ = request.answer.send(claimed);
        let longest = claims.longest_effect(&job.context);
        let forgets = !claims.keeps(ClaimRule::SeenThrough);
        let end = tokio::select! {
            biased;
            end = AssertUnwindSafe(&mut effect).catch_unwind() => match end {
                Ok(ended) => End::Returned(ended),
                Err(panic) => End::Panicked(panic),
            },
            () = given_up(&mut report, &begun, forgets) => End::GivenUp,
            () = sleep(longest) => End::Late(longest),
        };
        drop(effect);
        let (outcome, panic) = end.outcome(&begun);
        let meaning = outcome.meaning(entry.fence, claims.settings.left_out);
        pass.end(meaning.answer);
        let mut report = Some(report);
        let happened = &meaning.happened;
        let row = recorded(&claims, &job.key, &entry, happened, &mut report).await;
        if row
            .as_ref()
            .is_some_and(|row| row.closed_doubts(entry.fence))
        {
            claims.tally.add(Counted::Closed);
        }
        let result = claims.concluded(&job, row.as_ref(), (meaning.counted, meaning.result));
        send_report(
            report,
            panic.map_or(AttemptReport::Ended(result), AttemptReport::Panicked),
        );
    }
}

/// Reports to the caller, which may be gone or may have failed already.
fn send_report(report: Option<oneshot::Sender<AttemptReport>>, what: AttemptReport) {
    if let Some(report) = report {
        let _ = report.send(what);
    }
}

/// Waits until the caller is gone. An effect that has begun by then is not given up.
async fn given_up(report: &mut oneshot::Sender<AttemptReport>, begun: &EffectBegun, forgets: bool) {
    report.closed().await;
    if !begun.give_up() && !forgets {
        pending::<()>().await;
    }
}

/// Records the outcome of a claim, and returns the row that is there then. If the ledger does not
/// answer, this retries for as long as the process lives: nobody else knows the outcome. The caller
/// does not wait for that.
async fn recorded<L: Ledger>(
    claims: &Claims<L>,
    key: &EffectKey,
    entry: &Entry,
    happened: &Happened,
    report: &mut Option<oneshot::Sender<AttemptReport>>,
) -> Option<Entry> {
    loop {
        let row = Some(entry.clone());
        match claims.rows.record(key, row, happened).await {
            Ok(row) => return row,
            Err(error) => {
                tracing::error!(
                    effect = %key,
                    outcome = ?happened,
                    error = format!("{error:#}"),
                    "cannot record the outcome; retrying. If this process ends first, the \
                     effect becomes AMBIGUOUS"
                );
                let unavailable = Err(Failure::Unavailable(error));
                send_report(report.take(), AttemptReport::Ended(unavailable));
            }
        }
    }
}

impl End {
    /// How the effect ended, and its panic. An effect that has begun and did not report its outcome is
    /// in doubt.
    fn outcome(self, begun: &EffectBegun) -> (Outcome, Option<Box<dyn Any + Send>>) {
        let (why, failure, panic) = match self {
            Self::Returned(Ok(outcome)) => return (outcome, None),
            Self::Returned(Err(failure)) => (failure.to_string(), failure, None),
            Self::Panicked(panic) => {
                let why = "the effect panicked".to_owned();
                (why.clone(), Failure::retry(why), Some(panic))
            }
            Self::GivenUp => {
                let why = "given up before it began: its worker stopped waiting";
                let busy = Failure::Busy(LOOK_AGAIN);
                return (Outcome::NotBegun(why.to_owned(), busy), None);
            }
            Self::Late(longest) => {
                let why = format!("no answer within {longest:?}");
                (why.clone(), Failure::retry(why), None)
            }
        };
        let outcome = if begun.give_up() {
            Outcome::NotBegun(why, failure)
        } else {
            Outcome::Unknown(why)
        };
        (outcome, panic)
    }
}
