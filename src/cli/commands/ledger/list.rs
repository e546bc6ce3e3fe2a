//! `aftercommit ledger list` and `show`.

use crate::stores::ledger::{EffectKey, Ledger as _};
use anyhow::anyhow;
use clap::Args;

use crate::cli::args::entries::{FilterArgs, open, unknown};
use crate::cli::args::identity::GroupArgs;
use crate::cli::args::tables::LedgerName;
use crate::cli::fault::Fault;
use crate::cli::render::ledger::ShownEntry;
use crate::cli::render::out::{json_line, json_page, print, print_all};

/// Arguments of `ledger list`.
#[derive(Debug, Args)]
pub struct LedgerListArgs {
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

/// Prints a line per order.
pub async fn list(args: &LedgerListArgs) -> Result<(), Fault> {
    let ledger = open(&args.name).await?;
    let mut progress = args.which.progress(&args.name.ledger_table);
    let (mut from, mut found) = (None, false);
    loop {
        let page = args.which.page(&ledger, from.as_deref()).await?;
        found |= !page.entries.is_empty();
        let mut lines = String::new();
        for (key, entry) in &page.entries {
            let row = ShownEntry::new(key, entry);
            lines += &if args.json {
                json_line(&row)?
            } else {
                row.line()
            };
        }
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
    Err(Fault::Work(anyhow!("no order in the ledger matches")))
}

/// Prints everything that is known about one order.
pub async fn show(args: &ShowArgs) -> Result<(), Fault> {
    let ledger = open(&args.name).await?;
    let key = EffectKey::new(&args.group.known_effect(&ledger).await?, &args.order);
    let entry = ledger.read(&key).await?;
    let entry = entry.ok_or_else(|| unknown(&args.order, &args.name.ledger_table))?;
    let row = ShownEntry::new(&key, &entry);
    let text = if args.json {
        json_page(&row)?
    } else {
        row.page()
    };
    print_all(&text)?;
    Ok(())
}
