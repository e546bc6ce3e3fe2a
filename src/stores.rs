//! The stream, and the tables in which a fleet keeps its state. Each has a trait, an implementation in
//! memory for tests, and one in DynamoDB.

pub(crate) mod aws_error;
pub(crate) mod clock;
pub mod dead_letter;
pub(crate) mod gather;
pub mod leases;
pub mod ledger;
pub(crate) mod retry;
pub(crate) mod rows;
pub mod source;
pub mod tables;
