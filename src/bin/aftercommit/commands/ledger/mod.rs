//! `aftercommit ledger`: what became of the emails, for operators.

use std::time::{Duration, SystemTime};

use aftercommit::decide::claim::{Attention, Entry, State};
use aftercommit::ledger::dynamodb::DynamoDbLedger;
use aftercommit::ledger::{EffectKey, Ledger as _, Page};
use anyhow::anyhow;
use clap::{Args, Subcommand};

use self::resolve::ResolveArgs;
use crate::args::identity::GroupArgs;
use crate::args::note::moment;
use crate::args::tables::LedgerName;
use crate::fault::Fault;
use crate::host::aws::{self, must_exist};
use crate::render;
use crate::render::out::{print, print_all};
use crate::render::progress::Listing;

mod resolve;

pub const EXAMPLES: &str = "\
Examples:
  # List the orders whose email may or may not have been accepted
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

/// What can be done with the ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// List orders, in no particular order. The states ambiguous and released are read from an index, all
    /// others from the whole table
    List(ListArgs),
    /// Show everything that is known about one order, and what to do next
    Show(ShowArgs),
    /// Record whether an AMBIGUOUS order's email was accepted, or send an email that was refused
    #[command(after_long_help = resolve::EXAMPLES)]
    Resolve(Box<ResolveArgs>),
}

/// Which orders.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which orders")]
pub struct FilterArgs {
    /// Only orders in this state: ambiguous, released, sending, sent, failed, retry or suppressed.
    /// `released`: an operator released them, and they are not sent yet
    #[arg(long, value_name = "STATE", value_parser = wanted)]
    pub state: Option<Wanted>,
    /// Only orders that changed at this time or later: 2026-11-27T09:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<SystemTime>,
    /// Only orders that changed before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<SystemTime>,
    /// Only orders with this text in the last reply or reason
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Which state is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// One of the ledger's own.
    State(State),
    /// What an operator released.
    Released,
}

fn wanted(word: &str) -> Result<Wanted, String> {
    if word.eq_ignore_ascii_case("released") {
        return Ok(Wanted::Released);
    }
    let state = State::from_word(word).map(Wanted::State);
    state.ok_or_else(|| {
        "write ambiguous, released, sending, sent, failed, retry or suppressed".to_owned()
    })
}

impl FilterArgs {
    /// Whether only some orders are asked for.
    fn is_set(&self) -> bool {
        self.state.is_some()
            || self.since.is_some()
            || self.until.is_some()
            || self.reason.is_some()
    }

    /// Why these orders need attention, if the index has them.
    fn attention(&self) -> Option<Attention> {
        match self.state? {
            Wanted::State(State::Ambiguous) => Some(Attention::Ambiguous),
            Wanted::Released => Some(Attention::Released),
            Wanted::State(_) => None,
        }
    }

    fn allows(&self, entry: &Entry) -> bool {
        let reply = entry.reply.as_deref().unwrap_or_default().to_lowercase();
        let says = |text: &String| reply.contains(&text.to_lowercase());
        self.since.is_none_or(|since| entry.changed >= since)
            && self.until.is_none_or(|until| entry.changed < until)
            && self.reason.as_ref().is_none_or(says)
    }

    /// A page of the orders that are asked for.
    pub async fn page(&self, ledger: &DynamoDbLedger, from: Option<&str>) -> anyhow::Result<Page> {
        let mut page = match (self.attention(), self.state) {
            (Some(why), _) => ledger.list_needing(why, from).await?,
            (None, Some(Wanted::State(state))) => ledger.list(Some(state), from).await?,
            (None, _) => ledger.list(None, from).await?,
        };
        page.entries.retain(|(_, entry)| self.allows(entry));
        Ok(page)
    }

    /// Says that the whole table is read, where it is.
    pub fn progress(&self, table: &str) -> Listing {
        let whole = self.attention().is_none();
        Listing::new(whole.then(|| format!("reading the whole table {table}")))
    }
}

/// Arguments of `ledger list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: FilterArgs,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    name: LedgerName,
}

/// Arguments of `ledger show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Order id
    order: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    name: LedgerName,
}

/// Does what was asked.
pub async fn ledger(command: &LedgerCommand) -> Result<(), Fault> {
    match command {
        LedgerCommand::List(args) => list(args).await,
        LedgerCommand::Show(args) => show(args).await,
        LedgerCommand::Resolve(args) => resolve::execute(args).await,
    }
}

/// For a row that is not there.
pub fn unknown(order: &str, table: &str) -> Fault {
    Fault::Work(anyhow!(
        "order {order} is not in the ledger {table}: no email for it was ever started, or its row has \
         expired. Send it with `aftercommit send {order}`"
    ))
}

/// The ledger, to read from.
async fn open(name: &LedgerName) -> Result<DynamoDbLedger, Fault> {
    // Readers write no row, so none expires by this.
    open_to_write(name, Duration::MAX).await
}

/// The ledger, whose rows are kept for so long after a change.
pub async fn open_to_write(
    name: &LedgerName,
    retention: Duration,
) -> Result<DynamoDbLedger, Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    must_exist(&clients, &name.ledger_table).await?;
    Ok(DynamoDbLedger::new(
        clients.dynamodb,
        &name.ledger_table,
        retention,
    ))
}

async fn list(args: &ListArgs) -> Result<(), Fault> {
    let ledger = open(&args.name).await?;
    let mut progress = args.which.progress(&args.name.ledger_table);
    let (mut from, mut found) = (None, false);
    loop {
        let page = args.which.page(&ledger, from.as_deref()).await?;
        found |= !page.entries.is_empty();
        let lines: String = page
            .entries
            .iter()
            .map(|(key, entry)| {
                if args.json {
                    format!("{}\n", render::ledger::json(key, entry))
                } else {
                    render::ledger::line(key, entry)
                }
            })
            .collect();
        from = page.next;
        if print(&lines)?.is_break() {
            return Ok(());
        }
        if from.is_none() {
            break;
        }
        progress.page(page.entries.len());
    }
    if found || !args.which.is_set() {
        return Ok(());
    }
    Err(Fault::Work(anyhow!("no order of the ledger matches")))
}

async fn show(args: &ShowArgs) -> Result<(), Fault> {
    let ledger = open(&args.name).await?;
    let key = EffectKey::new(&args.group.known_effect(&ledger).await?, &args.order);
    let entry = ledger.read(&key).await?;
    let entry = entry.ok_or_else(|| unknown(&args.order, &args.name.ledger_table))?;
    let text = if args.json {
        format!("{:#}\n", render::ledger::json(&key, &entry))
    } else {
        render::ledger::full(&key, &entry)
    };
    print_all(&text)?;
    Ok(())
}
