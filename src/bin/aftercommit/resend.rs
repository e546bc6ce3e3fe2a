//! `aftercommit ledger send`: the email of one order that no worker has in hand any more.

use std::time::SystemTime;

use aftercommit::confirmation::Confirmation;
use aftercommit::confirmation::dynamodb::DynamoDbLookup;
use aftercommit::confirmation::lookup::{Lookup as _, Now};
use aftercommit::confirmation::order::{Order, OrderFields};
use aftercommit::decide::claim::{Liveness, OnAmbiguous, State};
use aftercommit::decide::shard::ShardId;
use aftercommit::handler::OUTSIDE;
use aftercommit::ledger::dynamodb::DynamoDbLedger;
use aftercommit::ledger::{EffectKey, Ledger as _};
use aftercommit::record::StreamView;
use aftercommit::{Clock, Context, Event, Record, RecordHandler as _, SequenceNumber};
use anyhow::anyhow;
use clap::Args;
use serde_dynamo::Item;

use crate::args::{LedgerName, LetterArgs, OrderArgs, SmtpArgs};
use crate::aws::{self, Clients, must_exist, table_arn};
use crate::fault::Fault;
use crate::identity::GroupArgs;
use crate::ledger::unknown;
use crate::order_key;
use crate::out::print_all;
use crate::sending::{RetentionArgs, SparingArgs};
use crate::told;

/// What `ledger send` is told.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The order's id
    order: String,
    /// The table with the order: a name or an ARN
    #[arg(long, value_name = "TABLE", env = "AFTERCOMMIT_TABLE")]
    table: String,
    /// The key of the order's item as JSON, where it is not its id alone: {"shop": "a", "no": 7}
    #[arg(long, value_name = "JSON")]
    key: Option<String>,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    name: LedgerName,
    #[command(flatten)]
    fields: OrderArgs,
    #[command(flatten)]
    letter: LetterArgs,
    #[command(flatten)]
    smtp: SmtpArgs,
    #[command(flatten)]
    sparing: SparingArgs,
    #[command(flatten)]
    retention: RetentionArgs,
}

/// Reads the order back and runs the handler for it, once. Whatever the ledger says to any other
/// worker holds here, too: a worker that is quicker is not overtaken.
///
/// A fleet does not see this process, and judges its claim by the deadline that stands on it.
pub async fn send(args: &SendArgs) -> Result<(), Fault> {
    let letterhead = args.letter.letterhead()?;
    let smtp = args.smtp.transport(&args.letter).await?;
    let when = args.sparing.suppress_when()?;
    let retention = args.retention.checked()?;
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let list = args.sparing.suppression_table.as_ref();
    for table in [&args.name.ledger_table].into_iter().chain(list) {
        must_exist(&clients, table).await?;
    }
    let order = &args.order;
    let ledger = DynamoDbLedger::new(clients.dynamodb.clone(), &args.name.ledger_table, retention);
    let arn = table_arn(&clients, &args.table).await?;
    let known = args.group.known(&ledger, &arn).await?;
    let effect = match &known {
        Some(known) => known.effect.clone(),
        None => args.group.known_effect(&ledger).await?,
    };
    let key = EffectKey::new(&effect, order);
    released(&ledger, &key, args).await?;
    let table = (&*args.table, args.key.as_deref());
    let (keys, fields) = order_key::find(&clients, order, table, &args.fields).await?;
    let known = known.map(|known| known.fields(&args.fields)).transpose()?;
    let fields = known.flatten().unwrap_or(fields);
    let record = read_back(&clients, args, keys, &fields).await?;
    // Who is in doubt is asked, not sent to: an operator has the last word here.
    let rules = args.retention.rules(fields, OnAmbiguous::Park)?;
    let mut handler = Confirmation::new(
        ledger.clone(),
        smtp.clone(),
        letterhead,
        rules,
        fastrand::Rng::new(),
    )
    .effect(effect)
    .looking_up(args.sparing.lookup(&clients.dynamodb));
    if let Some(when) = when {
        handler = handler.suppressing(when);
    }
    let me = format!("{OUTSIDE}ledger-send/{:016x}", fastrand::u64(..));
    let context = Context::detached()
        .of_shard(&arn, &ShardId::new("ledger-send"))
        .of_worker(&me, Liveness::Unknown)
        .of_attempt(2);
    let result = handler.handle(&record, &context).await;
    smtp.close().await;
    if let Err(failure) = result {
        return Err(Fault::Work(anyhow!("order {order}: {failure}")));
    }
    let entry = ledger.read(&key).await?;
    let entry = entry.ok_or_else(|| unknown(order, &args.name.ledger_table))?;
    match entry.state {
        State::Sent | State::Suppressed => {
            print_all(&told::line(&key, &entry))?;
            Ok(())
        }
        state => Err(Fault::Work(anyhow!(
            "order {order} is {state}: {}",
            entry.reply.unwrap_or_default()
        ))),
    }
}

/// Only what is released is sent by hand.
async fn released(ledger: &DynamoDbLedger, key: &EffectKey, args: &SendArgs) -> Result<(), Fault> {
    let order = &args.order;
    let entry = ledger.read(key).await?;
    let entry = entry.ok_or_else(|| unknown(order, &args.name.ledger_table))?;
    if entry.state == State::Retry {
        return Ok(());
    }
    Err(Fault::Work(anyhow!(
        "order {order} is {}, and only one that is RETRY is sent by hand; nothing was sent. {}",
        entry.state,
        told::advice(&entry)
    )))
}

/// The order as it stands, as if it had been committed just now.
async fn read_back(
    clients: &Clients,
    args: &SendArgs,
    keys: Item,
    fields: &OrderFields,
) -> Result<Record, Fault> {
    let (order, table) = (&args.order, &args.table);
    let orders = DynamoDbLookup::new().refetching(clients.dynamodb.clone(), table);
    let Now::Item(item) = orders.order(&keys).await? else {
        return Err(Fault::Work(anyhow!(
            "order {order} is not in table {table} any more: nothing was sent, it stays RETRY"
        )));
    };
    let found = Order::from_item(&item, fields).map_err(anyhow::Error::new)?;
    if found.id != *order {
        return Err(Fault::wrong(format!(
            "at that key of table {table} stands order {}, not {order}",
            found.id
        )));
    }
    Ok(Record {
        event_id: format!("ledger-send-{order}"),
        event: Event::Insert,
        keys,
        new_image: Some(item),
        old_image: None,
        sequence_number: SequenceNumber::parse("0").map_err(anyhow::Error::new)?,
        created: now(),
        view: StreamView::NewImage,
        size_bytes: 0,
        by_ttl: false,
    })
}

fn now() -> SystemTime {
    Clock::system().now()
}
