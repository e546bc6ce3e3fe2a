//! The `aftercommit` command.

mod args;
mod cli;
mod commands;
mod fault;
mod host;
mod render;

fn main() -> std::process::ExitCode {
    cli::main()
}
