//! The `aftercommit` command.

mod args;
mod cli;
mod commands;
// With all features, since the pages show every flag.
#[cfg(all(
    test,
    feature = "lambda",
    feature = "secrets",
    feature = "ses",
    feature = "sqs"
))]
#[allow(clippy::unwrap_used)]
mod docs;
mod fault;
mod host;
mod render;

fn main() -> std::process::ExitCode {
    cli::main()
}
