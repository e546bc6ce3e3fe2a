//! Rows of a DynamoDB table under conditional writes: what the lease table and the ledger are
//! built on.

pub(crate) mod dynamodb;
pub(crate) mod expression;
pub(crate) mod fields;

/// The partition key of the suppression list: the hash of an address.
pub(crate) const ADDRESS: &str = "address";
