//! The command line and its help. Every setting is also an environment variable, so that a container
//! needs no command line.

mod args;
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

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::cli::commands::dead_letters::{self, DeadLettersCommand};
use crate::cli::commands::explain::{self, ExplainArgs};
use crate::cli::commands::filter::{self, FilterCommand};
use crate::cli::commands::gaps::{self, GapsCommand};
use crate::cli::commands::health::{self, HealthArgs};
use crate::cli::commands::ledger::{self, LedgerCommand};
use crate::cli::commands::preview::{self, PreviewArgs};
use crate::cli::commands::run::{self, RunArgs};
use crate::cli::commands::send::{self, SendArgs};
use crate::cli::commands::send_test::{self, SendTestArgs};
use crate::cli::commands::status::{self, StatusArgs};
use crate::cli::commands::suppress::{self, SuppressCommand};
use crate::cli::commands::tables::{self, TablesCommand};
use crate::cli::fault::{Fault, report_usage};
use crate::cli::host::log::{self, LogFormat};

const EXAMPLES: &str = "\
Examples:
  # Render the email for an order: needs no mail server and no AWS account
  aftercommit preview order.json --out preview/

  # Check that mail can be delivered
  aftercommit send-test --to me@example.com \\
      --smtp-url smtps://user@mail.example.com --smtp-password-file password.txt \\
      --mail-from \"Shop <orders@example.com>\"

  # Create the tables that the worker needs, once
  aftercommit tables create

  # Send one email for every order that is committed to the table `orders`
  export AFTERCOMMIT_SMTP_PASSWORD=...
  aftercommit run --table orders --mail-from \"Shop <orders@example.com>\" \\
      --smtp-url smtps://user@mail.example.com

  # The same against LocalStack and a mail catcher on this machine
  export AWS_ENDPOINT_URL=http://localhost:4566 AWS_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
  aftercommit tables create --with-orders
  aftercommit run --table orders --mail-from shop@example.com --smtp-url smtp://localhost:1025

  # List the orders whose email may or may not have been accepted, and record what you found out
  aftercommit ledger list --state ambiguous
  aftercommit ledger resolve 1042 --sent --note \"queued as 4F2A\"

  # List the records that failed, and handle them again once the cause is fixed
  aftercommit dead-letters list
  aftercommit dead-letters redrive --reason exhausted --mail-from ... --smtp-url ...

AWS credentials, Region and endpoints are found as every AWS tool finds them.
Exit codes: 0 done, 1 the work failed, 2 a setting is wrong; the reason is one line on standard error.";

/// Sends one confirmation email per order that is committed to a DynamoDB table
#[derive(Debug, Parser)]
#[command(name = "aftercommit", version, after_long_help = EXAMPLES, after_help = "More, with examples: --help")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Format of log lines [default: pretty on a terminal, else json]. RUST_LOG selects what is logged
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        env = "AFTERCOMMIT_LOG"
    )]
    log: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow a table and send one email per order, or call a handler of yours, until stopped
    #[command(after_long_help = run::EXAMPLES)]
    Run(Box<RunArgs>),
    /// Show how the fleet is doing, and what to do next
    #[command(after_long_help = status::EXAMPLES)]
    Status(StatusArgs),
    /// Show everything that happened to an order, oldest first
    #[command(after_long_help = explain::EXAMPLES)]
    Explain(Box<ExplainArgs>),
    /// Check whether the worker on this machine is alive, for a container's health check
    #[command(after_long_help = health::EXAMPLES)]
    Health(HealthArgs),
    /// Create the tables that the worker needs
    #[command(subcommand)]
    Tables(TablesCommand),
    /// Send the email of one order now, with the order as it is in its table
    #[command(after_long_help = send::EXAMPLES)]
    Send(Box<SendArgs>),
    /// Show what happened to the emails, and resolve AMBIGUOUS orders
    #[command(subcommand, after_long_help = ledger::EXAMPLES)]
    Ledger(LedgerCommand),
    /// Show the records that failed, and redrive or discard them
    #[command(subcommand, after_long_help = dead_letters::EXAMPLES)]
    DeadLetters(DeadLettersCommand),
    /// Show the gaps, which are records that were trimmed unread, and resolve them
    #[command(subcommand, after_long_help = gaps::EXAMPLES)]
    Gaps(GapsCommand),
    /// Show what a filter does with a record
    #[command(subcommand)]
    Filter(FilterCommand),
    /// Manage the list of addresses that must not be mailed
    #[command(subcommand, after_long_help = suppress::EXAMPLES)]
    Suppress(SuppressCommand),
    /// Render the email for an order in a file or a table, without a mail server
    #[command(after_long_help = preview::EXAMPLES)]
    Preview(Box<PreviewArgs>),
    /// Send one test email, with a made-up order or one from a file
    SendTest(Box<SendTestArgs>),
}

/// AWS Lambda sets this variable; then the process is a Lambda function.
///
/// Source: [the runtime API](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
const ON_LAMBDA: &str = "AWS_LAMBDA_RUNTIME_API";

/// Runs the command in the arguments. On AWS Lambda, runs `run` with the settings in the environment.
pub fn main() -> ExitCode {
    if std::env::var_os(ON_LAMBDA).is_some() {
        return on_lambda();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    // A log that nobody reads must not stop the worker.
    let queued = if matches!(cli.command, Command::Run(_)) {
        Some(log::init_queued(cli.log))
    } else {
        log::init(cli.log);
        None
    };
    let done = execute(&cli.command);
    drop(queued);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fault.report(),
    }
}

fn execute(command: &Command) -> Result<(), Fault> {
    match command {
        Command::Run(args) => on_runtime(run::run(args)),
        Command::Status(args) => on_runtime(status::status(args)),
        Command::Explain(args) => on_runtime(explain::explain(args)),
        Command::Health(args) => on_runtime(health::health(args)),
        Command::Tables(TablesCommand::Create(args)) => on_runtime(tables::create(args)),
        Command::Send(args) => on_runtime(send::send(args)),
        Command::Ledger(command) => on_runtime(ledger::ledger(command)),
        Command::DeadLetters(command) => on_runtime(dead_letters::dead_letters(command)),
        Command::Gaps(command) => on_runtime(gaps::gaps(command)),
        Command::Filter(FilterCommand::Explain(args)) => filter::explain(args),
        Command::Suppress(command) => on_runtime(suppress::suppress(command)),
        Command::Preview(args) => on_runtime(preview::preview(args)),
        Command::SendTest(args) => on_runtime(send_test::send_test(args)),
    }
}

/// A Lambda function has no command line.
#[cfg(feature = "lambda")]
fn on_lambda() -> ExitCode {
    let cli = match Cli::try_parse_from(["aftercommit", "run"]) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    log::init(cli.log);
    let Command::Run(args) = &cli.command else {
        return ExitCode::FAILURE;
    };
    match on_runtime(run::lambda::serve(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fault.report(),
    }
}

/// This build does not include Lambda.
#[cfg(not(feature = "lambda"))]
fn on_lambda() -> ExitCode {
    let error = format!(
        "{ON_LAMBDA} is set, so this process is an AWS Lambda function, and this build cannot be one: \
         build it with cargo build --release --features lambda"
    );
    Fault::wrong(error).report()
}

fn on_runtime(work: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(work)
}
