//! `aftercommit preview`: the mail for an order, without any server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aftercommit::Clock;
use aftercommit::confirmation::mail::Frozen;
use aftercommit::confirmation::order::Order;
use aftercommit::ledger::EffectKey;
use anyhow::Context as _;
use clap::Args;
use serde_dynamo::Item;
use serde_json::Value;

use crate::args::{LetterArgs, OrderArgs};
use crate::fault::Fault;
use crate::identity::EffectArg;

pub const EXAMPLES: &str = "\
Examples:
  # An order in plain JSON: money in minor units (4890 is EUR 48.90)
  echo '{\"id\": \"1042\", \"email\": \"ada@example.com\", \"total\": 4890, \"currency\": \"EUR\"}' > 1042.json
  aftercommit preview 1042.json --out preview/

  # An order of yours, with templates of yours
  aws dynamodb get-item --table-name orders --key '{\"id\": {\"S\": \"1042\"}}' > 1042.json
  aftercommit preview 1042.json --out preview/ --template-dir templates/";

/// What `preview` is told.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// The order: plain JSON, or DynamoDB's JSON as `aws dynamodb get-item` prints it; - reads
    /// standard input
    #[arg(value_name = "ORDER.json")]
    order: PathBuf,
    /// The directory for the three files, named after the order's file; made when missing
    #[arg(long, value_name = "DIR", env = "AFTERCOMMIT_OUT", default_value = ".")]
    out: PathBuf,
    #[command(flatten)]
    effect: EffectArg,
    #[command(flatten)]
    fields: OrderArgs,
    #[command(flatten)]
    letter: LetterArgs,
}

/// Writes the mail as `.eml`, `.html` and `.txt`, and says where.
pub fn preview(args: &PreviewArgs) -> Result<(), Fault> {
    let source = args.order.display();
    let item = read_item(&args.order)
        .with_context(|| format!("{source}"))
        .map_err(Fault::Setting)?;
    let fields = args.fields.with_default_id("id");
    let order = Order::from_item(&item, &fields)
        .with_context(|| format!("{source}"))
        .map_err(Fault::Setting)?;
    let letterhead = args.letter.letterhead_to_look_at()?;
    let content = letterhead.content(&order).map_err(Fault::Setting)?;
    let frozen = Frozen {
        date: Clock::system().now(),
        key: EffectKey::new(&args.effect.or_default(), &order.id),
    };
    let mail = letterhead.render(&order, &frozen).map_err(Fault::Setting)?;
    fs::create_dir_all(&args.out).with_context(|| format!("{}", args.out.display()))?;
    let name = args.order.file_stem().filter(|stem| *stem != "-");
    let name = args.out.join(name.unwrap_or("order".as_ref()));
    println!("Subject: {}", content.subject);
    write(&name, "eml", &mail.bytes)?;
    write(&name, "html", content.html.as_bytes())?;
    write(&name, "txt", content.text.as_bytes())?;
    Ok(())
}

fn write(name: &Path, ending: &str, bytes: &[u8]) -> Result<(), Fault> {
    // Not `with_extension`: a name may have dots of its own.
    let mut path = name.as_os_str().to_owned();
    path.push(format!(".{ending}"));
    let path = PathBuf::from(path);
    fs::write(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// A file's text; of `-`, standard input's.
pub fn read_text(path: &Path) -> io::Result<String> {
    if path.as_os_str() == "-" {
        return io::read_to_string(io::stdin());
    }
    fs::read_to_string(path)
}

fn read_item(path: &Path) -> anyhow::Result<Item> {
    let text = read_text(path)?;
    let value: Value = serde_json::from_str(&text).context("this is no JSON")?;
    item_of_json(unwrapped(value))
}

/// The item inside of what the AWS tools print around it.
fn unwrapped(mut value: Value) -> Value {
    for path in ["/Item", "/dynamodb/NewImage", "/NewImage"] {
        if let Some(inner) = value.pointer_mut(path).filter(|inner| inner.is_object()) {
            return inner.take();
        }
    }
    value
}

/// An item from DynamoDB's JSON if every attribute has its type letter, else from plain JSON.
pub fn item_of_json(value: Value) -> anyhow::Result<Item> {
    const LETTERS: [&str; 10] = ["S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"];
    let typed = |value: &Value| {
        value.as_object().is_some_and(|map| {
            map.len() == 1 && map.keys().all(|key| LETTERS.contains(&key.as_str()))
        })
    };
    let map = value
        .as_object()
        .context("this is no order: expected a JSON object with the order's attributes")?;
    if !map.is_empty() && map.values().all(typed) {
        return serde_json::from_value(value).context("this is no DynamoDB JSON");
    }
    Ok(serde_dynamo::to_item(value)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_dynamo::AttributeValue as A;
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Item {
        item_of_json(unwrapped(value)).unwrap()
    }

    #[test]
    fn plain_and_dynamodb_json_are_told_apart() {
        let plain = read(json!({"id": "7", "total": 1999, "gift": true, "tags": ["a"]}));
        let typed = json!({"id": {"S": "7"}, "total": {"N": "1999"}, "gift": {"BOOL": true},
            "tags": {"L": [{"S": "a"}]}});
        assert_eq!(plain, read(typed.clone()));
        assert_eq!(plain, read(json!({"Item": typed})));
        assert_eq!(plain, read(json!({"dynamodb": {"NewImage": typed}})));
    }

    #[test]
    fn a_fraction_keeps_its_digits_for_the_message() {
        let item = read(json!({"total": 19.99}));
        assert_eq!(item.get("total"), Some(&A::N("19.99".to_owned())));
    }

    #[test]
    fn what_is_no_object_is_no_order() {
        for value in [json!([]), json!("order"), json!(null)] {
            assert!(item_of_json(unwrapped(value)).is_err());
        }
    }
}
