//! `aftercommit dead-letters`: what could not be handled, and what becomes of it.

use std::time::{Duration, SystemTime};

use aftercommit::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::dead_letter::{DeadLetters as _, Deed, Envelope, Reason, Selection, Settled};
use aftercommit::{Clock, Group, GroupTable};
use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::args::{GroupArg, LetterTable};
use crate::aws::{self, Clients, must_exist};
use crate::fault::Fault;
use crate::ledger::user;
use crate::letters;
use crate::out::{print, print_all};
use crate::progress::Progress;
use crate::redrive::{self, RedriveArgs};

pub const EXAMPLES: &str = "\
Examples:
  # What could not be handled, and why
  aftercommit dead-letters list
  aftercommit dead-letters list --reason rejected --older-than 1d --json

  # The letters of one order in full
  aftercommit dead-letters show --key 1042

  # Handle them again, in order, through the same ledger; first a look at what would be done
  aftercommit dead-letters redrive --reason exhausted --dry-run --mail-from ... --smtp-url ...
  aftercommit dead-letters redrive --key 1042 --mail-from ... --smtp-url ...

  # Give up
  aftercommit dead-letters discard --key 1042 --why \"a test order\"

Exit codes: 0 done, 1 not found, or a letter failed again, 2 a setting is wrong.";

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List them, by key and in order; reads the whole table
    List(ListArgs),
    /// Tell everything about some: the record, every attempt, what was done
    Show(ListArgs),
    /// Handle them again: all letters of each key that is selected, oldest first
    #[command(after_long_help = redrive::EXAMPLES)]
    Redrive(Box<RedriveArgs>),
    /// Give them up. Later letters of the same key stay, and are redriven or discarded for themselves
    Discard(DiscardArgs),
}

/// Which letters.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which letters")]
pub struct WhichArgs {
    /// Of this item: its key's value such as 1042, or id=1042, or line=1,order=1042 (sorted)
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// With this reason: rejected, exhausted, too-old, rescued or followed; may be given several
    /// times
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Vec<Reason>,
    /// Written longer ago than this
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Of the table of this stream only
    #[arg(long, value_name = "ARN", env = "AFTERCOMMIT_STREAM_ARN")]
    stream_arn: Option<String>,
    #[command(flatten)]
    name: LetterTable,
}

fn reason(word: &str) -> Result<Reason, String> {
    Reason::from_word(word).ok_or_else(|| {
        let all = Reason::ALL.map(Reason::word).join(", ");
        format!("write one of {all}")
    })
}

impl WhichArgs {
    fn selection(&self, group: &Group, settled_too: bool) -> Selection {
        let now = Clock::system().now();
        let table = |arn| GroupTable::new(group.clone(), arn).table().to_owned();
        let before = |age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Selection {
            group: Some(group.clone()),
            table: self.stream_arn.as_deref().map(table),
            reasons: self.reason.clone(),
            key: self.key.clone(),
            written_until: self.older_than.map(before),
            settled_too,
        }
    }

    /// What would change something must say what it means.
    pub fn must_select(&self, all: bool) -> Result<(), Fault> {
        let named = self.key.is_some() || !self.reason.is_empty() || self.older_than.is_some();
        if all || named {
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

    /// The letters that are selected, by key and in order.
    pub async fn selected(
        &self,
        letters: &DynamoDbDeadLetters,
        group: &Group,
        settled_too: bool,
    ) -> anyhow::Result<Vec<Envelope>> {
        let which = self.selection(group, settled_too);
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let page = letters.list(&which, from.as_deref()).await?;
            all.extend(page.letters);
            from = page.next;
            if from.is_none() {
                all.sort_by(|a, b| a.id.cmp(&b.id));
                return Ok(all);
            }
        }
    }
}

/// What `dead-letters list` and `show` are told.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    group: GroupArg,
    /// Also those that were redriven or discarded in the last 30 days
    #[arg(long)]
    settled: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What `dead-letters discard` is told.
#[derive(Debug, Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    group: GroupArg,
    #[command(flatten)]
    doing: DoingArgs,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// How something is done to letters.
#[derive(Debug, Args)]
pub struct DoingArgs {
    /// All letters that there are
    #[arg(long)]
    pub all: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// What was done as one JSON object; with --dry-run one for each letter
    #[arg(long)]
    pub json: bool,
    /// Who does it; without it the user who is logged in
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_BY")]
    by: Option<String>,
}

impl DoingArgs {
    /// Who does it.
    pub fn by(&self) -> String {
        self.by.clone().unwrap_or_else(user)
    }

    /// Says for each letter what would be done.
    pub fn tell_dry(&self, what: &str, selected: &[Envelope]) -> Result<(), Fault> {
        for letter in selected {
            let line = if self.json {
                format!("{}\n", letters::json(letter))
            } else {
                format!("would {what}\t{}", letters::line(letter))
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
        DeadLettersCommand::Discard(args) => discard(args).await,
    }
}

async fn list(args: &ListArgs) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    for letter in args
        .which
        .selected(&letters, &args.group.group, args.settled)
        .await?
    {
        let line = if args.json {
            format!("{}\n", letters::json(&letter))
        } else {
            letters::line(&letter)
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
    let selected = args
        .which
        .selected(&letters, &args.group.group, args.settled)
        .await?;
    if selected.is_empty() {
        return Err(Fault::Work(anyhow!(
            "there is no such dead letter; `aftercommit dead-letters list --settled` shows them all"
        )));
    }
    for one in &selected {
        // One that was removed since is not there any more.
        let Some(letter) = letters.read(&one.id).await? else {
            continue;
        };
        let whole = letters::json_in_full(&letter).context("a record cannot be shown")?;
        let told = if args.json {
            format!("{whole}\n")
        } else {
            format!("{}{whole:#}\n\n", letters::line(&letter.envelope))
        };
        if print(&told)?.is_break() {
            break;
        }
    }
    Ok(())
}

async fn discard(args: &DiscardArgs) -> Result<(), Fault> {
    let doing = &args.doing;
    args.which.must_select(doing.all)?;
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    let selected = args
        .which
        .selected(&letters, &args.group.group, false)
        .await?;
    if doing.dry_run {
        return doing.tell_dry("discard", &selected);
    }
    let mut progress = Progress::towards(selected.len());
    let (mut discarded, clock) = (0_u64, Clock::system());
    for letter in &selected {
        let deed = Deed {
            at: clock.now(),
            by: doing.by(),
            what: Settled::Discarded,
            why: args.why.clone(),
        };
        let settled = letters.settle(&letter.id, &deed).await;
        discarded += u64::from(settled?.is_some());
        progress.step();
    }
    progress.end();
    let selected = selected.len();
    let told = if doing.json {
        json!({"selected": selected, "discarded": discarded}).to_string()
    } else {
        format!("{discarded} of {selected} letters discarded")
    };
    Ok(print_all(&format!("{told}\n"))?)
}
