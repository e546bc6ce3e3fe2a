//! The `aftercommit` command.

mod aws;
mod cli;
mod fault;
mod filter;
mod log;
mod preview;
mod run;
mod send_test;
mod signals;
mod tables;

fn main() -> std::process::ExitCode {
    cli::main()
}
