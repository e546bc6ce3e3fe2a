//! Dead letters keep every record as it was, in each store of them.

use std::collections::HashMap;

use aftercommit::stores::dead_letter::memory::MemoryDeadLetters;
use aftercommit::stores::dead_letter::{DeadLetters, Reason};
use serde_dynamo::AttributeValue;

use crate::support::arbitrary;
use crate::support::letters::{OnServer, close, id, letter_of, next, place, record};
use crate::support::server::on_each_store;

on_each_store! {
    MemoryDeadLetters::default(), OnServer::on, OnServer::letters;
    keys_of_any_length_and_kind_have_letters,
    huge_records_lose_nothing,
    every_kind_of_record_survives,
}

async fn keys_of_any_length_and_kind_have_letters(letters: impl DeadLetters) {
    let place = place();
    let keys = [
        AttributeValue::S("x".repeat(2_048)),
        AttributeValue::S(format!("{}y", "x".repeat(2_047))),
        AttributeValue::S("sha256:|#\u{0}ü".to_owned()),
        AttributeValue::N("-1.5".to_owned()),
        AttributeValue::S("-1.5".to_owned()),
        AttributeValue::B((0..=255).collect()),
        AttributeValue::B(vec![0xff; 2_048]),
    ];
    let all: Vec<_> = keys
        .into_iter()
        .zip(1..)
        .map(|(key, number)| {
            let mut record = record("", number);
            let sort = AttributeValue::S("s".repeat(1_024));
            let keys = HashMap::from([("id".to_owned(), key), ("line".to_owned(), sort)]);
            record.keys = keys.into();
            letter_of(&place, record, Reason::Rejected)
        })
        .collect();
    for letter in &all {
        letters.park(letter).await.unwrap();
    }
    assert_eq!(letters.parked(&place).await.unwrap().keys.len(), all.len());
    for letter in &all {
        assert_eq!(next(&letters, letter).await.as_ref(), Some(letter));
        close(&letters, letter).await.unwrap();
    }
    assert_eq!(letters.parked(&place).await.unwrap().keys, []);
}

async fn huge_records_lose_nothing(letters: impl DeadLetters) {
    let place = place();
    let image = |fill: AttributeValue| {
        let id = AttributeValue::S("a".to_owned());
        HashMap::from([("id".to_owned(), id), ("fill".to_owned(), fill)])
    };
    // Items of nearly 400 KB; as JSON text each control character takes six bytes.
    let mut worst = record("a", 1);
    worst.new_image = Some(image(AttributeValue::S("\u{1}".repeat(408_000))).into());
    worst.old_image = Some(image(AttributeValue::B(vec![0xfe; 408_000])).into());
    let mut wide = record("a", 2);
    wide.new_image = Some(image(AttributeValue::S("ü€".repeat(81_000))).into());
    let (worst, wide) = (
        letter_of(&place, worst, Reason::Rejected),
        letter_of(&place, wide, Reason::Followed),
    );
    for _ in 0..2 {
        letters.park(&worst).await.unwrap();
    }
    letters.follow(&wide).await.unwrap().unwrap();
    for letter in [&worst, &wide] {
        let found = next(&letters, letter).await.unwrap();
        assert!(found == *letter, "a huge record came back changed");
        close(&letters, letter).await.unwrap();
    }
    letters.park(&wide).await.unwrap();
    let again = next(&letters, &wide).await.unwrap();
    assert!(again.record == wide.record);
}

async fn every_kind_of_record_survives(letters: impl DeadLetters) {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let place = place();
    for _ in 0..100 {
        let record = arbitrary::record().new_tree(&mut runner).unwrap().current();
        let letter = letter_of(&place, record, Reason::Rescued);
        letters.park(&letter).await.unwrap();
        assert_eq!(letters.read(id(&letter)).await.unwrap(), Some(letter));
    }
}
