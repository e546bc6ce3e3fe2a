//! The fleet under simulation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod failing;
mod fleet;
mod handler;
mod lanes;
mod mail;
mod outage;
mod projection;
mod scenarios;
mod seeds;
mod smoke;
