//! The `aftercommit` command.

fn main() -> std::process::ExitCode {
    aftercommit::cli::aftercommit()
}
