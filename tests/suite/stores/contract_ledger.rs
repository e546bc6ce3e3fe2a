//! What every ledger promises, run against each of them.

use std::time::{Duration, SystemTime};

use aftercommit::EffectName;
use aftercommit::internal::claim::{
    Claimant, Entry, History, ItemRef, Kept, State, Step, StepKind,
};
use aftercommit::stores::ledger::memory::MemoryLedger;
use aftercommit::stores::ledger::{EffectKey, Ledger, Swap};

use crate::stores::ledger::OnServer;
use crate::support::server::on_each_store;

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

pub fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
}

/// An effect that no other test touches.
pub fn effect() -> EffectKey {
    EffectKey::new(
        &EffectName::default(),
        &format!("{:016x}", fastrand::u64(..)),
    )
}

pub fn claimed(nonce: u64) -> Entry {
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
        one_effect: vec![1, 2],
        resends: false,
        released: false,
        history: History::default(),
        changed: at(1),
    }
}

pub fn sent(before: &Entry) -> Entry {
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
pub async fn listed(ledger: &impl Ledger, state: Option<State>) -> Vec<(EffectKey, Entry)> {
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
    let mut finished = Vec::new();
    for nonce in 0..5 {
        let claim = claimed(nonce);
        let key = effect();
        ledger.swap(&key, None, &claim).await.unwrap();
        if nonce < 2 {
            ledger.swap(&key, Some(1), &sent(&claim)).await.unwrap();
            finished.push(key);
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
    finished.sort();
    let all = [sending.clone(), finished.clone()].concat();
    assert_eq!(of(Some(State::Sending), &all).await, sending);
    assert_eq!(of(Some(State::Sent), &all).await, finished);
    assert_eq!(of(None, &all).await.len(), 5);
}
