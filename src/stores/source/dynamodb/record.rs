//! Converts the SDK's records to ours.

use std::collections::HashMap;
use std::time::SystemTime;

use anyhow::Context as _;
use aws_sdk_dynamodbstreams::primitives::Blob;
use aws_sdk_dynamodbstreams::types as sdk;
use aws_sdk_dynamodbstreams::types::AttributeValue as Sdk;
use serde_dynamo::{AttributeValue, Item};

use crate::core::record::{Event, Record, SequenceNumber, StreamView};

/// Only a record without a position in its shard is an error: without a sequence number it can neither
/// be checkpointed nor told apart from the next one. Other missing fields are filled in, so that one
/// odd record never stops its shard.
pub(super) fn record(record: sdk::Record, read_at: SystemTime) -> anyhow::Result<Record> {
    let change = record.dynamodb.context("a stream record has no change")?;
    let sequence_number = change
        .sequence_number
        .context("a stream record has no sequence number")?;
    let sequence_number = SequenceNumber::parse(sequence_number)?;
    let new_image = change.new_image.map(item);
    let old_image = change.old_image.map(item);
    let view = change
        .stream_view_type
        .and_then(|view| StreamView::from_word(view.as_str()))
        .unwrap_or(match (&new_image, &old_image) {
            (Some(_), Some(_)) => StreamView::NewAndOldImages,
            (Some(_), None) => StreamView::NewImage,
            (None, Some(_)) => StreamView::OldImage,
            (None, None) => StreamView::KeysOnly,
        });
    let event = match record.event_name {
        Some(sdk::OperationType::Insert) => Event::Insert,
        Some(sdk::OperationType::Remove) => Event::Remove,
        Some(sdk::OperationType::Modify) => Event::Modify,
        _ => match (&new_image, &old_image) {
            (Some(_), None) if view == StreamView::NewAndOldImages => Event::Insert,
            (None, _) if view.has_new_image() => Event::Remove,
            _ => Event::Modify,
        },
    };
    let by_ttl = record.user_identity.is_some_and(|identity| {
        identity.r#type.as_deref() == Some("Service")
            && identity.principal_id.as_deref() == Some("dynamodb.amazonaws.com")
    });
    Ok(Record {
        event_id: record
            .event_id
            .unwrap_or_else(|| sequence_number.to_string()),
        event,
        keys: item(change.keys.unwrap_or_default()),
        new_image,
        old_image,
        created: change
            .approximate_creation_date_time
            .and_then(|time| SystemTime::try_from(time).ok())
            .unwrap_or(read_at),
        sequence_number,
        view,
        size_bytes: change
            .size_bytes
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0),
        by_ttl: by_ttl && event == Event::Remove,
    })
}

fn item(attributes: HashMap<String, Sdk>) -> Item {
    let attributes = attributes.into_iter();
    let attributes: HashMap<_, _> = attributes.map(|(n, v)| (n, value(v))).collect();
    attributes.into()
}

/// Written out because `serde_dynamo`'s own conversion panics at a type that the SDK does not know yet.
/// Such a value becomes NULL: its record is still delivered, and a handler that needs the value can
/// reject it.
fn value(value: Sdk) -> AttributeValue {
    match value {
        Sdk::S(s) => AttributeValue::S(s),
        Sdk::N(n) => AttributeValue::N(n),
        Sdk::B(b) => AttributeValue::B(b.into_inner()),
        Sdk::Bool(b) => AttributeValue::Bool(b),
        Sdk::Null(null) => AttributeValue::Null(null),
        Sdk::M(m) => AttributeValue::M(item(m).into_inner()),
        Sdk::L(l) => AttributeValue::L(l.into_iter().map(self::value).collect()),
        Sdk::Ss(ss) => AttributeValue::Ss(ss),
        Sdk::Ns(ns) => AttributeValue::Ns(ns),
        Sdk::Bs(bs) => AttributeValue::Bs(bs.into_iter().map(Blob::into_inner).collect()),
        _ => {
            tracing::warn!("an attribute has a type that this build does not know: read as NULL");
            AttributeValue::Null(true)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use aws_sdk_dynamodbstreams::primitives::DateTime;
    use aws_sdk_dynamodbstreams::types::{Identity, StreamRecord};

    use super::*;

    fn read_at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000)
    }

    fn with(change: sdk::builders::StreamRecordBuilder) -> sdk::Record {
        sdk::Record::builder().dynamodb(change.build()).build()
    }

    #[test]
    fn a_record_with_little_but_its_place_still_comes() {
        let change = StreamRecord::builder().sequence_number("300");
        let record = record(with(change), read_at()).unwrap();
        assert_eq!(record.sequence_number.as_str(), "300");
        assert_eq!(record.event_id, "300");
        assert_eq!(record.created, read_at(), "nothing takes it for old");
        assert_eq!(record.view, StreamView::KeysOnly);
        assert_eq!(record.event, Event::Modify);
        assert_eq!(record.size_bytes, 0);
    }

    #[test]
    fn a_record_without_a_place_is_an_error() {
        let nowhere = record(with(StreamRecord::builder()), read_at());
        assert!(nowhere.unwrap_err().to_string().contains("sequence number"));
        let empty = record(sdk::Record::builder().build(), read_at());
        assert!(empty.unwrap_err().to_string().contains("change"));
        let change = StreamRecord::builder().sequence_number("12a");
        assert!(record(with(change), read_at()).is_err());
    }

    #[test]
    fn an_event_that_is_not_named_follows_from_the_images() {
        let change = || {
            let change = StreamRecord::builder().sequence_number("1");
            change.stream_view_type(sdk::StreamViewType::NewAndOldImages)
        };
        let one = Sdk::S("x".to_owned());
        let event = |change| record(with(change), read_at()).unwrap().event;
        assert_eq!(event(change().new_image("id", one.clone())), Event::Insert);
        assert_eq!(event(change().old_image("id", one.clone())), Event::Remove);
        let both = change().new_image("id", one.clone()).old_image("id", one);
        assert_eq!(event(both), Event::Modify);
    }

    #[test]
    fn a_removal_by_time_to_live_is_told_apart_from_a_callers() {
        let removal = |kind: &str, principal: &str| {
            let time = DateTime::from_secs(1_790_000_000);
            let change = StreamRecord::builder().sequence_number("1");
            let change = change.approximate_creation_date_time(time).build();
            let by = Identity::builder().r#type(kind).principal_id(principal);
            let removal = sdk::Record::builder().event_name(sdk::OperationType::Remove);
            let removal = removal.dynamodb(change).user_identity(by.build());
            record(removal.build(), read_at()).unwrap()
        };
        let ours = removal("Service", "dynamodb.amazonaws.com");
        assert!(ours.by_ttl);
        let seconds = ours.created.duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(seconds.unwrap().as_secs(), 1_790_000_000);
        assert!(!removal("AssumedRole", "somebody").by_ttl);
    }

    #[test]
    fn every_type_of_attribute_is_kept() {
        let blob = || Blob::new([0, 255]);
        let text = || "x".to_owned();
        let all = HashMap::from([
            ("s".to_owned(), Sdk::S(text())),
            ("n".to_owned(), Sdk::N("12345678901234567890.5".to_owned())),
            ("b".to_owned(), Sdk::B(blob())),
            ("bool".to_owned(), Sdk::Bool(true)),
            ("null".to_owned(), Sdk::Null(true)),
            (
                "l".to_owned(),
                Sdk::L(vec![Sdk::S(text()), Sdk::Bool(false)]),
            ),
            (
                "m".to_owned(),
                Sdk::M(HashMap::from([(text(), Sdk::S(text()))])),
            ),
            ("ss".to_owned(), Sdk::Ss(vec![text()])),
            ("ns".to_owned(), Sdk::Ns(vec!["1".to_owned()])),
            ("bs".to_owned(), Sdk::Bs(vec![blob()])),
        ]);
        let expected: Item = all.clone().into();
        assert_eq!(item(all), expected);
    }
}
