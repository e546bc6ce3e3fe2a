//! Confirmations in a simulated fleet: the shipped handler on a ledger whose calls get lost, before
//! a mail server that does what it pleases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use serde_dynamo::{AttributeValue, Item};

use super::flaw::Flaw;
use super::network::Network;
use super::world::World;
use crate::confirmation::mail::Letterhead;
use crate::confirmation::mapping::Mapping;
use crate::confirmation::smtp::{Smtp, SmtpSettings};
use crate::confirmation::template::Templates;
use crate::confirmation::{Confirmation, ConfirmationSettings};
use crate::core::claim::{Entry, OnAmbiguous, State};
use crate::core::group::Effect;
use crate::core::record::{Event, Record};
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::stores::clock::Clock;
use crate::stores::ledger::memory::MemoryLedger;
use crate::stores::ledger::{EffectKey, EntryPage, Ledger, Swap};
use crate::stores::source::memory::Commit;

mod server;

/// How long everything is kept: nothing is trimmed before it is mailed.
pub(super) const RETENTION: Duration = Duration::from_hours(24);

/// How long a handler may take for one order: not always enough, so that it is dropped half-way.
pub(super) const HANDLER_TIMEOUT: Duration = Duration::from_secs(12);

/// One of so many changes that the weather brings is an order.
const SELDOM: u32 = 10;

/// One of so many orders is committed a second time, as another item of the same order id.
const REPEATED: u64 = 4;

/// What is known of the mails of one world.
pub(super) struct Mailing {
    policy: OnAmbiguous,
    ledger: MemoryLedger,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    orders: u64,
    /// By order, how often which bytes were accepted.
    accepted: BTreeMap<String, Accepted>,
    /// The orders of which a record is settled.
    settled: BTreeSet<String>,
}

struct Accepted {
    times: usize,
    mail: Vec<u8>,
}

type Verdict = Result<(), String>;

impl Mailing {
    pub fn new(policy: OnAmbiguous) -> Self {
        Self {
            policy,
            ledger: MemoryLedger::new(),
            book: Mutex::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now and then a customer orders; now and then the same order is committed as two items.
    pub fn commit(&self, world: &World) -> Option<Commit> {
        let (due, again) =
            world.with_rng(|rng, _| (rng.u32(..SELDOM) == 0, rng.u64(..REPEATED) == 0));
        if !due {
            return None;
        }
        let (order, item) = {
            let mut book = self.book();
            let item = book.orders;
            book.orders += 1;
            (if again { item.saturating_sub(1) } else { item }, item)
        };
        let text = |text: String| AttributeValue::S(text);
        let image = Item::from(std::collections::HashMap::from([
            ("id".to_owned(), text(format!("item-{item}"))),
            ("order".to_owned(), text(format!("{order}"))),
            ("email".to_owned(), text(format!("{order}@example.com"))),
            ("total".to_owned(), AttributeValue::N("1999".to_owned())),
            ("currency".to_owned(), text("EUR".to_owned())),
        ]));
        let mut keys = image.inner().clone();
        keys.retain(|name, _| name == "id");
        Some(Commit {
            event: Event::Insert,
            keys: keys.into(),
            old_image: None,
            new_image: Some(image),
            created: world.now(),
        })
    }

    fn row(&self, order: &str) -> Option<Entry> {
        let key = EffectKey::new(&Effect::default(), order);
        // In memory it is there at once.
        self.ledger.read(&key).now_or_never()?.ok()?
    }

    /// The server took a mail: it must be one that the ledger allows for.
    fn accept(&self, order: &str, mail: &[u8]) -> Verdict {
        let mails = {
            let mut book = self.book();
            let accepted = book.accepted.entry(order.to_owned());
            let accepted = accepted.or_insert_with(|| Accepted {
                times: 0,
                mail: mail.to_vec(),
            });
            if accepted.mail != mail {
                return Err(format!("two different mails of order {order} are accepted"));
            }
            accepted.times += 1;
            accepted.times
        };
        let row = self.row(order);
        let row = row.ok_or_else(|| format!("order {order} is mailed without a claim"))?;
        let most = match self.policy {
            OnAmbiguous::Park => 1,
            OnAmbiguous::Resend => 2.min(1 + row.ambiguities as usize),
        };
        if mails > most {
            let doubts = row.ambiguities;
            return Err(format!(
                "{mails} mails of order {order} are accepted, with {doubts} doubts on its row"
            ));
        }
        Ok(())
    }

    fn mails(&self, key: &EffectKey) -> usize {
        let order = key.id();
        let book = self.book();
        book.accepted
            .get(order)
            .map_or(0, |accepted| accepted.times)
    }

    /// A row was written: it must be true.
    fn written(&self, key: &EffectKey, row: &Entry) -> Verdict {
        let mails = self.mails(key);
        let told = row.accepted.len();
        match row.state {
            State::Sent if mails == 0 => Err(format!("{key} is SENT, and no mail was accepted")),
            State::Failed if mails > 0 => Err(format!("{key} is FAILED, and a mail was accepted")),
            _ if told > mails => Err(format!(
                "the row of {key} tells of {told} acceptances of {mails}"
            )),
            _ => Ok(()),
        }
    }

    /// A record of this order is settled: its row must be, too, unless whoever has another record of
    /// it goes on with it just now.
    fn settled(&self, order: &str) -> Verdict {
        self.book().settled.insert(order.to_owned());
        match self.row(order).map(|row| row.state) {
            Some(State::Sent | State::Failed | State::Ambiguous | State::Retry) => Ok(()),
            None => Err(format!("order {order} is settled, and nothing says so")),
            Some(state) => Err(format!("order {order} is settled, and its row is {state}")),
        }
    }

    /// What must hold once everything has recovered.
    pub fn recovered(&self) -> Verdict {
        for order in &self.book().settled {
            match self.row(order).map(|row| row.state) {
                Some(State::Sent | State::Failed | State::Ambiguous) => {}
                state => {
                    return Err(format!(
                        "every record of order {order} is settled, and its row is {state:?}"
                    ));
                }
            }
        }
        for order in self.book().accepted.keys() {
            match self.row(order).map(|row| row.state) {
                Some(State::Sent | State::Ambiguous) => {}
                state => {
                    return Err(format!(
                        "a mail of order {order} was accepted, and its row is {state:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The shipped handler of one worker process.
pub(super) struct Mailer {
    confirmation: Confirmation<Network>,
    world: Arc<World>,
}

impl Mailer {
    pub fn start(
        world: &Arc<World>,
        network: Network,
        clock: Clock,
        seed: u64,
    ) -> anyhow::Result<Option<Self>> {
        let Some(mailing) = &world.mailing else {
            return Ok(None);
        };
        let mut settings = SmtpSettings::from_url("smtp://127.0.0.1:25", None)?;
        settings.hello = Some("simulated".to_owned());
        settings.max_connections = 2;
        settings.max_mails = 20;
        shorten(&mut settings);
        let dialled = world.clone();
        let settings = settings.dialled_by(move || Ok(server::dial(&dialled)));
        let confirmation = ConfirmationSettings {
            on_ambiguous: mailing.policy,
            retention: RETENTION,
            clock,
            left_out: world.flaw.and_then(Flaw::claim_rule),
            ..ConfirmationSettings::new(Mapping::new("order")?)
        };
        let from = "Shop <shop@example.com>".parse().context("the sender")?;
        let letterhead = Letterhead::new(Templates::built_in()?, from);
        let rng = fastrand::Rng::with_seed(seed);
        Ok(Some(Self {
            confirmation: Confirmation::new(
                network,
                Smtp::new(settings)?,
                letterhead,
                confirmation,
                rng,
            ),
            world: world.clone(),
        }))
    }

    pub async fn handle(&self, record: &Record, context: &Context) -> Result<(), Failure> {
        let order = order_of(record);
        // To the ledger both items of an order are one, which comes by two ways: so two workers meet
        // at one effect.
        let key = ("order".to_owned(), AttributeValue::S(order.to_owned()));
        let one_item = Record {
            keys: std::collections::HashMap::from([key]).into(),
            ..record.clone()
        };
        let result = self.confirmation.handle(&one_item, context).await;
        match &result {
            // As if the record had gone to the dead letters.
            Ok(()) | Err(Failure::Reject(_) | Failure::Refused(_)) => {
                if let Some(mailing) = &self.world.mailing {
                    self.world.judge(mailing.settled(order));
                }
                Ok(())
            }
            _ => result,
        }
    }
}

fn order_of(record: &Record) -> &str {
    let image = record.new_image.as_ref();
    match image.and_then(|image| image.inner().get("order")) {
        Some(AttributeValue::S(order)) => order,
        _ => "",
    }
}

/// Servers here are slow for seconds, not for minutes.
fn shorten(settings: &mut SmtpSettings) {
    let limits = &mut settings.timeouts;
    for limit in [
        &mut limits.connect,
        &mut limits.greeting,
        &mut limits.hello,
        &mut limits.mail,
        &mut limits.rcpt,
        &mut limits.data,
        &mut limits.body,
    ] {
        *limit = Duration::from_secs(5);
    }
    limits.after_dot = Duration::from_secs(15);
}

impl Ledger for Network {
    async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        let (ledger, key) = (self.ledger()?, key.clone());
        self.write("read", async move { ledger.read(&key).await })
            .await
    }

    async fn swap(
        &self,
        key: &EffectKey,
        expected: Option<u64>,
        entry: &Entry,
    ) -> anyhow::Result<Swap> {
        let (ledger, world) = (self.ledger()?, self.world().clone());
        let (key, entry, mut expected) = (key.clone(), entry.clone(), expected);
        let worker = self.worker();
        let apply = async move {
            if world.flaw == Some(Flaw::SwapWithoutRevision) {
                expected = ledger.read(&key).await?.map(|row| row.revision);
            }
            let swap = ledger.swap(&key, expected, &entry).await?;
            if swap == Swap::Written
                && let Some(mailing) = &world.mailing
            {
                let Entry { state, fence, .. } = &entry;
                world.note(
                    worker,
                    "writes",
                    format_args!("{key} {state} fence {fence}"),
                );
                world.count(entry.state.word());
                world.judge(mailing.written(&key, &entry));
            }
            Ok(swap)
        };
        self.write("swap", apply).await
    }

    async fn list(&self, state: Option<State>, from: Option<&str>) -> anyhow::Result<EntryPage> {
        self.ledger()?.list(state, from).await
    }
}

impl Network {
    fn ledger(&self) -> anyhow::Result<MemoryLedger> {
        let mailing = self.world().mailing.as_ref();
        let mailing = mailing.context("nothing is mailed in this simulation")?;
        Ok(mailing.ledger.clone())
    }
}
