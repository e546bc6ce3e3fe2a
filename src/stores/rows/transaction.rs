//! The parts of a transaction.

use std::sync::Arc;

use serde_dynamo::Item;

use super::expression::RowExpression;
use super::fields::Fields;

/// The most parts of a transaction.
///
/// Source: [TransactWriteItems](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html).
pub(crate) const MOST_PARTS: usize = 100;

/// The most bytes that a transaction should write. The limit is 4 MB, by DynamoDB's own count.
pub(crate) const MOST_BYTES: usize = 3_000_000;

/// A part of a transaction.
#[derive(Clone)]
pub(crate) enum Part {
    /// Changes a row.
    Update(Fields, RowExpression),
    /// Writes a whole row.
    Put(Item, RowExpression),
    /// Removes a row.
    Delete(Fields, RowExpression),
    /// Only checks a condition on a row.
    Demand(Fields, RowExpression),
    /// Checks a condition on a row of another table.
    DemandOf(Arc<str>, Fields, RowExpression),
}

impl Part {
    /// The key of its row in the table of the transaction; `None` if it is another table's, or the row
    /// contains its key.
    pub(super) fn key(&self) -> Option<&Fields> {
        match self {
            Self::Update(key, _) | Self::Delete(key, _) | Self::Demand(key, _) => Some(key),
            Self::Put(..) | Self::DemandOf(..) => None,
        }
    }
}

/// How a transaction ended. An error means that it is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transaction {
    /// All of it was applied.
    Applied,
    /// Nothing was applied: the conditions marked `true` failed, in the order of the parts.
    Refused(Vec<bool>),
}
