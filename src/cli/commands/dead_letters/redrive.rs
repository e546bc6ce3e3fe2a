//! `aftercommit dead-letters redrive`: runs the handler again, outside of a fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use crate::confirmation::dynamodb::DynamoDbLookup;
use crate::confirmation::lookup::{Current, Lookup as _};
use crate::confirmation::mapping::Mapping;
use crate::engine::redrive::{How, RedriveStep, RedrivenKey, Summary, redrive};
use crate::filter::Filters;
use crate::stores::dead_letter::EffectTable;
use crate::stores::dead_letter::Envelope;
use crate::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::stores::tables::dynamodb::TableStream;
use crate::{Clock, Context, Failure, Record, RecordHandler};
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use crate::cli::args::identity::{GroupArgs, Known};
use crate::cli::args::letters::{DoingArgs, WhichArgs, none};
use crate::cli::args::means::{Handler, Items, Means};
use crate::cli::args::source::WithHandler;
use crate::cli::args::tables::LedgerName;
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, Clients, must_exist};
use crate::cli::host::signals;
use crate::cli::render::out::{count, json_line, plain, print_all};
use crate::cli::render::progress::CommandProgress;

pub const EXAMPLES: &str = "\
Examples:
  # Show what would be sent
  aftercommit dead-letters redrive --all --dry-run \\
      --mail-from \"Shop <orders@example.com>\" --smtp-url smtps://user@mail.example.com

  # Send all orders that failed for too long, once the cause is fixed
  aftercommit dead-letters redrive --reason exhausted --reason too-old \\
      --mail-from \"Shop <orders@example.com>\" --smtp-url smtps://user@mail.example.com

Each order is mailed as it is in its table now, so an order that was fixed there is sent; an order that was
mailed meanwhile is not mailed again. A handler that is named with --handler gets each change as it was recorded.
Use the settings of `aftercommit run`; the same environment will do.
How an order's id is derived, and which records are handled, is read from the group.
Exit codes: 0 all selected keys are free again, 1 a key stopped at a letter that failed (the attempt is
recorded, the key stays parked), 2 a setting is wrong.";

/// Arguments of `dead-letters redrive`.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    doing: DoingArgs,
    /// Number of keys to redrive at the same time
    #[arg(
        long,
        value_name = "NUMBER",
        env = "AFTERCOMMIT_CONCURRENCY",
        default_value = "8"
    )]
    concurrency: NonZeroUsize,
    /// Use each order as its letter recorded it, not as it is in its table now
    #[arg(long)]
    as_recorded: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    ledger: LedgerName,
}

/// What to redrive, and where the handler comes from.
pub type Redriving = WithHandler<RedriveArgs>;

/// The handler. It may get orders as they are now, so that an order that was fixed in its table can be mailed.
struct RedriveHandler {
    handler: Handler,
    /// Which records it gets: a worker that does not perform an effect keeps all records for it.
    filters: Filters,
    /// The table of the orders, or `None` to use the records in the letters.
    orders: Option<Orders>,
}

/// The table that orders are read from.
struct Orders {
    name: String,
    items: DynamoDbLookup,
    /// A deleted order is not confirmed, as with `run --refetch`.
    gone_is_suppressed: bool,
}

impl RecordHandler for RedriveHandler {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        // Another Region's records are in no letter.
        if !self.filters.want(record, context.stream(), None) {
            context.did_not_ask();
            return Ok(());
        }
        let Some(orders) = self.orders.as_ref().filter(|_| record.new_image.is_some()) else {
            return self.handler.handle(record, context).await;
        };
        let now = orders.items.order(&record.keys).await;
        match now.map_err(Failure::Unavailable)? {
            Current::Item(item) => {
                let as_it_is = Record {
                    new_image: Some(item),
                    ..record.clone()
                };
                self.handler.handle(&as_it_is, context).await
            }
            Current::Gone if !orders.gone_is_suppressed => Err(Failure::reject(format!(
                "the item is no longer in table {}: discard the letter, or redrive it with \
                 --as-recorded",
                orders.name
            ))),
            Current::Gone | Current::AsRecorded => self.handler.handle(record, context).await,
        }
    }
}

/// Redrives the selected letters.
pub async fn execute(redriving: &Redriving) -> Result<(), Fault> {
    let doing = &redriving.args.doing;
    redriving.args.which.must_select(doing.all)?;
    let means = redriving.source.open().await?;
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let letters = redriving.args.which.letters(&clients).await?;
    let list = redriving.source.suppression_table();
    for table in [&redriving.args.ledger.ledger_table]
        .into_iter()
        .chain(list)
    {
        must_exist(&clients, table).await?;
    }
    let from = (&clients, &letters);
    let selected = redriving
        .args
        .which
        .selected(
            from,
            (
                &redriving.args.group.group,
                redriving.args.group.effect.named(),
            ),
            false,
        )
        .await?;
    if selected.is_empty() {
        return Err(none());
    }
    if doing.dry_run {
        return doing.print_dry_run("redrive", &selected);
    }
    let sum = redrive_all(redriving, &clients, &means, (&letters, &selected)).await?;
    means.close().await;
    conclude(redriving, &sum)
}

/// Redrives the keys of these letters, one table and effect at a time.
async fn redrive_all(
    redriving: &Redriving,
    clients: &Clients,
    means: &Means,
    (letters, selected): (&DynamoDbDeadLetters, &[Envelope]),
) -> Result<Summary, Fault> {
    let mut rng = fastrand::Rng::new();
    let how = how(redriving, means, clients.clock(), &mut rng)?;
    let names: BTreeMap<_, _> = selected
        .iter()
        .map(|letter| (letter.id.key.clone(), plain(&letter.key_in_words())))
        .collect();
    let name = |key: &RedrivenKey| names.get(&key.key).map_or("", String::as_str);
    let mut progress = CommandProgress::towards(selected.len());
    let mut show = |step: &RedriveStep| match step {
        RedriveStep::Redriven(_) => progress.step(),
        RedriveStep::Stopped { key, why, .. } => {
            progress.say(&format!("{} stopped: {}", name(key), plain(why)));
        }
        RedriveStep::Taken(key) => {
            progress.say(&format!("{}: another process is redriving it", name(key)));
        }
        RedriveStep::Free(_) | RedriveStep::Untried(_) => {}
    };
    let mut sum = Summary::default();
    for (at, of_table) in by_effect(selected) {
        let handler = handler(redriving, clients, means, (at, of_table[0])).await?;
        let keys = of_table.iter().map(|letter| RedrivenKey {
            at: at.clone(),
            key: letter.id.key.clone(),
        });
        let keys: BTreeSet<_> = keys.collect();
        let keys = keys.into_iter().collect();
        let done = redrive(letters, &handler, keys, (&how, &mut rng), &mut show).await;
        sum.redriven += done.redriven;
        sum.free += done.free;
        sum.stopped += done.stopped;
        sum.untried += done.untried;
        sum.taken += done.taken;
    }
    progress.end();
    Ok(sum)
}

/// How to redrive. A signal lets the letters in progress finish and starts no more.
fn how(
    redriving: &Redriving,
    means: &Means,
    clock: Clock,
    rng: &mut fastrand::Rng,
) -> Result<How, Fault> {
    let incarnation = format!("redrive-{}/{:016x}", std::process::id(), rng.u64(..));
    let mut how = How::new(&redriving.args.doing.by(), &incarnation, clock);
    how.parallel = redriving.args.concurrency.get();
    how.dependency = redriving.source.dependency(means);
    how.handler_timeout = redriving.source.longest_attempt();
    let shutdown = signals::shutdown().context("cannot install signal handlers")?;
    let stop = how.stop.clone();
    tokio::spawn(async move {
        shutdown.await;
        stop.cancel();
    });
    Ok(how)
}

fn by_effect(selected: &[Envelope]) -> BTreeMap<&EffectTable, Vec<&Envelope>> {
    let mut of: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for letter in selected {
        of.entry(&letter.id.at).or_default().push(letter);
    }
    of
}

/// What was redriven, for the output.
#[derive(Serialize)]
struct RedriveReport {
    redriven: u64,
    keys_free: u64,
    keys_stopped: u64,
    keys_untried: u64,
    keys_taken: u64,
}

impl RedriveReport {
    fn text(&self) -> String {
        let Self {
            keys_free,
            keys_stopped,
            keys_untried,
            keys_taken,
            ..
        } = self;
        let redriven = count(self.redriven, "letter");
        format!(
            "{redriven} redriven; keys: {keys_free} free, {keys_stopped} stopped, {keys_untried} not \
             tried, {keys_taken} redriven by another process\n"
        )
    }

    fn parked(&self) -> u64 {
        self.keys_stopped + self.keys_untried + self.keys_taken
    }
}

fn conclude(redriving: &Redriving, sum: &Summary) -> Result<(), Fault> {
    let done = RedriveReport {
        redriven: sum.redriven,
        keys_free: sum.free,
        keys_stopped: sum.stopped,
        keys_untried: sum.untried,
        keys_taken: sum.taken,
    };
    print_all(&if redriving.args.doing.json {
        json_line(&done)?
    } else {
        done.text()
    })?;
    let parked = match done.parked() {
        0 => return Ok(()),
        1 => "1 key is".to_owned(),
        many => format!("{many} keys are"),
    };
    Err(Fault::Work(anyhow!(
        "{parked} still parked: fix the causes that are reported above, then redrive again"
    )))
}

/// The handler for an effect of the orders of a table.
async fn handler(
    redriving: &Redriving,
    clients: &Clients,
    means: &Means,
    of: (&EffectTable, &Envelope),
) -> Result<RedriveHandler, Fault> {
    let (EffectTable { at, effect }, letter) = of;
    let orders = at.table_name();
    let client = clients.dynamodb.clone();
    let ledger = DynamoDbLedger::new(
        client,
        &redriving.args.ledger.ledger_table,
        redriving.source.retention(),
    );
    // With another effect or id than the fleet's, a second email would go out.
    let known = redriving
        .args
        .group
        .known_as(&ledger, at.table(), Some(effect))
        .await?;
    let wanted = known.as_ref().map(Known::wanted).transpose()?;
    let filters = known.as_ref().map(Known::filters).transpose()?;
    if let Some(known) = &known {
        known.must_be(means)?;
    }
    let mapping = known
        .map(|known| known.mapping(redriving.source.fields()))
        .transpose()?;
    let mapping = mapping.flatten();
    let keyed = mapping.is_some();
    let mapping = match mapping {
        Some(mapping) => mapping,
        None if means.setting().is_some() => redriving.source.fields().with_default_id("id")?,
        None => mapping_of(redriving, clients, orders, letter).await?,
    };
    let items = Items {
        table: orders,
        mapping,
        keyed,
        partition_key: None,
    };
    let handler = redriving.source.handler(
        (clients, &redriving.args.ledger),
        items,
        means,
        (effect.clone(), wanted.unwrap_or_default()),
    )?;
    let read = || Orders {
        name: orders.to_owned(),
        items: DynamoDbLookup::new().refetching(clients.dynamodb.clone(), orders),
        gone_is_suppressed: redriving.source.refetch(),
    };
    let mails = handler.mails().is_some();
    Ok(RedriveHandler {
        handler,
        filters: filters.unwrap_or_default(),
        orders: (mails && !redriving.args.as_recorded).then(read),
    })
}

/// How the items become orders. If the key is one attribute, the letter names it.
async fn mapping_of(
    redriving: &Redriving,
    clients: &Clients,
    orders: &str,
    letter: &Envelope,
) -> Result<Mapping, Fault> {
    if let Some(mapping) = redriving.source.fields().named()? {
        return Ok(mapping);
    }
    let mut names = letter.keys.inner().keys();
    if let (Some(name), None) = (names.next(), names.next()) {
        let id = Mapping::key_expression(name, None);
        return redriving.source.fields().with_default_id(&id);
    }
    let found = TableStream::resolve(&clients.dynamodb, orders).await;
    let found = found
        .context("--id is not set, and the table's key cannot be read")
        .map_err(Fault::Setting)?;
    let sort = found.sort_key.as_deref();
    redriving.source.fields().of_key(&found.partition_key, sort)
}
