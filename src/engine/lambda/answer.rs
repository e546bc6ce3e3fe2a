//! The answer to an invocation.

use std::time::SystemTime;

use serde::Serialize;

use crate::core::record::lambda_event::NotARecord;

/// The answer to a batch, in the form that an event source mapping with `ReportBatchItemFailures`
/// expects.
///
/// Source: [batch item failures](https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    #[serde(rename = "batchItemFailures")]
    pub(super) failures: Vec<FailedItem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FailedItem {
    #[serde(rename = "itemIdentifier")]
    pub(super) sequence_number: String,
}

impl Answer {
    /// The sequence number of the first unfinished record: it and all later ones are delivered again.
    /// `None`: all are finished.
    pub fn unfinished(&self) -> Option<&str> {
        let first = self.failures.first();
        first.map(|failed| failed.sequence_number.as_str())
    }
}

/// How far an invocation finished its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invoked {
    /// All records are finished.
    Finished,
    /// A record is not finished: the first such record was committed at this time; `None`: it cannot be
    /// read and has no time.
    Waiting(Option<SystemTime>),
}

/// Why an event is not answered. The whole batch is delivered again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A record cannot be read and has no sequence number to report.
    #[error("cannot read the event: {0}")]
    Unreadable(NotARecord),
    /// The event source fell behind by most of a day, and the gap cannot be recorded.
    #[error(
        "the event source of {stream} fell so far behind that records may be lost, and the gap cannot be \
         recorded: {why}. Check that the function is allowed to write to the lease table"
    )]
    FellBehind {
        /// The stream's ARN.
        stream: String,
        /// Why the gap is not recorded.
        why: String,
    },
    /// The event is of a table that this function does not follow.
    #[error(
        "the records come from {stream}, which is not a stream of a table that this function \
         follows: name the table, or remove the event source mapping"
    )]
    Foreign {
        /// The stream's ARN.
        stream: String,
    },
}

impl From<NotARecord> for Refused {
    fn from(error: NotARecord) -> Self {
        Self::Unreadable(error)
    }
}
