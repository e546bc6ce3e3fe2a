//! Claims and outcomes in the ledger.

use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use tokio::time::Instant;

use super::OnceSettings;
use super::job::{Basis, Job, Stop};
use super::outcome::{Counted, Outcome, Tally};
use super::past::Memory;
use super::payload::Payload;
use super::rows::LedgerRows;
use crate::core::claim::{
    Ask, ClaimRule, Claimant, Entry, Happened, ItemRef, Liveness, OnAmbiguous, State, Verdict,
    claim, other_item, repeats, transition,
};
use crate::core::millis::since_1970;
use crate::engine::handler::{Context, Failure};
use crate::stores::ledger::{EffectKey, Ledger, Swap};

/// The time between the last moment at which an answer is accepted and the deadline of a claim: for the
/// ledger's answer, and for clocks that differ.
pub(super) const SLACK: Duration = Duration::from_mins(5);
/// How soon to look again at an effect that another worker performs.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often to retry after losing a race for the row, before looking again later.
pub(super) const ROUNDS: u32 = 16;

/// The next step of an attempt.
pub(super) enum NextStep {
    Claim(Entry),
    Doubt(Entry),
    /// The ledger already has the claim.
    Begin(Entry),
}

/// The claims of this process.
pub(super) struct Claims<L> {
    pub(super) rows: LedgerRows<L>,
    pub(super) settings: OnceSettings,
    pub(super) memory: Memory,
    pub(super) tally: Tally,
}

impl<L: Ledger> Claims<L> {
    pub(super) fn new(ledger: L, settings: OnceSettings) -> Self {
        let rows = LedgerRows {
            ledger,
            clock: settings.clock.clone(),
            left_out: settings.left_out,
        };
        Self {
            rows,
            settings,
            memory: Memory::default(),
            tally: Tally::default(),
        }
    }

    pub(super) fn keeps(&self, rule: ClaimRule) -> bool {
        self.settings.left_out != Some(rule)
    }

    /// The time in whole milliseconds, as in the ledger.
    fn now(&self) -> SystemTime {
        let now = self.settings.clock.now();
        let nanos = since_1970(now).subsec_nanos();
        now - Duration::from_nanos(u64::from(nanos % 1_000_000))
    }

    /// What is known before the attempt begins. A first attempt is nearly always the first of all, so
    /// it claims without looking. A later one, or one after another worker's attempt, reads the row
    /// first.
    pub(super) async fn job(
        &self,
        key: &EffectKey,
        item: &ItemRef,
        context: &Context,
    ) -> anyhow::Result<Job> {
        let abandoned = self.memory.of(key);
        let row = match &abandoned {
            // Lambda delivers finished records again, together with failed ones.
            None if context.attempt() == 1 && context.ends().is_none() => None,
            _ => self.rows.read(key).await?,
        };
        Ok(Job {
            key: key.clone(),
            item: item.clone(),
            context: context.clone(),
            row,
            began: self.now(),
            abandoned: abandoned.unwrap_or_default(),
        })
    }

    /// The basis from which this attempt prepares its effect.
    pub(super) fn basis(&self, job: &Job) -> Basis {
        if !self.keeps(ClaimRule::SameBytes) {
            return Basis {
                date: job.began,
                to_repeat: None,
            };
        }
        let row = job.row.as_ref();
        Basis {
            date: row.and_then(|row| row.first_claimed).unwrap_or(job.began),
            to_repeat: row.and_then(|row| job.to_repeat(row)).cloned(),
        }
    }

    /// Claims the effect. Returns the row that is then in the ledger.
    pub(super) async fn claim(
        &self,
        job: &mut Job,
        payload: &Payload,
        nonce: u64,
    ) -> Result<Entry, Stop> {
        let basis = self.basis(job);
        for _ in 0..ROUNDS {
            let next = match self.next(job, Some((payload, nonce)))? {
                NextStep::Claim(_) if self.basis(job) != basis => return Err(Stop::Changed),
                // The record's next owner may finish it, and then nobody would claim again.
                NextStep::Claim(_) if !job.context.may_act() => break,
                NextStep::Claim(next) => next,
                NextStep::Begin(entry) => return Ok(entry),
                NextStep::Doubt(next) => {
                    self.doubt(job, next).await?;
                    continue;
                }
            };
            match self.rows.swap(&job.key, job.row.as_ref(), &next).await {
                Ok(Swap::Lost(_)) if !self.keeps(ClaimRule::OwnClaim) => return Ok(next),
                Ok(Swap::Written) => return Ok(next),
                Ok(Swap::Lost(standing)) => job.row = standing,
                Err(error) => {
                    // The claim may still arrive.
                    self.memory.abandoned(&job.key, nonce);
                    return Err(Stop::Unavailable(error));
                }
            }
        }
        Err(Stop::Busy(LOOK_AGAIN))
    }

    /// Ends a claim in the ledger that can have no outcome any more: it is in doubt, or it never began.
    /// [`Stop::Busy`] while its claimant may still perform the effect.
    async fn end_claim(&self, job: &mut Job) -> Result<(), Stop> {
        for _ in 0..ROUNDS {
            let Some(row) = job.row.as_ref().filter(|row| row.state == State::Sending) else {
                return Ok(());
            };
            let fence = row.fence;
            if let NextStep::Doubt(next) = self.next(job, None)? {
                self.doubt(job, next).await?;
                continue;
            }
            // My own claim, which never began.
            let reply = "never begun".to_owned();
            let given_up = Happened::NotAccepted { fence, reply };
            let row = self.rows.record(&job.key, job.row.take(), &given_up).await;
            job.row = row.map_err(Stop::Unavailable)?;
        }
        Err(Stop::Busy(LOOK_AGAIN))
    }

    /// Records that the claimant died without recording an outcome, or that a person has to decide.
    async fn doubt(&self, job: &mut Job, next: Entry) -> Result<(), Stop> {
        let died = job
            .row
            .as_ref()
            .is_some_and(|row| row.state == State::Sending);
        let swap = self.rows.swap(&job.key, job.row.as_ref(), &next).await;
        job.row = match swap.map_err(Stop::Unavailable)? {
            Swap::Written if !died => Some(next),
            Swap::Written => {
                self.tally.add(Counted::Ambiguous);
                tracing::warn!(
                    effect = %job.key,
                    "the claimant died without recording an outcome; the effect is AMBIGUOUS"
                );
                Some(next)
            }
            Swap::Lost(standing) => standing,
        };
        Ok(())
    }

    fn ask(&self, job: &Job, claims: Option<(&Payload, u64)>) -> Ask {
        let now = self.now();
        let claimant = Claimant {
            incarnation: job.context.incarnation().to_owned(),
            nonce: claims.map_or(0, |(_, nonce)| nonce),
            deadline: now + self.longest_effect(&job.context) + SLACK,
        };
        Ask {
            digest: claims.and_then(|(payload, _)| payload.digest.clone()),
            item: Some(job.item.clone()),
            kept: claims.and_then(|(payload, _)| payload.kept.clone()),
            abandoned: job.abandoned.clone(),
            provider_remembers: self.settings.provider_remembers,
            comes_again: job.context.comes_again(),
            began: job.began,
            left_out: self.settings.left_out,
            ..Ask::new(claimant, self.settings.on_ambiguous, now)
        }
    }

    /// What to do about the row. Includes a claim if this attempt is to perform the effect.
    pub(super) fn next(
        &self,
        job: &Job,
        claims: Option<(&Payload, u64)>,
    ) -> Result<NextStep, Stop> {
        let ask = self.ask(job, claims);
        let claimant = job.row.as_ref().and_then(|entry| entry.claimant.as_ref());
        let liveness = claimant.map_or(Liveness::Unknown, |claimant| {
            job.context.liveness(&claimant.incarnation)
        });
        match claim(job.row.as_ref(), &ask, liveness) {
            Verdict::Claim(next) => Ok(NextStep::Claim(next)),
            Verdict::Doubt(next) => Ok(NextStep::Doubt(next)),
            Verdict::Mine(entry) => Ok(NextStep::Begin(entry)),
            Verdict::Busy(_) if !self.keeps(ClaimRule::BusyIsNotDone) => Err(Stop::Done),
            Verdict::Busy(left) => Err(Stop::Busy(left.min(LOOK_AGAIN))),
            Verdict::Done(_) => Err(Stop::Done),
            Verdict::Parked => Err(Stop::Parked),
            Verdict::Collision(other) => Err(Stop::Collision(other)),
        }
    }

    /// How long an answer can be awaited from now on.
    pub(super) fn longest_effect(&self, context: &Context) -> Duration {
        let longest = self.settings.longest_effect;
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        context.ends().map_or(longest, |end| longest.min(left(end)))
    }

    /// What the caller gets for an attempt that stopped.
    pub(super) fn stopped(&self, job: &Job, stop: Stop) -> Result<(), Failure> {
        match stop {
            Stop::Done => Ok(()),
            Stop::Busy(left) => Err(Failure::Busy(left)),
            Stop::Changed => Err(Failure::Busy(LOOK_AGAIN)),
            Stop::Unavailable(error) => Err(Failure::Unavailable(error)),
            Stop::Parked => {
                self.tally.add(Counted::Parked);
                tracing::warn!(
                    effect = %job.key,
                    "it is unknown whether the effect took place, and it is not performed again; \
                     resolve it: aftercommit ledger resolve {} --sent, --send or --skip",
                    job.key.id()
                );
                Ok(())
            }
            Stop::Collision(other) => {
                self.tally.add(Counted::Collisions);
                let (key, item) = (&job.key, &job.item);
                Err(Failure::reject(format!(
                    "{key}: the id is not unique. The ledger's row is about the item {other}, and \
                     this record is about the item {item}; the effect is performed for the first \
                     one only. Derive the id from attributes that tell the two apart"
                )))
            }
        }
    }

    /// What the caller gets for an outcome that led to this row.
    pub(super) fn concluded(
        &self,
        job: &Job,
        row: Option<&Entry>,
        (counted, result): (Counted, Result<(), Failure>),
    ) -> Result<(), Failure> {
        let key = &job.key;
        if row.as_ref().is_some_and(|row| row.second_acceptances() > 0) {
            self.tally.add(Counted::SecondAcceptances);
            tracing::warn!(effect = %key, "the effect took place more than once");
        }
        let state = row.map(|row| row.state);
        // An earlier claim of a refused effect may have been accepted after all.
        if !(state == Some(State::Sent) && matches!(counted, Counted::Refused | Counted::Deferred))
        {
            self.tally.add(counted);
        }
        if let (Counted::Ambiguous, Err(why)) = (counted, &result) {
            tracing::warn!(effect = %key, %why, "no definite answer: AMBIGUOUS");
            job.context.is_in_doubt(why.to_string());
        }
        match (state, counted) {
            // Another worker has claimed it meanwhile.
            (Some(State::Sending), Counted::Accepted) => Err(Failure::Busy(LOOK_AGAIN)),
            (Some(State::Sent), _) => Ok(()),
            (_, Counted::Ambiguous) if !self.repeats(job, row) => self.stopped(job, Stop::Parked),
            (_, Counted::Ambiguous) => {
                result.map_err(|why| Failure::Retry(anyhow!("{key}: {why}")))
            }
            _ => result,
        }
    }

    /// Whether an effect in doubt is performed once more.
    fn repeats(&self, job: &Job, row: Option<&Entry>) -> bool {
        let allowed = self.settings.on_ambiguous == OnAmbiguous::Resend;
        row.map_or(allowed, |row| repeats(row, &self.ask(job, None)))
    }

    /// The effect ended before its claim.
    pub(super) async fn unclaimed(
        &self,
        mut job: Job,
        ended: Result<Outcome, Failure>,
    ) -> Result<(), Failure> {
        let (refusal, counted, failure) = match ended? {
            Outcome::Refused(reply, failure) => {
                let refusal = Some(Happened::TurnedAway { reply });
                (refusal, Counted::Refused, failure)
            }
            Outcome::Deferred(_, failure) => (None, Counted::Deferred, failure),
            Outcome::NotBegun(_, failure) => {
                self.tally.add(Counted::Deferred);
                return Err(failure);
            }
            Outcome::Done(_) | Outcome::Unknown(_) => {
                return Err(Failure::reject(format!(
                    "{}: the effect ended without passing its point of no return",
                    job.key
                )));
            }
        };
        match self.decline(&mut job, refusal.as_ref()).await {
            Ok(Declined::Sent) => Ok(()),
            Ok(Declined::OtherItem(other)) => self.stopped(&job, Stop::Collision(other)),
            // An effect in doubt stays in doubt: a person decides.
            Ok(Declined::InDoubt | Declined::Recorded | Declined::Known) => {
                self.tally.add(counted);
                Err(failure)
            }
            Err(stop) => self.stopped(&job, stop),
        }
    }

    /// Records that the effect is deliberately not performed.
    pub(super) async fn suppress(&self, mut job: Job, reason: String) -> Result<(), Failure> {
        let suppression = Happened::Suppressed { reason };
        match self.decline(&mut job, Some(&suppression)).await {
            Ok(Declined::Recorded) => {
                self.tally.add(Counted::Suppressed);
                Ok(())
            }
            // Nothing is to be performed for this item anyway.
            Ok(Declined::Known | Declined::Sent | Declined::OtherItem(_)) => Ok(()),
            Ok(Declined::InDoubt) => self.stopped(&job, Stop::Parked),
            Err(stop) => self.stopped(&job, stop),
        }
    }

    /// Records why the effect does not begin, unless it began earlier.
    async fn decline(&self, job: &mut Job, why: Option<&Happened>) -> Result<Declined, Stop> {
        job.row = self.rows.read(&job.key).await.map_err(Stop::Unavailable)?;
        for _ in 0..ROUNDS {
            self.end_claim(job).await?;
            let row = job.row.as_ref();
            if let Some(other) = row.and_then(|row| other_item(row, Some(&job.item))) {
                return Ok(Declined::OtherItem(other.clone()));
            }
            let next = match (row.map(|row| row.state), why) {
                (Some(State::Sent), _) => return Ok(Declined::Sent),
                (_, None) => return Ok(Declined::Known),
                (_, Some(why)) => transition(row, why, self.now()),
            };
            let next = match next {
                Ok(next) if row == Some(&next) => return Ok(Declined::Known),
                Ok(next) => next.standing_for(Some(&job.item)),
                Err(_) => return Ok(Declined::InDoubt),
            };
            let swap = self.rows.swap(&job.key, row, &next).await;
            match swap.map_err(Stop::Unavailable)? {
                Swap::Written => return Ok(Declined::Recorded),
                Swap::Lost(standing) => job.row = standing,
            }
        }
        Err(Stop::Busy(LOOK_AGAIN))
    }
}

/// Why an effect does not begin.
enum Declined {
    /// The reason was recorded just now.
    Recorded,
    /// The ledger had the reason already, or there is none to record.
    Known,
    /// It took place before.
    Sent,
    /// It is unknown whether it took place.
    InDoubt,
    /// The effect key belongs to another item.
    OtherItem(ItemRef),
}
