//! `aftercommit dead-letters`: lists, shows, redrives and discards the records that failed.

use clap::{Args, Subcommand};

use self::discard::DiscardArgs;
use self::list::DeadLettersListArgs;
use self::redrive::RedriveArgs;
use crate::cli::args::source::{HandlerSource, WithFlags};
use crate::cli::fault::Fault;

mod discard;
mod list;
mod redrive;

pub const EXAMPLES: &str = "\
Examples:
  # List the records that failed, and why
  aftercommit dead-letters list
  aftercommit dead-letters list --reason rejected --older-than 1d --json

  # Show the letters of one order in full
  aftercommit dead-letters show --table orders --key 1042
  aftercommit dead-letters show --table shop --key PK=CUST#7,SK=ORDER#1042

  # Handle them again, in order, through the same ledger; first look at what would be done
  aftercommit dead-letters redrive --reason exhausted --dry-run --mail-from ... --smtp-url ...
  aftercommit dead-letters redrive --table orders --key 1042 --mail-from ... --smtp-url ...

  # Give up the letter that failed. Letters that wait behind it stay
  aftercommit dead-letters discard --table orders --key 1042 --note \"a test order\"

Exit codes: 0 done, 1 nothing found, or a letter failed again, 2 a setting is wrong.";

/// The commands for dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand<M: Args> {
    /// List letters by key, in order. Without --key this reads the whole table
    List(DeadLettersListArgs),
    /// Show letters in full: the record, every attempt, what was done
    Show(DeadLettersListArgs),
    /// Handle records again: all letters of each selected key, oldest first
    #[command(after_long_help = redrive::EXAMPLES)]
    Redrive(Box<WithFlags<RedriveArgs, M>>),
    /// Give up letters that failed. Letters that wait behind them stay and can be redriven
    Discard(DiscardArgs),
}

/// Runs the command. `source` says where the handler comes from.
pub async fn dead_letters<M: Args>(
    command: DeadLettersCommand<M>,
    source: impl FnOnce(M) -> HandlerSource,
) -> Result<(), Fault> {
    match command {
        DeadLettersCommand::List(args) => list::list(&args).await,
        DeadLettersCommand::Show(args) => list::show(&args).await,
        DeadLettersCommand::Redrive(args) => redrive::execute(&args.from(source)).await,
        DeadLettersCommand::Discard(args) => discard::execute(&args).await,
    }
}
