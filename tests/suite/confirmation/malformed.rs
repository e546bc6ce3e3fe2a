//! Ten thousand orders, most of them malformed: each is rejected with the field's name, or mailed.
//! `AFTERCOMMIT_SEED` makes others.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aftercommit::Settings;
use aftercommit::confirmation::Confirmation;
use aftercommit::confirmation::mapping::Mapping;
use aftercommit::internal::claim::OnAmbiguous;
use aftercommit::internal::shard::ShardId;
use aftercommit::record::SequenceNumber;
use aftercommit::record::{Position, StreamView};
use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters as _, Letter, Reason, Selection};
use aftercommit::stores::leases::memory::MemoryLeases;
use aftercommit::stores::leases::{Checkpoint, InitialPosition};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::source::memory::{Commit, MemoryStream};
use aftercommit::{
    Consumer, Context, Event, Failure, Group, GroupTable, Record, RecordHandler as _,
};
use futures_util::StreamExt as _;
use serde_dynamo::{Item, to_item};

use crate::support::mail_server::{Mail, MailServer, Script};
use crate::support::malformed::{Fate, ID, Odd, SECRET, order};
use crate::support::orders::{quick, rules, worker};

const ORDERS: usize = 10_000;

const HEADERS: [&str; 11] = [
    "From",
    "To",
    "Date",
    "Message-ID",
    "Subject",
    "Auto-Submitted",
    "Reply-To",
    "MIME-Version",
    "Content-Type",
    "X-Entity-Ref-ID",
    "Content-Transfer-Encoding",
];

fn orders() -> Vec<Odd> {
    let seed = std::env::var("AFTERCOMMIT_SEED");
    let seed = seed.map_or(2026, |seed| seed.parse().unwrap());
    println!("AFTERCOMMIT_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..ORDERS).map(|number| order(number, &mut rng)).collect()
}

fn handler(mails: &MailServer) -> Confirmation<MemoryLedger> {
    let mut rules = rules(OnAmbiguous::Park);
    rules.mapping = Mapping::new(ID).unwrap();
    worker(MemoryLedger::new(), quick(mails), rules)
}

/// The table's key; the order's id is another attribute.
fn keys(number: usize) -> Item {
    to_item(serde_json::json!({ "pk": number.to_string() })).unwrap()
}

fn record(number: usize, odd: &Odd) -> Record {
    Record {
        event_id: number.to_string(),
        event: Event::Insert,
        keys: keys(number),
        new_image: Some(odd.item.clone()),
        old_image: None,
        sequence_number: SequenceNumber::parse((number + 1).to_string()).unwrap(),
        created: SystemTime::now(),
        view: StreamView::NewAndOldImages,
        size_bytes: 100,
        by_ttl: false,
    }
}

/// A rejection says which field of which order, and what was expected, in a line without what the
/// customer wrote.
fn assert_shows(message: &str, fate: &Fate) {
    let shown: String = message.chars().take(300).collect();
    assert!(*fate != Fate::Mailed, "{shown}");
    if let Fate::Rejected(named) = fate {
        assert!(message.contains(named.as_str()), "{named}: {shown}");
    }
    let named = message.starts_with("order ") || message.starts_with("item {\"pk\":");
    assert!(named, "{shown}");
    let says_what = ["expected ", "is not an address to write to: "];
    assert!(
        says_what.iter().any(|part| message.contains(part)),
        "{shown}"
    );
    // An order's id can be anything, and is shown.
    assert!(
        *fate == Fate::Either || !message.contains(SECRET),
        "{shown}"
    );
    assert!(!message.contains(char::is_control), "{shown}");
    assert!(message.len() < 1_500, "{shown}");
}

/// A mail has the headers that it should have and whole line ends, whatever the order says.
fn assert_is_sound(mail: &Mail) {
    let text = mail.text();
    let whole = text.replace("\r\n", "");
    assert!(!whole.contains(['\r', '\n', '\0']), "{text}");
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let mut seen = BTreeMap::new();
    for line in head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
    {
        let (name, _) = line.split_once(':').unwrap();
        assert!(HEADERS.contains(&name), "{head}");
        *seen.entry(name).or_insert(0) += 1;
    }
    assert!(seen.values().all(|count| *count == 1), "{head}");
}

/// Each of these customers got one mail, and no one else did.
fn assert_mailed(mails: &MailServer, expected: &[&Odd]) {
    let mut addresses: Vec<_> = expected.iter().map(|odd| odd.address.clone()).collect();
    addresses.sort();
    let by_recipient = mails.by_recipient();
    assert!(by_recipient.values().all(|count| *count == 1));
    assert_eq!(by_recipient.into_keys().collect::<Vec<_>>(), addresses);
    for mail in mails.accepted() {
        assert_is_sound(&mail);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_malformed_order_is_rejected_by_its_field_or_mailed() {
    let mails = MailServer::start(Script::default()).await;
    let handler = handler(&mails);
    let orders = orders();
    let all = orders.iter().enumerate().map(|(number, odd)| {
        let (record, handler) = (record(number, odd), &handler);
        async move { (odd, handler.handle(&record, &Context::detached()).await) }
    });
    let results: Vec<_> = futures_util::stream::iter(all)
        .buffer_unordered(8)
        .collect()
        .await;
    let mut mailed = Vec::new();
    for (odd, result) in results {
        match result {
            Ok(()) => {
                assert!(!matches!(odd.fate, Fate::Rejected(_)), "{:?}", odd.fate);
                mailed.push(odd);
            }
            Err(Failure::Reject(error)) => assert_shows(&format!("{error:#}"), &odd.fate),
            Err(other) => panic!("{:?}: {other}", odd.fate),
        }
    }
    assert!(mailed.len() > 1_000 && mailed.len() < 7_000);
    assert_mailed(&mails, &mailed);
}

/// Whether the checkpoints are after the last record of each shard.
fn is_reached(leases: &MemoryLeases, ends: &BTreeMap<ShardId, SequenceNumber>) -> bool {
    let view = leases.snapshot();
    ends.iter().all(|(shard, last)| {
        let end = Checkpoint::At(Position::After(last.clone()));
        view.leases
            .get(shard)
            .is_some_and(|row| row.checkpoint == end)
    })
}

async fn letters_of(letters: &MemoryDeadLetters) -> Vec<Letter> {
    let page = letters.list(&Selection::default(), None).await.unwrap();
    let mut all = Vec::new();
    for envelope in page.letters {
        all.extend(letters.read(&envelope.id).await.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_malformed_order_is_a_dead_letter_with_its_whole_image_and_the_others_are_mailed() {
    let mails = MailServer::start(Script::default()).await;
    let stream = MemoryStream::new(2, 500);
    let orders = orders();
    let mut committed = BTreeMap::new();
    for (number, odd) in orders.iter().enumerate() {
        let (record, shard) = stream.commit(Commit {
            event: Event::Insert,
            keys: keys(number),
            old_image: None,
            new_image: Some(odd.item.clone()),
            created: SystemTime::now(),
        });
        let place = (shard.unwrap(), record.sequence_number.clone());
        committed.insert(place, (record, odd));
    }
    let (letters, leases) = (MemoryDeadLetters::default(), MemoryLeases::new());
    let mut settings = Settings::default();
    settings.start = InitialPosition::TrimHorizon;
    settings.timing.checkpoint_interval = Duration::from_millis(50);
    let consumer = Consumer::new(
        GroupTable::new(Group::default(), "stream"),
        stream,
        leases.clone(),
    )
    .handler(handler(&mails))
    .settings(settings)
    .dead_letters(letters.clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let counters = consumer.counters();
    let running = tokio::spawn(Box::pin(consumer.run(async {
        let _ = stopped.await;
    })));
    // In the order of the shards and their records: the last one of each stays.
    let ends: BTreeMap<_, _> = committed.keys().cloned().collect();
    let finished = async {
        while !is_reached(&leases, &ends) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(3), finished)
        .await
        .unwrap();
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();

    let mut mailed = committed;
    for letter in letters_of(&letters).await {
        let envelope = &letter.envelope;
        let place = (envelope.shard.clone(), envelope.id.sequence_number.clone());
        let (record, odd) = mailed.remove(&place).unwrap();
        assert_eq!(letter.record, record);
        assert_eq!(envelope.reason, Reason::Rejected);
        let error = &envelope.attempts.last().next().unwrap().error;
        assert_shows(error, &odd.fate);
    }
    let mailed: Vec<_> = mailed.into_values().map(|(_, odd)| odd).collect();
    assert!(
        mailed
            .iter()
            .all(|odd| !matches!(odd.fate, Fate::Rejected(_)))
    );
    assert_mailed(&mails, &mailed);
    let handled = counters.handled.load(Ordering::Relaxed);
    assert_eq!(handled, mailed.len() as u64);
}
