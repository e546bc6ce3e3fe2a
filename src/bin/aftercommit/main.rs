//! The `aftercommit` command.

mod args;
mod aws;
mod cli;
mod fault;
mod fleet;
mod ledger;
mod log;
mod out;
mod preview;
mod records;
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
