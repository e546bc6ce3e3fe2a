//! Filter patterns against a second evaluator that knows nothing of the first, and parsing against
//! whatever may come.

use aftercommit::filter::Filter;
use aftercommit::record::lambda_event;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::arbitrary::{names, numbers, record, texts};

/// Whether the pattern holds for the event, written down as plainly as can be. A value under `N`
/// or `NS` is wrapped, because it is a text and a number at once.
fn holds(pattern: &Value, value: Option<&Value>) -> bool {
    match value {
        Some(Value::Array(list)) if list.is_empty() => holds(pattern, None),
        Some(Value::Array(list)) => {
            let one = |e: &&Value| holds(pattern, Some(e)) && stands(pattern, Some(e));
            let none = |e: &Value| holds(pattern, Some(e)) && !stands(pattern, Some(e));
            list.iter().any(|e| one(&e)) || list.iter().all(none)
        }
        _ => pattern.as_object().unwrap().iter().all(|(name, inner)| {
            if name == "$or" {
                return inner
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|one| holds(one, value));
            }
            let field = field(value, name);
            match inner {
                Value::Array(tests) => leaf_holds(tests, field.as_ref()),
                _ => holds(inner, field.as_ref()),
            }
        }),
    }
}

/// Whether something that the pattern names exists and passes.
fn stands(pattern: &Value, value: Option<&Value>) -> bool {
    if let Some(Value::Array(list)) = value {
        return list
            .iter()
            .any(|e| holds(pattern, Some(e)) && stands(pattern, Some(e)));
    }
    pattern.as_object().unwrap().iter().any(|(name, inner)| {
        if name == "$or" {
            let all = inner.as_array().unwrap();
            return all
                .iter()
                .any(|one| holds(one, value) && stands(one, value));
        }
        let field = field(value, name);
        match inner {
            Value::Array(tests) => scalars(field.as_ref()).iter().any(|s| passes_any(tests, s)),
            _ => stands(inner, field.as_ref()),
        }
    })
}

fn field(value: Option<&Value>, name: &str) -> Option<Value> {
    let found = value?.as_object()?.get(name)?.clone();
    let wrap = |digits: &Value| json!({"#": digits});
    Some(match (name, &found) {
        ("N", Value::String(_)) => wrap(&found),
        ("NS", Value::Array(all)) => all.iter().map(wrap).collect(),
        _ => found,
    })
}

fn scalars(value: Option<&Value>) -> Vec<Value> {
    match value {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().flat_map(|e| scalars(Some(e))).collect(),
        Some(Value::Object(map)) if !map.contains_key("#") => Vec::new(),
        Some(scalar) => vec![scalar.clone()],
    }
}

fn leaf_holds(tests: &[Value], value: Option<&Value>) -> bool {
    let scalars = scalars(value);
    if scalars.is_empty() {
        return tests.contains(&json!({"exists": false}));
    }
    scalars.iter().any(|scalar| passes_any(tests, scalar))
}

fn passes_any(tests: &[Value], scalar: &Value) -> bool {
    tests.iter().any(|test| passes(test, scalar))
}

#[expect(clippy::float_cmp, clippy::similar_names, reason = "few digits: exact")]
fn passes(test: &Value, scalar: &Value) -> bool {
    let text = scalar.as_str().or_else(|| scalar.get("#")?.as_str());
    let number = scalar
        .as_f64()
        .or_else(|| scalar.get("#")?.as_str()?.parse().ok());
    let Value::Object(operator) = test else {
        return match test {
            Value::String(wanted) => text == Some(wanted),
            Value::Number(wanted) => number == wanted.as_f64(),
            other => scalar == other,
        };
    };
    let (name, value) = operator.iter().next().unwrap();
    match name.as_str() {
        "exists" => value == &json!(true),
        "prefix" => text.is_some_and(|text| text.starts_with(value.as_str().unwrap())),
        "suffix" => text.is_some_and(|text| text.ends_with(value.as_str().unwrap())),
        "equals-ignore-case" => {
            text.map(str::to_lowercase) == value.as_str().map(str::to_lowercase)
        }
        "anything-but" => !value
            .as_array()
            .unwrap()
            .iter()
            .any(|one| passes(one, scalar)),
        "numeric" => number.is_some_and(|number| {
            value.as_array().unwrap().chunks(2).all(|pair| {
                let limit = pair[1].as_f64().unwrap();
                match pair[0].as_str().unwrap() {
                    "=" => number == limit,
                    "<" => number < limit,
                    "<=" => number <= limit,
                    ">" => number > limit,
                    _ => number >= limit,
                }
            })
        }),
        other => panic!("{other}"),
    }
}

fn plain_numbers() -> impl Strategy<Value = Value> {
    numbers().prop_map(|digits| serde_json::from_str(&digits).unwrap())
}

fn test() -> impl Strategy<Value = Value> {
    let list = |all| prop::collection::vec(all, 1..3);
    let words = || texts().prop_map(Value::from).boxed();
    prop_oneof![
        3 => words(),
        1 => numbers().prop_map(Value::from),
        2 => plain_numbers(),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        2 => any::<bool>().prop_map(|there| json!({"exists": there})),
        1 => texts().prop_map(|text| json!({"prefix": text})),
        1 => texts().prop_map(|text| json!({"suffix": text})),
        1 => texts().prop_map(|text| json!({"equals-ignore-case": text})),
        1 => list(words()).prop_map(|all| json!({"anything-but": all})),
        1 => list(plain_numbers().boxed()).prop_map(|all| json!({"anything-but": all})),
        2 => (prop::sample::select(vec!["=", "<", "<=", ">", ">="]), plain_numbers())
            .prop_map(|(sign, limit)| json!({"numeric": [sign, limit]})),
        1 => Just(json!({"numeric": [">", 0, "<=", 300]})),
    ]
}

/// A pattern below `NewImage`, with alternatives, and with fields that may be missing.
fn on_attributes() -> BoxedStrategy<Value> {
    let leaf = || {
        let letter = prop::sample::select(vec!["S", "N", "BOOL", "NULL", "SS", "NS", "B"]);
        (letter, prop::collection::vec(test(), 1..3)).prop_map(|(l, tests)| json!({l: tests}))
    };
    let typed = leaf().prop_recursive(3, 12, 3, move |inner| {
        let attributes = prop::collection::btree_map(names(), inner.clone(), 1..3);
        prop_oneof![
            attributes.prop_map(|map| json!({"M": map})),
            inner.clone().prop_map(|one| json!({"L": one})),
            (inner.clone(), inner).prop_map(|(a, b)| json!({"$or": [a, b]})),
        ]
    });
    let fields = prop::collection::btree_map(names(), typed, 1..3)
        .prop_map(|map| json!(map))
        .boxed();
    let both = (fields.clone(), fields.clone(), fields.clone());
    prop_oneof![
        2 => fields,
        1 => both.prop_map(|(mut all, a, b)| {
            all["$or"] = json!([a, b]);
            all
        }),
    ]
    .boxed()
}

/// A pattern on existing fields: some of them, with their own values and other tests.
fn aimed(value: &Value, others: &[Value], rng: &mut fastrand::Rng) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields = serde_json::Map::new();
            for (name, inner) in map {
                if fields.is_empty() || rng.bool() {
                    fields.insert(name.clone(), aimed(inner, others, rng));
                }
            }
            if fields.is_empty() || rng.u8(..8) == 0 {
                fields.insert("c".to_owned(), json!({"S": [{"exists": false}]}));
            }
            if rng.u8(..8) == 0 {
                let (a, b) = (aimed(value, others, rng), aimed(value, others, rng));
                fields.insert("$or".to_owned(), json!([a, b]));
            }
            Value::Object(fields)
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            aimed(&list[rng.usize(..list.len())], others, rng)
        }
        _ => {
            let mut tests: Vec<_> = (0..2)
                .map(|_| rng.choice(others).unwrap().clone())
                .collect();
            match value {
                Value::Array(list) => tests.extend(rng.choice(list).cloned()),
                scalar => tests.push(scalar.clone()),
            }
            rng.shuffle(&mut tests);
            tests.truncate(rng.usize(1..3));
            json!(tests)
        }
    }
}

fn agree(image: &Value, record: &aftercommit::Record) -> Result<(), TestCaseError> {
    let pattern = json!({"dynamodb": {"NewImage": image}});
    let filter = Filter::parse(&pattern.to_string()).unwrap();
    let event = lambda_event::write(record, None).unwrap();
    let expected = holds(&pattern, Some(&event));
    prop_assert_eq!(filter.matches(record), expected, "{} {}", pattern, event);
    prop_assert_eq!(filter.mismatch(record).is_none(), expected);
    Ok(())
}

/// Numbers can have any size, even one for which `serde_json` has no room.
fn is_json(text: &str) -> bool {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => true,
        Err(error) => error.to_string().starts_with("number out of range"),
    }
}

#[test]
fn a_number_of_any_size_is_a_number() {
    let pattern = r#"{"a": [{"numeric": ["=", 1e+938]}]}"#;
    assert!(is_json(pattern));
    Filter::parse(pattern).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn two_evaluators_agree(image in on_attributes(), record in record()) {
        agree(&image, &record)?;
    }

    #[test]
    fn two_evaluators_agree_on_patterns_that_nearly_hold(
        record in record(), tests in prop::collection::vec(test(), 8), seed in any::<u64>(),
    ) {
        let event = lambda_event::write(&record, None).unwrap();
        let image = event.pointer("/dynamodb/NewImage").unwrap_or(&Value::Null);
        if image.is_object() {
            let mut rng = fastrand::Rng::with_seed(seed);
            agree(&aimed(image, &tests, &mut rng), &record)?;
        }
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place_inside_of_it(pieces in prop::collection::vec(
        prop_oneof![
            prop::sample::select(vec![
                "{", "}", "[", "]", ":", ",", "\"", "\\", "\\u", "\"a\"", "\"$or\"", "\"numeric\"",
                "\"exists\"", "\"anything-but\"", "{\"a\":[", "]}", "1", "-", "e9", ".", "null",
                "true", " ", "\n", "\"<\"", "ä", "\\ud83d\\ude00",
            ]).prop_map(str::to_owned),
            any::<String>(),
        ], 0..40))
    {
        let text = pieces.concat();
        match Filter::parse(&text) {
            Ok(_) => prop_assert!(is_json(&text), "{}", text),
            Err(error) => {
                let line = text.split('\n').nth(error.line - 1).unwrap();
                prop_assert!((1..=line.chars().count() + 1).contains(&error.column));
            }
        }
    }

    #[test]
    fn a_pattern_with_one_letter_changed_is_read_or_refused(
        image in on_attributes(), at in any::<prop::sample::Index>(), letter in any::<char>(),
    ) {
        let text = json!({"dynamodb": {"NewImage": image}}).to_string();
        let mut letters: Vec<_> = text.chars().collect();
        let at = at.index(letters.len());
        letters[at] = letter;
        let changed: String = letters.into_iter().collect();
        prop_assert!(is_json(&changed) || Filter::parse(&changed).is_err());
    }
}
