//! The result: the accepted mails, compared with the orders and the ledger.

use std::collections::BTreeMap;

use aftercommit::EffectName;
use aftercommit::internal::claim::{Entry, State};
use aftercommit::stores::ledger::{EffectKey, Ledger};
use serde::Serialize;

use crate::shop;
use crate::support::mail_server::MailServer;

/// The line that the demo ends with.
#[derive(Debug, Serialize)]
pub struct Tally {
    /// Orders that were placed.
    pub orders: usize,
    /// Mails that the mail server took.
    pub emails_accepted: usize,
    /// Orders that got at least one.
    pub distinct_orders: usize,
    /// Mails beyond the first of an order.
    pub duplicates: usize,
    /// Orders without a mail that the ledger does not call ambiguous.
    pub missing: usize,
    /// Orders that the ledger called ambiguous at some time, or still does.
    pub ambiguous: usize,
    /// From the first order to the last mail.
    pub seconds: f64,
    /// The longest time from a kill until the killed worker had no shards any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takeover_seconds_max: Option<f64>,
    /// Whether an order got a second mail that the ledger cannot explain.
    #[serde(skip)]
    pub unexplained: bool,
}

impl Tally {
    /// Counts.
    pub fn new(orders: usize, mails: &MailServer, ledger: &BTreeMap<EffectKey, Entry>) -> Self {
        let accepted = mails.by_recipient();
        let in_doubt = |n: &usize| {
            let row = ledger.get(&key(*n));
            row.is_some_and(|row| row.ambiguities > 0)
        };
        let open = |n: &usize| {
            let row = ledger.get(&key(*n));
            row.is_some_and(|row| row.state == State::Ambiguous)
        };
        let mails_of = |n: &usize| accepted.get(&shop::address(*n)).copied().unwrap_or(0);
        let emails_accepted: usize = accepted.values().sum();
        let distinct_orders = (0..orders).filter(|n| mails_of(n) > 0).count();
        Self {
            orders,
            emails_accepted,
            distinct_orders,
            duplicates: emails_accepted - distinct_orders,
            missing: (0..orders).filter(|n| mails_of(n) == 0 && !open(n)).count(),
            ambiguous: (0..orders).filter(in_doubt).count(),
            seconds: 0.0,
            takeover_seconds_max: None,
            unexplained: (0..orders).any(|n| mails_of(&n) > 1 && !in_doubt(&n)),
        }
    }

    /// No order is without a mail, and the ledger calls every order with two mails ambiguous.
    pub fn is_good(&self) -> bool {
        self.missing == 0 && self.duplicates <= self.ambiguous && !self.unexplained
    }
}

fn key(n: usize) -> EffectKey {
    EffectKey::new(&EffectName::default(), &shop::id(n))
}

/// The whole ledger.
pub async fn rows(ledger: &impl Ledger) -> anyhow::Result<BTreeMap<EffectKey, Entry>> {
    let mut rows = BTreeMap::new();
    let mut from = None;
    loop {
        let page = ledger.list(None, from.as_deref()).await?;
        rows.extend(page.entries);
        from = page.next;
        if from.is_none() {
            return Ok(rows);
        }
    }
}

/// Whether nothing more is going to happen to any order.
pub fn finished(orders: usize, ledger: &BTreeMap<EffectKey, Entry>) -> bool {
    (0..orders).all(|n| {
        ledger.get(&key(n)).is_some_and(|row| match row.state {
            State::Sent | State::Failed | State::Suppressed => true,
            // A second doubt waits for an operator.
            State::Ambiguous => row.doubtful.len() > 1,
            State::Sending | State::Retry => false,
        })
    })
}
