//! What several tests need.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod ahead;
pub mod arbitrary;
pub mod clients;
pub mod embedded;
pub mod fault_cases;
pub mod flaky_ledger;
#[cfg(feature = "http")]
pub mod handler_server;
pub mod http;
pub mod lambda_events;
pub mod letters;
pub mod mail_server;
pub mod malformed;
pub mod orders;
#[cfg(feature = "lambda")]
pub mod runtime_api;
pub mod server;
#[cfg(feature = "ses")]
pub mod ses_server;
pub mod shop;
pub mod streams_server;
pub mod wiretap;
