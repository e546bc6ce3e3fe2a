//! Rows of a DynamoDB table with conditional writes, for the lease table and the ledger.

mod again;
pub(crate) mod dynamodb;
pub(crate) mod expression;
pub(crate) mod fence;
pub(crate) mod fields;
pub(crate) mod transaction;
pub(crate) mod typed;
