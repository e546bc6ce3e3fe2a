//! All integration tests in one binary: each one more would link the SDK again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod contract_leases;
mod contract_ledger;
mod dynamodb_leases;
mod dynamodb_stream;
