//! `aftercommit dead-letters discard`: gives up the records that failed, and no others.

use std::collections::BTreeSet;

use aftercommit::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::dead_letter::{DeadLetters as _, Deed, Envelope, LetterId, Reason, Settled};
use clap::Args;
use serde_json::json;

use crate::args::note::note;
use crate::args::tables::GroupArg;
use crate::commands::dead_letters::{DoingArgs, WhichArgs, none};
use crate::fault::Fault;
use crate::host::aws;
use crate::render::ledger::plain;
use crate::render::out::{count, print_all};
use crate::render::progress::Progress;

/// Arguments of `dead-letters discard`.
#[derive(Debug, Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    group: GroupArg,
    #[command(flatten)]
    doing: DoingArgs,
    /// Also discard the letters that wait behind those that failed
    #[arg(long)]
    with_followers: bool,
    /// Reason, kept on the letter
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
}

/// Discards what is selected.
pub async fn execute(args: &DiscardArgs) -> Result<(), Fault> {
    let doing = &args.doing;
    args.which.must_select(doing.all)?;
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    let from = (&clients, &letters);
    let mut selected = args.which.selected(from, &args.group.group, false).await?;
    if !args.with_followers && !args.which.reason.contains(&Reason::Followed) {
        selected = without_followers(selected);
    }
    if selected.is_empty() {
        return Err(none());
    }
    if doing.dry_run {
        return doing.tell_dry("discard", &selected);
    }
    let mut progress = Progress::towards(selected.len());
    let (mut discarded, clock) = (0_u64, clients.clock());
    for letter in &selected {
        let deed = Deed {
            at: clock.now(),
            by: doing.by(),
            what: Settled::Discarded,
            why: args.note.clone(),
        };
        let settled = letters.settle(&letter.id, &deed).await;
        discarded += u64::from(settled?.is_some());
        progress.step();
    }
    progress.end();
    let left = left_behind(&letters, &selected).await?;
    let told = if doing.json {
        json!({"selected": selected.len(), "discarded": discarded, "waiting": left.len()})
            .to_string()
    } else {
        discarded_in_words(discarded, &left)
    };
    Ok(print_all(&format!("{told}\n"))?)
}

/// Of each key the letters that failed, and its first one in any case. Those behind it are records
/// that nobody has tried yet.
fn without_followers(letters: Vec<Envelope>) -> Vec<Envelope> {
    let mut seen = BTreeSet::new();
    let mut failed = |letter: &Envelope| {
        let LetterId { at, key, .. } = &letter.id;
        let first = seen.insert((at.clone(), key.clone()));
        first || letter.reason != Reason::Followed
    };
    letters.into_iter().filter(|one| failed(one)).collect()
}

/// The open letters of these letters' keys.
async fn left_behind(
    letters: &DynamoDbDeadLetters,
    of: &[Envelope],
) -> anyhow::Result<Vec<Envelope>> {
    let keys: BTreeSet<_> = of.iter().map(|one| (&one.id.at, &one.id.key)).collect();
    let mut left = Vec::new();
    for (at, key) in keys {
        let of_key = letters.of_key(at, key).await?;
        left.extend(of_key.into_iter().filter(|letter| letter.open));
    }
    Ok(left)
}

fn discarded_in_words(discarded: u64, left: &[Envelope]) -> String {
    let discarded = count(discarded, "letter");
    let keys: BTreeSet<_> = left.iter().map(Envelope::key_in_words).collect();
    let which = match keys.first() {
        None => return format!("{discarded} discarded; nothing waits behind"),
        Some(one) if keys.len() == 1 => format!("--key {}", plain(one)),
        Some(_) => "--reason followed".to_owned(),
    };
    let waiting = count(left.len() as u64, "later letter");
    format!(
        "{discarded} discarded; {waiting} of the same {} not handled yet: `aftercommit dead-letters \
         redrive {which}`",
        if left.len() == 1 {
            "item is"
        } else {
            "items are"
        }
    )
}
