//! Filter patterns: each operator, each mistake, each explanation.

use aftercommit::Record;
use aftercommit::filter::{Explanation, Filter, Filters, Remark, Subject};
use aftercommit::record::lambda_event;
use serde_json::{Value, json};

fn record() -> Record {
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
fn on_image(pattern: &Value) -> Filter {
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
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_mistake_is_told_with_its_place_and_what_is_allowed() {
    for (pattern, told) in [
        (
            "",
            "line 1, column 1: the pattern ends where a JSON value was expected",
        ),
        ("[]", "line 1, column 1: a pattern is a JSON object such as"),
        ("{}", "line 1, column 1: an empty object allows nothing"),
        (
            "{\"a\": [\"x\"]} x",
            "line 1, column 14: expected the end of the pattern, found 'x'",
        ),
        (
            "{\n  \"ä\": [\"x\",]}",
            "line 2, column 13: expected a JSON value, found ']'",
        ),
        (
            "{\"a\": [\"x\"",
            "line 1, column 11: the pattern ends where ',' or ']' was expected",
        ),
        (
            "{'a': []}",
            "line 1, column 2: expected a name in double quotes, found '\\''",
        ),
        (
            "{\"a\": [\"\\x\"]}",
            "a backslash must be followed by one of",
        ),
        ("{\"a\": [\"\\ud800\"]}", "\\u must be followed by four"),
        ("{\"a\": [01]}", "column 9: expected ',' or ']', found '1'"),
        (
            "{\"a\": [1e9999999999]}",
            "at a: the number 1e9999999999 is out of all range",
        ),
        (
            r#"{"a": []}"#,
            "column 7, at a: an empty list allows nothing",
        ),
        (
            r#"{"a": {"b": "x"}}"#,
            r#"column 13, at a.b: expected a list of allowed values such as ["x"]"#,
        ),
        (
            r#"{"a": [["x"]]}"#,
            "column 8, at a: a list inside of a list",
        ),
        (
            r#"{"a": [{}]}"#,
            "at a: an empty operator: expected one of anything-but, prefix",
        ),
        (
            r#"{"a": [{"wildcard": "x*"}]}"#,
            "column 9, at a: EventBridge knows the operator \"wildcard\"",
        ),
        (
            r#"{"a": [{"prefixx": "x"}]}"#,
            "at a: unknown operator \"prefixx\"; expected one of",
        ),
        (
            r#"{"a": [{"prefix": "x", "suffix": "y"}]}"#,
            "at a: an operator is an object with one name",
        ),
        (
            r#"{"a": [{"prefix": 1}]}"#,
            "column 19, at a: prefix takes a text, found a number",
        ),
        (
            r#"{"a": [{"exists": "true"}]}"#,
            "at a: exists takes true or false, found a text",
        ),
        (
            r#"{"a": [{"anything-but": {"prefix": "x"}}]}"#,
            "anything-but takes a text, a number, or a list",
        ),
        (
            r#"{"a": [{"anything-but": []}]}"#,
            "anything-but takes a text, a number, or a list",
        ),
        (
            r#"{"a": [{"anything-but": ["x", 1]}]}"#,
            "either texts or numbers, not both",
        ),
        (
            r#"{"a": [{"numeric": [">", "5"]}]}"#,
            "a number without quotes here, found a text",
        ),
        (
            r#"{"a": [{"numeric": [">"]}]}"#,
            "a comparison without a number",
        ),
        (r#"{"a": [{"numeric": []}]}"#, "not a comparison or a range"),
        (
            r#"{"a": [{"numeric": ["!=", 5]}]}"#,
            "not one of = < <= > >=",
        ),
        (
            r#"{"a": [{"numeric": ["<", 5, ">", 1]}]}"#,
            "not a comparison or a range",
        ),
        (
            r#"{"a": [{"numeric": [">", 5, "<", 5.0]}]}"#,
            "no number lies between these bounds",
        ),
        (
            r#"{"$or": [{"a": ["x"]}]}"#,
            "at $or: $or needs at least two objects",
        ),
        (
            r#"{"$or": [{"a": ["x"]}, "b"]}"#,
            "column 24, at $or: $or chooses between objects, found a text",
        ),
        (r#"{"a": ["x"], "a": ["y"]}"#, "\"a\" is named twice"),
        (r#"{"a": {"b": ["x"]}, "a": ["y"]}"#, "\"a\" is named twice"),
    ] {
        let error = Filter::parse(pattern).unwrap_err().to_string();
        assert!(error.contains(told), "{pattern}\n{error}\n{told}");
        assert!(!error.contains('\n'), "{error}");
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
    let error = Filter::parse(&deep).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 128 levels"), "{error}");
}

#[test]
fn the_first_reason_is_told() {
    let record = record();
    for (pattern, told) in [
        (
            json!({"status": {"S": ["NEW", {"prefix": "X"}]}}),
            r#"dynamodb.NewImage.status.S: expected ["NEW",{"prefix":"X"}], found "PAID""#,
        ),
        (
            json!({"missing": {"S": ["NEW"]}}),
            r#"dynamodb.NewImage.missing.S: expected ["NEW"], found nothing"#,
        ),
        (
            json!({"$or": [{"id": {"S": ["7"]}}, {"id": {"S": ["8"]}}]}),
            r#"dynamodb.NewImage.$or[0].id.S: expected ["7"], found "1042""#,
        ),
        (
            json!({"tags": {"SS": ["old"]}}),
            r#"dynamodb.NewImage.tags.SS: expected ["old"], found ["new","vip"]"#,
        ),
    ] {
        let mismatch = on_image(&pattern).mismatch(&record).unwrap();
        assert_eq!(mismatch.to_string(), told);
    }
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

#[test]
fn a_pattern_that_is_probably_not_meant_so_is_remarked() {
    let remarks = |pattern: &str| -> Vec<String> {
        let filter = Filter::parse(pattern).unwrap();
        filter.remarks().iter().map(Remark::to_string).collect()
    };
    for (pattern, told) in [
        (
            r#"{"eventname": ["INSERT"]}"#,
            "eventname: a stream record never has this field",
        ),
        (
            r#"{"dynamodb": {"NewImage": {"a": {"s": ["x"]}}}}"#,
            "it has a type letter: one of S, N",
        ),
        (
            r#"{"dynamodb": {"NewImage": {"a": ["x"]}}}"#,
            "dynamodb.NewImage.a: no plain value stands here",
        ),
        (
            r#"{"eventName": {"a": ["x"]}}"#,
            "eventName: an object of the pattern never matches",
        ),
        (
            r#"{"dynamodb": {"NewImage": {"a": {"NULL": [null]}}}}"#,
            "write {\"NULL\": [true]}",
        ),
        (
            r#"{"dynamodb": {"NewImage": {"a": {"N": [5]}}}}"#,
            "numbers are compared by value here",
        ),
        (
            r#"{"dynamodb": {"NewImage": {"a": {"N": [{"anything-but": 5}]}}}}"#,
            "compared by value",
        ),
    ] {
        let all = remarks(pattern).join("\n");
        assert!(all.contains(told), "{pattern}\n{all}");
    }
    let many: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    let long = json!({"eventID": many}).to_string();
    let told = "Lambda takes 4096 at most";
    assert!(remarks(&long)[0].contains(told));
    for fine in [
        Filters::INSERTS,
        r#"{"dynamodb": {"NewImage": {"a": {"L": {"M": {"b": {"N": ["5"]}}}}}}}"#,
        r#"{"dynamodb": {"aws:rep": [{"exists": false}]}, "userIdentity": {"type": ["Service"]}}"#,
    ] {
        assert_eq!(remarks(fine), Vec::<String>::new(), "{fine}");
    }
}
