//! The integration tests: one binary, so that the SDK is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod mail;
mod order;
mod smtp;
mod template;
