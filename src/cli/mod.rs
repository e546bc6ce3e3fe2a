//! The command around a handler: flags, environment, checks of every setting before the start, drain,
//! health, status, metrics, dead letters, and AWS Lambda.
//!
//! [`main`] and [`App`] make it of a handler of yours, in a binary of a few lines. [`aftercommit()`] is the
//! command that sends one email for each order.
//!
//! Every flag is also an environment variable, so that a container needs no command line, and a key in
//! the file of `--config`.

mod app;
mod args;
mod commands;
mod config;
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

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub use self::app::{App, Start, main};

use crate::cli::args::means::MeansArgs;
use crate::cli::args::sending::RetentionArgs;
use crate::cli::args::source::{HandlerSource, WithFlags};
use crate::cli::commands::dead_letters::{self, DeadLettersCommand};
use crate::cli::commands::effects::{self, EffectsCommand};
use crate::cli::commands::explain::{self, ExplainArgs};
use crate::cli::commands::filter::{self, FilterCommand};
use crate::cli::commands::gaps::{self, GapsCommand};
use crate::cli::commands::health::{self, HealthArgs};
use crate::cli::commands::ledger::{self, LedgerCommand};
use crate::cli::commands::preview::{self, PreviewArgs};
use crate::cli::commands::run::{self, EffectArgs, RunArgs};
use crate::cli::commands::send::{self, ByHandArgs, SendArgs};
use crate::cli::commands::send_test::{self, SendTestArgs};
use crate::cli::commands::status::{self, StatusArgs};
use crate::cli::commands::suppress::{self, SuppressCommand};
use crate::cli::commands::tables::{self, TablesCommand};
use crate::cli::fault::Fault;
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
struct Cli<C: Subcommand> {
    #[command(subcommand)]
    command: C,
    /// Format of log lines [default: pretty on a terminal, else json]. RUST_LOG selects what is logged
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        env = "AFTERCOMMIT_LOG"
    )]
    log: Option<LogFormat>,
    /// TOML file with settings: flags of `run` by their names, and [[effect]] tables. Variables and flags
    /// override it
    #[arg(long, global = true, value_name = "FILE", env = config::VARIABLE)]
    config: Option<PathBuf>,
}

/// The commands of every program. `M` has the flags that say what handles the records.
#[derive(Debug, Subcommand)]
enum Common<M: Args> {
    /// Follow a table and send one email per order, or call a handler of yours, until stopped
    #[command(after_long_help = run::EXAMPLES)]
    Run(Box<WithFlags<RunArgs, M>>),
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
    /// Show the records that failed, and redrive or discard them
    #[command(subcommand, after_long_help = dead_letters::EXAMPLES)]
    DeadLetters(DeadLettersCommand<M>),
    /// Show the gaps, which are records that were trimmed unread, and resolve them
    #[command(subcommand, after_long_help = gaps::EXAMPLES)]
    Gaps(GapsCommand),
    /// Show the effects of a group, and retire those that are not needed any more
    #[command(subcommand, after_long_help = effects::EXAMPLES)]
    Effects(EffectsCommand),
    /// Show what a filter does with a record
    #[command(subcommand)]
    Filter(FilterCommand),
}

/// The commands of `aftercommit`.
#[derive(Debug, Subcommand)]
enum AftercommitCommand {
    #[command(flatten)]
    Common(Common<MeansArgs>),
    /// Send the email of one order now, with the order as it is in its table
    #[command(after_long_help = send::EXAMPLES)]
    Send(Box<SendArgs>),
    /// Show what happened to the emails, and resolve AMBIGUOUS orders
    #[command(subcommand, after_long_help = ledger::EXAMPLES)]
    Ledger(LedgerCommand<ByHandArgs>),
    /// Manage the list of addresses that must not be mailed
    #[command(subcommand, after_long_help = suppress::EXAMPLES)]
    Suppress(SuppressCommand),
    /// Render the email for an order in a file or a table, without a mail server
    #[command(after_long_help = preview::EXAMPLES)]
    Preview(Box<PreviewArgs>),
    /// Send one test email, with a made-up order or one from a file
    SendTest(Box<SendTestArgs>),
}

/// The commands of a program with a handler of its own.
#[derive(Debug, Subcommand)]
enum OwnCommand<A: Args> {
    #[command(flatten)]
    Common(Common<A>),
    /// Show what happened to effects that take place once, and resolve what is AMBIGUOUS
    #[command(subcommand)]
    Ledger(LedgerCommand<RetentionArgs>),
}

/// AWS Lambda sets this variable; then the process is a Lambda function.
///
/// Source: [the runtime API](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
const ON_LAMBDA: &str = "AWS_LAMBDA_RUNTIME_API";

/// Runs the `aftercommit` command with the process's arguments. On AWS Lambda, runs `run` with the
/// settings in the environment.
pub fn aftercommit() -> ExitCode {
    start(command(), |cli: Cli<AftercommitCommand>, others| {
        let others = others.into_iter().filter_map(|other| match other.command {
            AftercommitCommand::Common(command) => Some(command),
            _ => None,
        });
        let command = match cli.command {
            AftercommitCommand::Common(command) => {
                let commands = std::iter::once(command).chain(others).collect();
                return execute(commands, cli.log, HandlerSource::from);
            }
            other => other,
        };
        log::init(cli.log);
        match command {
            AftercommitCommand::Common(_) => Ok(()),
            AftercommitCommand::Send(args) => on_runtime(send::send(&args)),
            AftercommitCommand::Ledger(command) => on_runtime(ledger::ledger(&command)),
            AftercommitCommand::Suppress(command) => on_runtime(suppress::suppress(&command)),
            AftercommitCommand::Preview(args) => on_runtime(preview::preview(&args)),
            AftercommitCommand::SendTest(args) => on_runtime(send_test::send_test(&args)),
        }
    })
}

fn command() -> clap::Command {
    Cli::<AftercommitCommand>::command()
}

/// Parses the process's arguments and executes them.
fn start<C: Subcommand>(
    command: clap::Command,
    execute: impl FnOnce(Cli<C>, Vec<Cli<C>>) -> Result<(), Fault>,
) -> ExitCode {
    let arguments = if is_on_lambda() {
        // A Lambda function has no command line.
        vec![OsString::from(command.get_name()), "run".into()]
    } else {
        std::env::args_os().collect()
    };
    let mut parsed = match config::parse(command, arguments) {
        Ok(parsed) => parsed.into_iter(),
        Err(refused) => return refused.report(),
    };
    // `run` is parsed once for each effect of the file.
    let Some(first) = parsed.next() else {
        return ExitCode::SUCCESS;
    };
    match execute(first, parsed.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fault.report(),
    }
}

/// Starts the log and executes the command. `source` says where the handler comes from.
fn execute<M: Args>(
    commands: Vec<Common<M>>,
    format: Option<LogFormat>,
    source: impl Fn(M) -> HandlerSource,
) -> Result<(), Fault> {
    let mut effects = Vec::new();
    let mut command = None;
    for one in commands {
        match one {
            Common::Run(args) => effects.push(args.from(&source)),
            other => command = Some(other),
        }
    }
    // A log that nobody reads must not stop the worker.
    let queued = if effects.is_empty() || is_on_lambda() {
        log::init(format);
        None
    } else {
        Some(log::init_queued(format))
    };
    let Some(command) = command else {
        let done = match &*effects {
            [effect] if is_on_lambda() => on_lambda(effect),
            _ if is_on_lambda() => Err(Fault::wrong(
                "a Lambda function performs one effect: name it with AFTERCOMMIT_EFFECT, and run \
                 a function for each",
            )),
            effects => on_runtime(run::run(effects)),
        };
        drop(queued);
        return done;
    };
    let done = match command {
        // It is among the effects.
        Common::Run(_) => Ok(()),
        Common::Status(args) => on_runtime(status::status(&args)),
        Common::Explain(args) => on_runtime(explain::explain(&args)),
        Common::Health(args) => on_runtime(health::health(&args)),
        Common::Tables(TablesCommand::Create(args)) => on_runtime(tables::create(&args)),
        Common::DeadLetters(command) => on_runtime(dead_letters::dead_letters(command, source)),
        Common::Gaps(command) => on_runtime(gaps::gaps(&command)),
        Common::Effects(command) => on_runtime(effects::effects(&command)),
        Common::Filter(FilterCommand::Explain(args)) => filter::explain(&args),
    };
    drop(queued);
    done
}

fn is_on_lambda() -> bool {
    std::env::var_os(ON_LAMBDA).is_some()
}

/// Answers the invocations of AWS Lambda.
#[cfg(feature = "lambda")]
fn on_lambda(effect: &EffectArgs) -> Result<(), Fault> {
    on_runtime(run::lambda::serve(effect))
}

/// This build does not include Lambda.
#[cfg(not(feature = "lambda"))]
fn on_lambda(_: &EffectArgs) -> Result<(), Fault> {
    Err(Fault::wrong(format!(
        "{ON_LAMBDA} is set, so this process is an AWS Lambda function, and this build cannot be one: \
         build it with cargo build --release --features lambda"
    )))
}

fn on_runtime(work: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(work)
}
