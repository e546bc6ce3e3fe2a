//! Rows of a DynamoDB table under conditional writes: what the lease table and the ledger are
//! built on.

mod again;
pub(crate) mod dynamodb;
pub(crate) mod expression;
pub(crate) mod fence;
pub(crate) mod fields;
pub(crate) mod transaction;
pub(crate) mod typed;
