//! A shop whose orders the shipped sender mails, as the command sets it up, to a mail server in memory.
//! Virtual time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aftercommit::confirmation::mail::Letterhead;
use aftercommit::confirmation::mapping::Mapping;
use aftercommit::confirmation::smtp::{Login, Secret, Smtp, SmtpSettings};
use aftercommit::confirmation::template::Templates;
use aftercommit::confirmation::{Confirmation, ConfirmationSettings};
use aftercommit::internal::claim::{OnAmbiguous, State};
use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters as _, Reason, Selection};
use aftercommit::stores::leases::InitialPosition;
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::ledger::Ledger as _;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{Clock, Consumer, Event, Group, GroupTable, Settings};
use serde_dynamo::{AttributeValue, Item};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::mail_server::{MailServer, PASSWORD, Script, Step, USER};

/// The customer of the order with this number.
pub fn customer(order: usize) -> String {
    format!("{order}@example.com")
}

/// Who works in a shop.
#[derive(Debug, Clone, Copy)]
pub struct Staff {
    pub workers: u64,
    pub policy: OnAmbiguous,
    pub seed: u64,
}

/// A running shop. Its workers end with their runtime.
pub struct Shop {
    pub server: Arc<MailServer>,
    staff: Staff,
    /// The header by which the server recognises a mail, for a day.
    recognises: Option<&'static str>,
    workers: Vec<JoinHandle<()>>,
    stream: MemoryStream,
    leases: MemoryLeases,
    letters: MemoryDeadLetters,
    ledger: MemoryLedger,
    clock: Clock,
    committed: usize,
    hired: u64,
}

impl Drop for Shop {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.abort();
        }
    }
}

/// What became of a shop's orders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fate {
    pub orders: usize,
    /// Customers with a mail, or more.
    pub mailed: usize,
    /// Customers with more than one mail.
    pub twice: usize,
    /// Orders of which nobody knows whether the mail was accepted.
    pub in_doubt: usize,
    /// Orders that were in doubt at some time.
    pub ever_in_doubt: usize,
    /// Orders that a worker will still do something about.
    pub waiting: usize,
    pub letters: BTreeMap<Reason, usize>,
}

impl Shop {
    /// Opens before this mail server.
    pub fn open(staff: Staff, script: Script) -> Self {
        let began = Instant::now();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let clock = Clock::new(move || start + began.elapsed());
        let mut shop = Self {
            recognises: script.recognises,
            server: Arc::new(MailServer::in_memory(script)),
            staff,
            workers: Vec::new(),
            stream: MemoryStream::new(staff.workers, 100),
            leases: MemoryLeases::new(),
            letters: MemoryDeadLetters::default(),
            ledger: MemoryLedger::new(),
            clock,
            committed: 0,
            hired: 0,
        };
        shop.workers = (0..staff.workers).map(|_| shop.employ()).collect();
        shop
    }

    /// A worker dies, and another one starts in its place.
    pub fn crash(&mut self, worker: usize) {
        self.workers[worker].abort();
        self.workers[worker] = self.employ();
    }

    /// Starts a worker.
    fn employ(&mut self) -> JoinHandle<()> {
        let seed = (self.staff.seed << 8) + self.hired;
        self.hired += 1;
        let mut settings = Settings::default();
        settings.start = InitialPosition::TrimHorizon;
        settings.seed = seed;
        // No fault of a server counts as an attempt: a single one would be a dead letter.
        settings.attempts.attempts = 1;
        // Days pass: heartbeats, looks and empty reads are most of what a run costs.
        settings.timing.lease_duration = Duration::from_mins(5);
        settings.timing.heartbeat_interval = Duration::from_mins(1);
        settings.timing.look_interval = Duration::from_mins(1);
        settings.timing.listing_interval = Duration::from_mins(10);
        settings.timing.idle_max = Duration::from_secs(10);
        let at = GroupTable::new(Group::default(), "arn");
        let consumer =
            Consumer::new(at, self.stream.clone(), self.leases.clone()).handler(self.sender(seed));
        let consumer = consumer
            .settings(settings)
            .clock(self.clock.clone())
            .dead_letters(self.letters.clone());
        tokio::spawn(async move {
            consumer.run(std::future::pending()).await.unwrap();
        })
    }

    fn sender(&self, seed: u64) -> Confirmation<MemoryLedger> {
        let mut smtp = SmtpSettings::from_url("smtp://127.0.0.1:25", None).unwrap();
        smtp.login = Some(Login {
            user: USER.to_owned(),
            secret: Secret::new(PASSWORD.into()),
            mechanism: None,
        });
        let server = self.server.clone();
        let smtp = smtp.dialled_by(move || server.dial());
        let mut rules = ConfirmationSettings::new(Mapping::new("id").unwrap());
        rules.on_ambiguous = self.staff.policy;
        rules.clock = self.clock.clone();
        let from = "Shop <shop@example.com>".parse().unwrap();
        let mut letterhead = Letterhead::new(Templates::built_in().unwrap(), from);
        if let Some(name) = self.recognises {
            letterhead = letterhead.idempotency_header(name).unwrap();
            rules.provider_remembers = Some(Duration::from_hours(24));
        }
        let rng = fastrand::Rng::with_seed(seed);
        let smtp = Smtp::new(smtp).unwrap();
        Confirmation::new(self.ledger.clone(), smtp, letterhead, rules, rng)
    }

    /// The number of the next order.
    pub fn next(&self) -> usize {
        self.committed
    }

    /// Takes an order.
    pub fn order(&mut self) {
        let order = self.committed;
        self.committed += 1;
        let text = |text: String| AttributeValue::S(text);
        let image = HashMap::from([
            ("id".to_owned(), text(format!("{order}"))),
            ("email".to_owned(), text(customer(order))),
            ("total".to_owned(), AttributeValue::N("1999".to_owned())),
            ("currency".to_owned(), text("EUR".to_owned())),
        ]);
        let mut keys = image.clone();
        keys.retain(|name, _| name == "id");
        self.stream.commit(Commit {
            event: Event::Insert,
            keys: Item::from(keys),
            old_image: None,
            new_image: Some(Item::from(image)),
            created: self.clock.now(),
        });
    }

    /// Takes so many orders, evenly over a time.
    pub async fn orders(&mut self, count: u32, within: Duration) {
        for _ in 0..count {
            self.order();
            sleep(within / count).await;
        }
    }

    /// How the orders fare now.
    pub async fn fate(&self) -> Fate {
        let mails = self.server.by_recipient();
        let mut fate = Fate {
            orders: self.committed,
            mailed: mails.len(),
            twice: mails.values().filter(|count| **count > 1).count(),
            ..Fate::default()
        };
        let most = match self.staff.policy {
            OnAmbiguous::Resend => 2,
            OnAmbiguous::Park => 1,
        };
        let (mut resolved, mut from) = (0, None);
        loop {
            let page = self.ledger.list(None, from.as_deref()).await.unwrap();
            for (_, row) in &page.entries {
                let in_doubt = row.state == State::Ambiguous;
                let is_parked = in_doubt && row.ambiguities >= most;
                resolved += usize::from(is_parked || row.state == State::Sent);
                fate.in_doubt += usize::from(in_doubt);
                fate.ever_in_doubt += usize::from(row.ambiguities > 0);
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let letters = self
            .letters
            .list(&Selection::default(), None)
            .await
            .unwrap();
        for letter in letters.letters {
            *fate.letters.entry(letter.reason).or_default() += 1;
        }
        let comes_again = |reason: &Reason| matches!(reason, Reason::Rescued | Reason::Deferred);
        let letters = fate
            .letters
            .iter()
            .filter(|(reason, _)| !comes_again(reason));
        let letters: usize = letters.map(|(_, count)| count).sum();
        fate.waiting = fate.orders.saturating_sub(resolved + letters);
        fate
    }
}

/// Whether a fault at this step meets new connections only.
pub fn is_of_the_connection(step: Step) -> bool {
    step < Step::Mail
}
