//! Why a record could not be handled, and so what becomes of it.

use std::fmt;
use std::io;
use std::time::Duration;

use super::attempt::Crash;
use crate::aws_error::{AwsError, Kind};
use crate::core::pipeline::FailureKind;
use crate::record::DecodeError;

/// Why a record could not be handled, and so what becomes of it.
///
/// The conversions sort what `?` meets: a [`DecodeError`] rejects the record, an
/// [`anyhow::Error`] is tried again, and the errors of the AWS SDK and of [`std::io`] are sorted by
/// what they say (`From<SdkError>` and `From<io::Error>` below).
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Try again with growing waits, for `--max-age`; the item's later records wait. Where several
    /// records in a row fail so and none succeeds, what they depend on is to blame, and this is a
    /// [`Failure::Unavailable`] ([`crate::decide::blame`]).
    Retry(anyhow::Error),
    /// The record is bad and will never do: say which field, and what was expected.
    Reject(anyhow::Error),
    /// Something that the handler depends on refuses this call for good, and it may be the record's
    /// fault or that of the settings: a mail server's 5xx, an API's 400 or 403. Where it serves others
    /// all the same, this is a [`Failure::Reject`]; where it refuses several records in a row, a
    /// [`Failure::Unavailable`]; until either is known, a [`Failure::Retry`].
    Refused(anyhow::Error),
    /// Something that the handler depends on is down: no attempt is burned, everything that needs
    /// it waits and is tried again. Where it serves others all the same, the record is to blame, and
    /// this is a [`Failure::Retry`] ([`crate::decide::blame`]).
    Unavailable(anyhow::Error),
    /// Something that the handler depends on asks for fewer calls: no attempt is burned, and fewer
    /// records are handled at a time until it takes more.
    Overloaded(anyhow::Error),
    /// Somebody else is at it: look again after this long. No attempt is burned.
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
            Self::Busy(wait) => write!(f, "somebody else is at it, at most {wait:?} more"),
        }
    }
}

/// An error that says nothing better is tried again.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Retry(error)
    }
}

/// A record that cannot be decoded will never do.
impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Reject(error.into())
    }
}

/// A connection that failed, broke or timed out is a dependency that is down. Anything else is tried
/// again.
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

/// Sorted by what the service said:
///
/// | the service | the failure | because |
/// |---|---|---|
/// | throttles | [`Failure::Overloaded`] | it serves, but not so many calls |
/// | does not answer, fails, or cannot be reached | [`Failure::Unavailable`] | no record is to blame |
/// | does not accept the credentials, denies the call, or lacks the table | [`Failure::Unavailable`] | every record fails alike until somebody changes a setting |
/// | says that a condition failed or that another transaction is under way | [`Failure::Retry`] | the race may be over the next time |
/// | refuses the request otherwise, as invalid or too large | [`Failure::Reject`] | the same request will never do |
///
/// A condition that tells whether the effect is still due, such as
/// [`Context::version`](super::Context::version), is not a failure: match on
/// `ConditionalCheckFailedException` yourself and answer `Ok`.
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
