//! The `aftercommit` command.

mod args;
mod aws;
mod cli;
mod copies;
mod dead_letters;
mod discard;
mod ecs;
mod explain;
mod fault;
mod filter;
mod fleet;
mod gaps;
mod health;
mod http;
mod identity;
mod ledger;
mod letters;
mod log;
mod mail;
mod note;
mod order;
mod out;
mod password;
mod place;
mod preview;
mod progress;
mod records;
mod redrive;
mod resolve;
mod run;
mod send;
mod send_test;
mod sending;
mod signals;
mod start;
mod status;
mod status_told;
mod suppress;
mod tables;
mod told;
mod watch;
mod web;

fn main() -> std::process::ExitCode {
    cli::main()
}
