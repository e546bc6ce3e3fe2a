//! The fleet under simulation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fleet;
mod mail;
mod scenarios;
mod smoke;
