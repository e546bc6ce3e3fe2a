//! Why a record could not be handled, which decides what happens to it.

use std::fmt;
use std::io;
use std::time::Duration;

use super::attempt::Crash;
use crate::core::pipeline::FailureKind;
use crate::core::record::DecodeError;
use crate::stores::aws_error::{AwsError, Kind};

/// Why a record could not be handled, which decides what happens to it.
///
/// `?` converts: a [`DecodeError`] rejects the record, an [`anyhow::Error`] is retried, and errors of
/// the AWS SDK and of [`std::io`] are classified by their kind (`From<SdkError>` and
/// `From<io::Error>` below).
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// This attempt failed. The record is retried with growing waits for at most
    /// [`AttemptLimits::age`](crate::engine::AttemptLimits); later records of its item wait. If
    /// several records in a row fail this way and none succeeds, the dependency is blamed, and this
    /// counts as [`Failure::Unavailable`].
    Retry(anyhow::Error),
    /// The record is bad and can never be handled: name the field, and what was expected. It becomes a
    /// dead letter at once.
    Reject(anyhow::Error),
    /// The dependency refuses this call for good, and the record or the settings may be to blame: a
    /// mail server's 5xx, an API's 400 or 403. If other records succeed meanwhile, this counts as
    /// [`Failure::Reject`]; if several records in a row are refused, as [`Failure::Unavailable`];
    /// until either is known, as [`Failure::Retry`].
    Refused(anyhow::Error),
    /// The dependency is down. No attempt is counted; the circuit breaker opens, and everything that
    /// needs the dependency waits until a probe succeeds. If other records succeed meanwhile, the
    /// record is blamed, and this counts as [`Failure::Retry`].
    Unavailable(anyhow::Error),
    /// The dependency asks for fewer calls. No attempt is counted, and fewer records are handled at a
    /// time until the dependency accepts more.
    Overloaded(anyhow::Error),
    /// Another worker is processing the same effect: retry after this long. No attempt is counted.
    Busy(Duration),
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident, $variant:ident;)+) => {
        impl Failure {
            $(
                $(#[$doc])*
                pub fn $name(error: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
                    Self::$variant(anyhow::Error::msg(error))
                }
            )+
        }
    };
}

constructors! {
    /// [`Failure::Retry`] with a message or an error.
    retry, Retry;
    /// [`Failure::Reject`] with a message or an error.
    reject, Reject;
    /// [`Failure::Refused`] with a message or an error.
    refused, Refused;
    /// [`Failure::Unavailable`] with a message or an error.
    unavailable, Unavailable;
    /// [`Failure::Overloaded`] with a message or an error.
    overloaded, Overloaded;
}

impl Failure {
    /// The same for another record of a batch. Of the cause, the text remains.
    pub(crate) fn copied(&self) -> Self {
        let text = |error: &anyhow::Error| anyhow::anyhow!("{error:#}");
        match self {
            Self::Retry(error) => Self::Retry(match error.downcast_ref::<Crash>() {
                Some(crash) => crash.clone().into(),
                None => text(error),
            }),
            Self::Reject(error) => Self::Reject(text(error)),
            Self::Refused(error) => Self::Refused(text(error)),
            Self::Unavailable(error) => Self::Unavailable(text(error)),
            Self::Overloaded(error) => Self::Overloaded(text(error)),
            Self::Busy(wait) => Self::Busy(*wait),
        }
    }

    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Retry(error) if error.is::<Crash>() => FailureKind::Crash,
            // Until it is known whose fault a refusal is.
            Self::Retry(_) | Self::Refused(_) => FailureKind::Retry,
            Self::Reject(_) => FailureKind::Reject,
            Self::Unavailable(_) => FailureKind::Unavailable,
            Self::Overloaded(_) => FailureKind::Overloaded,
            Self::Busy(wait) => FailureKind::Busy(*wait),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(error)
            | Self::Reject(error)
            | Self::Refused(error)
            | Self::Unavailable(error)
            | Self::Overloaded(error) => write!(f, "{error:#}"),
            Self::Busy(wait) => write!(
                f,
                "another worker is processing it; retrying within {wait:?}"
            ),
        }
    }
}

/// An error without a better classification is retried.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Retry(error)
    }
}

/// A record that cannot be decoded never will be.
impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Reject(error.into())
    }
}

/// A connection that failed, broke or timed out means that a dependency is down. Any other error is
/// retried.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut => Self::Unavailable(error.into()),
            _ => Self::Retry(error.into()),
        }
    }
}

/// Classified by the service's answer:
///
/// | the service | the failure | because |
/// |---|---|---|
/// | throttles | [`Failure::Overloaded`] | it serves, but not so many calls |
/// | does not answer, fails, or cannot be reached | [`Failure::Unavailable`] | no record is to blame |
/// | does not accept the credentials, denies the call, or lacks the table | [`Failure::Unavailable`] |
/// every record fails the same way until somebody changes a setting |
/// | reports that a condition failed or that another transaction is in progress | [`Failure::Retry`] |
/// the race may be over next time |
/// | rejects the request otherwise, as invalid or too large | [`Failure::Reject`] | the same request
/// will never succeed |
///
/// A condition that checks whether the effect is still due, such as
/// [`Context::version`](super::Context::version), is not a failure: match on
/// `ConditionalCheckFailedException` yourself and return `Ok`.
impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        let passes = matches!(
            error.code(),
            Some(
                "ConditionalCheckFailedException"
                    | "TransactionCanceledException"
                    | "TransactionConflictException"
                    | "TransactionInProgressException"
            )
        );
        match error.kind() {
            Kind::Throttled => Self::overloaded(error),
            Kind::Refused if passes => Self::retry(error),
            Kind::Refused => Self::reject(error),
            _ => Self::unavailable(error),
        }
    }
}
