//! Sends one mail: envelope, claim, message, reply.

use super::mail::{Frozen, Letterhead, Mail};
use super::order::Order;
use super::outcome::{delivered, not_offered};
use super::smtp::{Delivery, SendStage};
use super::transport::Transport;
use crate::engine::handler::Failure;
use crate::once::{EffectAttempt, Outcome};
use crate::stores::ledger::EffectKey;

/// Writes mails and sends them.
pub(super) struct Sender {
    pub(super) transport: Transport,
    pub(super) letterhead: Letterhead,
}

impl Sender {
    /// Sends the mail of an order. It is claimed when the mail server has accepted its envelope, and
    /// begins with its final dot.
    pub(super) async fn send(
        &self,
        order: &Order,
        key: EffectKey,
        attempt: EffectAttempt,
    ) -> Result<Outcome, Failure> {
        let mail = self.mail(order, key, &attempt).map_err(Failure::Reject)?;
        let offer = match self.transport.offer(&mail).await {
            Ok(offer) => offer,
            Err(refusal) => return Ok(not_offered(&order.id, refusal)),
        };
        let claimed = attempt.keeping(mail.to_payload()).claim().await;
        let may_pass = |stage| match stage {
            SendStage::AfterDot => claimed.begin(),
            _ => claimed.may_begin(),
        };
        let delivery = offer.deliver(&mail, &may_pass).await;
        if let Delivery::Accepted(reply) = &delivery {
            tracing::info!(order = order.id, %reply, "confirmed");
        }
        Ok(delivered(&order.id, delivery))
    }

    /// The mail with the date of the first claim, or of now if there was none. While an earlier claim
    /// is in doubt, its own mail if that was kept.
    fn mail(&self, order: &Order, key: EffectKey, attempt: &EffectAttempt) -> anyhow::Result<Mail> {
        if let Some(payload) = attempt.to_repeat() {
            return Mail::of_payload(&key, payload);
        }
        let date = attempt.date();
        self.letterhead.render(order, &Frozen { date, key })
    }
}
