//! Confirmations in a simulated fleet: the shipped handler on a ledger whose calls get lost, before
//! a mail server that does what it pleases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_dynamo::{AttributeValue, Item};

use super::super::owners::Judgement;
use super::World;
use crate::core::claim::{Entry, OnAmbiguous, State};
use crate::core::group::EffectName;
use crate::core::record::Event;
use crate::stores::ledger::memory::MemoryLedger;
use crate::stores::ledger::{EffectKey, Ledger};
use crate::stores::source::memory::Commit;

pub(in crate::simulation) mod server;

/// How long everything is kept: nothing is trimmed before it is mailed.
pub(in crate::simulation) const RETENTION: Duration = Duration::from_hours(24);

/// How long a handler may take for one order: not always enough, so that it is dropped half-way.
pub(in crate::simulation) const HANDLER_TIMEOUT: Duration = Duration::from_secs(12);

/// One of so many changes that the weather brings is an order.
const SELDOM: u32 = 10;

/// One of so many orders is committed a second time, as another item of the same order id.
const REPEATED: u64 = 4;

/// What is known of the mails of one world.
pub(in crate::simulation) struct Mailing {
    pub policy: OnAmbiguous,
    pub ledger: MemoryLedger,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    orders: u64,
    /// By order, how often which bytes were accepted.
    accepted: BTreeMap<String, Accepted>,
    /// The orders of which a record is finished.
    finished: BTreeSet<String>,
}

struct Accepted {
    times: usize,
    mail: Vec<u8>,
}

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
        let key = EffectKey::new(&EffectName::default(), order);
        // In memory it is there at once.
        self.ledger.read(&key).now_or_never()?.ok()?
    }

    /// The server took a mail: it must be one that the ledger allows for.
    fn accept(&self, order: &str, mail: &[u8]) -> Judgement {
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
    pub fn written(&self, key: &EffectKey, row: &Entry) -> Judgement {
        let mails = self.mails(key);
        let reported = row.accepted.len();
        match row.state {
            State::Sent if mails == 0 => Err(format!("{key} is SENT, and no mail was accepted")),
            State::Failed if mails > 0 => Err(format!("{key} is FAILED, and a mail was accepted")),
            _ if reported > mails => Err(format!(
                "the row of {key} records {reported} acceptances of {mails}"
            )),
            _ => Ok(()),
        }
    }

    /// A record of this order is finished: its row must be, too, unless whoever has another record of
    /// it goes on with it just now.
    pub fn finished(&self, order: &str) -> Judgement {
        self.book().finished.insert(order.to_owned());
        match self.row(order).map(|row| row.state) {
            Some(State::Sent | State::Failed | State::Ambiguous | State::Retry) => Ok(()),
            None => Err(format!("order {order} is finished, and nothing says so")),
            Some(state) => Err(format!("order {order} is finished, and its row is {state}")),
        }
    }

    /// What must hold once everything has recovered.
    pub fn recovered(&self) -> Judgement {
        for order in &self.book().finished {
            match self.row(order).map(|row| row.state) {
                Some(State::Sent | State::Failed | State::Ambiguous) => {}
                state => {
                    return Err(format!(
                        "every record of order {order} is finished, and its row is {state:?}"
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
