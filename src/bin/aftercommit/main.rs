//! The `aftercommit` command.

mod aws;
mod cli;
mod dead_letters;
mod fault;
mod filter;
mod fleet;
mod log;
mod preview;
mod progress;
mod redrive;
mod run;
mod send_test;
mod signals;
mod tables;

fn main() -> std::process::ExitCode {
    cli::main()
}
