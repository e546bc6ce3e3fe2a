//! How a mail ended, for the ledger and the engine.

use anyhow::anyhow;

use super::smtp::{Cause, Delivery, Refusal, Reply, SendStage};
use crate::engine::handler::Failure;
use crate::once::{LOOK_AGAIN, Outcome};

/// The mail server did not accept the envelope: nothing was claimed, nothing sent.
pub(super) fn not_offered(order: &str, refusal: Refusal) -> Outcome {
    let about_the_mail = refusal.is_about_the_mail();
    let (permanent, about_the_order) = (refusal.is_permanent(), refusal.is_about_the_order());
    if !about_the_mail {
        let (reply, error) = (refusal.to_string(), anyhow!("the mail server: {refusal}"));
        return Outcome::NotBegun(
            reply,
            match refusal.cause {
                Cause::Reply(reply) => held_back(&reply, error),
                _ => Failure::Unavailable(error),
            },
        );
    }
    let reply = format!("at {}: {}", refusal.stage, refusal.cause);
    let error = anyhow!("order {order}: {reply}");
    match (permanent, about_the_order) {
        (false, _) => Outcome::Deferred(reply, Failure::Retry(error)),
        (true, true) => Outcome::Refused(reply, Failure::Reject(error)),
        (true, false) => Outcome::Refused(reply, Failure::Refused(error)),
    }
}

/// How a mail ended after the mail server accepted its envelope.
pub(super) fn delivered(order: &str, delivery: Delivery) -> Outcome {
    match delivery {
        Delivery::Accepted(reply) => Outcome::Done(reply.words()),
        Delivery::Refused(reply) => {
            let error = anyhow!("order {order}: the mail server refused it: {reply}");
            Outcome::Refused(reply.words(), Failure::Refused(error))
        }
        Delivery::Deferred(reply) => {
            let error = anyhow!("order {order}: the mail server deferred it: {reply}");
            let failure = if reply.throttles() {
                held_back(&reply, error)
            } else {
                Failure::Retry(error)
            };
            Outcome::Deferred(reply.words(), failure)
        }
        Delivery::NotSent { stage, why } => {
            let reply = format!("not sent, at {stage}: {why}");
            let error = anyhow!("order {order}: {reply}");
            let failure = match (stage, why) {
                (_, Cause::NotAllowed) => Failure::Busy(LOOK_AGAIN),
                // The cause is the connection, not the message.
                (SendStage::Data | SendStage::Call, _) => Failure::Unavailable(error),
                _ => Failure::Retry(error),
            };
            Outcome::NotBegun(reply, failure)
        }
        Delivery::NoReply { stage, why } => {
            Outcome::Unknown(format!("no definite reply, at {stage}: {why}"))
        }
    }
}

/// The server accepts no mail from here now, or fewer mails.
fn held_back(reply: &Reply, error: anyhow::Error) -> Failure {
    if reply.throttles() && !reply.exhausts_quota() {
        Failure::Overloaded(error)
    } else {
        Failure::Unavailable(error)
    }
}
