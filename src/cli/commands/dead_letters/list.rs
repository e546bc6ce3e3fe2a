//! `aftercommit dead-letters list` and `show`.

use crate::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use crate::stores::dead_letter::{DeadLetters as _, Envelope};
use anyhow::Context as _;
use clap::Args;

use crate::cli::args::letters::{OwnerArgs, WhichArgs, none};
use crate::cli::fault::Fault;
use crate::cli::host::aws;
use crate::cli::render::dead_letter::ShownLetter;
use crate::cli::render::out::{json_line, json_page, print};

/// Arguments of `dead-letters list` and `show`.
#[derive(Debug, Args)]
pub struct DeadLettersListArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    of: OwnerArgs,
    /// Also list letters that were redriven or discarded in the last 30 days
    #[arg(long)]
    closed: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

impl DeadLettersListArgs {
    /// The table, and the selected letters without their records.
    async fn selected(&self) -> Result<(DynamoDbDeadLetters, Vec<Envelope>), Fault> {
        let clients = aws::clients(None).await.map_err(Fault::Setting)?;
        let letters = self.which.letters(&clients).await?;
        let (from, of) = ((&clients, &letters), self.of.named());
        let selected = self.which.selected(from, of, self.closed).await?;
        Ok((letters, selected))
    }
}

/// Prints a line per letter.
pub async fn list(args: &DeadLettersListArgs) -> Result<(), Fault> {
    let (_, selected) = args.selected().await?;
    if selected.is_empty() && args.which.is_set() {
        return Err(none());
    }
    for letter in selected {
        let row = ShownLetter::new(&letter);
        let line = if args.json {
            json_line(&row)?
        } else {
            row.line()
        };
        if print(&line)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Prints letters in full.
pub async fn show(args: &DeadLettersListArgs) -> Result<(), Fault> {
    let (letters, selected) = args.selected().await?;
    if selected.is_empty() {
        return Err(none());
    }
    for one in &selected {
        // The letter may have been removed since it was listed.
        let Some(letter) = letters.read(&one.id).await? else {
            continue;
        };
        let row = ShownLetter::with_record(&letter).context("cannot show a record")?;
        let text = if args.json {
            json_line(&row)?
        } else {
            format!("{}{}\n", row.line(), json_page(&row)?)
        };
        if print(&text)?.is_break() {
            break;
        }
    }
    Ok(())
}
