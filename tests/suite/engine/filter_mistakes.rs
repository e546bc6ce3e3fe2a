//! The messages about filter patterns: each error, each reason for a mismatch, each remark; and the
//! command.

use aftercommit::filter::{Filter, Filters, Remark};
use aftercommit::record::lambda_event;
use serde_json::json;

use crate::cli::start::{aftercommit, complaint, text};
use crate::engine::filter::{on_image, record};

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_mistake_is_reported_with_its_place_and_what_is_allowed() {
    for (pattern, reported) in [
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
            r#"{"a\r\nb": "x"}"#,
            r"column 12, at a\r\nb: expected a list of allowed values",
        ),
        (r#"{"a": [["x"]]}"#, "column 8, at a: a list inside a list"),
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
        assert!(error.contains(reported), "{pattern}\n{error}\n{reported}");
        assert!(!error.contains('\n'), "{error}");
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
    let error = Filter::parse(&deep).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 128 levels"), "{error}");
}

#[test]
fn the_first_reason_is_reported() {
    let record = record();
    for (pattern, reported) in [
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
        assert_eq!(mismatch.to_string(), reported);
    }
}

#[test]
fn a_pattern_that_is_probably_not_meant_so_is_remarked() {
    let remarks = |pattern: &str| -> Vec<String> {
        let filter = Filter::parse(pattern).unwrap();
        filter.remarks().iter().map(Remark::to_string).collect()
    };
    for (pattern, reported) in [
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
            "dynamodb.NewImage.a: this is not a plain value",
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
        assert!(all.contains(reported), "{pattern}\n{all}");
    }
    for (pattern, reported) in [
        (
            r#"{"eventName": ["insert"]}"#,
            "eventName: \"insert\" is never the value here: the value is one of INSERT, MODIFY, REMOVE",
        ),
        (
            r#"{"eventName": ["INSERT", "Modify"]}"#,
            "\"Modify\" is never the value here",
        ),
        (
            r#"{"eventSource": ["aws:kinesis"]}"#,
            "the value is one of aws:dynamodb",
        ),
        (
            r#"{"dynamodb": {"StreamViewType": [{"prefix": "new"}]}}"#,
            "one of the tests never holds",
        ),
        (
            r#"{"dynamodb": {"NewImage": {"coupon": [{"exists": false}]}}}"#,
            "dynamodb.NewImage.coupon: always holds, whether it is there or not",
        ),
        (
            r#"{"dynamodb": {"NewImage": {"gift": {"BOOL": ["true"]}}}}"#,
            "dynamodb.NewImage.gift.BOOL: the value is true or false, without quotes",
        ),
        (
            r#"{"dynamodb": {"NewImage": {"gift": {"S": [true]}}}}"#,
            "dynamodb.NewImage.gift.S: the value is a text",
        ),
    ] {
        let all = remarks(pattern).join("\n");
        assert!(all.contains(reported), "{pattern}\n{all}");
    }
    let many: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    let long = json!({"eventID": many}).to_string();
    let reported = "Lambda takes 4096 at most";
    assert!(remarks(&long)[0].contains(reported));
    for fine in [
        Filters::INSERTS,
        r#"{"dynamodb": {"NewImage": {"a": {"L": {"M": {"b": {"N": ["5"]}}}}}}}"#,
        r#"{"eventName": [{"equals-ignore-case": "insert"}, {"anything-but": ["REMOVE"]}]}"#,
        r#"{"dynamodb": {"NewImage": {"gift": {"BOOL": [true]}, "a": {"S": [{"exists": false}]}}}}"#,
        r#"{"dynamodb": {"aws:rep": [{"exists": false}]}, "userIdentity": {"type": ["Service"]}}"#,
    ] {
        assert_eq!(remarks(fine), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn a_filter_that_lets_any_change_of_an_old_item_through_is_known() {
    let passes = |pattern: &str| Filter::parse(pattern).unwrap().passes_any_change();
    for blind in [
        r#"{"dynamodb": {"NewImage": {"status": {"S": ["PAID"]}}}}"#,
        r#"{"eventName": ["INSERT", "MODIFY"]}"#,
        r#"{"eventName": [{"anything-but": "REMOVE"}]}"#,
        r#"{"$or": [{"eventName": ["INSERT"]}, {"dynamodb": {"NewImage": {"a": {"S": ["b"]}}}}]}"#,
    ] {
        assert!(passes(blind), "{blind}");
    }
    for sees in [
        Filters::INSERTS,
        r#"{"eventName": ["REMOVE"]}"#,
        r#"{"eventName": ["MODIFY"], "dynamodb": {"NewImage": {"status": {"S": ["PAID"]}},
            "OldImage": {"status": {"S": [{"anything-but": ["PAID"]}]}}}}"#,
        PAID,
    ] {
        assert!(!passes(sees), "{sees}");
    }
}

/// As in `run --help`.
const PAID: &str = r#"{
    "dynamodb": {"NewImage": {"status": {"S": ["PAID"]}}},
    "$or": [{"eventName": ["INSERT"]}, {"eventName": ["MODIFY"],
        "dynamodb": {"OldImage": {"status": {"S": [{"anything-but": ["PAID"]},
            {"exists": false}]}}}}]}"#;

#[tokio::test]
async fn the_filter_for_paid_orders_in_the_help_is_the_tested_one() {
    let output = aftercommit()
        .args(["run", "--help"])
        .output()
        .await
        .unwrap();
    let words = |text: &str| text.split_whitespace().collect::<String>();
    assert!(words(&text(&output.stdout)).contains(&words(PAID)));
}

#[tokio::test]
async fn the_command_explains_a_record_with_exit_codes_for_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.json");
    let event = lambda_event::write(&record(), None).unwrap();
    std::fs::write(&path, json!({"Records": [event]}).to_string()).unwrap();
    let explain = async |pattern: &str| {
        let mut command = aftercommit();
        command.args(["filter", "explain", "--pattern", pattern, "--record"]);
        command.arg(&path).output().await.unwrap()
    };
    let output = explain(Filters::INSERTS).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "111: match (pattern 1)\n");
    let output = explain(r#"{"eventName": ["REMOVE"]}"#).await;
    assert_eq!(output.status.code(), Some(1));
    let reported =
        "111: no match (pattern 1): eventName: expected [\"REMOVE\"], found \"INSERT\"\n";
    assert_eq!(text(&output.stdout), reported);
    let reported = complaint(&explain(r#"{"eventName": "REMOVE"}"#).await);
    let place = "pattern 1: line 1, column 15, at eventName: expected a list of allowed values";
    assert!(reported.contains(place), "{reported}");
    std::fs::write(&path, "{}").unwrap();
    let reported = complaint(&explain(Filters::INSERTS).await);
    assert!(
        reported.contains("is this a DynamoDB stream record?"),
        "{reported}"
    );
}
