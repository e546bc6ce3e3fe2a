//! All integration tests in one binary: each binary would link the AWS SDK anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod cancel;
mod cli;
mod cli_tables;
mod confirm;
mod contract_leases;
mod contract_ledger;
mod dynamodb_leases;
mod dynamodb_lookup;
mod dynamodb_stream;
mod faults;
mod mail;
mod order;
mod smtp;
mod template;
mod traps;
mod veto;
mod wire_fleet;
mod wire_streams;
