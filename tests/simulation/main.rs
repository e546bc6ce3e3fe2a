//! The fleet under simulation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batch;
mod charge;
mod failing;
#[path = "../support/fault_cases.rs"]
mod fault_cases;
mod fleet;
mod handler;
mod lanes;
mod lasting;
mod mail;
#[path = "../support/mail_server.rs"]
mod mail_server;
mod outage;
mod projection;
mod relay;
mod remembered;
mod scenarios;
mod seeds;
mod smoke;
mod soak;
mod spells;
mod throughput;
