//! The order-confirmation handler: an order committed to the table becomes one email.
//!
//! ```text
//! MAIL, RCPT accepted -> claim in the ledger -> DATA, message, final dot, reply -> outcome
//! ```
//!
//! An email that fails before the claim was certainly not sent. The crate's `once` handles the claim,
//! the outcome, and the loss of either, and knows nothing about mail. This module defines what an email
//! is made from, how it is sent, and what the mail server's answers mean.

pub mod address;
pub mod date;
mod decimal;
pub mod dkim;
pub mod dynamodb;
pub mod expression;
pub mod lookup;
pub mod mail;
pub mod mapping;
pub mod money;
pub mod order;
mod outcome;
mod send;
#[cfg(feature = "ses")]
pub mod ses;
pub mod setting;
pub mod smtp;
pub mod template;
mod text;
mod transport;
mod values;
pub mod wanted;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use crate::once::{Counted, OnAmbiguous, Tally};
use expression::Expression;
use lookup::{AsRecorded, Looked, Lookup, address_hash};
use mail::Letterhead;
use mapping::Mapping;
use order::Order;
use send::Sender;
use setting::Setting;
pub use transport::{Offer, Transport};
use wanted::Wanted;

use crate::core::claim::ClaimRule;
use crate::core::group::EffectName;
use crate::once::{Once, OnceSettings};
use crate::stores::ledger::{EffectKey, Ledger, item_ref};
use crate::{Clock, Context, Event, Failure, Record, RecordHandler};

/// How many digits of an address's hash a row of the ledger keeps: enough to distinguish recipients.
const RECIPIENT_DIGITS: usize = 16;

/// How orders are confirmed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConfirmationSettings {
    /// How an item becomes an order.
    pub mapping: Mapping,
    /// What to do if it is unknown whether a mail was accepted. By default it is sent once more.
    pub on_ambiguous: OnAmbiguous,
    /// For how long the mail server drops a second mail with the same effect key
    /// ([`Letterhead::idempotency_header`]), if it does.
    pub provider_remembers: Option<Duration>,
    /// How long the ledger keeps a row; 401 days. An order that was committed longer ago may have been
    /// confirmed under a row that is gone, so it is rejected, not sent.
    pub retention: Duration,
    /// The time of day; the system's by default.
    pub clock: Clock,
    /// The rule that a simulation leaves out.
    pub(crate) left_out: Option<ClaimRule>,
}

/// How long a stream keeps its records.
///
/// Source: [DynamoDB Streams](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html).
pub const STREAM_HOLDS: Duration = Duration::from_hours(24);

/// How far back records can be replayed by default.
pub const REPLAY_HORIZON: Duration = Duration::from_hours(24 * 400);

/// The ledger would forget an order that may be delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger keeps rows for {keeps_hours} hours, but an order may be delivered again for \
     {needed_hours} hours (the stream's 24 plus the replay horizon): keep rows longer, or \
     shorten the replay horizon"
)]
pub struct RetentionTooShort {
    keeps_hours: u64,
    needed_hours: u64,
}

impl ConfirmationSettings {
    /// The default settings with this mapping.
    pub fn new(mapping: Mapping) -> Self {
        Self {
            mapping,
            on_ambiguous: OnAmbiguous::default(),
            provider_remembers: None,
            retention: STREAM_HOLDS + REPLAY_HORIZON,
            clock: Clock::system(),
            left_out: None,
        }
    }

    /// Checks that the ledger outlives every record that may be delivered again: those in the stream,
    /// and those replayed from up to `replay_horizon` ago. A ledger that forgets sooner sends a second
    /// mail. Call this before reading any record.
    ///
    /// # Errors
    ///
    /// [`RetentionTooShort`].
    pub fn check_retention(&self, replay_horizon: Duration) -> Result<(), RetentionTooShort> {
        let needed = STREAM_HOLDS.saturating_add(replay_horizon);
        let hours = |time: Duration| time.as_secs() / 3600;
        if self.retention >= needed {
            return Ok(());
        }
        Err(RetentionTooShort {
            keeps_hours: hours(self.retention),
            needed_hours: hours(needed),
        })
    }
}

/// Sends one confirmation for each inserted order. Ignores every other change, unless
/// [`Confirmation::of_modified_orders_too`] is set.
pub struct Confirmation<L, K = AsRecorded> {
    once: Once<L>,
    sender: Arc<Sender>,
    lookup: K,
    suppress_when: Option<Expression>,
    wanted: Wanted,
    settings: ConfirmationSettings,
    events: &'static [Event],
    effect: EffectName,
}

impl<L: Ledger> Confirmation<L> {
    /// A handler that claims in `ledger` and sends by SMTP or another transport. `rng` makes the nonces
    /// of claims: seed it differently in every process.
    pub fn new(
        ledger: L,
        transport: impl Into<Transport>,
        letterhead: Letterhead,
        settings: ConfirmationSettings,
        rng: fastrand::Rng,
    ) -> Self {
        let transport = transport.into();
        let once = OnceSettings {
            on_ambiguous: settings.on_ambiguous,
            provider_remembers: settings.provider_remembers,
            clock: settings.clock.clone(),
            longest_start: transport.longest_start(),
            longest_effect: transport.longest_delivery(),
            at_a_time: transport.connections(),
            left_out: settings.left_out,
        };
        Self {
            once: Once::new(ledger, once, rng),
            sender: Arc::new(Sender {
                transport,
                letterhead,
            }),
            lookup: AsRecorded,
            suppress_when: None,
            wanted: Wanted::default(),
            settings,
            events: &[Event::Insert],
            effect: EffectName::default(),
        }
    }

    /// Looks up the present order and the suppression list before it claims.
    #[must_use]
    pub fn looking_up<K: Lookup>(self, lookup: K) -> Confirmation<L, K> {
        Confirmation {
            once: self.once,
            sender: self.sender,
            lookup,
            suppress_when: self.suppress_when,
            wanted: self.wanted,
            settings: self.settings,
            events: self.events,
            effect: self.effect,
        }
    }
}

impl<L: Ledger, K: Lookup> Confirmation<L, K> {
    /// Does not confirm orders for which the expression is true.
    #[must_use]
    pub fn suppressing(self, when: Expression) -> Self {
        let suppress_when = Some(when);
        Self {
            suppress_when,
            ..self
        }
    }

    /// Confirms only wanted items and ignores the others, as if a filter had excluded them. An item for
    /// which the expression fails is rejected.
    #[must_use]
    pub fn wanting(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }

    /// Also confirms modified items, such as orders that are paid later; each is still confirmed once.
    /// Filter the changes ([`Effect::filters`](crate::Effect::filters)), or any change of an old
    /// order that is not in the ledger sends a mail.
    #[must_use]
    pub fn of_modified_orders_too(self) -> Self {
        let events = &[Event::Insert, Event::Modify];
        Self { events, ..self }
    }

    /// Under this name: the first part of the ledger's keys, and with the order's id what
    /// `Message-ID`, MIME boundary and idempotency key derive from. Two kinds of mail for one order
    /// need two names. `confirmation` unless another is set.
    #[must_use]
    pub fn effect(self, effect: EffectName) -> Self {
        Self { effect, ..self }
    }

    /// How many orders had which outcome so far, in this process.
    pub fn tally(&self) -> &Tally {
        self.once.tally()
    }

    /// Waits, at most this long, for mails whose outcome is not recorded yet. Returns how many are
    /// left. Call it before the process ends: those become AMBIGUOUS.
    pub async fn finish(&self, limit: Duration) -> usize {
        self.once.finish(limit).await
    }

    /// The ledger of the sent mails.
    pub fn ledger(&self) -> &L {
        self.once.ledger()
    }

    /// The order of the record; `None` if its item is not wanted.
    fn order(&self, record: &Record) -> Result<Option<Order>, Failure> {
        let Some(item) = &record.new_image else {
            return Err(Failure::reject(format!(
                "a {} stream carries no new image to read the order from; \
                 set the table's stream to NEW_IMAGE or NEW_AND_OLD_IMAGES",
                record.view
            )));
        };
        // Without an order's id, the key identifies the item.
        let named = |error: anyhow::Error| {
            let item = item_ref("", &record.keys, None).key;
            Failure::Reject(error.context(format!("item {item}")))
        };
        if !self
            .wanted
            .wants(item)
            .map_err(|error| named(error.into()))?
        {
            return Ok(None);
        }
        let order = self
            .settings
            .mapping
            .order(item)
            .map_err(|error| match error.setting {
                Setting::Id => named(error.into()),
                _ => Failure::Reject(error.into()),
            })?;
        let age = self.settings.clock.now().duration_since(record.created);
        if age.is_ok_and(|age| age >= self.settings.retention) {
            return Err(Failure::reject(format!(
                "order {} was committed longer ago than the ledger keeps rows, so it is unknown \
                 whether it was confirmed; it is not sent",
                order.id
            )));
        }
        Ok(Some(order))
    }
}

impl<L: Ledger, K: Lookup> RecordHandler for Confirmation<L, K> {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        if !self.events.contains(&record.event) {
            context.did_not_ask();
            return Ok(());
        }
        let Some(order) = self.order(record)? else {
            context.did_not_ask();
            return Ok(());
        };
        let key = EffectKey::new(&self.effect, &order.id);
        let item = |order: &Order| {
            let recipient = address_hash(&order.email);
            let recipient = recipient.get(..RECIPIENT_DIGITS).map(str::to_owned);
            item_ref(context.stream(), &record.keys, recipient)
        };
        match self.look(record, order.clone()).await? {
            Looked::Send(order) => {
                let send = |attempt| {
                    let (sender, order, key) = (self.sender.clone(), order.clone(), key.clone());
                    async move { sender.send(&order, key, attempt).await }
                };
                let item = item(&order);
                self.once.perform(&key, &item, context, send).await
            }
            Looked::Suppress(reason) => {
                context.did_not_ask();
                tracing::info!(order = order.id, reason, "not confirmed");
                let item = item(&order);
                self.once.suppress(&key, &item, context, reason).await
            }
        }
    }
}

impl<L, K> fmt::Debug for Confirmation<L, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirmation")
            .field("settings", &self.settings)
            .field("once", &self.once)
            .finish_non_exhaustive()
    }
}
