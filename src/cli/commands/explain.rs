//! `aftercommit explain`: everything that happened to one order.

use std::time::Duration;

use crate::GroupTable;
use crate::confirmation::dynamodb::DynamoDbLookup;
use crate::confirmation::lookup::{Current, Lookup as _};
use crate::core::claim::{Entry, State};
use crate::record::ItemKey;
use crate::stores::dead_letter::dynamodb::DynamoDbDeadLetters;
use crate::stores::dead_letter::{DeadLetters as _, Letter, key_in_words};
use crate::stores::leases::dynamodb::DynamoDbLeases;
use crate::stores::leases::{Consistency, LeaseStore as _};
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::stores::ledger::{EffectKey, Ledger as _};
use crate::stores::tables::dynamodb::table_arn;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_dynamo::Item;
use serde_json::Value;

use crate::cli::args::identity::GroupArgs;
use crate::cli::args::order::OrderArgs;
use crate::cli::args::place::{ItemLocation, PlaceArgs};
use crate::cli::args::tables::TableNames;
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, Clients, must_exist};
use crate::cli::render::dead_letter;
use crate::cli::render::explain::{ItemPlace, OrderExplanation, WaitingShard, WaitsAs, events};
use crate::cli::render::ledger::ShownEntry;
use crate::cli::render::out::{json_page, moment, print_all, report};

pub const EXAMPLES: &str = "\
Examples:
  # Show every claim, reply, failed attempt and operator action, oldest first
  aftercommit explain 1042 --table orders

  # An order that the ledger does not know yet, in a table with a sort key
  aftercommit explain 1042 --table shop --key PK=CUST#7,SK=ORDER#1042

  # For scripts
  aftercommit explain 1042 --table orders --json

Reads only the rows of this order. Its item is found through the ledger, or through --table and --key.

Exit codes: 0 something is known about the order, 1 nothing is, 2 a setting is wrong.";

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Order id
    order: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    tables: TableNames,
    /// Expression from which the group takes an id, for a group that was never started [default: the table's
    /// key]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_ID")]
    id: Option<String>,
}

/// What was read about an order.
struct Found {
    entry: Option<Entry>,
    row: Option<ShownEntry>,
    letters: Vec<Letter>,
    /// The place of the order's item, and the item as it is now.
    item: Option<(ItemLocation, Current)>,
    /// The shards in which the order may wait.
    waits: Vec<WaitingShard>,
}

/// Prints the history of an order.
pub async fn explain(args: &ExplainArgs) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let (ledger, letters) = (&args.tables.ledger, &args.tables.letters);
    for table in [&ledger.ledger_table, &letters.dead_letter_table] {
        must_exist(&clients, table).await?;
    }
    let found = look(&clients, args).await?;
    if found.entry.is_none() && found.letters.is_empty() && found.present().is_none() {
        let place = found.item.as_ref().map_or_else(
            || ". Name its table with --table to search its dead letters too".to_owned(),
            |(place, _)| {
                let key = key_in_words(&place.keys);
                format!(
                    ", its item {key} is not in table {}, and no dead letter of it is in {}",
                    place.table, letters.dead_letter_table
                )
            },
        );
        return Err(Fault::Work(anyhow!(
            "nothing is known about order {}: it is not in the ledger {}{place}",
            args.order,
            ledger.ledger_table
        )));
    }
    let explanation = found.explain(&args.order)?;
    let text = if args.json {
        json_page(&explanation)?
    } else {
        explanation.text()?
    };
    Ok(print_all(&text)?)
}

async fn look(clients: &Clients, args: &ExplainArgs) -> Result<Found, Fault> {
    let (client, tables) = (&clients.dynamodb, &args.tables);
    // This command writes no row, so the retention does not matter.
    let ledger = DynamoDbLedger::new(client.clone(), &tables.ledger.ledger_table, Duration::MAX);
    let key = EffectKey::new(&args.group.known_effect(&ledger).await?, &args.order);
    let entry = ledger.read(&key).await?;
    let of = (&*args.order, entry.as_ref());
    let id = id_expression(args, clients, &ledger).await?;
    let place = args.place.find(clients, of, id.as_deref()).await?;
    let mut found = Found {
        row: entry.as_ref().map(|entry| ShownEntry::new(&key, entry)),
        entry,
        letters: Vec::new(),
        item: None,
        waits: Vec::new(),
    };
    let Some(place) = place else {
        return Ok(found);
    };
    let at = GroupTable::new(args.group.group.clone(), &place.arn);
    let store = DynamoDbDeadLetters::new(client.clone(), &tables.letters.dead_letter_table);
    for envelope in store.of_key(&at, &ItemKey::of(&place.keys)).await? {
        found.letters.extend(store.read(&envelope.id).await?);
    }
    let orders = DynamoDbLookup::new().refetching(client.clone(), &place.table);
    let now = orders.order(&place.keys).await?;
    found.item = Some((place, now));
    if found.may_wait() {
        let leases = DynamoDbLeases::new(client.clone(), &tables.lease.lease_table, &at);
        found.waits = waits(&leases).await.unwrap_or_else(|error| {
            report(&format!("cannot read what the order waits for: {error:#}"));
            Vec::new()
        });
    }
    Ok(found)
}

/// The expression from which the group takes an order's id.
async fn id_expression(
    args: &ExplainArgs,
    clients: &Clients,
    ledger: &DynamoDbLedger,
) -> Result<Option<String>, Fault> {
    let Some(table) = args.place.table() else {
        return Ok(None);
    };
    let arn = table_arn(&clients.dynamodb, table).await;
    let arn = arn.map_err(Fault::setting)?;
    let fields = OrderArgs::of_id(args.id.clone());
    let mapping = match args.group.known(ledger, &arn).await? {
        Some(known) => known.mapping(&fields)?,
        None => fields.named()?,
    };
    Ok(mapping.map(|mapping| mapping.id().to_owned()))
}

/// The shards in which records wait.
async fn waits(leases: &DynamoDbLeases) -> anyhow::Result<Vec<WaitingShard>> {
    let view = leases.look(Consistency::Eventual).await?;
    let open = view.leases.into_values().filter(|row| !row.ended());
    let waiting = open.filter_map(|row| {
        let since = row.report.oldest_waiting();
        let waits = since.is_some() || row.report.last_error.is_some();
        waits.then_some(WaitingShard {
            shard: row.shard.to_string(),
            oldest_committed: since.map(moment),
            last_error: row.report.last_error,
        })
    });
    Ok(waiting.collect())
}

impl Found {
    fn present(&self) -> Option<&Item> {
        match &self.item {
            Some((_, Current::Item(item))) => Some(item),
            _ => None,
        }
    }

    fn has_open_letter(&self) -> bool {
        self.letters.iter().any(|letter| letter.envelope.open)
    }

    /// Whether the order's record may still wait in its shard.
    fn may_wait(&self) -> bool {
        let undecided = self.entry.as_ref().is_none_or(|entry| {
            !entry.released && matches!(entry.state, State::Retry | State::Sending)
        });
        undecided && !self.has_open_letter() && self.present().is_some()
    }

    fn explain(self, order: &str) -> anyhow::Result<OrderExplanation> {
        let waits_as = if self.has_open_letter() {
            WaitsAs::DeadLetter
        } else if self.may_wait() {
            WaitsAs::InShard
        } else {
            WaitsAs::Nothing
        };
        let letters = self
            .letters
            .iter()
            .map(dead_letter::ShownLetter::with_record);
        Ok(OrderExplanation {
            order: order.to_owned(),
            events: events(self.row.as_ref(), &self.letters),
            dead_letters: letters.collect::<Result<_, _>>()?,
            item: self.present().map(image).transpose()?,
            place: self.item.map(|(place, _)| ItemPlace {
                key: key_in_words(&place.keys),
                table: place.table,
            }),
            ledger: self.row,
            waits: self.waits,
            waits_as,
        })
    }
}

/// The item as plain JSON.
fn image(item: &Item) -> anyhow::Result<Value> {
    serde_dynamo::from_item(item.clone()).context("cannot write the item as JSON")
}
