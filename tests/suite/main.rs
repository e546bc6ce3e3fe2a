//! The integration tests: one binary, so that the SDK is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod confirmation;
mod engine;
mod fleet;
#[cfg(feature = "http")]
mod handlers;
#[cfg(feature = "lambda")]
mod lambda;
mod monitor;
mod repository;
mod stores;
