//! Calls of the SDK, read out of the source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::read;

/// A call of the SDK, and the actions that allow it. Raw mails are sent by the operation `SendEmail` and
/// allowed by the action `SendRawEmail`; AWS's own
/// [grant](https://docs.aws.amazon.com/cdk/api/v2/docs/aws-cdk-lib.aws_ses.EmailIdentity.html#grantwbrsendwbremailgrantee)
/// has both. A transaction has no action of its own: each of its parts needs one
/// ([IAM for transactions](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html)).
const OPERATIONS: &[(&str, &[&str])] = &[
    ("create_table", &["dynamodb:CreateTable"]),
    ("describe_stream", &["dynamodb:DescribeStream"]),
    ("describe_table", &["dynamodb:DescribeTable"]),
    ("describe_time_to_live", &["dynamodb:DescribeTimeToLive"]),
    ("list_streams", &["dynamodb:ListStreams"]),
    ("get_queue_url", &["sqs:GetQueueUrl"]),
    ("get_records", &["dynamodb:GetRecords"]),
    ("get_secret_value", &["secretsmanager:GetSecretValue"]),
    ("get_shard_iterator", &["dynamodb:GetShardIterator"]),
    ("publish", &["sns:Publish"]),
    ("scan", &["dynamodb:Scan"]),
    ("send_email", &["ses:SendEmail", "ses:SendRawEmail"]),
    ("send_message", &["sqs:SendMessage"]),
    (
        "update_continuous_backups",
        &["dynamodb:UpdateContinuousBackups"],
    ),
    ("update_table", &["dynamodb:UpdateTable"]),
    ("update_time_to_live", &["dynamodb:UpdateTimeToLive"]),
];

/// The files whose `Table` makes all calls for rows, and what they need: its methods on one row, and the
/// parts of its transactions.
pub const ROWS: [&str; 2] = [
    "src/stores/rows/dynamodb.rs",
    "src/stores/rows/dynamodb/bulk.rs",
];
const ROW_CALLS: &[(&str, &str)] = &[
    ("get(", "dynamodb:GetItem"),
    ("get_by(", "dynamodb:GetItem"),
    // Which rows a shared call leaves out is known only then.
    ("get_together(", "dynamodb:BatchGetItem"),
    ("get_together(", "dynamodb:GetItem"),
    ("put(", "dynamodb:PutItem"),
    ("update(", "dynamodb:UpdateItem"),
    ("delete(", "dynamodb:DeleteItem"),
    ("query(", "dynamodb:Query"),
    ("query_page(", "dynamodb:Query"),
    ("index_page(", "dynamodb:Query"),
    ("count(", "dynamodb:Query"),
    ("scan(", "dynamodb:Scan"),
];
const PARTS: &[(&str, &str)] = &[
    ("Part::Put(", "dynamodb:PutItem"),
    ("Part::Update(", "dynamodb:UpdateItem"),
    ("Part::Delete(", "dynamodb:DeleteItem"),
    ("Part::Demand(", "dynamodb:ConditionCheckItem"),
];

/// These functions, and those of the same file that they call.
pub fn reached(functions: &BTreeMap<String, String>, entries: &[&str]) -> BTreeSet<String> {
    let mut waiting: Vec<_> = entries.iter().map(|name| (*name).to_owned()).collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        let body = functions
            .get(&name)
            .unwrap_or_else(|| panic!("there is no function {name}"));
        let calls = |other: &String| {
            let own = body.contains(&format!("self.{other}("));
            own || body.match_indices(&format!("{other}(")).any(|(at, _)| {
                !body[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.'))
            })
        };
        waiting.extend(
            functions
                .keys()
                .filter(|other| calls(other) && !reached.contains(*other))
                .cloned(),
        );
        reached.insert(name);
    }
    reached
}

/// The actions that the calls of the SDK in a function need.
pub fn operations(body: &str) -> BTreeSet<String> {
    let called = OPERATIONS
        .iter()
        .filter(|(name, _)| body.contains(&format!(".{name}()")));
    called
        .flat_map(|(_, actions)| actions.iter().map(|one| (*one).to_owned()))
        .collect()
}

/// The actions that a function needs on the rows of the table that it reaches by `table`.
pub fn rows(body: &str, table: &str) -> BTreeSet<String> {
    let calls = ROW_CALLS
        .iter()
        .filter(|(call, _)| body.contains(&format!("{table}{call}")));
    // Only the file's own table has transactions.
    let parts = PARTS
        .iter()
        .filter(|(part, _)| table == ".table." && body.contains(part));
    calls
        .chain(parts)
        .map(|(_, action)| (*action).to_owned())
        .collect()
}

/// The functions of a file, without its tests, each on one line.
pub fn functions(file: &str) -> BTreeMap<String, String> {
    let text = read(file);
    let (code, _) = text.split_once("mod tests {").unwrap_or((&text, ""));
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in code
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
    {
        if let Some((before, rest)) = line.split_once("fn ")
            && before
                .split_whitespace()
                .all(|word| ["async", "pub", "pub(crate)", "pub(super)"].contains(&word))
        {
            rest.split(['(', '<']).next().unwrap().clone_into(&mut name);
            all.entry(name.clone()).or_default();
            continue;
        }
        let body = all.entry(name.clone()).or_default();
        if !line.starts_with('.') {
            body.push(' ');
        }
        body.push_str(line);
    }
    all
}

/// The files that may make calls: those that import the SDK, and those that hold its clients.
pub fn sources() -> Vec<String> {
    let mut files = Vec::new();
    walk(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        Path::new("src"),
        &mut files,
    );
    let all = files.iter().map(|path| path.to_str().unwrap().to_owned());
    all.filter(|file| {
        let text = read(file);
        ["aws_sdk_", "Clients", ".table."]
            .iter()
            .any(|word| text.contains(word))
    })
    .collect()
}

fn walk(top: &Path, folder: &Path, into: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(top.join(folder)).unwrap();
    for entry in entries.map(Result::unwrap) {
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            walk(top, &path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !path.ends_with("tests.rs")
        {
            into.push(path);
        }
    }
}

/// Every name that looks like an operation of the SDK is known, so that a new one is not overlooked.
#[test]
fn every_operation_in_the_source_is_known() {
    let rows = [
        "batch_get_item",
        "delete_item",
        "get_item",
        "put_item",
        "query",
        "scan",
        "transact_write_items",
        "update_item",
    ];
    let verbs = [
        "batch_",
        "change_",
        "create_",
        "delete_",
        "describe_",
        "get_",
        "list_",
        "publish",
        "put_",
        "query",
        "receive_",
        "scan",
        "send_",
        "start_",
        "transact_",
        "update_",
    ];
    let mut unknown = BTreeSet::new();
    for file in sources() {
        for body in functions(&file).values() {
            for (at, _) in body.match_indices("()") {
                let name = body[..at]
                    .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                let is_call = body[..at - name.len()].ends_with('.');
                let known = OPERATIONS.iter().any(|(known, _)| *known == name)
                    || (ROWS.contains(&&*file) && rows.contains(&name));
                if is_call && !known && verbs.iter().any(|verb| name.starts_with(verb)) {
                    unknown.insert(format!("{file}: {name}"));
                }
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "name their actions in `OPERATIONS`: {unknown:#?}"
    );
}
