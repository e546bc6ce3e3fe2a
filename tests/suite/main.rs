//! The integration tests: one binary, so that the SDK is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod arrows;
mod aws_errors;
mod cancel;
mod cli;
mod cli_dead_letters;
mod cli_ledger;
mod cli_send;
mod cli_status;
mod cli_tables;
mod confirm;
mod contract_dead_letters;
mod contract_leases;
mod contract_ledger;
mod copies;
mod dkim;
mod dynamodb_dead_letters;
mod dynamodb_leases;
mod dynamodb_lookup;
mod dynamodb_stream;
mod effects;
mod end_to_end;
mod fault_table;
mod faults;
mod fencing;
mod filter;
mod filter_random;
mod filter_told;
mod iam;
mod infra;
#[cfg(feature = "lambda")]
mod lambda;
mod lambda_event;
#[cfg(feature = "lambda")]
mod lambda_moving;
#[cfg(feature = "lambda")]
mod lambda_process;
mod large;
mod mail;
mod malformed;
mod no_stream;
mod one_key;
mod order;
mod page;
mod poison;
mod process;
mod processes;
mod readme;
#[cfg(feature = "lambda")]
mod real_lambda;
mod real_servers;
mod real_tables;
mod record;
mod redrive;
mod requests;
mod runbook;
mod secrets;
mod seen_through;
mod service_time;
#[cfg(feature = "ses")]
mod ses;
mod smtp;
mod soak;
mod standing_claim;
mod status_report;
mod stopping;
mod stuck;
mod telling;
mod template;
mod throttle;
mod traps;
mod veto;
mod watching;
mod which_changes;
mod wire_fleet;
mod wire_streams;
mod wire_table;
