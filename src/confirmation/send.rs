//! One order on its way: envelope, claim, message, outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Confirmation;
use super::kept::{pack, unpack};
use super::lookup::Lookup;
use super::mail::{Frozen, Mail};
use super::order::Order;
use super::outcome::Claimed;
use super::smtp::Stage;
use crate::core::claim::{
    Ask, Claimant, Entry, Happened, ItemRef, Kept, Liveness, OnAmbiguous, State, Verdict, claim,
};
use crate::gate::left_out;
use crate::once::attempt::{Attempt, Past};
use crate::stores::ledger::{EffectKey, Ledger, Swap};
use crate::{Context, Failure};

/// Between the last moment at which a reply is awaited and the deadline of a claim: time for the
/// ledger's answer, and for clocks that differ.
const SLACK: Duration = Duration::from_mins(5);
/// How soon to look again at what somebody else is at.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Rounds of losing the race for a claim before looking again later.
const ROUNDS: u32 = 16;

/// The attempt ends here: the record is settled, or it fails.
pub(super) type Ended = Result<(), Failure>;

/// An order, its effect, and the item that it is.
pub(super) type Subject<'a> = (&'a Order, &'a EffectKey, ItemRef);

/// One order on its way.
pub(super) struct Job<'a> {
    pub(super) order: &'a Order,
    pub(super) key: &'a EffectKey,
    pub(super) item: ItemRef,
    pub(super) context: &'a Context,
    past: Past,
    /// The ledger's row, as far as it is known.
    pub(super) row: Option<Entry>,
}

/// A mail and the date that it bears.
pub(super) struct Draft {
    mail: Mail,
    date: SystemTime,
    /// What the claim keeps of it.
    kept: Option<Kept>,
    /// Whether it is the mail of an earlier claim, as the ledger kept it.
    repeated: bool,
}

impl<L: Ledger, K: Lookup> Confirmation<L, K> {
    pub(super) async fn confirm(
        &self,
        subject: Subject<'_>,
        context: &Context,
    ) -> Result<(), Failure> {
        let (order, key) = (subject.0, subject.1);
        let mut job = self.job(subject, context).await?;
        let draft = self.draft(&job, self.now())?;
        if job.row.is_some()
            && let Err(ended) = self.ask(&job, Some(&draft), None, self.now())
        {
            context.did_not_ask();
            return ended;
        }
        let Some(turn) = self.window.begin() else {
            return Err(Failure::Busy(LOOK_AGAIN));
        };
        let offer = match self.transport.offer(&draft.mail).await {
            Ok(offer) => offer,
            Err(refusal) => return self.not_offered(job, refusal).await,
        };
        let pass = self.window.pass(turn).await;
        let (true, Some(pass)) = (context.may_act(), pass) else {
            return Err(Failure::Busy(LOOK_AGAIN));
        };
        let start_by = Instant::now() + self.transport.longest_start() + SLACK / 2;
        let mut attempt = Attempt::new(&self.memory, key, self.nonce());
        let (entry, mail) = match self.claim(&mut job, draft, &mut attempt).await {
            Ok(claimed) => claimed,
            Err(ended) => return ended,
        };
        let begun = attempt.must_be_seen_through();
        let claimed = Claimed {
            book: self.book.clone(),
            counts: self.counts.clone(),
            order: order.id.clone(),
            entry,
            attempt,
            pass,
        };
        let may_start = may_start(context.clone(), start_by, begun.clone());
        let send = claimed.send(offer, mail, may_start);
        let (row, delivery) = self.late.see_through(begun, send).await;
        let row = row.map_err(Failure::Unavailable)?;
        self.tell(&job, row.as_ref(), delivery)
    }

    /// What is known before anything is done. A first attempt is nearly always the first of all,
    /// so it claims without looking; a later one, or one after somebody else was at it, looks before
    /// it troubles the mail server.
    pub(super) async fn job<'a>(
        &self,
        (order, key, item): Subject<'a>,
        context: &'a Context,
    ) -> Result<Job<'a>, Failure> {
        let past = self.memory.past(key);
        let row = match &past {
            // Lambda brings what was sent again together with what failed: there a look comes first.
            None if context.attempt() == 1 && context.ends().is_none() => None,
            _ => self.book.read(key).await.map_err(Failure::Unavailable)?,
        };
        let past = past.unwrap_or_default();
        let mut job = Job {
            order,
            key,
            item,
            context,
            past,
            row,
        };
        for happened in &job.past.unwritten {
            let row = self.book.record(key, job.row.take(), happened).await;
            job.row = row.map_err(Failure::Unavailable)?;
            self.memory.written(key, happened);
        }
        Ok(job)
    }

    /// The mail as of the first claim, or as of now if there was none; while an earlier claim is in
    /// doubt, its own mail if that was kept.
    fn draft(&self, job: &Job<'_>, now: SystemTime) -> Result<Draft, Failure> {
        let first = job.row.as_ref().and_then(|entry| entry.first_claimed);
        let date = first.filter(|_| !left_out!(FreshDate)).unwrap_or(now);
        if let Some(kept) = to_repeat(job) {
            return Ok(Draft {
                mail: unpack(kept, job.key).map_err(Failure::Reject)?,
                date,
                kept: Some(kept.clone()),
                repeated: true,
            });
        }
        let key = job.key.clone();
        let mail = self.letterhead.render(job.order, &Frozen { date, key });
        let mail = mail.map_err(Failure::Reject)?;
        // Under `park` no worker repeats a mail.
        let kept = match self.rules.on_ambiguous {
            OnAmbiguous::Resend => pack(&mail),
            OnAmbiguous::Park => None,
        };
        Ok(Draft {
            mail,
            date,
            kept,
            repeated: false,
        })
    }

    /// The same draft, or another one where the row has changed what is to be sent.
    fn draft_again(&self, job: &Job<'_>, draft: Draft, now: SystemTime) -> Result<Draft, Failure> {
        let first = job.row.as_ref().and_then(|entry| entry.first_claimed);
        let dated = second(draft.date) == second(first.unwrap_or(now)) || left_out!(FreshDate);
        let repeats = match to_repeat(job) {
            Some(kept) => draft.repeated || draft.kept.as_ref() == Some(kept),
            None => !draft.repeated,
        };
        if dated && repeats {
            return Ok(draft);
        }
        let again = self.draft(job, now)?;
        if again.mail.envelope == draft.mail.envelope {
            return Ok(again);
        }
        // The mail server was asked for another envelope: the next attempt begins with this row.
        Err(Failure::Busy(LOOK_AGAIN))
    }

    /// Claims the effect. Returns the row that stands then, and the mail that it stands for.
    async fn claim(
        &self,
        job: &mut Job<'_>,
        mut draft: Draft,
        attempt: &mut Attempt,
    ) -> Result<(Entry, Mail), Ended> {
        for _ in 0..ROUNDS {
            let now = self.now();
            draft = self.draft_again(job, draft, now).map_err(Err)?;
            let next = match self.ask(job, Some(&draft), Some(attempt.nonce), now)? {
                Verdict::Claim(next) => next,
                Verdict::Doubt(next) => {
                    self.doubt(job, next).await?;
                    continue;
                }
                Verdict::Mine(entry) => return Ok((entry, draft.mail)),
                Verdict::Busy(_) | Verdict::Done(_) | Verdict::Parked | Verdict::Collision(_) => {
                    break;
                }
            };
            attempt.claiming();
            let swap = self.book.swap(job.key, job.row.as_ref(), &next).await;
            match swap.map_err(|error| Err(Failure::Unavailable(error)))? {
                Swap::Lost(_) if left_out!(ClaimIgnored) => return Ok((next, draft.mail)),
                Swap::Written => return Ok((next, draft.mail)),
                Swap::Lost(standing) => {
                    attempt.over();
                    job.row = standing;
                }
            }
        }
        Err(Err(Failure::Busy(LOOK_AGAIN)))
    }

    /// Brings a claim that stands to its end, if nothing can come of it any more: it is in doubt, or
    /// it never began. `Err` while its claimant may still be at it.
    pub(super) async fn end_claim(&self, job: &mut Job<'_>) -> Result<(), Ended> {
        for _ in 0..ROUNDS {
            let Some(row) = job.row.as_ref().filter(|row| row.state == State::Sending) else {
                return Ok(());
            };
            let fence = row.fence;
            if let Verdict::Doubt(next) = self.ask(job, None, None, self.now())? {
                self.doubt(job, next).await?;
                continue;
            }
            // My own claim, which never began.
            let reply = "never begun".to_owned();
            let given_up = Happened::NotAccepted { fence, reply };
            let row = self.book.record(job.key, job.row.take(), &given_up).await;
            job.row = row.map_err(|error| Err(Failure::Unavailable(error)))?;
        }
        Err(Err(Failure::Busy(LOOK_AGAIN)))
    }

    /// Writes down that the claimant is gone and left no word.
    async fn doubt(&self, job: &mut Job<'_>, next: Entry) -> Result<(), Ended> {
        let swap = self.book.swap(job.key, job.row.as_ref(), &next).await;
        job.row = match swap.map_err(|error| Err(Failure::Unavailable(error)))? {
            Swap::Written => {
                self.counts.add_ambiguous();
                tracing::warn!(
                    order = job.order.id,
                    "the claimant died without recording an outcome; order marked AMBIGUOUS"
                );
                Some(next)
            }
            Swap::Lost(standing) => standing,
        };
        Ok(())
    }

    /// What a claim of the row comes to; `Err` where there is nothing to write.
    pub(super) fn ask(
        &self,
        job: &Job<'_>,
        draft: Option<&Draft>,
        nonce: Option<u64>,
        now: SystemTime,
    ) -> Result<Verdict, Ended> {
        let ask = Ask {
            claimant: Claimant {
                incarnation: job.context.incarnation().to_owned(),
                nonce: nonce.unwrap_or_default(),
                deadline: now + self.longest_delivery(job.context) + SLACK,
            },
            digest: draft.map(|draft| draft.mail.digest.clone()),
            item: Some(job.item.clone()),
            kept: draft.and_then(|draft| draft.kept.clone()),
            abandoned: job.past.abandoned.clone(),
            policy: self.rules.on_ambiguous,
            comes_again: job.context.comes_again(),
            now,
        };
        let claimant = job.row.as_ref().and_then(|entry| entry.claimant.as_ref());
        let liveness = claimant.map_or(Liveness::Unknown, |claimant| {
            job.context.liveness(&claimant.incarnation)
        });
        match claim(job.row.as_ref(), &ask, liveness) {
            Verdict::Busy(_) if left_out!(BusyIsDone) => Err(Ok(())),
            Verdict::Busy(left) => Err(Err(Failure::Busy(left.min(LOOK_AGAIN)))),
            Verdict::Done(_) => Err(Ok(())),
            Verdict::Parked => {
                self.parked(job);
                Err(Ok(()))
            }
            Verdict::Collision(other) => Err(self.collision(job, &other)),
            verdict => Ok(verdict),
        }
    }

    /// How long a reply may be awaited from now on.
    fn longest_delivery(&self, context: &Context) -> Duration {
        let longest = self.transport.longest_delivery();
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        context.ends().map_or(longest, |end| longest.min(left(end)))
    }
}

/// Asked right before DATA and right before the final dot. A process that was frozen since the claim,
/// for longer than others wait for it, sends nothing.
fn may_start(
    context: Context,
    start_by: Instant,
    begun: Arc<AtomicBool>,
) -> impl Fn(Stage) -> bool + Send + Sync {
    move |stage| {
        let may = context.may_act() && Instant::now() <= start_by;
        if may && stage == Stage::AfterDot {
            begun.store(true, Ordering::SeqCst);
        }
        may
    }
}

/// The mail that must be repeated, because an earlier claim is in doubt, or is about to be: its
/// claimant is another one.
fn to_repeat<'a>(job: &'a Job<'_>) -> Option<&'a Kept> {
    let row = job.row.as_ref()?;
    let kept = row.kept.as_ref()?;
    let mine = |by: &Claimant| job.past.abandoned.contains(&by.nonce);
    let claimed = row.state == State::Sending && !row.claimant.as_ref().is_some_and(mine);
    let in_doubt = claimed || !row.doubtful.is_empty();
    (in_doubt && !left_out!(FreshDate)).then_some(kept)
}

fn second(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .map(|age| age.as_secs())
}
