//! Filter patterns: what each operator lets through.

use aftercommit::Record;
use aftercommit::filter::{Explanation, Filter, Filters, Subject};
use aftercommit::record::lambda_event;
use serde_json::{Value, json};

pub fn record() -> Record {
    let event = json!({
        "eventID": "1", "eventName": "INSERT",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_700_000_000, "SizeBytes": 26,
            "SequenceNumber": "111", "StreamViewType": "NEW_AND_OLD_IMAGES",
            "Keys": {"id": {"S": "1042"}},
            "NewImage": {
                "id": {"S": "1042"}, "status": {"S": "PAID"}, "total": {"N": "300.0"},
                "huge": {"N": "99999999999999999999999999999999999998"}, "empty": {"S": ""},
                "gift": {"BOOL": true}, "coupon": {"NULL": true}, "raw": {"B": "AAE="},
                "tags": {"SS": ["new", "vip"]}, "sizes": {"NS": ["1.50", "2"]},
                "address": {"M": {"city": {"S": "Zürich"}}},
                "lines": {"L": [
                    {"M": {"sku": {"S": "tea"}, "count": {"N": "2"}}},
                    {"M": {"sku": {"S": "cup"}, "count": {"N": "1"}, "note": {"S": "blue"}}},
                    {"S": "plain"}
                ]},
                "rows": {"L": [{"L": [{"N": "1"}]}, {"L": [{"S": "x"}]}]}, "none": {"L": []}, "$or": {"S": "a name like any other"}
            }
        }
    });
    lambda_event::read(&event).unwrap().record
}

/// A pattern on the new image.
pub fn on_image(pattern: &Value) -> Filter {
    Filter::parse(&json!({"dynamodb": {"NewImage": pattern}}).to_string()).unwrap()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_operator_holds_where_it_should_and_nowhere_else() {
    let record = record();
    for (pattern, holds) in [
        // Equals, or, and.
        (json!({"status": {"S": ["PAID"]}}), true),
        (json!({"status": {"S": ["paid"]}}), false),
        (json!({"status": {"S": ["NEW", "PAID"]}}), true),
        (
            json!({"status": {"S": ["PAID"]}, "id": {"S": ["1042"]}}),
            true,
        ),
        (
            json!({"status": {"S": ["PAID"]}, "id": {"S": ["1043"]}}),
            false,
        ),
        (
            json!({"status": {"S": ["PAID"]}, "missing": {"S": ["1043"]}}),
            false,
        ),
        (json!({"status": {"N": ["PAID"]}}), false),
        // Empty, null, true.
        (json!({"empty": {"S": [""]}}), true),
        (json!({"status": {"S": [""]}}), false),
        (json!({"coupon": {"NULL": [true]}}), true),
        (json!({"coupon": {"NULL": [null]}}), false),
        (json!({"gift": {"BOOL": [true]}}), true),
        (json!({"gift": {"BOOL": [false]}}), false),
        (json!({"gift": {"BOOL": ["true"]}}), false),
        (json!({"raw": {"B": ["AAE="]}}), true),
        // $or.
        (
            json!({"$or": [{"status": {"S": ["NEW"]}}, {"gift": {"BOOL": [true]}}]}),
            true,
        ),
        (
            json!({"$or": [{"status": {"S": ["NEW"]}}, {"gift": {"BOOL": [false]}}]}),
            false,
        ),
        (
            json!({"id": {"S": ["7"]}, "$or": [{"id": {"S": ["1042"]}}, {"gift": {"BOOL": [true]}}]}),
            false,
        ),
        (json!({"$or": {"S": [{"prefix": "a name"}]}}), true),
        // Anything but.
        (
            json!({"status": {"S": [{"anything-but": ["NEW", "OLD"]}]}}),
            true,
        ),
        (json!({"status": {"S": [{"anything-but": "PAID"}]}}), false),
        (
            json!({"missing": {"S": [{"anything-but": ["NEW"]}]}}),
            false,
        ),
        (json!({"total": {"N": [{"anything-but": [300]}]}}), false),
        (json!({"total": {"N": [{"anything-but": ["300"]}]}}), true),
        (json!({"tags": {"SS": [{"anything-but": ["new"]}]}}), true),
        // Prefix, suffix, case.
        (json!({"status": {"S": [{"prefix": "PA"}]}}), true),
        (json!({"status": {"S": [{"prefix": "pa"}]}}), false),
        (json!({"status": {"S": [{"suffix": "ID"}]}}), true),
        (json!({"status": {"S": [{"suffix": "PAI"}]}}), false),
        (json!({"gift": {"BOOL": [{"prefix": ""}]}}), false),
        (
            json!({"status": {"S": [{"equals-ignore-case": "pAiD"}]}}),
            true,
        ),
        (
            json!({"address": {"M": {"city": {"S": [{"equals-ignore-case": "ZÜRICH"}]}}}}),
            true,
        ),
        (
            json!({"status": {"S": [{"equals-ignore-case": "pai"}]}}),
            false,
        ),
        // Numbers: texts letter by letter, numbers by value.
        (json!({"total": {"N": ["300.0"]}}), true),
        (json!({"total": {"N": ["300"]}}), false),
        (json!({"total": {"N": [300]}}), true),
        (json!({"total": {"N": [{"numeric": ["=", 3e2]}]}}), true),
        (json!({"total": {"N": [{"numeric": [">", 300]}]}}), false),
        (json!({"total": {"N": [{"numeric": [">=", 300]}]}}), true),
        (
            json!({"total": {"N": [{"numeric": [">", 299.99, "<", 300.01]}]}}),
            true,
        ),
        (
            json!({"total": {"N": [{"numeric": [">", 0, "<=", 299.99]}]}}),
            false,
        ),
        (json!({"total": {"N": [{"numeric": ["<", 1000]}]}}), true),
        (json!({"status": {"S": [{"numeric": ["<", 1000]}]}}), false),
        (json!({"id": {"S": [{"numeric": ["=", 1042]}]}}), false),
        (json!({"sizes": {"NS": [1.5]}}), true),
        (json!({"sizes": {"NS": [{"numeric": [">", 2]}]}}), false),
        // Exists: plain values only.
        (json!({"status": {"S": [{"exists": true}]}}), true),
        (json!({"status": {"S": [{"exists": false}]}}), false),
        (json!({"missing": {"S": [{"exists": false}]}}), true),
        (json!({"status": {"N": [{"exists": false}]}}), true),
        (json!({"address": {"M": [{"exists": true}]}}), false),
        (json!({"address": {"M": [{"exists": false}]}}), true),
        (json!({"status": {"S": ["NEW", {"exists": false}]}}), false),
        (json!({"missing": {"S": ["NEW", {"exists": false}]}}), true),
        // Lists and sets.
        (json!({"tags": {"SS": ["vip"]}}), true),
        (json!({"tags": {"SS": ["old"]}}), false),
        (json!({"lines": {"L": {"S": [{"exists": true}]}}}), true),
        (json!({"lines": {"L": {"N": [{"exists": false}]}}}), true),
        (json!({"lines": {"L": {"S": [{"exists": false}]}}}), false),
        (
            json!({"rows": {"L": {"L": {"S": [{"exists": false}]}}}}),
            false,
        ),
        (
            json!({"rows": {"L": {"L": {"B": [{"exists": false}]}}}}),
            true,
        ),
        (json!({"none": {"L": {"S": [{"exists": false}]}}}), true),
        (
            json!({"lines": {"L": {"M": {"sku": {"S": ["tea"]}, "count": {"N": ["2"]}}}}}),
            true,
        ),
        (
            json!({"lines": {"L": {"M": {"sku": {"S": ["tea"]}, "count": {"N": ["1"]}}}}}),
            false,
        ),
        (
            json!({"lines": {"L": {"M": {"sku": {"S": ["tea"]}, "note": {"S": [{"exists": false}]}}}}}),
            true,
        ),
        (
            json!({"lines": {"L": {"M": {"sku": {"S": ["cup"]}, "note": {"S": [{"exists": false}]}}}}}),
            false,
        ),
    ] {
        let filter = on_image(&pattern);
        assert_eq!(filter.matches(&record), holds, "{pattern}");
        assert_eq!(filter.mismatch(&record).is_none(), holds, "{pattern}");
    }
}

#[test]
fn the_numbers_of_an_item_are_compared_to_the_last_of_38_digits() {
    let record = record();
    for (bound, holds) in [
        ("99999999999999999999999999999999999997", true),
        ("99999999999999999999999999999999999998", false),
        ("99999999999999999999999999999999999999", false),
    ] {
        let pattern = format!(
            r#"{{"dynamodb": {{"NewImage": {{"huge": {{"N": [{{"numeric": [">", {bound}]}}]}}}}}}}}"#
        );
        let filter = Filter::parse(&pattern).unwrap();
        assert_eq!(filter.matches(&record), holds, "{bound}");
    }
}

#[test]
fn the_event_around_the_images_can_be_asked_too() {
    let mut record = record();
    let arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026";
    let holds = |pattern: Value, record: &Record| {
        let filter = Filter::parse(&pattern.to_string()).unwrap();
        filter.matches(Subject::new(record).from_stream(arn))
    };
    for pattern in [
        json!({"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"], "eventID": ["1"]}),
        json!({"awsRegion": ["eu-central-1"], "eventSourceARN": [{"prefix": "arn:aws:dynamodb:"}]}),
        json!({"eventVersion": ["1.1"], "userIdentity": {"type": [{"exists": false}]}}),
        json!({"dynamodb": {"SizeBytes": [{"numeric": ["<=", 26]}], "SequenceNumber": ["111"]}}),
        json!({"dynamodb": {"ApproximateCreationDateTime": [1_700_000_000]}}),
        json!({"dynamodb": {"Keys": {"id": {"S": ["1042"]}}, "StreamViewType": ["NEW_AND_OLD_IMAGES"]}}),
        json!({"dynamodb": {"OldImage": {"id": {"S": [{"exists": false}]}}}}),
    ] {
        assert!(holds(pattern.clone(), &record), "{pattern}");
    }
    let arn_asked = Filter::parse(r#"{"eventSourceARN": [{"exists": true}]}"#).unwrap();
    assert!(!arn_asked.matches(&record));
    let ttl = json!({"userIdentity": {
        "type": ["Service"], "principalId": ["dynamodb.amazonaws.com"]}});
    assert!(!holds(ttl.clone(), &record));
    record.event = aftercommit::Event::Remove;
    record.by_ttl = true;
    assert!(holds(ttl, &record));
    assert!(!Filter::parse(Filters::INSERTS).unwrap().matches(&record));
}

#[test]
fn objects_of_one_name_are_merged() {
    let record = record();
    let both = |status: &str, id: &str| {
        let pattern = format!(
            r#"{{"dynamodb": {{"NewImage": {{"status": {{"S": ["{status}"]}}}}}},
                "dynamodb": {{"NewImage": {{"id": {{"S": ["{id}"]}}}}}}}}"#
        );
        Filter::parse(&pattern).unwrap().matches(&record)
    };
    assert!(both("PAID", "1042"));
    assert!(!both("PAID", "1043"));
    assert!(!both("NEW", "1042"));
}

#[test]
fn one_of_several_filters_must_hold() {
    let record = record();
    let filter = |text: &str| Filter::parse(text).unwrap();
    let (yes, no) = (
        filter(r#"{"eventName": ["INSERT"]}"#),
        filter(r#"{"eventName": ["REMOVE"]}"#),
    );
    let both = Filters::new([no.clone(), yes]);
    assert!(both.matches(&record));
    assert_eq!(both.explain(&record), Explanation::Match { filter: 1 });
    let neither = Filters::new([no.clone(), no]);
    assert!(!neither.matches(&record));
    assert!(matches!(neither.explain(&record),
        Explanation::NoMatch { mismatches } if mismatches.len() == 2));
    assert!(Filters::default().matches(&record));
    assert_eq!(Filters::default().explain(&record), Explanation::NoFilters);
}
