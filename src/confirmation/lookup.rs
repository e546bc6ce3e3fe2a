//! Look-ups before a mail is sent: the order's present state, and addresses that must not be mailed.
//!
//! The stream says that an order was placed, the table has its latest state. Both look-ups come before
//! the claim. An order that they stop is SUPPRESSED in the ledger, with the reason, until a later
//! record of it decides again.

use std::future::Future;
use std::sync::Arc;

use lettre::Address;
use serde_dynamo::Item;

use super::Confirmation;
use super::order::Order;
use crate::once::payload::digest;
use crate::stores::ledger::Ledger;
use crate::{Failure, Record};

/// The order as a lookup found it.
#[derive(Debug, Clone, PartialEq)]
pub enum Current {
    /// Not looked up: use the record.
    AsRecorded,
    /// The item from the table.
    Item(Item),
    /// The item was deleted.
    Gone,
}

/// Looks up the present state.
pub trait Lookup: Send + Sync + 'static {
    /// The order with these key attributes, read consistently.
    fn order(&self, keys: &Item) -> impl Future<Output = anyhow::Result<Current>> + Send;

    /// Whether the address with this [`address_hash`] must not be mailed.
    fn is_suppressed(&self, hash: &str) -> impl Future<Output = anyhow::Result<bool>> + Send;
}

/// No look-ups: the record counts, and everybody can be mailed.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsRecorded;

impl Lookup for AsRecorded {
    async fn order(&self, _: &Item) -> anyhow::Result<Current> {
        Ok(Current::AsRecorded)
    }

    async fn is_suppressed(&self, _: &str) -> anyhow::Result<bool> {
        Ok(false)
    }
}

/// The name of an address in the suppression list: SHA-256 (hex) of its lower-case form. A reader of
/// the list cannot recover addresses, only test one.
pub fn address_hash(address: &Address) -> String {
    digest(address.to_string().to_lowercase().as_bytes())
}

/// The result of the look-ups.
pub(super) enum Looked {
    /// Confirm this.
    Send(Arc<Order>),
    /// Do not confirm, for this reason.
    Suppress(String),
}

impl<L: Ledger, K: Lookup> Confirmation<L, K> {
    /// The present order, or why it is not confirmed.
    pub(super) async fn look(&self, record: &Record, order: Order) -> Result<Looked, Failure> {
        let now = self.lookup.order(&record.keys).await;
        let (item, order) = match now.map_err(Failure::Unavailable)? {
            Current::AsRecorded => (record.new_image.clone(), order),
            Current::Gone => return Ok(Looked::Suppress("the order is gone".to_owned())),
            Current::Item(item) => {
                let now = self.settings.mapping.order(&item);
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
        Ok(Looked::Send(Arc::new(order)))
    }
}
