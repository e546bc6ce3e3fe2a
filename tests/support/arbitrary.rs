//! Records of every kind that a stream can hold, from small sets of names and values, so that
//! patterns meet them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aftercommit::record::SequenceNumber;
use aftercommit::record::StreamView;
use aftercommit::{Event, Record};
use proptest::prelude::*;
use serde_dynamo::{AttributeValue, Item};

/// Texts that are alike in parts.
pub fn texts() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "PAID",
        "paid",
        "PAI",
        "AID",
        "Ünï",
        "ÜNÏ",
        "300",
        "\u{0}\"\\",
    ])
    .prop_map(str::to_owned)
}

/// Numbers, some of one value in several spellings.
pub fn numbers() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "0", "-0.5", "1", "300", "300.0", "3E2", "1e38", "299.99",
    ])
    .prop_map(str::to_owned)
}

/// The names of attributes.
pub fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

/// An attribute, nested up to three levels.
pub fn attribute() -> impl Strategy<Value = AttributeValue> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..4);
    let leaf = prop_oneof![
        4 => texts().prop_map(AttributeValue::S),
        4 => numbers().prop_map(AttributeValue::N),
        1 => bytes().prop_map(AttributeValue::B),
        2 => any::<bool>().prop_map(AttributeValue::Bool),
        1 => Just(AttributeValue::Null(true)),
        1 => prop::collection::vec(texts(), 1..3).prop_map(AttributeValue::Ss),
        1 => prop::collection::vec(numbers(), 1..3).prop_map(AttributeValue::Ns),
        1 => prop::collection::vec(bytes(), 1..3).prop_map(AttributeValue::Bs),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::hash_map(names(), inner.clone(), 0..3).prop_map(AttributeValue::M),
            prop::collection::vec(inner, 0..3).prop_map(AttributeValue::L),
        ]
    })
}

fn image() -> impl Strategy<Value = Item> {
    prop::collection::hash_map(names(), attribute(), 0..4).prop_map(Item::from)
}

/// A record.
pub fn record() -> impl Strategy<Value = Record> {
    let event = prop::sample::select(vec![Event::Insert, Event::Modify, Event::Remove]);
    let images = (prop::option::of(image()), prop::option::of(image()));
    let number = (1_u64..u64::MAX, 0_u64..2_000_000_000, any::<u64>());
    let key = prop::collection::vec(any::<u8>(), 1..9);
    (event, images, number, key, any::<bool>()).prop_map(
        |(event, (new_image, old_image), (sequence, seconds, size), key, ttl)| Record {
            event_id: format!("{sequence:x}"),
            event,
            keys: HashMap::from([("id".to_owned(), AttributeValue::B(key))]).into(),
            new_image,
            old_image,
            sequence_number: SequenceNumber::parse(sequence.to_string()).unwrap(),
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            view: StreamView::NewAndOldImages,
            size_bytes: size,
            by_ttl: ttl && event == Event::Remove,
        },
    )
}
