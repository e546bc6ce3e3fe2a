//! `aftercommit suppress`: manages the list of addresses that must not be mailed.

use crate::Clock;
use crate::confirmation::address::{Address, AddressError, Domains, parse_address};
use crate::confirmation::dynamodb::{Suppressed, SuppressionList};
use crate::confirmation::lookup::address_hash;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, must_exist};
use crate::cli::render::out::{json_line, moment, plain, print, print_all};

pub const EXAMPLES: &str = "\
Examples:
  # Create the table, once, and let the workers use it
  export AFTERCOMMIT_SUPPRESSION_TABLE=aftercommit-suppression
  aftercommit tables create
  aftercommit run --table orders ...

  # Stop mailing this address
  aftercommit suppress add ada@example.com --note \"hard bounce\"

The table holds no addresses, only the SHA-256 of their lower-case form. Nobody can read an address from the
list, but anyone who has the list can test one.";

/// The commands of `suppress`.
#[derive(Debug, Subcommand)]
pub enum SuppressCommand {
    /// Add an address to the list; an existing entry is kept
    Add(AddArgs),
    /// Remove an address from the list
    Remove(RemoveArgs),
    /// List the entries, in no particular order: hash, since when, why
    List(SuppressListArgs),
}

/// The table of suppressed addresses.
#[derive(Debug, Args)]
struct Name {
    /// Table of the list
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_SUPPRESSION_TABLE")]
    suppression_table: String,
}

/// Arguments of `suppress add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The address
    #[arg(value_parser = address)]
    address: Address,
    /// Reason for the entry
    #[arg(long, value_name = "TEXT")]
    note: String,
    #[command(flatten)]
    name: Name,
}

/// Arguments of `suppress remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The address
    #[arg(value_parser = address)]
    address: Address,
    #[command(flatten)]
    name: Name,
}

/// Arguments of `suppress list`.
#[derive(Debug, Args)]
pub struct SuppressListArgs {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    name: Name,
}

fn address(text: &str) -> Result<Address, AddressError> {
    parse_address(text, Domains::Any)
}

async fn open(name: &Name) -> Result<SuppressionList, Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    must_exist(&clients, &name.suppression_table).await?;
    Ok(SuppressionList::new(
        clients.dynamodb,
        &name.suppression_table,
    ))
}

/// Runs the command.
pub async fn suppress(command: &SuppressCommand) -> Result<(), Fault> {
    match command {
        SuppressCommand::Add(args) => {
            let list = open(&args.name).await?;
            let now = Clock::system().now();
            let new = list.add(&args.address, &args.note, now).await?;
            let hash = address_hash(&args.address);
            let outcome = if new { "added" } else { "was on the list" };
            print_all(&format!("{hash}: {outcome}\n"))?;
        }
        SuppressCommand::Remove(args) => {
            let list = open(&args.name).await?;
            list.remove(&args.address).await?;
            let hash = address_hash(&args.address);
            print_all(&format!("{hash}: not on the list\n"))?;
        }
        SuppressCommand::List(args) => show(args).await?,
    }
    Ok(())
}

/// An entry of the list.
#[derive(Serialize)]
struct SuppressedRow<'a> {
    hash: &'a str,
    since: String,
    reason: &'a str,
}

fn line(one: &Suppressed, json: bool) -> anyhow::Result<String> {
    let row = SuppressedRow {
        hash: &one.hash,
        since: moment(one.since),
        reason: &one.reason,
    };
    if json {
        return json_line(&row);
    }
    Ok(format!(
        "{}\t{}\t{}\n",
        row.hash,
        row.since,
        plain(row.reason)
    ))
}

async fn show(args: &SuppressListArgs) -> Result<(), Fault> {
    let list = open(&args.name).await?;
    let mut from = None;
    loop {
        let (page, next) = list.page(from.as_deref()).await?;
        let lines = page.iter().map(|one| line(one, args.json));
        let lines: String = lines.collect::<Result<_, _>>()?;
        from = next;
        if print(&lines)?.is_break() || from.is_none() {
            return Ok(());
        }
    }
}
