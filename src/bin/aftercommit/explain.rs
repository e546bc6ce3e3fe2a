//! `aftercommit explain`: what became of one order, from all that is known of it.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use aftercommit::Group;
use aftercommit::confirmation::dynamodb::DynamoDbLookup;
use aftercommit::confirmation::lookup::{Lookup as _, Now};
use aftercommit::dead_letter::dynamodb::DynamoDbDeadLetters;
use aftercommit::dead_letter::{DeadLetters as _, Letter, Selection, key_in_words};
use aftercommit::decide::claim::{Entry, SettledAs, State};
use aftercommit::ledger::dynamodb::DynamoDbLedger;
use aftercommit::ledger::{EffectKey, Ledger as _};
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_dynamo::Item;
use serde_json::{Value, json};

use crate::args::{LedgerName, LetterTable, OrderArgs};
use crate::aws::{self, Clients, must_exist};
use crate::fault::Fault;
use crate::identity::GroupArgs;
use crate::order_key;
use crate::out::{moment, print_all};
use crate::told::plain;
use crate::{letters, told};

pub const EXAMPLES: &str = "\
Examples:
  # Claims, the mail server's reply, attempts, and what operators did
  aftercommit explain 1042

  # Beside it the order as it stands in its table now
  aftercommit explain 1042 --table orders
  aftercommit explain 1042 --table shop --key '{\"shop\": \"a\", \"no\": 1042}'

  # For scripts
  aftercommit explain 1042 --json

Looks for the order's dead letters in the whole of their table.

Exit codes: 0 something is known of it, 1 nothing is, 2 a setting is wrong.";

/// What `explain` is told.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The order's id
    order: String,
    /// The table with the order, to show it as it stands now: a name or an ARN
    #[arg(long, value_name = "TABLE", env = "AFTERCOMMIT_TABLE")]
    table: Option<String>,
    /// The key of the order's item as JSON, where it is not its id alone: {"shop": "a", "no": 7}
    #[arg(long, value_name = "JSON", requires = "table")]
    key: Option<String>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    ledger: LedgerName,
    #[command(flatten)]
    letters: LetterTable,
    #[command(flatten)]
    fields: OrderArgs,
}

/// What is known of an order.
struct Known {
    key: EffectKey,
    entry: Option<Entry>,
    letters: Vec<Letter>,
    /// The item, if its table was named.
    item: Option<Now>,
}

/// Tells what became of an order.
pub async fn explain(args: &ExplainArgs) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    for table in [&args.ledger.ledger_table, &args.letters.dead_letter_table] {
        must_exist(&clients, table).await?;
    }
    let known = look(&clients, args).await?;
    if known.entry.is_none() && known.letters.is_empty() && !known.has_item() {
        return Err(Fault::Work(anyhow!(
            "nothing is known of order {}: it is not in the ledger {}, has no dead letter in {}{}",
            args.order,
            args.ledger.ledger_table,
            args.letters.dead_letter_table,
            args.table.as_ref().map_or_else(
                || ", and --table was not named".to_owned(),
                |table| format!(", and is not in table {table}")
            )
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
    let client = &clients.dynamodb;
    let mut words = args.order.clone();
    let mut item = None;
    if let Some(table) = &args.table {
        let place = (&**table, args.key.as_deref());
        let (keys, _) = order_key::find(clients, &args.order, place, &args.fields).await?;
        let orders = DynamoDbLookup::new().refetching(client.clone(), table);
        item = Some(orders.order(&keys).await?);
        words = key_in_words(&keys);
    }
    // Readers write no row, so none expires by this.
    let ledger = DynamoDbLedger::new(client.clone(), &args.ledger.ledger_table, Duration::MAX);
    let store = DynamoDbDeadLetters::new(client.clone(), &args.letters.dead_letter_table);
    let key = EffectKey::new(&args.group.known_effect(&ledger).await?, &args.order);
    Ok(Known {
        entry: ledger.read(&key).await?,
        key,
        letters: letters_of(&store, (args.group.group.clone(), words)).await?,
        item,
    })
}

async fn letters_of(
    store: &DynamoDbDeadLetters,
    (group, key): (Group, String),
) -> anyhow::Result<Vec<Letter>> {
    let which = Selection {
        group: Some(group),
        key: Some(key),
        settled_too: true,
        ..Selection::default()
    };
    let (mut all, mut from) = (Vec::new(), None);
    loop {
        let page = store.list(&which, from.as_deref()).await?;
        for envelope in page.letters {
            all.extend(store.read(&envelope.id).await?);
        }
        from = page.next;
        if from.is_none() {
            return Ok(all);
        }
    }
}

impl Known {
    fn has_item(&self) -> bool {
        matches!(self.item, Some(Now::Item(_)))
    }

    /// What happened, in the order of time.
    fn events(&self) -> Vec<(SystemTime, String)> {
        let mut events = Vec::new();
        if let Some(entry) = &self.entry {
            events.extend(of_entry(entry));
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
            let _ = write!(
                text,
                "\nThe ledger says {}. {}",
                entry.state,
                told::advice(entry)
            );
        } else {
            text += "\nThe ledger knows nothing of it: no email was ever begun, or its row has expired.\n";
        }
        if self.letters.iter().any(|letter| letter.envelope.open) {
            text += "It waits as a dead letter: mend the cause, then `aftercommit dead-letters redrive`.\n";
        }
        match &self.item {
            Some(Now::Item(item)) => {
                let _ = writeln!(text, "\nIn its table it stands as\n{:#}", image(item)?);
            }
            Some(_) => text += "\nIt is not in its table any more.\n",
            None => {}
        }
        for letter in &self.letters {
            let whole = letters::json_in_full(letter)?;
            let _ = writeln!(text, "\nIts dead letter\n{whole:#}");
        }
        Ok(text)
    }

    fn json(&self, order: &str) -> anyhow::Result<Value> {
        let events = self.events().into_iter();
        let events = events.map(|(at, what)| json!({"at": moment(at), "what": what}));
        let letters: Result<Vec<_>, _> = self.letters.iter().map(letters::json_in_full).collect();
        let item = match &self.item {
            Some(Now::Item(item)) => Some(image(item)?),
            _ => None,
        };
        Ok(json!({
            "order": order,
            "events": events.collect::<Vec<_>>(),
            "ledger": self.entry.as_ref().map(|entry| told::json(&self.key, entry)),
            "dead_letters": letters?,
            "item": item,
        }))
    }
}

/// The item as plain JSON.
fn image(item: &Item) -> anyhow::Result<Value> {
    serde_dynamo::from_item(item.clone()).context("the item cannot be written as JSON")
}

fn of_entry(entry: &Entry) -> Vec<(SystemTime, String)> {
    let mut events = Vec::new();
    if let Some(first) = entry.first_claimed {
        events.push((first, "claimed for the first time".to_owned()));
    }
    for one in &entry.settlements {
        let verdict = match one.verdict {
            SettledAs::Sent => "sent",
            SettledAs::Resend => "to be sent again",
        };
        events.push((
            one.at,
            format!("settled as {verdict} by {}: {}", one.by, one.reason),
        ));
    }
    let reply = entry.reply.as_deref().unwrap_or("no reply is known");
    let claims = match entry.fence {
        1 => "1 claim".to_owned(),
        many => format!("{many} claims"),
    };
    let by = entry
        .claimant
        .as_ref()
        .map(|by| format!(", the last by {}", by.incarnation));
    let told = match entry.state {
        State::Sending => "being sent".to_owned(),
        state => format!("{state}: {reply}"),
    };
    let by = by.unwrap_or_default();
    events.push((entry.changed, format!("{told} (after {claims}{by})")));
    events
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
        events.push((attempt.at, format!("attempt failed: {}", attempt.error)));
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
