//! `aftercommit dead-letters discard`: gives up failed records, and keeps the letters behind them.

use std::collections::BTreeSet;

use crate::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use crate::stores::dead_letter::{
    DeadLetters as _, Deed, Envelope, LetterId, LetterOutcome, Reason,
};
use clap::Args;
use serde::Serialize;

use crate::cli::args::letters::{DoingArgs, OwnerArgs, WhichArgs, none};
use crate::cli::args::note::note;

use crate::cli::fault::Fault;
use crate::cli::host::aws;
use crate::cli::render::out::{count, json_line, plain, print_all};
use crate::cli::render::progress::CommandProgress;

/// Arguments of `dead-letters discard`.
#[derive(Debug, Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    of: OwnerArgs,
    #[command(flatten)]
    doing: DoingArgs,
    /// Also discard the letters that wait behind those that failed
    #[arg(long)]
    with_followers: bool,
    /// Reason, kept on the letter
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
}

/// Discards the selected letters.
pub async fn execute(args: &DiscardArgs) -> Result<(), Fault> {
    let doing = &args.doing;
    args.which.must_select(doing.all)?;
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    let from = (&clients, &letters);
    let mut selected = args.which.selected(from, args.of.named(), false).await?;
    if !args.with_followers && !args.which.reason.contains(&Reason::Followed) {
        selected = without_followers(selected);
    }
    if selected.is_empty() {
        return Err(none());
    }
    if doing.dry_run {
        return doing.print_dry_run("discard", &selected);
    }
    let mut progress = CommandProgress::towards(selected.len());
    let (mut discarded, clock) = (0_u64, clients.clock());
    for letter in &selected {
        let deed = Deed {
            at: clock.now(),
            by: doing.by(),
            what: LetterOutcome::Discarded,
            why: args.note.clone(),
        };
        let closed = letters.close(&letter.id, &deed).await;
        discarded += u64::from(closed?.is_some());
        progress.step();
    }
    progress.end();
    let left = left_behind(&letters, &selected).await?;
    let summary = DiscardSummary {
        selected: selected.len(),
        discarded,
        waiting: left.len(),
        keys: left.iter().map(Envelope::key_in_words).collect(),
    };
    let text = if doing.json {
        json_line(&summary)?
    } else {
        summary.text()
    };
    Ok(print_all(&text)?)
}

/// What was discarded, and what still waits.
#[derive(Serialize)]
struct DiscardSummary {
    selected: usize,
    discarded: u64,
    waiting: usize,
    /// The keys that still have waiting letters.
    #[serde(skip)]
    keys: BTreeSet<String>,
}

impl DiscardSummary {
    fn text(&self) -> String {
        let discarded = count(self.discarded, "letter");
        let which = match self.keys.first() {
            None => return format!("{discarded} discarded; nothing waits behind\n"),
            Some(one) if self.keys.len() == 1 => format!("--key {}", plain(one)),
            Some(_) => "--reason followed".to_owned(),
        };
        let waiting = count(self.waiting as u64, "later letter");
        let of_same = match self.waiting {
            1 => "item is",
            _ => "items are",
        };
        format!(
            "{discarded} discarded; {waiting} of the same {of_same} not handled yet: `aftercommit \
             dead-letters redrive {which}`\n"
        )
    }
}

/// The letters that failed, and the first letter of each key in any case. The others were never tried.
fn without_followers(letters: Vec<Envelope>) -> Vec<Envelope> {
    let mut seen = BTreeSet::new();
    let mut failed = |letter: &Envelope| {
        let LetterId { at, key, .. } = &letter.id;
        let first = seen.insert((at.clone(), key.clone()));
        first || letter.reason != Reason::Followed
    };
    letters.into_iter().filter(|one| failed(one)).collect()
}

/// The letters that still wait under the keys of these.
async fn left_behind(
    letters: &DynamoDbDeadLetters,
    of: &[Envelope],
) -> anyhow::Result<Vec<Envelope>> {
    let keys: BTreeSet<_> = of.iter().map(|one| (&one.id.at, &one.id.key)).collect();
    let mut left = Vec::new();
    for (at, key) in keys {
        let of_key = letters.of_key(&at.at, key).await?.into_iter();
        left.extend(of_key.filter(|letter| letter.open && letter.id.at == *at));
    }
    Ok(left)
}
