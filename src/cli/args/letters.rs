//! Which dead letters a command selects, and how it acts on them.

use std::time::{Duration, SystemTime};

use crate::record::ItemKey;
use crate::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use crate::stores::dead_letter::{DeadLetters as _, Envelope, Reason, Selection};
use crate::stores::tables::dynamodb::{ResolveError, table_key};
use crate::{EffectName, Group, GroupTable};
use anyhow::anyhow;
use clap::Args;

use crate::cli::args::note::ByArgs;
use crate::cli::args::place::keys_of;
use crate::cli::args::tables::GroupArg;
use crate::cli::args::tables::LetterTable;
use crate::cli::fault::Fault;
use crate::cli::host::aws::{Clients, must_exist};
use crate::cli::render::dead_letter::ShownLetter;
use crate::cli::render::out::{json_line, print, report};
use crate::cli::render::progress::ListingProgress;

/// The letters that a command works on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which letters")]
pub struct WhichArgs {
    /// Only letters of the item with this key: 1042, id=1042, or PK=CUST#7,SK=ORDER#1042
    #[arg(long, value_name = "KEY", requires = "table")]
    key: Option<String>,
    /// Only letters of this table (name or ARN); can be given several times
    #[arg(
        long,
        value_name = "TABLE",
        env = "AFTERCOMMIT_TABLE",
        value_delimiter = ','
    )]
    table: Vec<String>,
    /// Only letters with this reason: rejected, exhausted, too-old, rescued, deferred or followed; can be
    /// given several times
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub reason: Vec<Reason>,
    /// Only letters that were written longer ago than this
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    #[command(flatten)]
    name: LetterTable,
}

/// The group and the effect whose letters are selected.
#[derive(Debug, Args)]
pub struct OwnerArgs {
    #[command(flatten)]
    group: GroupArg,
    /// Only letters of this effect [default: those of all effects of the group]
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_EFFECT")]
    effect: Option<EffectName>,
}

impl OwnerArgs {
    /// The group, and the effect if one is named.
    pub fn named(&self) -> (&Group, Option<&EffectName>) {
        (&self.group.group, self.effect.as_ref())
    }
}

fn reason(word: &str) -> Result<Reason, String> {
    Reason::from_word(word).ok_or_else(|| {
        let all = Reason::ALL.map(Reason::word).join(", ");
        format!("write one of {all}")
    })
}

/// The error for a selection that matches nothing.
pub fn none() -> Fault {
    Fault::Work(anyhow!(
        "no dead letter matches: `aftercommit dead-letters list --closed` lists also those that were \
         redriven or discarded"
    ))
}

impl WhichArgs {
    fn selection(
        &self,
        (group, effect): (&Group, Option<&EffectName>),
        closed_too: bool,
        now: SystemTime,
    ) -> Selection {
        let before = |age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Selection {
            group: Some(group.clone()),
            effect: effect.cloned(),
            table: None,
            reasons: self.reason.clone(),
            key: None,
            written_until: self.older_than.map(before),
            closed_too,
        }
    }

    /// Whether the flags restrict the selection.
    pub fn is_set(&self) -> bool {
        self.key.is_some() || !self.reason.is_empty() || self.older_than.is_some()
    }

    /// A command that changes letters must select them explicitly.
    pub fn must_select(&self, all: bool) -> Result<(), Fault> {
        if all || self.is_set() {
            return Ok(());
        }
        Err(Fault::wrong(
            "no letters are selected: name --key, --reason or --older-than, or use --all",
        ))
    }

    /// The ARN of the table, if `--table` names one that exists.
    pub async fn letters(&self, clients: &Clients) -> Result<DynamoDbDeadLetters, Fault> {
        let table = &self.name.dead_letter_table;
        must_exist(clients, table).await?;
        Ok(DynamoDbDeadLetters::new(clients.dynamodb.clone(), table))
    }

    /// The selected letters, by key and in order. Letters of one key are queried; without a key the
    /// whole table is read.
    pub async fn selected(
        &self,
        (clients, letters): (&Clients, &DynamoDbDeadLetters),
        of: (&Group, Option<&EffectName>),
        closed_too: bool,
    ) -> Result<Vec<Envelope>, Fault> {
        let now = clients.clock().now();
        let mut which = self.selection(of, closed_too, now);
        let Some(text) = &self.key else {
            return self.scanned(letters, &which).await;
        };
        let mut all = Vec::new();
        for table in &self.table {
            let key = match table_key(&clients.dynamodb, table).await {
                Ok(key) => key,
                // The table is gone, but its letters remain.
                Err(ResolveError::NoTable { .. }) => {
                    report(&format!(
                        "table {table} is gone, so all dead letters are read"
                    ));
                    which.key = Some(text.clone());
                    all.extend(self.scanned(letters, &which).await?);
                    which.key = None;
                    continue;
                }
                Err(error) => return Err(Fault::setting(error)),
            };
            let item = ItemKey::of(&keys_of(&key, text)?);
            let at = GroupTable::new(of.0.clone(), &key.arn);
            let of_key = letters.of_key(&at, &item).await?;
            all.extend(of_key.into_iter().filter(|letter| which.allows(letter)));
        }
        Ok(all)
    }

    async fn scanned(
        &self,
        letters: &DynamoDbDeadLetters,
        which: &Selection,
    ) -> Result<Vec<Envelope>, Fault> {
        let table = &self.name.dead_letter_table;
        let mut progress = ListingProgress::new(Some(format!("reading the whole table {table}")));
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let page = letters.list(which, from.as_deref()).await?;
            let found = page.letters.len();
            all.extend(page.letters);
            for error in page.unreadable {
                tracing::warn!(error, "skipping a dead letter that cannot be read");
            }
            from = page.next;
            if from.is_none() {
                break;
            }
            progress.page(found);
        }
        all.retain(|letter| self.is_of(&letter.id.at.at));
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// Whether letters of this table are selected.
    fn is_of(&self, at: &GroupTable) -> bool {
        let mut named = self.table.iter();
        self.table.is_empty() || named.any(|one| one == at.table() || one == at.table_name())
    }
}

/// How a command acts on letters.
#[derive(Debug, Args)]
pub struct DoingArgs {
    /// All letters
    #[arg(long)]
    pub all: bool,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Print what was done as one JSON object; with --dry-run, one per letter
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    by: ByArgs,
}

impl DoingArgs {
    /// The operator's name.
    pub fn by(&self) -> String {
        self.by.name()
    }

    /// Prints for each letter what would be done.
    pub fn print_dry_run(&self, what: &str, selected: &[Envelope]) -> Result<(), Fault> {
        for letter in selected {
            let row = ShownLetter::new(letter);
            let line = if self.json {
                json_line(&row)?
            } else {
                format!("would {what}\t{}", row.line())
            };
            if print(&line)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
