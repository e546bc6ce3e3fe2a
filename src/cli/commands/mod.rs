//! The commands: one file each, or a folder for a command with subcommands.

pub mod dead_letters;
pub mod effects;
pub mod explain;
pub mod filter;
pub mod gaps;
pub mod health;
pub mod ledger;
pub mod preview;
pub mod run;
pub mod send;
pub mod send_test;
pub mod status;
pub mod suppress;
pub mod tables;
