//! `aftercommit send`: an operator sends one order's email through the ledger.

use crate::confirmation::dynamodb::DynamoDbLookup;
use crate::confirmation::lookup::{Current, Lookup as _};
use crate::confirmation::mapping::Mapping;
use crate::confirmation::{Confirmation, Transport};
use crate::core::claim::{Decision, Entry, Liveness, OnAmbiguous, Resolution, State};
use crate::core::shard::ShardId;
use crate::engine::handler::ONCE;
use crate::record::SequenceNumber;
use crate::record::StreamView;
use crate::stores::dead_letter::key_in_words;
use crate::stores::ledger::dynamodb::DynamoDbLedger;
use crate::stores::ledger::resolve::{Resolved, release};
use crate::stores::ledger::{EffectKey, Ledger as _, item_ref};
use crate::stores::tables::dynamodb::{table_arn, table_key};
use crate::{Context, EffectName, Event, Record, RecordHandler as _};
use anyhow::anyhow;
use clap::Args;

use crate::cli::args::identity::GroupArgs;
use crate::cli::args::mail::MailArgs;
use crate::cli::args::note::{ByArgs, note};
use crate::cli::args::place::{ItemLocation, PlaceArgs};
use crate::cli::args::sending::{RetentionArgs, SparingArgs};
use crate::cli::args::tables::LedgerName;
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, Clients, must_exist};
use crate::cli::render::ledger::{ShownEntry, mail_advice};
use crate::cli::render::out::print_all;

pub const EXAMPLES: &str = "\
Examples:
  # Send the order as it is in its table now, even one that no worker ever saw
  aftercommit send 1042 --table orders --mail-from \"Shop <orders@example.com>\" \\
      --smtp-url smtps://user@mail.example.com

  # In a table with a sort key
  aftercommit send 1042 --table shop --key PK=CUST#7,SK=ORDER#1042 --mail-from ... --smtp-url ...

The ledger decides as it does for a worker: an order that was mailed is not mailed again. Use the settings of
`aftercommit run`; the same environment will do. Until the email is accepted, `aftercommit status` reports
the order.

Exit codes: 0 the email was accepted, 1 it was not, 2 a setting is wrong.";

/// The settings with which an operator sends.
#[derive(Debug, Args)]
pub struct ByHandArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    pub mail: MailArgs,
    #[command(flatten)]
    sparing: SparingArgs,
    #[command(flatten)]
    pub retention: RetentionArgs,
}

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// Order id
    order: String,
    /// Reason, kept in the order's history
    #[arg(long, value_name = "TEXT", value_parser = note, default_value = "sent by hand")]
    note: String,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    name: LedgerName,
    #[command(flatten)]
    by_hand: ByHandArgs,
}

/// Sends the email of one order.
pub async fn send(args: &SendArgs) -> Result<(), Fault> {
    let mailer = OrderSender::new(&args.by_hand, &args.name).await?;
    let one = Sending {
        order: &args.order,
        group: &args.group,
        note: &args.note,
        by: args.by.name(),
    };
    let sent = mailer.send(&one).await;
    mailer.smtp.close().await;
    print_all(&sent?)?;
    Ok(())
}

/// An order to send.
pub struct Sending<'a> {
    pub order: &'a str,
    pub group: &'a GroupArgs,
    pub note: &'a str,
    pub by: String,
}

/// Everything that is needed to send.
pub struct OrderSender<'a> {
    args: &'a ByHandArgs,
    clients: Clients,
    ledger: DynamoDbLedger,
    pub smtp: Transport,
}

impl<'a> OrderSender<'a> {
    /// Checks all settings before it writes anything.
    pub async fn new(args: &'a ByHandArgs, name: &LedgerName) -> Result<Self, Fault> {
        args.mail.letter.letterhead()?;
        args.sparing.suppress_when()?;
        let retention = args.retention.checked()?;
        let smtp = args.mail.transport().await?;
        let clients = aws::clients(None).await.map_err(Fault::Setting)?;
        let list = args.sparing.suppression_table.as_ref();
        for table in [&name.ledger_table].into_iter().chain(list) {
            must_exist(&clients, table).await?;
        }
        let ledger = DynamoDbLedger::new(clients.dynamodb.clone(), &name.ledger_table, retention);
        Ok(Self {
            args,
            clients,
            ledger,
            smtp,
        })
    }

    /// Reads the order as it is now, releases it, and runs the handler for it once. Returns the
    /// ledger's line once the email is out.
    ///
    /// The ledger's rules apply as they do to a worker, and a worker that is quicker wins. A fleet does
    /// not see this process, and judges its claim by the claim's deadline. If this process dies, the
    /// order stays released, which `status` reports.
    pub async fn send(&self, one: &Sending<'_>) -> Result<String, Fault> {
        let key = EffectKey::new(&one.group.known_effect(&self.ledger).await?, one.order);
        let entry = self.ledger.read(&key).await?;
        if let Some(entry) = &entry {
            may_be_sent(one.order, entry)?;
        }
        let (place, mapping) = self.place(one, entry.as_ref()).await?;
        let record = self.read_back(one.order, &place, &mapping).await?;
        let release_it = Resolution {
            by: one.by.clone(),
            at: self.clients.clock().now(),
            note: one.note.to_owned(),
            decision: Decision::Send,
        };
        // If the claimant may still live, the handler waits for it, or marks the order AMBIGUOUS.
        if entry
            .as_ref()
            .is_none_or(|entry| entry.state != State::Sending)
        {
            let item = item_ref(&place.arn, &place.keys, None);
            let of = (&key, &item);
            let released = release(&self.ledger, of, entry.as_ref(), release_it).await?;
            if !matches!(released, Resolved::Written(_)) {
                return Err(Fault::Work(anyhow!(
                    "order {}: nothing was sent, because a worker is processing it: look again with \
                     `aftercommit explain {}`",
                    one.order,
                    one.order
                )));
            }
        }
        self.handle(one.order, &record, (&place, &key, mapping))
            .await?;
        let entry = self.ledger.read(&key).await?;
        match entry {
            Some(entry) if entry.state == State::Sent => Ok(ShownEntry::new(&key, &entry).line()),
            Some(entry) => Err(not_sent(one.order, &entry)),
            None => Err(Fault::Work(anyhow!(
                "order {}: its row has been removed from the ledger",
                one.order
            ))),
        }
    }

    async fn place(
        &self,
        one: &Sending<'_>,
        entry: Option<&Entry>,
    ) -> Result<(ItemLocation, Mapping), Fault> {
        // The settings with which the group was started, if it is known by now.
        let of_table = match self.args.place.table() {
            Some(table) => {
                let arn = table_arn(&self.clients.dynamodb, table).await;
                Some(arn.map_err(Fault::setting)?)
            }
            None => None,
        };
        let id = match &of_table {
            Some(arn) => self.mapping(one.group, arn).await?,
            None => None,
        };
        let id = id.map(|mapping| mapping.id().to_owned());
        let place = self
            .args
            .place
            .find(&self.clients, (one.order, entry), id.as_deref())
            .await?
            .ok_or_else(|| {
                Fault::wrong(format!(
                    "order {} is not in the ledger: name its table with --table",
                    one.order
                ))
            })?;
        let mapping = match self.mapping(one.group, &place.arn).await? {
            Some(mapping) => mapping,
            None => self.default_mapping(&place).await?,
        };
        Ok((place, mapping))
    }

    /// How the group's items become orders, if the group was ever started on this table.
    async fn mapping(&self, group: &GroupArgs, arn: &str) -> Result<Option<Mapping>, Fault> {
        match group.known(&self.ledger, arn).await? {
            Some(known) => {
                known.must_send_mails()?;
                known.mapping(&self.args.mail.fields)
            }
            None => self.args.mail.fields.named(),
        }
    }

    async fn default_mapping(&self, place: &ItemLocation) -> Result<Mapping, Fault> {
        let key = table_key(&self.clients.dynamodb, &place.table).await;
        let key = key.map_err(Fault::setting)?;
        self.args.mail.fields.of_table(&key)
    }

    /// The order as it is, as if it had just been committed.
    async fn read_back(
        &self,
        order: &str,
        place: &ItemLocation,
        mapping: &Mapping,
    ) -> Result<Record, Fault> {
        let table = &place.table;
        let orders = DynamoDbLookup::new().refetching(self.clients.dynamodb.clone(), table);
        let Current::Item(item) = orders.order(&place.keys).await? else {
            return Err(Fault::Work(anyhow!(
                "order {order} is not in table {table} (key {}): nothing was sent",
                key_in_words(&place.keys)
            )));
        };
        let found = mapping.order(&item).map_err(anyhow::Error::new)?;
        if found.id != *order {
            return Err(Fault::wrong(format!(
                "the item with that key of table {table} is order {}, not {order}: nothing was sent",
                found.id
            )));
        }
        Ok(Record {
            event_id: format!("send-{order}"),
            event: Event::Insert,
            keys: place.keys.clone(),
            new_image: Some(item),
            old_image: None,
            sequence_number: SequenceNumber::parse("0").map_err(anyhow::Error::new)?,
            created: self.clients.clock().now(),
            view: StreamView::NewImage,
            size_bytes: 0,
            by_ttl: false,
        })
    }

    async fn handle(
        &self,
        order: &str,
        record: &Record,
        (place, key, mapping): (&ItemLocation, &EffectKey, Mapping),
    ) -> Result<(), Fault> {
        // An AMBIGUOUS order is left to the operator, who decides.
        let mut settings = self.args.retention.settings(mapping, OnAmbiguous::Park)?;
        // Other claims are judged by their deadlines, and this machine's clock may be wrong.
        settings.clock = self.clients.clock();
        let mut handler = Confirmation::new(
            self.ledger.clone(),
            self.smtp.clone(),
            self.args.mail.letter.letterhead()?,
            settings,
            fastrand::Rng::new(),
        )
        .effect(EffectName::new(key.effect()).map_err(Fault::setting)?)
        .looking_up(self.args.sparing.lookup(&self.clients.dynamodb));
        if let Some(when) = self.args.sparing.suppress_when()? {
            handler = handler.suppressing(when);
        }
        let me = format!("{ONCE}{:016x}", fastrand::u64(..));
        let context = Context::detached()
            .of_shard(&place.arn, &ShardId::new("send"))
            .of_worker(&me, Liveness::Unknown)
            .of_attempt(2);
        let result = handler.handle(record, &context).await;
        result.map_err(|failure| Fault::Work(anyhow!("order {order}: {failure}")))
    }
}

/// Fails if the order was sent, or may have been.
fn may_be_sent(order: &str, entry: &Entry) -> Result<(), Fault> {
    match entry.state {
        State::Sent | State::Ambiguous => Err(Fault::Work(anyhow!(
            "order {order} is {}: nothing was sent. {}",
            entry.state,
            mail_advice(entry)
        ))),
        State::Sending | State::Failed | State::Retry | State::Suppressed => Ok(()),
    }
}

fn not_sent(order: &str, entry: &Entry) -> Fault {
    let reply = entry.reply.as_deref().unwrap_or("no reply");
    Fault::Work(anyhow!(
        "order {order} was not sent, it is {}: {reply}. {}",
        entry.state,
        mail_advice(entry)
    ))
}
