//! The shipped handler, as a worker of the simulation runs it, and its ledger behind the network.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_dynamo::AttributeValue;

use super::flaw::Flaw;
use super::link::Link;
use super::world::World;
use super::world::mailing::{RETENTION, server};
use crate::confirmation::mail::Letterhead;
use crate::confirmation::mapping::Mapping;
use crate::confirmation::smtp::{Smtp, SmtpSettings};
use crate::confirmation::template::Templates;
use crate::confirmation::{Confirmation, ConfirmationSettings};
use crate::core::claim::{Entry, State};
use crate::core::record::Record;
use crate::engine::handler::{Context, Failure, RecordHandler};
use crate::stores::clock::Clock;
use crate::stores::ledger::memory::MemoryLedger;
use crate::stores::ledger::{EffectKey, EntryPage, Ledger, Swap};

/// The shipped handler of one worker process.
pub(super) struct Mailer {
    confirmation: Confirmation<Link>,
    world: Arc<World>,
}

impl Mailer {
    pub fn start(
        world: &Arc<World>,
        link: Link,
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
                link,
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
                    self.world.judge(mailing.finished(order));
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

impl Ledger for Link {
    async fn read(&self, key: &EffectKey) -> anyhow::Result<Option<Entry>> {
        let (ledger, key) = (ledger_of(self)?, key.clone());
        self.write("read", async move { ledger.read(&key).await })
            .await
    }

    async fn swap(
        &self,
        key: &EffectKey,
        expected: Option<u64>,
        entry: &Entry,
    ) -> anyhow::Result<Swap> {
        let (ledger, world) = (ledger_of(self)?, self.world().clone());
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
        ledger_of(self)?.list(state, from).await
    }
}

fn ledger_of(link: &Link) -> anyhow::Result<MemoryLedger> {
    let mailing = link.world().mailing.as_ref();
    let mailing = mailing.context("nothing is mailed in this simulation")?;
    Ok(mailing.ledger.clone())
}
