//! `aftercommit explain`: what became of one order, from all that is known of it.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use aftercommit::GroupTable;
use aftercommit::confirmation::dynamodb::DynamoDbLookup;
use aftercommit::confirmation::lookup::{Lookup as _, Now};
use aftercommit::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::dead_letter::{DeadLetters as _, Letter, key_in_words};
use aftercommit::decide::claim::{Entry, State};
use aftercommit::leases::dynamodb::DynamoDbLeases;
use aftercommit::leases::{Consistency, LeaseStore as _};
use aftercommit::ledger::dynamodb::DynamoDbLedger;
use aftercommit::ledger::{EffectKey, Ledger as _};
use aftercommit::record::ItemKey;
use aftercommit::tables::dynamodb::table_arn;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_dynamo::Item;
use serde_json::{Value, json};

use crate::args::identity::GroupArgs;
use crate::args::order::OrderArgs;
use crate::args::place::{Place, PlaceArgs};
use crate::args::tables::TableNames;
use crate::fault::Fault;
use crate::host::aws::{self, Clients, must_exist};
use crate::render;
use crate::render::ledger::plain;
use crate::render::out::{moment, print_all, report};

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
    #[command(flatten)]
    fields: OrderArgs,
}

/// What is known of an order.
struct Known {
    key: EffectKey,
    entry: Option<Entry>,
    letters: Vec<Letter>,
    /// Where its item is, and the item as it is now.
    item: Option<(Place, Now)>,
    /// The shards in which it may wait.
    waits: Vec<Waiting>,
}

/// A shard with records that wait.
struct Waiting {
    shard: String,
    since: Option<SystemTime>,
    error: Option<String>,
}

/// Tells what became of an order.
pub async fn explain(args: &ExplainArgs) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let (ledger, letters) = (&args.tables.ledger, &args.tables.letters);
    for table in [&ledger.ledger_table, &letters.dead_letter_table] {
        must_exist(&clients, table).await?;
    }
    let known = look(&clients, args).await?;
    if known.entry.is_none() && known.letters.is_empty() && known.present().is_none() {
        let place = known.item.as_ref().map_or_else(
            || ". Name its table with --table, and its dead letters are looked up, too".to_owned(),
            |(place, _)| {
                let key = key_in_words(&place.keys);
                format!(
                    ", its item {key} is not in table {}, and no dead letter of it is in {}",
                    place.table, letters.dead_letter_table
                )
            },
        );
        return Err(Fault::Work(anyhow!(
            "nothing is known of order {}: it is not in the ledger {}{place}",
            args.order,
            ledger.ledger_table
        )));
    }
    let text = if args.json {
        format!("{:#}\n", known.json(&args.order)?)
    } else {
        known.text(&args.order)?
    };
    Ok(print_all(&text)?)
}

async fn look(clients: &Clients, args: &ExplainArgs) -> Result<Known, Fault> {
    let (client, tables) = (&clients.dynamodb, &args.tables);
    // Readers write no row, so none expires by this.
    let ledger = DynamoDbLedger::new(client.clone(), &tables.ledger.ledger_table, Duration::MAX);
    let key = EffectKey::new(&args.group.known_effect(&ledger).await?, &args.order);
    let entry = ledger.read(&key).await?;
    let of = (&*args.order, entry.as_ref());
    let id = id_expression(args, clients, &ledger).await?;
    let place = args.place.find(clients, of, id.as_deref()).await?;
    let mut known = Known {
        key,
        entry,
        letters: Vec::new(),
        item: None,
        waits: Vec::new(),
    };
    let Some(place) = place else {
        return Ok(known);
    };
    let at = GroupTable::new(args.group.group.clone(), &place.arn);
    let store = DynamoDbDeadLetters::new(client.clone(), &tables.letters.dead_letter_table);
    for envelope in store.of_key(&at, &ItemKey::of(&place.keys)).await? {
        known.letters.extend(store.read(&envelope.id).await?);
    }
    let orders = DynamoDbLookup::new().refetching(client.clone(), &place.table);
    let now = orders.order(&place.keys).await?;
    known.item = Some((place, now));
    if known.may_wait() {
        let leases = DynamoDbLeases::new(client.clone(), &tables.lease.lease_table, &at);
        known.waits = waits(&leases).await.unwrap_or_else(|error| {
            report(&format!("cannot read what the order waits for: {error:#}"));
            Vec::new()
        });
    }
    Ok(known)
}

/// Where the group takes an order's id from.
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
    let mapping = match args.group.known(ledger, &arn).await? {
        Some(known) => known.mapping(&args.fields)?,
        None => args.fields.named()?,
    };
    Ok(mapping.map(|mapping| mapping.id().to_owned()))
}

/// The shards in which records wait.
async fn waits(leases: &DynamoDbLeases) -> anyhow::Result<Vec<Waiting>> {
    let view = leases.look(Consistency::Eventual).await?;
    let open = view.leases.into_values().filter(|row| !row.ended());
    let waiting = open.filter_map(|row| {
        let since = row.report.oldest_waiting();
        let waits = since.is_some() || row.report.last_error.is_some();
        waits.then_some(Waiting {
            shard: row.shard.to_string(),
            since,
            error: row.report.last_error,
        })
    });
    Ok(waiting.collect())
}

impl Known {
    fn present(&self) -> Option<&Item> {
        match &self.item {
            Some((_, Now::Item(item))) => Some(item),
            _ => None,
        }
    }

    fn has_open_letter(&self) -> bool {
        self.letters.iter().any(|letter| letter.envelope.open)
    }

    /// Whether its record may still wait in its shard.
    fn may_wait(&self) -> bool {
        let undecided = self.entry.as_ref().is_none_or(|entry| {
            !entry.released && matches!(entry.state, State::Retry | State::Sending)
        });
        undecided && !self.has_open_letter() && self.present().is_some()
    }

    /// What happened, in the order of time.
    fn events(&self) -> Vec<(SystemTime, String)> {
        let mut events = Vec::new();
        if let Some(entry) = &self.entry {
            events.extend(render::ledger::history(&entry.history));
        }
        for letter in &self.letters {
            events.extend(of_letter(letter));
        }
        events.sort_by_key(|event| event.0);
        events
    }

    fn text(&self, order: &str) -> anyhow::Result<String> {
        let mut text = format!("order {}\n\n", plain(order));
        for (at, what) in self.events() {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{}  {}", moment(at), plain(&what));
        }
        if let Some(entry) = &self.entry {
            let advice = render::ledger::advice(entry);
            let _ = write!(text, "\nThe ledger says {}. {advice}", entry.state);
        } else {
            text += "\nThe ledger does not know it: no email was ever started, or its row has expired.\n";
        }
        text += &self.waiting();
        match &self.item {
            Some((place, Now::Item(item))) => {
                let _ = writeln!(
                    text,
                    "\nIts item in table {} is now\n{:#}",
                    place.table,
                    image(item)?
                );
            }
            Some((place, _)) => {
                let _ = writeln!(text, "\nIts item is not in table {} any more.", place.table);
            }
            None => {}
        }
        for letter in &self.letters {
            let whole = render::dead_letter::json_in_full(letter)?;
            let _ = writeln!(text, "\nIts dead letter\n{whole:#}");
        }
        Ok(text)
    }

    /// For what it waits.
    fn waiting(&self) -> String {
        if let (true, Some((place, _))) = (self.has_open_letter(), &self.item) {
            return format!(
                "It waits as a dead letter: fix the cause, then `aftercommit dead-letters redrive --key \
                 {}`.\n",
                plain(&key_in_words(&place.keys))
            );
        }
        if !self.may_wait() {
            return String::new();
        }
        let mut text = String::new();
        for one in &self.waits {
            let since = one.since.map_or_else(String::new, |since| {
                format!(
                    "; the oldest record that waits there was committed at {}",
                    moment(since)
                )
            });
            let error = one.error.as_deref().unwrap_or("no error is known");
            let _ = writeln!(
                text,
                "It may wait in shard {}{since}; last error: {}",
                plain(&one.shard),
                plain(error)
            );
        }
        if self.entry.is_none() && text.is_empty() {
            text += "No shard reports records that wait: it was not selected by the filters, was committed \
                     before the group began, or was lost in a gap. `aftercommit send ORDER` sends it.\n";
        }
        text
    }

    fn json(&self, order: &str) -> anyhow::Result<Value> {
        let events = self.events().into_iter();
        let events = events.map(|(at, what)| json!({"at": moment(at), "what": what}));
        let letters: Result<Vec<_>, _> = self
            .letters
            .iter()
            .map(render::dead_letter::json_in_full)
            .collect();
        let waits = self.waits.iter().map(|one| {
            json!({
                "shard": one.shard,
                "oldest_committed": one.since.map(moment),
                "last_error": one.error,
            })
        });
        Ok(json!({
            "order": order,
            "events": events.collect::<Vec<_>>(),
            "ledger": self.entry.as_ref().map(|entry| render::ledger::json(&self.key, entry)),
            "dead_letters": letters?,
            "waits": waits.collect::<Vec<_>>(),
            "item": self.present().map(image).transpose()?,
        }))
    }
}

/// The item as plain JSON.
fn image(item: &Item) -> anyhow::Result<Value> {
    serde_dynamo::from_item(item.clone()).context("the item cannot be written as JSON")
}

fn of_letter(letter: &Letter) -> Vec<(SystemTime, String)> {
    let envelope = &letter.envelope;
    let sequence = &envelope.id.sequence_number;
    let what = envelope.event;
    let mut events = vec![(
        envelope.created,
        format!(
            "{what} committed, as record {sequence} of shard {}",
            envelope.shard
        ),
    )];
    for attempt in envelope.attempts.last() {
        let error = &attempt.error;
        events.push((attempt.at, format!("attempt failed: {error}")));
    }
    let made = envelope.attempts.made();
    events.push((
        envelope.written,
        format!("dead letter ({}, attempts {made})", envelope.reason),
    ));
    for deed in &envelope.deeds {
        let why = deed
            .why
            .as_deref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        events.push((deed.at, format!("{} by {}{why}", deed.what.word(), deed.by)));
    }
    events
}
