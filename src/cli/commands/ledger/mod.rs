//! `aftercommit ledger`: lists and shows what happened to emails and other effects, and resolves what is AMBIGUOUS.

use clap::{Args, Subcommand};

use self::list::{LedgerListArgs, ShowArgs};
use self::resolve::{LedgerResolveArgs, Resolving};
use crate::cli::fault::Fault;

mod list;
mod resolve;

pub const EXAMPLES: &str = "\
Examples:
  # List what may or may not have taken place
  aftercommit ledger list --state ambiguous

  # Show everything that is known about one, and what to do next
  aftercommit ledger show 1042

  # The mail server's log shows it
  aftercommit ledger resolve 1042 --sent --note \"queued as 4F2A, see mail.log\"

  # The log does not show it: send it. With the mail settings of `aftercommit run` it is sent at once
  aftercommit ledger resolve 1042 --send --note \"not in mail.log\" --table orders \\
      --mail-from \"Shop <orders@example.com>\" --smtp-url smtps://user@mail.example.com

  # Resolve all orders of one incident; first look
  aftercommit ledger resolve --state ambiguous --since 2h --sent --note \"all in mail.log\" --dry-run

  # For scripts: one JSON object per line
  aftercommit ledger list --state retry --json | jq -r .order

Exit codes: 0 done, 1 nothing found, or the order is in a state that does not allow it, 2 a setting is wrong.";

/// The commands for the ledger. `M` has the flags with which a released email is sent at once, if there are
/// emails.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand<M: Args> {
    /// List orders, or the ids of a handler's effects, in no particular order. The states ambiguous and released are read from an index, all
    /// others from the whole table
    List(LedgerListArgs),
    /// Show everything that is known about one order or id, and what to do next
    Show(ShowArgs),
    /// Record whether what is AMBIGUOUS took place, or allow what was refused
    #[command(after_long_help = resolve::EXAMPLES)]
    Resolve(Box<LedgerResolveArgs<M>>),
}

/// Runs the command.
pub async fn ledger<M: Args + Resolving>(command: &LedgerCommand<M>) -> Result<(), Fault> {
    match command {
        LedgerCommand::List(args) => list::list(args).await,
        LedgerCommand::Show(args) => list::show(args).await,
        LedgerCommand::Resolve(args) => resolve::execute(args).await,
    }
}
