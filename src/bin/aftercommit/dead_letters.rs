//! `aftercommit dead-letters`: what could not be handled, and what becomes of it.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use aftercommit::Clock;
use aftercommit::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::dead_letter::{
    DeadLetters as _, Deed, Envelope, Letter, Reason, Selection, Settled,
};
use aftercommit::record::lambda_event;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::aws::{self, Clients};
use crate::fault::Fault;
use crate::progress::Progress;
use crate::redrive::{self, RedriveArgs};
use crate::run::must_exist;

const EXAMPLES: &str = "\
Examples:
  # What could not be handled, and why
  aftercommit dead-letters list
  aftercommit dead-letters list --reason rejected --older-than 1d --json

  # The letters of one order in full
  aftercommit dead-letters show --key 1042

  # Handle them again, in order, through the same ledger; first a look at what would be done
  aftercommit dead-letters redrive --reason rescued --dry-run --mail-from ... --smtp-url ...
  aftercommit dead-letters redrive --key 1042 --mail-from ... --smtp-url ...

  # Give up
  aftercommit dead-letters discard --key 1042 --why \"a test order\"";

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
#[command(after_long_help = EXAMPLES)]
pub enum DeadLettersCommand {
    /// Tell what is there, a line for each
    List(ListArgs),
    /// Tell everything about some: the record, every attempt, what was done
    Show(ShowArgs),
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
    /// With this reason; may be given several times
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Vec<Reason>,
    /// Written longer ago than this
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Of this stream only
    #[arg(long, value_name = "ARN", env = "AFTERCOMMIT_STREAM_ARN")]
    stream_arn: Option<String>,
    /// The dead letters' table
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_DEAD_LETTER_TABLE",
        default_value = "aftercommit-dead-letters"
    )]
    dead_letter_table: String,
}

fn reason(word: &str) -> Result<Reason, String> {
    Reason::from_word(word).ok_or_else(|| {
        let all = Reason::ALL.map(Reason::word).join(", ");
        format!("one of {all}")
    })
}

impl WhichArgs {
    fn selection(&self, settled_too: bool) -> Selection {
        let now = Clock::system().now();
        Selection {
            stream: self.stream_arn.clone(),
            reasons: self.reason.clone(),
            key: self.key.clone(),
            written_until: self
                .older_than
                .map(|age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)),
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
        must_exist(clients, &self.dead_letter_table).await?;
        let client = clients.dynamodb.clone();
        Ok(DynamoDbDeadLetters::new(client, &self.dead_letter_table))
    }

    /// The letters that are selected, by key and in order.
    pub async fn selected(
        &self,
        letters: &DynamoDbDeadLetters,
        settled_too: bool,
    ) -> anyhow::Result<Vec<Envelope>> {
        let which = self.selection(settled_too);
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

/// What `dead-letters list` is told.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Also those that were redriven or discarded in the last 30 days
    #[arg(long)]
    settled: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What `dead-letters show` is told.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    which: WhichArgs,
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
    /// All that there are
    #[arg(long)]
    all: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Why, for those who ask later
    #[arg(long, value_name = "WORDS")]
    why: Option<String>,
    /// Who does it; without it: user and host
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_OPERATOR")]
    by: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Does what it says.
pub async fn execute(command: &DeadLettersCommand) -> Result<ExitCode, Fault> {
    match command {
        DeadLettersCommand::List(args) => list(args).await,
        DeadLettersCommand::Show(args) => show(args).await,
        DeadLettersCommand::Redrive(args) => redrive::execute(args).await,
        DeadLettersCommand::Discard(args) => discard(args).await,
    }
}

async fn list(args: &ListArgs) -> Result<ExitCode, Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    for letter in args.which.selected(&letters, args.settled).await? {
        if args.json {
            println!("{}", told(&letter));
        } else {
            println!("{}", line(&letter));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &ShowArgs) -> Result<ExitCode, Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    for letter in args.which.selected(&letters, args.settled).await? {
        let Some(letter) = letters.read(&letter.id).await? else {
            continue;
        };
        let whole = in_full(&letter).context("a record cannot be shown")?;
        if args.json {
            println!("{whole}");
        } else {
            println!("{}\n{whole:#}\n", line(&letter.envelope));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn discard(args: &DiscardArgs) -> Result<ExitCode, Fault> {
    args.which.must_select(args.all)?;
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    let selected = args.which.selected(&letters, false).await?;
    let mut progress = Progress::towards(selected.len());
    let (mut discarded, clock) = (0_u64, Clock::system());
    for letter in &selected {
        if args.dry_run {
            println!("would discard {}", line(letter));
            continue;
        }
        let deed = Deed {
            at: clock.now(),
            by: operator(args.by.as_deref()),
            what: Settled::Discarded,
            why: args.why.clone(),
        };
        let settled = letters.settle(&letter.id, &deed).await;
        discarded += u64::from(settled?.is_some());
        progress.step();
    }
    progress.clear();
    if args.json {
        println!(
            "{}",
            json!({"selected": selected.len(), "discarded": discarded})
        );
    } else if !args.dry_run {
        println!("{discarded} of {} letters discarded", selected.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// Who does it.
pub fn operator(named: Option<&str>) -> String {
    let host = hostname::get().unwrap_or_default();
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let default = || format!("{user}@{}", host.to_string_lossy());
    named.map_or_else(default, str::to_owned)
}

/// A letter in a line.
pub fn line(letter: &Envelope) -> String {
    let written = humantime::format_rfc3339_seconds(letter.written);
    let error = letter.attempts.last().next_back();
    let error = error.map_or("", |attempt| attempt.error.as_str());
    let state = match letter.deeds.last() {
        Some(deed) if !letter.open => format!(" {} by {}", deed.what.word(), deed.by),
        _ => String::new(),
    };
    let (key, number) = (letter.key_in_words(), &letter.id.sequence_number);
    let (reason, made) = (letter.reason, letter.attempts.made());
    let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "{written} {key} {number} {} {reason}{state} attempts={made} {error}",
        letter.event
    )
    .trim_end()
    .to_owned()
}

/// A letter without its record, as JSON.
fn told(letter: &Envelope) -> Value {
    let time = |time| humantime::format_rfc3339_millis(time).to_string();
    let attempts = letter
        .attempts
        .last()
        .map(|one| json!({"at": time(one.at), "error": one.error}));
    let deeds = letter.deeds.iter().map(
        |one| json!({"at": time(one.at), "by": one.by, "what": one.what.word(), "why": one.why}),
    );
    json!({
        "stream": &*letter.id.stream,
        "shard": letter.shard.as_str(),
        "key": letter.key_in_words(),
        "sequenceNumber": letter.id.sequence_number.as_str(),
        "event": letter.event.to_string(),
        "created": time(letter.created),
        "written": time(letter.written),
        "reason": letter.reason.word(),
        "open": letter.open,
        "attemptsMade": letter.attempts.made(),
        "attempts": attempts.collect::<Value>(),
        "deeds": deeds.collect::<Value>(),
    })
}

/// A letter with its record, in the shape in which Lambda hands records over.
fn in_full(letter: &Letter) -> anyhow::Result<Value> {
    let mut whole = told(&letter.envelope);
    let stream = &letter.envelope.id.stream;
    whole["record"] = lambda_event::write(&letter.record, Some(stream))?;
    Ok(whole)
}
