//! What is true now: the order read back, and addresses that are not to be mailed.
//!
//! The stream carries the fact that an order was placed, the table its latest state. Both looks
//! come before the claim; an effect that they stop is SUPPRESSED in the ledger, with the reason, until
//! a later record of the order decides again.

use std::future::Future;

use lettre::Address;
use serde_dynamo::Item;
use sha2::{Digest, Sha256};

use super::Confirmation;
use super::mail::hex;
use super::order::Order;
use super::send::{Ended, LOOK_AGAIN, Subject};
use crate::core::claim::{Happened, State, transition};
use crate::stores::ledger::{Ledger, Swap};
use crate::{Context, Failure, Record};

/// Rounds of losing a race for the row.
const ROUNDS: u32 = 8;

/// The order as a lookup found it.
#[derive(Debug, Clone, PartialEq)]
pub enum Now {
    /// Not looked up: what the record says counts.
    AsRecorded,
    /// The item as it stands.
    Item(Item),
    /// The item was deleted.
    Gone,
}

/// Looks up what is true now.
pub trait Lookup: Send + Sync + 'static {
    /// The order with these key attributes, read consistently.
    fn order(&self, keys: &Item) -> impl Future<Output = anyhow::Result<Now>> + Send;

    /// Whether the address with this [`address_hash`] is not to be mailed.
    fn is_suppressed(&self, hash: &str) -> impl Future<Output = anyhow::Result<bool>> + Send;
}

/// Looks nothing up: what the record says counts, and everybody may be mailed.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsRecorded;

impl Lookup for AsRecorded {
    async fn order(&self, _: &Item) -> anyhow::Result<Now> {
        Ok(Now::AsRecorded)
    }

    async fn is_suppressed(&self, _: &str) -> anyhow::Result<bool> {
        Ok(false)
    }
}

/// How the suppression list names an address: SHA-256 (hex) of its lower-case form. Whoever reads
/// the list cannot read addresses off it, only test one.
pub fn address_hash(address: &Address) -> String {
    hex(&Sha256::digest(address.to_string().to_lowercase()))
}

/// What a look at the tables comes to.
pub(super) enum Looked {
    /// Confirm this.
    Send(Box<Order>),
    /// Do not, for this reason.
    Suppress(String),
}

impl<L: Ledger, K: Lookup> Confirmation<L, K> {
    /// The order as it is now, or why it is not to be confirmed.
    pub(super) async fn look(&self, record: &Record, order: Order) -> Result<Looked, Failure> {
        let now = self.lookup.order(&record.keys).await;
        let (item, order) = match now.map_err(Failure::Unavailable)? {
            Now::AsRecorded => (record.new_image.clone(), order),
            Now::Gone => return Ok(Looked::Suppress("the order is gone".to_owned())),
            Now::Item(item) => {
                let now = self.rules.mapping.order(&item);
                (
                    Some(item),
                    now.map_err(|error| Failure::Reject(error.into()))?,
                )
            }
        };
        if let (Some(when), Some(item)) = (&self.suppress_when, &item)
            && when
                .holds(item)
                .map_err(|error| Failure::Reject(error.into()))?
        {
            return Ok(Looked::Suppress(format!(
                "the order is such that {}",
                when.source()
            )));
        }
        let listed = self.lookup.is_suppressed(&address_hash(&order.email)).await;
        if listed.map_err(Failure::Unavailable)? {
            return Ok(Looked::Suppress(
                "the address is on the suppression list".to_owned(),
            ));
        }
        Ok(Looked::Send(Box::new(order)))
    }

    /// Writes down that the order is not confirmed. What was begun before goes its way.
    pub(super) async fn suppress(
        &self,
        subject: Subject<'_>,
        context: &Context,
        reason: String,
    ) -> Ended {
        let key = subject.1;
        let mut job = self.job(subject, context).await?;
        job.row = self.book.read(key).await.map_err(Failure::Unavailable)?;
        tracing::info!(order = job.order.id, reason, "not confirmed");
        let suppressed = Happened::Suppressed { reason };
        for _ in 0..ROUNDS {
            if let Err(ended) = self.end_claim(&mut job).await {
                return ended;
            }
            if job.other_item().is_some() {
                // The row is another item's, and nothing is to be sent for this one.
                return Ok(());
            }
            let next = match &job.row {
                Some(row) if row.state == State::Ambiguous => {
                    self.parked(&job);
                    return Ok(());
                }
                row => match transition(row.as_ref(), &suppressed, self.now()) {
                    Ok(next) if row.as_ref() == Some(&next) => return Ok(()),
                    Ok(next) => next.standing_for(Some(&job.item)),
                    Err(_) => return Ok(()),
                },
            };
            match self.book.swap(key, job.row.as_ref(), &next).await {
                Ok(Swap::Written) => {
                    self.counts.add_suppressed();
                    job.row = Some(next);
                }
                Ok(Swap::Lost(standing)) => job.row = standing,
                Err(error) => return Err(Failure::Unavailable(error)),
            }
        }
        Err(Failure::Busy(LOOK_AGAIN))
    }
}
