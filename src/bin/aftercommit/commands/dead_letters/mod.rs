//! `aftercommit dead-letters`: what could not be handled, and what becomes of it.

use std::time::{Duration, SystemTime};

use aftercommit::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::dead_letter::{DeadLetters as _, Envelope, Reason, Selection};
use aftercommit::record::ItemKey;
use aftercommit::tables::dynamodb::{ResolveError, table_key};
use aftercommit::{Group, GroupTable};
use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};

use self::discard::DiscardArgs;
use self::redrive::RedriveArgs;
use crate::args::note::ByArgs;
use crate::args::place::keys_of;
use crate::args::tables::{GroupArg, LetterTable};
use crate::fault::Fault;
use crate::host::aws::{self, Clients, must_exist};
use crate::render;
use crate::render::out::{print, report};
use crate::render::progress::Listing;

mod discard;
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

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List letters by key, in order. Without --key this reads the whole table
    List(ListArgs),
    /// Show letters in full: the record, every attempt, what was done
    Show(ListArgs),
    /// Handle records again: all letters of each selected key, oldest first
    #[command(after_long_help = redrive::EXAMPLES)]
    Redrive(Box<RedriveArgs>),
    /// Give up letters that failed. Letters that wait behind them stay and can be redriven
    Discard(DiscardArgs),
}

/// Which letters.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which letters")]
pub struct WhichArgs {
    /// Only letters of the item with this key: 1042, id=1042, or PK=CUST#7,SK=ORDER#1042
    #[arg(long, value_name = "KEY", requires = "table")]
    key: Option<String>,
    /// Only letters of this table (name or ARN); may be given several times
    #[arg(
        long,
        value_name = "TABLE",
        env = "AFTERCOMMIT_TABLE",
        value_delimiter = ','
    )]
    table: Vec<String>,
    /// Only letters with this reason: rejected, exhausted, too-old, rescued, deferred or followed; may be
    /// given several times
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub reason: Vec<Reason>,
    /// Only letters that were written longer ago than this
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    #[command(flatten)]
    name: LetterTable,
}

fn reason(word: &str) -> Result<Reason, String> {
    Reason::from_word(word).ok_or_else(|| {
        let all = Reason::ALL.map(Reason::word).join(", ");
        format!("write one of {all}")
    })
}

/// For a selection that nothing matches.
pub fn none() -> Fault {
    Fault::Work(anyhow!(
        "no dead letter matches: `aftercommit dead-letters list --settled` lists also those that were \
         redriven or discarded"
    ))
}

impl WhichArgs {
    fn selection(&self, group: &Group, settled_too: bool, now: SystemTime) -> Selection {
        let before = |age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Selection {
            group: Some(group.clone()),
            table: None,
            reasons: self.reason.clone(),
            key: None,
            written_until: self.older_than.map(before),
            settled_too,
        }
    }

    /// Whether only some letters are asked for.
    fn is_set(&self) -> bool {
        self.key.is_some() || !self.reason.is_empty() || self.older_than.is_some()
    }

    /// What would change something must say what it means.
    pub fn must_select(&self, all: bool) -> Result<(), Fault> {
        if all || self.is_set() {
            return Ok(());
        }
        Err(Fault::wrong(
            "no letters are selected: name --key, --reason or --older-than, or say --all",
        ))
    }

    /// The table, if it is there.
    pub async fn letters(&self, clients: &Clients) -> Result<DynamoDbDeadLetters, Fault> {
        let table = &self.name.dead_letter_table;
        must_exist(clients, table).await?;
        Ok(DynamoDbDeadLetters::new(clients.dynamodb.clone(), table))
    }

    /// The letters that are selected, by key and in order. Those of one key are queried; without a key
    /// the whole table is read.
    pub async fn selected(
        &self,
        (clients, letters): (&Clients, &DynamoDbDeadLetters),
        group: &Group,
        settled_too: bool,
    ) -> Result<Vec<Envelope>, Fault> {
        let now = clients.clock().now();
        let mut which = self.selection(group, settled_too, now);
        let Some(text) = &self.key else {
            return self.scanned(letters, &which).await;
        };
        let mut all = Vec::new();
        for table in &self.table {
            let key = match table_key(&clients.dynamodb, table).await {
                Ok(key) => key,
                // Its letters are still there.
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
            let at = GroupTable::new(group.clone(), &key.arn);
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
        let mut progress = Listing::new(Some(format!("reading the whole table {table}")));
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
        all.retain(|letter| self.is_of(&letter.id.at));
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// Whether letters of this table are asked for.
    fn is_of(&self, at: &GroupTable) -> bool {
        let mut named = self.table.iter();
        self.table.is_empty() || named.any(|one| one == at.table() || one == at.table_name())
    }
}

/// Arguments of `dead-letters list` and `show`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    group: GroupArg,
    /// Also list letters that were redriven or discarded in the last 30 days
    #[arg(long)]
    settled: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// How something is done to letters.
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
    /// Who does it.
    pub fn by(&self) -> String {
        self.by.name()
    }

    /// Says for each letter what would be done.
    pub fn tell_dry(&self, what: &str, selected: &[Envelope]) -> Result<(), Fault> {
        for letter in selected {
            let line = if self.json {
                format!("{}\n", render::dead_letter::json(letter))
            } else {
                format!("would {what}\t{}", render::dead_letter::line(letter))
            };
            if print(&line)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Does what was asked.
pub async fn dead_letters(command: &DeadLettersCommand) -> Result<(), Fault> {
    match command {
        DeadLettersCommand::List(args) => list(args).await,
        DeadLettersCommand::Show(args) => show(args).await,
        DeadLettersCommand::Redrive(args) => redrive::execute(args).await,
        DeadLettersCommand::Discard(args) => discard::execute(args).await,
    }
}

async fn list(args: &ListArgs) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    let from = (&clients, &letters);
    let selected = args
        .which
        .selected(from, &args.group.group, args.settled)
        .await?;
    if selected.is_empty() && args.which.is_set() {
        return Err(none());
    }
    for letter in selected {
        let line = if args.json {
            format!("{}\n", render::dead_letter::json(&letter))
        } else {
            render::dead_letter::line(&letter)
        };
        if print(&line)?.is_break() {
            break;
        }
    }
    Ok(())
}

async fn show(args: &ListArgs) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    let from = (&clients, &letters);
    let selected = args
        .which
        .selected(from, &args.group.group, args.settled)
        .await?;
    if selected.is_empty() {
        return Err(none());
    }
    for one in &selected {
        // One that was removed since is not there any more.
        let Some(letter) = letters.read(&one.id).await? else {
            continue;
        };
        let whole =
            render::dead_letter::json_in_full(&letter).context("a record cannot be shown")?;
        let told = if args.json {
            format!("{whole}\n")
        } else {
            format!(
                "{}{whole:#}\n\n",
                render::dead_letter::line(&letter.envelope)
            )
        };
        if print(&told)?.is_break() {
            break;
        }
    }
    Ok(())
}
