//! What became of a mail: into the ledger, and back to the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::anyhow;

use super::Confirmation;
use super::lookup::Lookup;
use super::mail::Mail;
use super::send::{Ended, Job, LOOK_AGAIN};
use super::smtp::{Cause, Delivery, Refusal, Reply, Stage};
use super::transport::Offer;
use crate::Failure;
use crate::core::claim::{Entry, Happened, ItemRef, OnAmbiguous, State, other_item, transition};
use crate::gate::left_out;
use crate::once::attempt::Attempt;
use crate::once::book::Book;
use crate::once::window::{Answer, Pass};
use crate::stores::ledger::{Ledger, Swap};

/// How many mails came to what, in this process.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    deferred: AtomicU64,
    ambiguous: AtomicU64,
    parked: AtomicU64,
    suppressed: AtomicU64,
    collisions: AtomicU64,
    second_acceptances: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    /// Mails that the server took.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Mails that the server refused for good.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Attempts to mail that the server put off, or that certainly did not reach it: at any step, so
    /// also where there was no connection.
    pub fn deferred(&self) -> u64 {
        self.deferred.load(Ordering::Relaxed)
    }

    /// Effects that became AMBIGUOUS.
    pub fn ambiguous(&self) -> u64 {
        self.ambiguous.load(Ordering::Relaxed)
    }

    /// Records that were settled while their effect waits for an operator.
    pub fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    /// Acceptances of an effect that had been accepted before.
    pub fn second_acceptances(&self) -> u64 {
        self.second_acceptances.load(Ordering::Relaxed)
    }

    /// Orders that were deliberately not confirmed.
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }

    /// Orders that became dead letters because another item has their effect key.
    pub fn collisions(&self) -> u64 {
        self.collisions.load(Ordering::Relaxed)
    }

    /// A mail's outcome stands in the ledger.
    fn note(&self, order: &str, row: Option<&Entry>, delivery: &Delivery) {
        if row.is_some_and(|row| row.second_acceptances() > 0) {
            add(&self.second_acceptances);
            tracing::warn!(
                order,
                "the mail server accepted more than one email for this order"
            );
        }
        let sent = row.is_some_and(|row| row.state == State::Sent);
        match delivery {
            Delivery::Accepted(reply) => {
                add(&self.accepted);
                tracing::info!(order, %reply, "confirmed");
            }
            // An earlier mail of this order was accepted after all.
            Delivery::Refused(_) | Delivery::Deferred(_) | Delivery::NotSent { .. } if sent => {}
            Delivery::Refused(_) => add(&self.refused),
            Delivery::Deferred(_) | Delivery::NotSent { .. } => add(&self.deferred),
            Delivery::NoReply { stage, why } => {
                add(&self.ambiguous);
                tracing::warn!(order, %stage, %why, "no definite reply: AMBIGUOUS");
            }
        }
    }

    pub(super) fn add_suppressed(&self) {
        add(&self.suppressed);
    }

    pub(super) fn add_ambiguous(&self) {
        add(&self.ambiguous);
    }
}

impl<L: Ledger, K: Lookup> Confirmation<L, K> {
    /// The server did not take the envelope: nothing was claimed, nothing sent.
    pub(super) async fn not_offered(&self, mut job: Job<'_>, refusal: Refusal) -> Ended {
        let order = &job.order.id;
        let permanent = refusal.is_permanent();
        let fail: fn(anyhow::Error) -> Failure = if refusal.is_about_the_order() {
            Failure::Reject
        } else {
            Failure::Refused
        };
        let (stage, cause) = (refusal.stage, &refusal.cause);
        if !refusal.is_about_the_mail() {
            add(&self.counts.deferred);
            let error = anyhow!("the mail server: {refusal}");
            return Err(match cause {
                Cause::Reply(reply) => held_back(reply, error),
                _ => Failure::Unavailable(error),
            });
        }
        let row = self.book.read(job.key).await;
        job.row = row.map_err(Failure::Unavailable)?;
        if let Err(ended) = self.end_claim(&mut job).await {
            return ended;
        }
        if let Some(other) = job.other_item() {
            return self.collision(&job, &other);
        }
        // It was sent before: what the server thinks of the address now does not matter.
        if job.row.as_ref().is_some_and(|row| row.state == State::Sent) {
            return Ok(());
        }
        let (item, row) = (job.item, job.row);
        let error = anyhow!("order {order}: at {stage}: {cause}");
        if !permanent {
            add(&self.counts.deferred);
            return Err(Failure::Retry(error));
        }
        let reply = format!("at {stage}: {cause}");
        let turned_away = Happened::TurnedAway { reply };
        // In doubt since an earlier attempt: that stays on the row, and an operator decides.
        if let Ok(next) = transition(row.as_ref(), &turned_away, self.now()) {
            let next = next.standing_for(Some(&item));
            let swap = self.book.swap(job.key, row.as_ref(), &next).await;
            if let Swap::Lost(_) = swap.map_err(Failure::Unavailable)? {
                return Err(Failure::Busy(LOOK_AGAIN));
            }
        }
        add(&self.counts.refused);
        Err(fail(error))
    }

    /// Two items have one effect key. Only one of them can be mailed under it, so the other one
    /// becomes a dead letter: never a second mail, and never an order that nobody hears of.
    pub(super) fn collision(&self, job: &Job<'_>, other: &ItemRef) -> Ended {
        add(&self.counts.collisions);
        let (order, item) = (&job.order.id, &job.item);
        Err(Failure::reject(format!(
            "order {order}: the id is not unique. The ledger's row stands for the item {other}, and \
             this record is of the item {item}; only the first one is mailed. Derive the id from \
             attributes that tell the two apart"
        )))
    }

    /// The effect waits for an operator; its record does not.
    pub(super) fn parked(&self, job: &Job<'_>) {
        add(&self.counts.parked);
        tracing::warn!(
            order = job.order.id,
            "it is unknown whether the email was accepted, and it is not sent again; resolve \
             it: aftercommit ledger resolve ORDER --sent, --send or --skip"
        );
    }

    /// Tells the engine what became of the mail.
    pub(super) fn tell(&self, job: &Job<'_>, row: Option<&Entry>, delivery: Delivery) -> Ended {
        let order = &job.order.id;
        let state = row.map(|row| row.state);
        let sent = state == Some(State::Sent);
        match delivery {
            Delivery::Accepted(_) => match state {
                Some(State::Sending) => Err(Failure::Busy(LOOK_AGAIN)),
                _ => Ok(()),
            },
            // An earlier mail of this order was accepted after all.
            Delivery::Refused(_) | Delivery::Deferred(_) | Delivery::NotSent { .. } if sent => {
                Ok(())
            }
            Delivery::Refused(reply) => Err(Failure::refused(format!(
                "order {order}: the mail server refused it: {reply}"
            ))),
            Delivery::Deferred(reply) => {
                let error = anyhow!("order {order}: the mail server put it off: {reply}");
                Err(if reply.throttles() {
                    held_back(&reply, error)
                } else {
                    Failure::Retry(error)
                })
            }
            Delivery::NotSent { stage, why } => {
                let error = anyhow!("order {order}: not sent, at {stage}: {why}");
                Err(match (stage, why) {
                    (_, Cause::NotAllowed) => Failure::Busy(LOOK_AGAIN),
                    // The connection, not the message.
                    (Stage::Data | Stage::Call, _) => Failure::Unavailable(error),
                    _ => Failure::Retry(error),
                })
            }
            Delivery::NoReply { stage, why } => {
                let why = format!("no definite reply, at {stage}: {why}");
                job.context.is_in_doubt(why.as_str());
                self.in_doubt(job, row, &why)
            }
        }
    }

    /// The next attempt finds the doubt on the row and acts by the policy.
    fn in_doubt(&self, job: &Job<'_>, row: Option<&Entry>, why: &str) -> Ended {
        let again = row.is_none_or(|row| row.doubtful.len() < 2);
        match row.map(|row| row.state) {
            Some(State::Sent) => Ok(()),
            _ if again && self.rules.on_ambiguous == OnAmbiguous::Resend => {
                let order = &job.order.id;
                Err(Failure::Retry(anyhow!("order {order}: {why}")))
            }
            _ => {
                self.parked(job);
                Ok(())
            }
        }
    }
}

impl Job<'_> {
    /// The item that the row stands for, if it is another one.
    pub(super) fn other_item(&self) -> Option<ItemRef> {
        let row = self.row.as_ref()?;
        other_item(row, Some(&self.item)).cloned()
    }
}

/// A mail whose claim stands. What becomes of it concerns nobody else any more, so it needs nothing of
/// its handler.
pub(super) struct Claimed<L> {
    pub(super) book: Arc<Book<L>>,
    pub(super) counts: Arc<Counts>,
    pub(super) order: String,
    pub(super) entry: Entry,
    pub(super) attempt: Attempt,
    pub(super) pass: Pass,
}

impl<L: Ledger> Claimed<L> {
    /// DATA, message, dot, reply; then the outcome into the ledger. Returns the row that stands then.
    pub(super) async fn send(
        mut self,
        offer: Offer,
        mail: Mail,
        may_start: impl Fn(Stage) -> bool + Send + Sync,
    ) -> (anyhow::Result<Option<Entry>>, Delivery) {
        let delivery = offer.deliver(&mail, &may_start).await;
        self.pass.end(match &delivery {
            Delivery::NoReply { .. } => Answer::Doubt,
            Delivery::NotSent { .. } => Answer::None,
            Delivery::Accepted(_) | Delivery::Refused(_) | Delivery::Deferred(_) => {
                Answer::Definite
            }
        });
        let happened = happened(self.entry.fence, &delivery);
        self.attempt.known(happened.clone());
        let key = &self.attempt.key;
        let row = self.book.record(key, Some(self.entry), &happened).await;
        if let Ok(row) = &row {
            self.attempt.over();
            self.counts.note(&self.order, row.as_ref(), &delivery);
        } else {
            tracing::error!(
                order = self.order,
                outcome = ?happened,
                "the ledger refuses the outcome; retrying. If this process ends first, the \
                 order becomes AMBIGUOUS"
            );
        }
        (row, delivery)
    }
}

/// The server takes no mail from here now, or takes fewer.
fn held_back(reply: &Reply, error: anyhow::Error) -> Failure {
    if reply.throttles() && !reply.exhausts_quota() {
        Failure::Overloaded(error)
    } else {
        Failure::Unavailable(error)
    }
}

/// In the ledger's words.
fn happened(fence: u64, delivery: &Delivery) -> Happened {
    match delivery {
        Delivery::Accepted(reply) => Happened::Accepted {
            fence,
            reply: reply.words(),
        },
        Delivery::Refused(reply) => Happened::Refused {
            fence,
            reply: reply.words(),
        },
        Delivery::Deferred(reply) => Happened::NotAccepted {
            fence,
            reply: reply.words(),
        },
        Delivery::NotSent { stage, why } => {
            let reply = format!("not sent, at {stage}: {why}");
            Happened::NotAccepted { fence, reply }
        }
        Delivery::NoReply { stage, why } => {
            let reply = format!("no definite reply, at {stage}: {why}");
            if left_out!(NoReplyIsNoMail) {
                return Happened::NotAccepted { fence, reply };
            }
            Happened::NoReply { fence, reply }
        }
    }
}
