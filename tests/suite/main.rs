//! All integration tests in one binary: each binary would link the AWS SDK anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod cancel;
mod confirm;
mod faults;
mod mail;
mod order;
mod smtp;
mod template;
mod traps;
