//! The commands, as a shell sees them.

mod config;
mod dead_letters;
pub mod ledger;
mod preview;
pub mod programs;
pub mod send;
pub mod start;
mod status;
pub mod tables;
