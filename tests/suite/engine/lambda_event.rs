//! Lambda's event, read and written.

use aftercommit::record::lambda_event::{read, read_all, write};
use aftercommit::record::{Event, StreamView};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::arbitrary;

/// The example of AWS's developer guide, shortened.
fn event() -> Value {
    json!({"Records": [
        {
            "eventID": "1", "eventVersion": "1.0", "eventName": "INSERT",
            "eventSource": "aws:dynamodb", "awsRegion": "us-east-1",
            "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/images/stream/2026",
            "dynamodb": {
                "Keys": {"Id": {"N": "101"}},
                "NewImage": {"Message": {"S": "New item!"}, "Id": {"N": "101"}, "Raw": {"B": "AAE="}},
                "SequenceNumber": "111", "SizeBytes": 26, "StreamViewType": "NEW_AND_OLD_IMAGES"
            }
        },
        {
            "eventID": "3", "eventName": "REMOVE",
            "userIdentity": {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"},
            "dynamodb": {
                "ApproximateCreationDateTime": 1.479_499_740e9,
                "Keys": {"Id": {"N": "101"}}, "SequenceNumber": "333"
            }
        }
    ]})
}

#[test]
fn the_developer_guides_example_is_read() {
    let all = read_all(&event()).unwrap();
    let (first, last) = (&all[0], &all[1]);
    assert!(first.stream.as_ref().unwrap().ends_with("stream/2026"));
    assert_eq!(first.record.event, Event::Insert);
    assert_eq!(first.record.size_bytes, 26);
    let image = first.record.new_image.as_ref().unwrap();
    let raw = serde_dynamo::AttributeValue::B(vec![0, 1]);
    assert_eq!(image.get("Raw"), Some(&raw));
    assert!(last.record.by_ttl && last.stream.is_none());
    assert_eq!(last.record.view, StreamView::KeysOnly);
    let since = last.record.created.duration_since(std::time::UNIX_EPOCH);
    assert_eq!(since.unwrap().as_secs(), 1_479_499_740);
    let alone = read_all(&event()["Records"][1]).unwrap();
    assert_eq!(alone, vec![last.clone()]);
}

#[test]
fn an_invalid_record_is_reported_with_its_place() {
    let changed = |pointer: &str, value: Value| {
        let mut event = event();
        *event.pointer_mut(pointer).unwrap() = value;
        read_all(&event).unwrap_err().to_string()
    };
    for (pointer, value, reported) in [
        ("/Records", json!(1), "Records: expected a list"),
        (
            "/Records/0",
            json!([]),
            "Records[0].the record: expected an object",
        ),
        (
            "/Records/1/dynamodb",
            json!("x"),
            "Records[1].dynamodb: expected an object",
        ),
        (
            "/Records/0/dynamodb/SequenceNumber",
            json!(5),
            "SequenceNumber: expected a text",
        ),
        (
            "/Records/0/dynamodb/SequenceNumber",
            json!("5x"),
            "SequenceNumber: expected 1 to 40 digits",
        ),
        (
            "/Records/0/dynamodb/SequenceNumber",
            Value::Null,
            "SequenceNumber: not there",
        ),
        (
            "/Records/0/eventName",
            json!("UPSERT"),
            "eventName: expected INSERT",
        ),
        (
            "/Records/0/dynamodb/Keys/Id",
            json!({"M": {}}),
            "dynamodb.Keys: a key attribute is expected to be S, N or B",
        ),
        (
            "/Records/0/dynamodb/NewImage",
            json!({"a": "b"}),
            "dynamodb.NewImage.a: expected a value under its type letter",
        ),
        (
            "/Records/0/dynamodb/NewImage/Raw",
            json!({"B": "%"}),
            "dynamodb.NewImage.Raw: expected a value under",
        ),
        (
            "/Records/0/dynamodb/SizeBytes",
            json!(-1),
            "SizeBytes: expected a whole number",
        ),
        (
            "/Records/1/dynamodb/ApproximateCreationDateTime",
            json!(-1),
            "expected seconds",
        ),
        (
            "/Records/0/dynamodb/StreamViewType",
            json!("ALL"),
            "StreamViewType: expected a stream view type",
        ),
    ] {
        let error = changed(pointer, value);
        assert!(error.contains(reported), "{pointer}: {error}");
    }
}

#[test]
fn what_is_said_of_a_record_that_cannot_be_read_names_no_value_of_it() {
    let address = "ada@example.com";
    for pointer in [
        "",
        "/dynamodb",
        "/eventName",
        "/dynamodb/SequenceNumber",
        "/dynamodb/StreamViewType",
        "/dynamodb/Keys",
        "/dynamodb/SizeBytes",
        "/dynamodb/ApproximateCreationDateTime",
        "/dynamodb/NewImage",
        "/dynamodb/NewImage/Message",
        "/dynamodb/NewImage/Message/S",
        "/dynamodb/NewImage/Message/N",
    ] {
        for value in [
            json!(address),
            json!([address]),
            json!({ address: address }),
            json!({"S": [address]}),
            json!({"N": {"S": address}}),
            json!({"B": address}),
            json!({"BOOL": address}),
        ] {
            let mut record = event()["Records"][0].clone();
            record["dynamodb"]["ApproximateCreationDateTime"] = json!(1);
            record["dynamodb"]["NewImage"]["Message"] = json!({"S": address, "N": "1"});
            *record.pointer_mut(pointer).unwrap() = value.clone();
            if let Err(error) = read(&record) {
                let names = value.get(address).is_some();
                let reported = error.to_string();
                let reported = if names {
                    error.problem.clone()
                } else {
                    reported
                };
                assert!(!reported.contains(address), "{pointer} {value}: {error}");
            }
        }
    }
}

proptest! {
    #[test]
    fn an_event_with_something_else_at_a_place_is_read_or_refused(
        path in prop::sample::select(vec![
            "", "/eventName", "/eventID", "/userIdentity", "/dynamodb", "/dynamodb/Keys",
            "/dynamodb/NewImage", "/dynamodb/NewImage/Id", "/dynamodb/SequenceNumber",
            "/dynamodb/SizeBytes", "/dynamodb/ApproximateCreationDateTime",
        ]),
        other in prop_oneof![
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(json!([])),
            Just(json!({})),
            any::<String>().prop_map(|word| json!({word: {"N": 5}})),
            arbitrary::attribute().prop_map(|value| serde_json::to_value(value).unwrap()),
        ],
    ) {
        let mut event = event()["Records"][0].clone();
        event["userIdentity"] = Value::Null;
        event["dynamodb"]["ApproximateCreationDateTime"] = json!(1);
        *event.pointer_mut(path).unwrap() = other;
        if let Ok(received) = read(&event) {
            // Whatever was read can be written again.
            let reported = write(&received.record, None).unwrap();
            prop_assert_eq!(read(&reported).unwrap().record.keys, received.record.keys);
        }
    }

    #[test]
    fn a_record_survives_the_way_through_json(record in arbitrary::record()) {
        let arn = "arn:aws:dynamodb:eu-central-1:1:table/t/stream/s";
        let text = write(&record, Some(arn)).unwrap().to_string();
        let received = read(&serde_json::from_str(&text).unwrap()).unwrap();
        prop_assert_eq!(&received.record, &record);
        prop_assert_eq!(received.stream.as_deref(), Some(arn));
        prop_assert_eq!(write(&received.record, Some(arn)).unwrap().to_string(), text);
    }
}
