//! `aftercommit ledger`: what became of the emails, for operators.

use aftercommit::Clock;
use aftercommit::decide::claim::{Entry, SettledAs, Settlement, State};
use aftercommit::ledger::dynamodb::DynamoDbLedger;
use aftercommit::ledger::settle::{Settled, settle};
use aftercommit::ledger::{EffectKey, Ledger as _};
use anyhow::anyhow;
use clap::{Args, Subcommand};

use crate::args::LedgerName;
use crate::aws::{self, must_exist};
use crate::fault::Fault;
use crate::identity::GroupArgs;
use crate::out::{print, print_all};
use crate::resend::{self, SendArgs};
use crate::sending::RetentionArgs;
use crate::told;

pub const EXAMPLES: &str = "\
Examples:
  # The orders of which nobody can tell whether their email was accepted
  aftercommit ledger list --state ambiguous

  # Everything that is known of one, and what to do about it
  aftercommit ledger show 1042

  # It was found in the mail server's log
  aftercommit ledger settle 1042 --sent --reason \"queued as 4F2A, see mail.log\"

  # It was not: release it, then send it. No worker does, as the stream has moved on
  aftercommit ledger settle 1042 --resend --reason \"not in mail.log\"
  aftercommit ledger send 1042 --table orders --mail-from \"Shop <orders@example.com>\" \\
      --smtp-url smtps://user@mail.example.com

  # For scripts: one JSON object a line
  aftercommit ledger list --state retry --json | jq -r .order

Exit codes: 0 done, 1 not found or not in a state in which that can be done, 2 a setting is wrong.";

/// What can be done with the ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// List the orders, in no order; reads the whole ledger
    List(ListArgs),
    /// Tell everything that is known of one order, and what to do about it
    Show(ShowArgs),
    /// Decide about an order that nobody can tell whether its email was accepted
    Settle(SettleArgs),
    /// Send the email of one order that is RETRY, with the order as it stands in its table
    Send(Box<SendArgs>),
}

/// What `ledger list` is told.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only orders in this state: sending, sent, failed, retry, ambiguous or suppressed
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<State>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    name: LedgerName,
}

/// What `ledger show` is told.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The order's id
    order: String,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    name: LedgerName,
}

/// What `ledger settle` is told.
#[derive(Debug, Args)]
pub struct SettleArgs {
    /// The order's id
    order: String,
    /// The email was accepted: it is never sent again
    #[arg(long, required_unless_present = "resend", conflicts_with = "resend")]
    sent: bool,
    /// The email may be sent (again): by `aftercommit ledger send`. Also for an order that the mail
    /// server refused
    #[arg(long)]
    resend: bool,
    /// Why; it stands on the order's row for good
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who decides; without it the user who is logged in
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_BY")]
    by: Option<String>,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    name: LedgerName,
    #[command(flatten)]
    retention: RetentionArgs,
}

fn state(word: &str) -> Result<State, String> {
    State::from_word(word)
        .ok_or_else(|| "write sending, sent, failed, retry, ambiguous or suppressed".to_owned())
}

/// Does what was asked.
pub async fn ledger(command: &LedgerCommand) -> Result<(), Fault> {
    match command {
        LedgerCommand::List(args) => list(args).await,
        LedgerCommand::Show(args) => show(args).await,
        LedgerCommand::Settle(args) => decide(args).await,
        LedgerCommand::Send(args) => resend::send(args).await,
    }
}

/// For a row that is not there.
pub fn unknown(order: &str, table: &str) -> Fault {
    Fault::Work(anyhow!(
        "order {order} is not in the ledger {table}: no email for it was ever begun, or its row \
         has expired"
    ))
}

/// The ledger, to read from.
async fn open(name: &LedgerName) -> Result<DynamoDbLedger, Fault> {
    // Readers write no row, so none expires by this.
    open_to_write(name, std::time::Duration::MAX).await
}

async fn open_to_write(
    name: &LedgerName,
    retention: std::time::Duration,
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
    let mut from = None;
    loop {
        let page = ledger.list(args.state, from.as_deref()).await?;
        let lines: String = page
            .entries
            .iter()
            .map(|(key, entry)| {
                if args.json {
                    format!("{}\n", told::json(key, entry))
                } else {
                    told::line(key, entry)
                }
            })
            .collect();
        from = page.next;
        if print(&lines)?.is_break() || from.is_none() {
            return Ok(());
        }
    }
}

async fn show(args: &ShowArgs) -> Result<(), Fault> {
    let ledger = open(&args.name).await?;
    let key = EffectKey::new(&args.group.known_effect(&ledger).await?, &args.order);
    let entry = ledger.read(&key).await?;
    let entry = entry.ok_or_else(|| unknown(&args.order, &args.name.ledger_table))?;
    let text = if args.json {
        format!("{:#}\n", told::json(&key, &entry))
    } else {
        told::full(&key, &entry)
    };
    print_all(&text)?;
    Ok(())
}

async fn decide(args: &SettleArgs) -> Result<(), Fault> {
    if args.reason.trim().is_empty() {
        return Err(Fault::wrong("--reason is empty: say why"));
    }
    let ledger = open_to_write(&args.name, args.retention.checked()?).await?;
    let now = Clock::system().now();
    let settlement = Settlement {
        by: args.by.clone().unwrap_or_else(user),
        at: now,
        reason: args.reason.trim().to_owned(),
        verdict: if args.sent {
            SettledAs::Sent
        } else {
            SettledAs::Resend
        },
    };
    let order = &args.order;
    let key = EffectKey::new(&args.group.known_effect(&ledger).await?, order);
    match settle(&ledger, &key, settlement, now).await? {
        Settled::Written(entry) => {
            print_all(&format!(
                "order {order} is {} now\n{}",
                entry.state,
                told::advice(&entry)
            ))?;
            Ok(())
        }
        Settled::Illegal(entry, _) => Err(Fault::Work(refusal(order, &entry, args.sent))),
        Settled::Unknown => Err(unknown(order, &args.name.ledger_table)),
        Settled::Contended => Err(Fault::Work(anyhow!(
            "order {order} changes all the time: a worker is at it; look again with \
             `aftercommit ledger show`"
        ))),
    }
}

fn refusal(order: &str, entry: &Entry, sent: bool) -> anyhow::Error {
    let asked = if sent { "SENT" } else { "RETRY" };
    let advice = told::advice(entry);
    anyhow!(
        "order {order} is {}, which cannot be settled as {asked}; nothing was changed. {advice}",
        entry.state
    )
}

/// Who is logged in, as far as the environment tells.
pub fn user() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].map(|name| std::env::var(name).ok());
    let named = named.into_iter().flatten().find(|name| !name.is_empty());
    named.unwrap_or_else(|| "(not told)".to_owned())
}
