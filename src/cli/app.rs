//! A program of yours around a handler of yours.

use std::process::ExitCode;
use std::sync::Arc;

use aws_config::SdkConfig;
use clap::builder::{OsStr, Resettable, StyledStr};
use clap::{Arg, Args, Command, CommandFactory as _};

use crate::RecordHandler;
use crate::cli::args::source::{HandlerSource, OwnHandler};
use crate::cli::commands::ledger;
use crate::cli::host::log;
use crate::cli::{Cli, OwnCommand, execute, on_runtime, start};
use crate::engine::effect::ErasedHandler;

/// Runs the command with this handler, under the program's name: [`App`] has more.
///
/// ```no_run
/// use aftercommit::{Context, Failure, Record, RecordHandler, cli};
///
/// struct Print;
///
/// impl RecordHandler for Print {
///     async fn handle(&self, record: &Record, _: &Context) -> Result<(), Failure> {
///         println!("{:?} {}", record.event, record.key().as_str());
///         Ok(())
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     cli::main("print-changes", Print)
/// }
/// ```
pub fn main(name: &'static str, handler: impl RecordHandler) -> ExitCode {
    App::new(name).main(handler)
}

/// A program around a handler of yours: the whole command, but what is about emails.
///
/// Its name is also the default of `--group` and `--effect`, so choose one that can stay. Without
/// `--filter` the handler gets every change.
#[derive(Debug, Clone, Copy)]
pub struct App {
    name: &'static str,
    version: &'static str,
    about: &'static str,
}

/// What a handler is made with.
#[derive(Debug)]
pub struct Start<A> {
    /// The flags of `run` that are your own.
    pub flags: Arc<A>,
    /// How the command calls AWS: profile, Region, endpoints, proxies, timeouts.
    pub aws: SdkConfig,
}

impl App {
    /// A program of this name: letters, digits, `-`, `_` and `.`.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            version: "unknown",
            about: "Handles each change that is committed to a DynamoDB table",
        }
    }

    /// The answer to `--version`: `env!("CARGO_PKG_VERSION")`.
    #[must_use]
    pub fn version(self, version: &'static str) -> Self {
        Self { version, ..self }
    }

    /// What it does, in one line without a full stop.
    #[must_use]
    pub fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Runs the command with this handler. On AWS Lambda, runs `run` with the settings in the environment.
    pub fn main(self, handler: impl RecordHandler) -> ExitCode {
        let handler = Arc::new(handler);
        self.start(move |_: Start<()>| {
            let handler = handler.clone();
            async move { Ok(handler) }
        })
    }

    /// The same with a handler that needs something at the start: flags of its own (`A` derives
    /// [`clap::Args`], or is `()`), a client of AWS, a file. It is made only where it is called: by `run`
    /// and by `dead-letters redrive`. An error ends the command with exit code 2.
    pub fn start<A, H, F>(self, open: impl Fn(Start<A>) -> F + Send + Sync + 'static) -> ExitCode
    where
        A: Args + Send + Sync + 'static,
        H: RecordHandler,
        F: Future<Output = anyhow::Result<H>> + Send + 'static,
    {
        let open = Arc::new(open);
        start(self.command::<A>(), |cli: Cli<OwnCommand<A>>, others| {
            let others = others.into_iter().filter_map(|other| match other.command {
                OwnCommand::Common(command) => Some(command),
                OwnCommand::Ledger(_) => None,
            });
            let command = match cli.command {
                OwnCommand::Common(command) => command,
                OwnCommand::Ledger(command) => {
                    log::init(cli.log);
                    return on_runtime(ledger::ledger(&command));
                }
            };
            let commands = std::iter::once(command).chain(others).collect();
            execute(commands, cli.log, |flags| {
                let (flags, open) = (Arc::new(flags), open.clone());
                HandlerSource::from(OwnHandler::new(move |aws| {
                    let flags = flags.clone();
                    let opened = open(Start { flags, aws });
                    Box::pin(async move { opened.await.map(ErasedHandler::new) })
                }))
            })
        })
    }

    fn command<A: Args>(self) -> Command {
        let command = Cli::<OwnCommand<A>>::command().mut_subcommand("run", |run| {
            run.about("Follow a table and handle each change, until stopped")
                .mut_args(|arg| self.of_run(arg))
        });
        self.named(command)
            .name(self.name)
            .version(self.version)
            .about(self.about)
    }

    /// Without the examples, which send emails. A command's group is the program's.
    fn named(self, command: Command) -> Command {
        command
            .after_help(Resettable::<StyledStr>::Reset)
            .after_long_help(Resettable::<StyledStr>::Reset)
            .mut_args(|arg| match arg.get_id().as_str() {
                "group" => arg.default_value(self.name),
                "sent" => arg.help("The handler acted: never again"),
                "send" => arg.help(
                    "It did not act, so it may again: at the next change of the item, or a redrive. Also \
                     for what was refused",
                ),
                _ => arg,
            })
            .mut_subcommands(|command| self.named(command))
    }

    fn of_run(self, arg: Arg) -> Arg {
        match arg.get_id().as_str() {
            "effect" => arg.default_value(self.name).help(
                "Name of the effect, by which the group's settings and the metrics are known",
            ),
            "filters" => arg.default_value(Resettable::<OsStr>::Reset).help(
                "Event filter pattern in AWS Lambda's syntax; of several, one must match [default: every \
                 change]. Try one with `filter explain`",
            ),
            "handler_timeout" => arg.help("Time limit of one attempt [default: 1m]"),
            _ => arg,
        }
    }
}
