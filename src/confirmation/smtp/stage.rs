//! How far a mail got, and how it ended.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::reply::{Class, Reply};

/// A step of the conversation with the mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SendStage {
    /// Looking the name up and opening the TCP connection.
    Connect,
    /// STARTTLS and the TLS handshake.
    Tls,
    /// The server's greeting.
    Greeting,
    /// EHLO.
    Hello,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// The DATA command.
    Data,
    /// Sending the message.
    Body,
    /// Waiting for the reply to the final dot.
    AfterDot,
    /// The one call of an API that takes envelope and message together.
    Call,
}

impl fmt::Display for SendStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Tls => "the TLS handshake",
            Self::Greeting => "the greeting",
            Self::Hello => "EHLO",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Body => "the message",
            Self::AfterDot => "the final dot",
            Self::Call => "the call",
        })
    }
}

/// The cause of a failure at a stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The server replied with an error.
    #[error("the server answered {0}")]
    Reply(Reply),
    /// No reply, or only a part of it, arrived in this time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// The server's reply is not SMTP, or does not belong to this step.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// This server cannot accept this mail, or these settings.
    #[error("{0}")]
    Unsuitable(&'static str),
    /// The server does not accept messages of this size.
    #[error("the mail has {bytes} bytes, and the mail server takes {most}")]
    TooLarge {
        /// The size of the message.
        bytes: u64,
        /// The server's limit.
        most: u64,
    },
    /// The caller did not let it pass.
    #[error("the claim had expired")]
    NotAllowed,
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Cause {
    /// A reply that does not belong to this step.
    pub(super) fn unexpected(reply: Reply) -> Self {
        match reply.class() {
            Class::NotNow | Class::Never => Self::Reply(reply),
            Class::Done | Class::GoOn => Self::Protocol(format!("it answered {reply} out of turn")),
        }
    }

    /// Whether the connection was closed, which can happen to an idle one at any time.
    pub(super) fn is_disconnect(&self) -> bool {
        match self {
            Self::Closed | Self::Io(_) => true,
            Self::Reply(reply) => reply.closes(),
            _ => false,
        }
    }
}

/// A mail that could not be offered: certainly not sent.
#[derive(Debug, thiserror::Error)]
#[error("{stage}: {cause}")]
pub struct Refusal {
    /// The step at which it ended.
    pub stage: SendStage,
    /// Why.
    pub cause: Cause,
}

impl Refusal {
    pub(in crate::confirmation) fn at(stage: SendStage) -> impl Fn(Cause) -> Self + Copy {
        move |cause| Self { stage, cause }
    }

    /// Whether the server refuses this mail, now or for good: 4xx or 5xx to its sender or recipient.
    /// Any other failure would affect every mail. A demand for authentication (530) is about the
    /// settings.
    pub fn is_about_the_mail(&self) -> bool {
        match (&self.cause, self.stage) {
            (Cause::Reply(reply), SendStage::Mail | SendStage::Rcpt) => {
                !reply.throttles() && reply.code() != 530
            }
            (Cause::Unsuitable(_) | Cause::TooLarge { .. }, SendStage::Mail | SendStage::Rcpt) => {
                true
            }
            _ => false,
        }
    }

    /// Whether this order is certainly to blame: its recipient, or its size. Otherwise a refusal may be
    /// about the sender, the login, or the server's policy.
    pub fn is_about_the_order(&self) -> bool {
        match (&self.cause, self.stage) {
            (Cause::TooLarge { .. }, _) | (Cause::Unsuitable(_), SendStage::Rcpt) => true,
            (Cause::Reply(reply), SendStage::Rcpt) => reply.is_about_the_recipient(),
            _ => false,
        }
    }

    /// Whether the server rejects the login: 5xx to AUTH, such as 535 for a wrong password.
    pub(super) fn is_of_the_login(&self) -> bool {
        self.stage == SendStage::Auth && self.is_permanent()
    }

    /// Whether a retry cannot help: 5xx, or an address that this server cannot accept.
    pub fn is_permanent(&self) -> bool {
        match &self.cause {
            Cause::Reply(reply) => reply.class() == Class::Never,
            Cause::Unsuitable(_) | Cause::TooLarge { .. } => true,
            _ => false,
        }
    }
}

/// How a mail ended after its envelope was accepted.
#[derive(Debug)]
pub enum Delivery {
    /// 2xx to the final dot: the server has accepted it.
    Accepted(Reply),
    /// 5xx: the server will never accept it.
    Refused(Reply),
    /// 4xx: the server did not accept it this time.
    Deferred(Reply),
    /// It ended before the final dot was sent: certainly not accepted.
    NotSent {
        /// The step at which it ended.
        stage: SendStage,
        /// Why.
        why: Cause,
    },
    /// The final dot may have reached the server, and no definite reply came: it is unknown whether the
    /// mail was accepted.
    NoReply {
        /// The step at which it ended.
        stage: SendStage,
        /// Why.
        why: Cause,
    },
}

impl Delivery {
    /// What a definite refusal of DATA or of the final dot means; `Err`: the reply is not a refusal.
    pub(super) fn refused(reply: Reply) -> Result<Self, Reply> {
        match reply.class() {
            Class::Never => Ok(Self::Refused(reply)),
            Class::NotNow => Ok(Self::Deferred(reply)),
            Class::Done | Class::GoOn => Err(reply),
        }
    }
}

/// A step that takes at most `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, Cause> {
    match timeout(limit, step).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Cause::Timeout(limit)),
    }
}
