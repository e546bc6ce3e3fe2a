//! The `aftercommit` command.

mod args;
mod aws;
mod cli;
mod copies;
mod dead_letters;
mod fault;
mod filter;
mod fleet;
mod ledger;
mod letters;
mod log;
mod out;
mod preview;
mod progress;
mod records;
mod redrive;
mod resend;
mod run;
mod send_test;
mod sending;
mod signals;
mod suppress;
mod tables;
mod told;

fn main() -> std::process::ExitCode {
    cli::main()
}
