//! The integration tests: one binary, so that the SDK is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod cli_tables;
mod contract_dead_letters;
mod contract_leases;
mod contract_ledger;
mod dynamodb_leases;
mod dynamodb_stream;
mod filter;
mod filter_random;
mod lambda_event;
mod mail;
mod order;
mod smtp;
mod template;
mod throttle;
