//! `aftercommit dead-letters redrive`: the confirmation handler once more, outside of a fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use aftercommit::Clock;
use aftercommit::confirmation::smtp::Smtp;
use aftercommit::confirmation::{Confirmation, Rules};
use aftercommit::dead_letter::Envelope;
use aftercommit::ledger::dynamodb::DynamoDbLedger;
use aftercommit::redrive::{How, Key, Step, Summary, redrive};
use aftercommit::tables::dynamodb::TableStream;
use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::aws::{self, Clients};
use crate::cli::{LetterArgs, OrderArgs, SmtpArgs};
use crate::dead_letters::{WhichArgs, line, operator};
use crate::fault::Fault;
use crate::fleet::{OnAmbiguous, RETENTION};
use crate::progress::Progress;
use crate::run::{must_exist, table_of};

pub const EXAMPLES: &str = "\
Examples:
  # What would be sent?
  aftercommit dead-letters redrive --all --dry-run \\
      --mail-from \"Shop <orders@example.com>\" --smtp-url smtps://user@mail.example.com

  # All orders that waited out an outage
  aftercommit dead-letters redrive --reason rescued \\
      --mail-from \"Shop <orders@example.com>\" --smtp-url smtps://user@mail.example.com

Exit codes: 0 all selected keys are free again, 1 a key stopped at a letter that failed (the attempt is
written down, the key waits), 2 a setting is wrong.";

/// What `dead-letters redrive` is told.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// All that there are
    #[arg(long)]
    all: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// How many keys at a time
    #[arg(
        long,
        value_name = "NUMBER",
        env = "AFTERCOMMIT_CONCURRENCY",
        default_value = "8"
    )]
    concurrency: NonZeroUsize,
    /// Who does it; without it: user and host
    #[arg(long, value_name = "NAME", env = "AFTERCOMMIT_OPERATOR")]
    by: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Where stands what was sent
    #[arg(
        long,
        value_name = "NAME",
        env = "AFTERCOMMIT_LEDGER_TABLE",
        default_value = "aftercommit-ledger"
    )]
    ledger_table: String,
    /// What to do when nobody can tell whether a mail was accepted
    #[arg(
        long,
        value_enum,
        env = "AFTERCOMMIT_ON_AMBIGUOUS",
        default_value = "resend"
    )]
    on_ambiguous: OnAmbiguous,
    #[command(flatten)]
    fields: OrderArgs,
    #[command(flatten)]
    letter: LetterArgs,
    #[command(flatten)]
    smtp: SmtpArgs,
}

/// Redrives what is selected.
pub async fn execute(args: &RedriveArgs) -> Result<ExitCode, Fault> {
    args.which.must_select(args.all)?;
    args.letter.letterhead()?;
    let smtp = args.smtp.transport()?;
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = args.which.letters(&clients).await?;
    must_exist(&clients, &args.ledger_table).await?;
    let selected = args.which.selected(&letters, false).await?;
    if args.dry_run {
        for letter in &selected {
            println!("would redrive {}", line(letter));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut rng = fastrand::Rng::new();
    let by = operator(args.by.as_deref());
    let incarnation = format!("redrive-{}/{:016x}", std::process::id(), rng.u64(..));
    let mut how = How::new(&by, &incarnation, Clock::system());
    how.parallel = args.concurrency.get();
    let words: BTreeMap<_, _> = selected
        .iter()
        .map(|letter| (letter.id.key.clone(), letter.key_in_words()))
        .collect();
    let mut progress = Progress::towards(selected.len());
    let mut sum = Summary::default();
    for (stream, of_stream) in by_stream(&selected) {
        let handler = handler(args, &clients, &smtp, (&stream, of_stream[0])).await?;
        let keys = of_stream.iter().map(|letter| Key {
            stream: Arc::clone(&stream),
            key: letter.id.key.clone(),
        });
        let keys: BTreeSet<_> = keys.collect();
        let keys = keys.into_iter().collect();
        let done = redrive(
            &letters,
            &handler,
            keys,
            (&how, &mut rng),
            |step| match step {
                Step::Redriven(_) => progress.step(),
                Step::Stopped { key, why } => {
                    progress.clear();
                    let name = words.get(&key.key).map_or("", String::as_str);
                    eprintln!("{name} stopped: {why}");
                }
                Step::Free(_) | Step::Untried(_) => {}
            },
        )
        .await;
        sum.redriven += done.redriven;
        sum.free += done.free;
        sum.stopped += done.stopped;
        sum.untried += done.untried;
    }
    smtp.close().await;
    progress.clear();
    tell(args, sum);
    let whole = sum.stopped == 0 && sum.untried == 0;
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn by_stream(selected: &[Envelope]) -> BTreeMap<Arc<str>, Vec<&Envelope>> {
    let mut of: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for letter in selected {
        of.entry(Arc::clone(&letter.id.stream))
            .or_default()
            .push(letter);
    }
    of
}

fn tell(args: &RedriveArgs, sum: Summary) {
    let Summary {
        redriven,
        free,
        stopped,
        untried,
    } = sum;
    if args.json {
        let told = json!({"redriven": redriven, "keysFree": free, "keysStopped": stopped,
            "keysUntried": untried});
        println!("{told}");
        return;
    }
    println!(
        "{redriven} letters redriven; keys: {free} free, {stopped} stopped, {untried} not tried"
    );
}

/// The handler for the orders of a stream.
async fn handler(
    args: &RedriveArgs,
    clients: &Clients,
    smtp: &Smtp,
    of: (&str, &Envelope),
) -> Result<Confirmation<DynamoDbLedger>, Fault> {
    let (stream, letter) = of;
    let fields = match (args.fields.named(), single_key(letter)) {
        (Some(fields), _) => fields,
        (None, Some(name)) => args.fields.with_default_id(name),
        (None, None) => {
            let table = table_of(stream).unwrap_or(stream);
            let found = TableStream::resolve(&clients.dynamodb, table).await;
            let found = found
                .context("--order-id-attribute is not set, and the table does not tell its key")
                .map_err(Fault::Setting)?;
            args.fields.with_default_id(&found.partition_key)
        }
    };
    let rules = Rules {
        fields,
        on_ambiguous: args.on_ambiguous.into(),
        retention: RETENTION,
        clock: Clock::system(),
    };
    let client = clients.dynamodb.clone();
    let ledger = DynamoDbLedger::new(client, &args.ledger_table, RETENTION);
    let letterhead = args.letter.letterhead()?;
    let rng = fastrand::Rng::new();
    Ok(Confirmation::new(
        ledger,
        smtp.clone(),
        letterhead,
        rules,
        rng,
    ))
}

/// The name of the key attribute, where there is one only.
fn single_key(letter: &Envelope) -> Option<&str> {
    let mut names = letter.keys.inner().keys();
    let first = names.next()?;
    names.next().is_none().then_some(first)
}
