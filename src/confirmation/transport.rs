//! The transports: a mail server over SMTP, or the API of Amazon SES.
//!
//! Claims and outcomes are the same for both.

use std::time::Duration;

use super::mail::Mail;
#[cfg(feature = "ses")]
use super::ses::Ses;
use super::smtp::{self, Cause, Delivery, Refusal, SendStage, Smtp};

/// How mails are sent. Clones share connections.
#[derive(Clone)]
pub enum Transport {
    /// Over SMTP.
    Smtp(Smtp),
    /// Through the API of Amazon SES.
    #[cfg(feature = "ses")]
    Ses(Ses),
}

/// A mail that is ready to be sent. Nothing is sent yet, and nothing will be if this is dropped.
pub enum Offer {
    /// An envelope that the mail server has accepted.
    Smtp(smtp::SmtpOffer),
    /// A call of the API, which contains envelope and message.
    #[cfg(feature = "ses")]
    Ses(Ses),
}

impl From<Smtp> for Transport {
    fn from(smtp: Smtp) -> Self {
        Self::Smtp(smtp)
    }
}

#[cfg(feature = "ses")]
impl From<Ses> for Transport {
    fn from(ses: Ses) -> Self {
        Self::Ses(ses)
    }
}

impl Transport {
    /// Prepares as far as possible without any chance that the mail is sent.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: the mail is certainly not sent.
    pub async fn offer(&self, mail: &Mail) -> Result<Offer, Refusal> {
        match self {
            Self::Smtp(smtp) => {
                let offer = smtp.offer(&mail.envelope).await?;
                let bytes = u64::try_from(mail.bytes.len()).unwrap_or(u64::MAX);
                match offer.most_bytes() {
                    Some(most) if bytes > most => {
                        Err(Refusal::at(SendStage::Mail)(Cause::TooLarge {
                            bytes,
                            most,
                        }))
                    }
                    _ => Ok(Offer::Smtp(offer)),
                }
            }
            #[cfg(feature = "ses")]
            Self::Ses(ses) => ses.offer(&mail.envelope).map(Offer::Ses),
        }
    }

    /// How many mails it accepts at a time.
    pub(super) fn connections(&self) -> usize {
        match self {
            Self::Smtp(smtp) => smtp.settings().max_connections,
            #[cfg(feature = "ses")]
            Self::Ses(_) => usize::MAX,
        }
    }

    /// The longest time from the claim to the point of no return.
    pub(super) fn longest_start(&self) -> Duration {
        match self {
            Self::Smtp(smtp) => smtp.settings().timeouts.data + smtp.settings().timeouts.body,
            #[cfg(feature = "ses")]
            Self::Ses(_) => Duration::ZERO,
        }
    }

    /// The longest time from the claim to the last moment at which an answer is still accepted.
    pub(super) fn longest_delivery(&self) -> Duration {
        match self {
            Self::Smtp(smtp) => smtp.settings().timeouts.longest_delivery(),
            #[cfg(feature = "ses")]
            Self::Ses(ses) => ses.limit(),
        }
    }

    /// Says QUIT on every idle connection.
    pub async fn close(&self) {
        match self {
            Self::Smtp(smtp) => smtp.close().await,
            #[cfg(feature = "ses")]
            Self::Ses(_) => {}
        }
    }
}

/// The server's name, for people.
impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Smtp(smtp) => write!(f, "{}:{}", smtp.settings().host, smtp.settings().port),
            #[cfg(feature = "ses")]
            Self::Ses(_) => f.write_str("Amazon SES"),
        }
    }
}

impl Offer {
    /// Sends the mail and waits for the answer. `may_pass` is asked at [`SendStage::Data`] and again
    /// right before the point of no return ([`SendStage::AfterDot`]). Once it says no, the mail is
    /// certainly not sent.
    ///
    /// Dropping this future leaves it unknown whether the mail was accepted.
    pub async fn deliver(
        self,
        mail: &Mail,
        may_pass: &(dyn Fn(SendStage) -> bool + Sync),
    ) -> Delivery {
        match self {
            Self::Smtp(offer) => offer.deliver(&mail.bytes, may_pass).await,
            #[cfg(feature = "ses")]
            Self::Ses(ses) => ses.deliver(mail, may_pass).await,
        }
    }
}
