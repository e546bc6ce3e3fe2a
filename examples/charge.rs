//! A handler that charges each new order once, whatever dies in between. `cargo run --example charge`

// The handler.
use aftercommit::once::{EffectAttempt, Once, Outcome};
use aftercommit::stores::ledger::{EffectKey, Ledger, item_ref};
use aftercommit::{Context, EffectName, Event, Failure, Record, RecordHandler};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    id: String,
    cents: u64,
}

struct Cashier<L> {
    once: Once<L>,
    effect: EffectName,
    provider: Provider,
}

impl<L: Ledger> RecordHandler for Cashier<L> {
    async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        if record.event != Event::Insert {
            context.did_not_ask();
            return Ok(());
        }
        let order: Order = record.new_image()?;
        let key = EffectKey::new(&self.effect, &order.id);
        let item = item_ref(context.stream(), &record.keys, None);
        let charge = |attempt: EffectAttempt| {
            let (provider, key, cents) = (self.provider.clone(), key.clone(), order.cents);
            async move {
                // The same bytes again, if an earlier attempt is in doubt.
                let request = format!("{cents} cents").into_bytes();
                let request = attempt.to_repeat().map_or(request, <[u8]>::to_vec);
                // Until here everything may be repeated; from here on the charge is recorded.
                attempt
                    .keeping(request.clone())
                    .point_of_no_return()
                    .await?;
                match provider.charge(key.as_str(), &request) {
                    Answer::Charged(receipt) => Ok(Outcome::Done(receipt)),
                    Answer::Declined => Ok(Outcome::Refused(
                        "declined".to_owned(),
                        Failure::reject("the card was declined"),
                    )),
                    Answer::Lost => Ok(Outcome::Unknown("the connection broke".to_owned())),
                }
            }
        };
        self.once.perform(&key, &item, context, charge).await
    }
}
// End of the handler. Give it to a `Consumer`, as in examples/webhook.rs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aftercommit::once::OnceSettings;
use aftercommit::record::{SequenceNumber, StreamView};
use aftercommit::stores::ledger::memory::MemoryLedger;

/// A provider that charges cards, recognises a charge by its key for a day, and loses every third answer.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<Till>>);

#[derive(Default)]
struct Till {
    calls: u32,
    charged: BTreeSet<String>,
}

enum Answer {
    Charged(String),
    Declined,
    Lost,
}

impl Provider {
    fn charge(&self, key: &str, request: &[u8]) -> Answer {
        let till = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        till.calls += 1;
        if request == b"0 cents" {
            return Answer::Declined;
        }
        // A key that it knows is charged already.
        till.charged.insert(key.to_owned());
        if till.calls.is_multiple_of(3) {
            return Answer::Lost;
        }
        Answer::Charged(format!("receipt of {key}"))
    }
}

fn record(order: u64) -> anyhow::Result<Record> {
    let id = format!("o{order}");
    Ok(Record {
        event_id: id.clone(),
        event: Event::Insert,
        keys: serde_dynamo::to_item(serde_json::json!({ "id": id }))?,
        new_image: Some(serde_dynamo::to_item(
            serde_json::json!({ "id": id, "cents": order * 100 }),
        )?),
        old_image: None,
        sequence_number: SequenceNumber::parse("1")?,
        created: SystemTime::now(),
        view: StreamView::NewImage,
        size_bytes: 100,
        by_ttl: false,
    })
}

/// Hands over each order until it is finished, and then once more. Returns the calls of the provider and
/// the number of charges.
pub async fn deliver(orders: u64) -> anyhow::Result<(u32, usize)> {
    let mut settings = OnceSettings::default();
    settings.provider_remembers = Some(Duration::from_hours(24));
    let cashier = Cashier {
        once: Once::new(MemoryLedger::new(), settings, fastrand::Rng::new()),
        effect: EffectName::new("charge")?,
        provider: Provider::default(),
    };
    for order in 0..orders {
        let record = record(order)?;
        let mut finished = 0;
        for attempt in 1..=5 {
            let context = Context::detached().of_attempt(attempt);
            let result = cashier.handle(&record, &context).await;
            finished += u32::from(matches!(result, Ok(()) | Err(Failure::Reject(_))));
            if finished == 2 {
                break;
            }
        }
    }
    let till = cashier.provider.0.lock();
    let till = till.unwrap_or_else(PoisonError::into_inner);
    Ok((till.calls, till.charged.len()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (calls, charges) = deliver(20).await?;
    println!("{calls} calls, {charges} orders charged, none of them twice");
    Ok(())
}
