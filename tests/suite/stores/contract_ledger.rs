//! What every ledger promises, run against each of them.

use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::internal::claim::{
    Attention, Claimant, Entry, History, ItemRef, Kept, State, Step, StepKind,
};
use aftercommit::stores::ledger::dynamodb::DynamoDbLedger;
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger, Swap};
use aftercommit::stores::tables::dynamodb::create_ledger_table;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::support::server::{Server, on_each_server, on_each_store};

const RETENTION: Duration = Duration::from_hours(24 * 30);

on_each_store! {
    MemoryLedger::new(), OnServer::on, OnServer::ledger;
    an_effect_that_was_never_claimed_has_no_row,
    a_claim_is_written_once_and_read_as_written,
    a_swap_that_is_repeated_answers_like_the_first,
    a_swap_expecting_no_row_loses_to_an_existing_row,
    a_swap_expecting_another_revision_loses_to_the_existing_row,
    a_swap_expecting_a_row_writes_nothing_where_there_is_none,
    every_field_of_an_entry_survives,
    a_listing_shows_each_entry_of_a_state_once,
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
}

/// An effect that no other test touches.
fn effect() -> EffectKey {
    EffectKey::new(
        &EffectName::default(),
        &format!("{:016x}", fastrand::u64(..)),
    )
}

fn claimed(nonce: u64) -> Entry {
    Entry {
        state: State::Sending,
        fence: 1,
        revision: 1,
        claimant: Some(Claimant {
            incarnation: "one/0007".to_owned(),
            nonce,
            deadline: at(900_000),
        }),
        first_claimed: Some(at(1)),
        digest: Some("ab".repeat(32)),
        item: None,
        kept: None,
        reply: None,
        ambiguities: 0,
        doubtful: Vec::new(),
        accepted: Vec::new(),
        resends: false,
        released: false,
        history: History::default(),
        changed: at(1),
    }
}

fn sent(before: &Entry) -> Entry {
    Entry {
        state: State::Sent,
        revision: before.revision + 1,
        reply: Some("250 2.0.0 Ok: queued as 4F1".to_owned()),
        changed: at(2),
        ..before.clone()
    }
}

async fn an_effect_that_was_never_claimed_has_no_row(ledger: impl Ledger) {
    assert_eq!(ledger.read(&effect()).await.unwrap(), None);
}

async fn a_claim_is_written_once_and_read_as_written(ledger: impl Ledger) {
    let key = effect();
    let claim = claimed(u64::MAX);
    assert_eq!(
        ledger.swap(&key, None, &claim).await.unwrap(),
        Swap::Written
    );
    assert_eq!(ledger.read(&key).await.unwrap(), Some(claim.clone()));
    let done = sent(&claim);
    let swapped = ledger.swap(&key, Some(1), &done).await.unwrap();
    assert_eq!(swapped, Swap::Written);
    assert_eq!(ledger.read(&key).await.unwrap(), Some(done));
}

async fn a_swap_that_is_repeated_answers_like_the_first(ledger: impl Ledger) {
    let key = effect();
    // More precise than stored: still the same entry.
    let claim = Entry {
        changed: at(1) + Duration::from_nanos(1_234),
        first_claimed: Some(at(1) + Duration::from_nanos(1_234)),
        ..claimed(1)
    };
    for _ in 0..2 {
        let swapped = ledger.swap(&key, None, &claim).await.unwrap();
        assert_eq!(swapped, Swap::Written);
    }
    let done = sent(&claim);
    for _ in 0..2 {
        let swapped = ledger.swap(&key, Some(1), &done).await.unwrap();
        assert_eq!(swapped, Swap::Written);
    }
}

async fn a_swap_expecting_no_row_loses_to_an_existing_row(ledger: impl Ledger) {
    let key = effect();
    let first = claimed(1);
    ledger.swap(&key, None, &first).await.unwrap();
    let second = ledger.swap(&key, None, &claimed(2)).await.unwrap();
    assert_eq!(second, Swap::Lost(Some(first.clone())));
    assert_eq!(ledger.read(&key).await.unwrap(), Some(first));
}

async fn a_swap_expecting_another_revision_loses_to_the_existing_row(ledger: impl Ledger) {
    let key = effect();
    let claim = claimed(1);
    let done = sent(&claim);
    ledger.swap(&key, None, &claim).await.unwrap();
    ledger.swap(&key, Some(1), &done).await.unwrap();
    let late = Entry {
        state: State::Retry,
        ..done.clone()
    };
    let swapped = ledger.swap(&key, Some(1), &late).await.unwrap();
    assert_eq!(swapped, Swap::Lost(Some(done.clone())));
    assert_eq!(ledger.read(&key).await.unwrap(), Some(done));
}

async fn a_swap_expecting_a_row_writes_nothing_where_there_is_none(ledger: impl Ledger) {
    let key = effect();
    let swapped = ledger.swap(&key, Some(1), &sent(&claimed(1))).await;
    assert_eq!(swapped.unwrap(), Swap::Lost(None));
    assert_eq!(ledger.read(&key).await.unwrap(), None);
}

async fn every_field_of_an_entry_survives(ledger: impl Ledger) {
    let full = Entry {
        state: State::Ambiguous,
        fence: 4,
        revision: 11,
        ambiguities: 2,
        doubtful: vec![2, 7],
        accepted: vec![3, 4],
        reply: Some("timed out – ünïcode ✓".to_owned()),
        released: true,
        item: Some(ItemRef {
            table: "arn:aws:dynamodb:us-east-1:000000000000:table/orders".to_owned(),
            key: r#"{"id":{"S":"1042"}}"#.to_owned(),
            recipient: Some("0123456789abcdef".to_owned()),
        }),
        kept: Some(Kept(vec![0, 1, 255])),
        history: History::from_row(
            vec![
                Step::new(at(1), StepKind::Claimed).under(1).by("one/0007"),
                Step::new(at(2), StepKind::Doubted).saying("no answer – ✓"),
            ],
            7,
        ),
        ..claimed(u64::MAX)
    };
    let bare = Entry {
        state: State::Suppressed,
        claimant: None,
        first_claimed: None,
        digest: None,
        ..claimed(0)
    };
    for entry in [full, bare] {
        let key = effect();
        ledger.swap(&key, None, &entry).await.unwrap();
        assert_eq!(ledger.read(&key).await.unwrap(), Some(entry));
    }
}

/// All entries in a state, over all pages.
async fn listed(ledger: &impl Ledger, state: Option<State>) -> Vec<(EffectKey, Entry)> {
    let mut all = Vec::new();
    let mut from = None;
    loop {
        let page = ledger.list(state, from.as_deref()).await.unwrap();
        all.extend(page.entries);
        from = page.next;
        if from.is_none() {
            return all;
        }
    }
}

async fn a_listing_shows_each_entry_of_a_state_once(ledger: impl Ledger) {
    let mut sending = Vec::new();
    let mut settled = Vec::new();
    for nonce in 0..5 {
        let claim = claimed(nonce);
        let key = effect();
        ledger.swap(&key, None, &claim).await.unwrap();
        if nonce < 2 {
            ledger.swap(&key, Some(1), &sent(&claim)).await.unwrap();
            settled.push(key);
        } else {
            sending.push(key);
        }
    }
    let of = async |state, mine: &[EffectKey]| {
        let mut keys: Vec<_> = listed(&ledger, state).await.into_iter().collect();
        keys.retain(|(key, _)| mine.contains(key));
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        keys.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    sending.sort();
    settled.sort();
    let all = [sending.clone(), settled.clone()].concat();
    assert_eq!(of(Some(State::Sending), &all).await, sending);
    assert_eq!(of(Some(State::Sent), &all).await, settled);
    assert_eq!(of(None, &all).await.len(), 5);
}

mod dynamodb {
    use super::{
        OnServer, a_listing_continues_over_pages_and_past_rows_that_cannot_be_read,
        a_row_expires_when_its_retention_has_passed_since_its_last_change,
        a_row_of_a_newer_build_is_neither_read_nor_overwritten, nobody_makes_a_row_expire_sooner,
        on_each_server, what_needs_attention_is_counted_and_listed_until_it_is_resolved,
    };

    on_each_server! {
    OnServer::on;
    a_row_expires_when_its_retention_has_passed_since_its_last_change,
    nobody_makes_a_row_expire_sooner,
    a_row_of_a_newer_build_is_neither_read_nor_overwritten,
    a_listing_continues_over_pages_and_past_rows_that_cannot_be_read,
    what_needs_attention_is_counted_and_listed_until_it_is_resolved,
    }
}

/// A ledger on a server.
struct OnServer {
    server: Server,
    table: String,
}

impl OnServer {
    /// Makes the table on a server.
    async fn on(server: Server) -> Self {
        let table = "ledger-under-test".to_owned();
        create_ledger_table(&server.client, &table).await.unwrap();
        Self { server, table }
    }

    fn ledger(&self) -> DynamoDbLedger {
        DynamoDbLedger::new(self.server.client.clone(), &self.table, RETENTION)
    }

    async fn set(&self, key: &EffectKey, name: &str, value: AttributeValue) {
        let update = self.server.client.update_item().table_name(&self.table);
        update
            .key("effect", AttributeValue::S(key.as_str().to_owned()))
            .update_expression("SET #name = :value")
            .expression_attribute_names("#name", name)
            .expression_attribute_values(":value", value)
            .send()
            .await
            .unwrap();
    }
}

async fn a_row_expires_when_its_retention_has_passed_since_its_last_change(server: OnServer) {
    let key = effect();
    let claim = claimed(1);
    server.ledger().swap(&key, None, &claim).await.unwrap();
    server
        .ledger()
        .swap(&key, Some(1), &sent(&claim))
        .await
        .unwrap();
    let get = server.server.client.get_item().table_name(&server.table);
    let get = get.key("effect", AttributeValue::S(key.as_str().to_owned()));
    let row = get.send().await.unwrap().item.unwrap();
    let expected = at(2) + RETENTION;
    let seconds = expected.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seconds = AttributeValue::N(seconds.as_secs().to_string());
    assert_eq!(row["expires"], seconds);
    let ttl = server.server.client.describe_time_to_live();
    let ttl = ttl.table_name(&server.table).send().await.unwrap();
    let attribute = ttl.time_to_live_description.unwrap().attribute_name;
    assert_eq!(attribute.as_deref(), Some("expires"));
}

async fn nobody_makes_a_row_expire_sooner(server: OnServer) {
    let client = &server.server.client;
    let with = |retention| DynamoDbLedger::new(client.clone(), &server.table, retention);
    let key = effect();
    let expires = async || {
        let get = client.get_item().table_name(&server.table);
        let get = get.key("effect", AttributeValue::S(key.as_str().to_owned()));
        get.send().await.unwrap().item.unwrap().remove("expires")
    };
    let claim = claimed(1);
    let long = with(RETENTION * 2);
    long.swap(&key, None, &claim).await.unwrap();
    let set = expires().await;
    assert!(set.is_some());
    let short = with(RETENTION);
    // A try that is repeated is one.
    for _ in 0..2 {
        let swap = short.swap(&key, Some(1), &sent(&claim)).await.unwrap();
        assert_eq!(swap, Swap::Written);
        assert_eq!(expires().await, set);
    }
    assert_eq!(short.read(&key).await.unwrap(), Some(sent(&claim)));
    let lost = short.swap(&key, Some(1), &claimed(2)).await.unwrap();
    assert_eq!(lost, Swap::Lost(Some(sent(&claim))));
    // Nor one that is kept forever.
    let other = effect();
    let forever = with(Duration::MAX);
    forever.swap(&other, None, &claim).await.unwrap();
    short.swap(&other, Some(1), &sent(&claim)).await.unwrap();
    let get = client.get_item().table_name(&server.table);
    let get = get.key("effect", AttributeValue::S(other.as_str().to_owned()));
    let row = get.send().await.unwrap().item.unwrap();
    assert_eq!(row.get("expires"), None);
    assert_eq!(row["state"], AttributeValue::S("SENT".to_owned()));
}

async fn a_row_of_a_newer_build_is_neither_read_nor_overwritten(server: OnServer) {
    let ledger = server.ledger();
    let key = effect();
    let claim = claimed(1);
    ledger.swap(&key, None, &claim).await.unwrap();
    server
        .set(&key, "format", AttributeValue::N("2".to_owned()))
        .await;
    let read = ledger.read(&key).await.unwrap_err();
    let text = format!("{read:#}");
    assert!(
        text.contains(key.as_str()) && text.contains("format 2"),
        "{text}"
    );
    ledger.swap(&key, Some(1), &sent(&claim)).await.unwrap_err();
    server
        .set(&key, "format", AttributeValue::N("1".to_owned()))
        .await;
    assert_eq!(ledger.read(&key).await.unwrap(), Some(claim));
}

async fn a_listing_continues_over_pages_and_past_rows_that_cannot_be_read(server: OnServer) {
    let ledger = server.ledger();
    let mut mine = std::collections::BTreeSet::new();
    // A page ends after 1 MB: these are several.
    for nonce in 0..40 {
        let entry = Entry {
            digest: Some("x".repeat(64 * 1024)),
            ..claimed(nonce)
        };
        let key = effect();
        ledger.swap(&key, None, &entry).await.unwrap();
        mine.insert(key);
    }
    let damaged = effect();
    let wrong = AttributeValue::Bool(true);
    server.set(&damaged, "state", wrong).await;
    let first = ledger.list(None, None).await.unwrap();
    assert!(first.next.is_some() && first.entries.len() < 40);
    let mut all = listed(&ledger, None).await;
    assert!(!all.iter().any(|(key, _)| *key == damaged));
    all.retain(|(key, _)| mine.contains(key));
    let keys: std::collections::BTreeSet<_> = all.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!((all.len(), keys), (40, mine));
}

async fn what_needs_attention_is_counted_and_listed_until_it_is_resolved(server: OnServer) {
    // If no other claim is in doubt.
    let server = OnServer {
        table: format!("ledger-{:016x}", fastrand::u64(..)),
        ..server
    };
    let created = create_ledger_table(&server.server.client, &server.table).await;
    created.unwrap();
    let ledger = server.ledger();
    let needed = async || {
        let needed = ledger.attention().await.unwrap();
        let mut listed = Vec::new();
        for why in [
            Attention::Ambiguous,
            Attention::Resending,
            Attention::Released,
        ] {
            let page = ledger.list_needing(why, None).await.unwrap();
            listed.extend(page.entries.into_iter().map(|(key, _)| (why, key)));
        }
        (needed.ambiguous, needed.released, listed)
    };
    let (key, first) = (effect(), claimed(1));
    ledger.swap(&key, None, &first).await.unwrap();
    assert_eq!(needed().await, (0, 0, vec![]));
    let doubt = Entry {
        state: State::Ambiguous,
        revision: 2,
        ..first
    };
    ledger.swap(&key, Some(1), &doubt).await.unwrap();
    let listed = vec![(Attention::Ambiguous, key.clone())];
    assert_eq!(needed().await, (1, 0, listed));
    // The worker that has its record sends it again.
    let again = Entry {
        resends: true,
        revision: 3,
        ..doubt
    };
    ledger.swap(&key, Some(2), &again).await.unwrap();
    let listed = vec![(Attention::Resending, key.clone())];
    assert_eq!(needed().await, (0, 0, listed));
    assert_eq!(ledger.attention().await.unwrap().resending, 1);
    let released = Entry {
        state: State::Retry,
        released: true,
        revision: 4,
        ..again
    };
    ledger.swap(&key, Some(3), &released).await.unwrap();
    let listed = vec![(Attention::Released, key.clone())];
    assert_eq!(needed().await, (0, 1, listed));
    let sent = Entry {
        released: false,
        ..sent(&released)
    };
    ledger.swap(&key, Some(4), &sent).await.unwrap();
    assert_eq!(needed().await, (0, 0, vec![]));
}
