//! `aftercommit preview`: renders the emails for orders, without a mail server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Clock;
use crate::confirmation::dynamodb::DynamoDbLookup;
use crate::confirmation::lookup::{Current, Lookup as _};
use crate::confirmation::mail::{Frozen, Letterhead};
use crate::confirmation::mapping::Mapping;
use crate::confirmation::order::Order;
use crate::confirmation::wanted::Wanted;
use crate::stores::dead_letter::key_in_words;
use crate::stores::ledger::EffectKey;
use crate::stores::tables::dynamodb::{sample, table_key};
use crate::stores::tables::key::TableKey;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_dynamo::Item;

use crate::cli::args::identity::EffectArg;
use crate::cli::args::item::read_item;
use crate::cli::args::mail::LetterArgs;
use crate::cli::args::order::OrderArgs;
use crate::cli::args::place::keys_of;
use crate::cli::args::records::WantedArgs;
use crate::cli::fault::Fault;
use crate::cli::host::aws::{self, Clients};
use crate::cli::render::out::{plain, print_all};

pub const EXAMPLES: &str = "\
Examples:
  # Show what ten items of a table become, and which fail, and why
  aftercommit preview --table shop --sample 10 --email customer.email --total 'total|decimal'

  # Render the email for one item
  aftercommit preview --table shop --key PK=CUST#7,SK=ORDER#1042 --out preview/

  # Render an order in plain JSON: money in minor units (4890 is EUR 48.90)
  echo '{\"id\": \"1042\", \"email\": \"ada@example.com\", \"total\": 4890, \"currency\": \"EUR\"}' > 1042.json
  aftercommit preview 1042.json --out preview/

  # Render your own order with your own templates
  aws dynamodb get-item --table-name orders --key '{\"id\": {\"S\": \"1042\"}}' > 1042.json
  aftercommit preview 1042.json --out preview/ --template-dir templates/

Use the settings of `aftercommit run`; the same environment will do.
Exit codes: 0 every item becomes an email or is not an order (--only), 1 an item fails, 2 a setting or the
order's file is wrong.";

/// Arguments of `preview`.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// Order as plain JSON, or DynamoDB's JSON as `aws dynamodb get-item` prints it; - reads standard input
    #[arg(value_name = "ORDER.json", required_unless_present = "table")]
    order: Option<PathBuf>,
    /// Table (name or ARN) whose items are read, in place of a file
    #[arg(long, value_name = "TABLE", env = "AFTERCOMMIT_TABLE")]
    table: Option<String>,
    /// Key of the one item to read: PK=CUST#7,SK=ORDER#1, or JSON
    #[arg(
        long,
        value_name = "KEY",
        env = "AFTERCOMMIT_KEY",
        conflicts_with = "sample"
    )]
    key: Option<String>,
    /// Number of items to read, in any order
    #[arg(
        long,
        value_name = "NUMBER",
        env = "AFTERCOMMIT_SAMPLE",
        default_value = "10",
        value_parser = clap::value_parser!(i32).range(1..=1_000)
    )]
    sample: i32,
    /// Directory for the files of each email, created if missing [default: the current directory for an
    /// order in a file, none for a table]
    #[arg(long, value_name = "DIR", env = "AFTERCOMMIT_OUT")]
    out: Option<PathBuf>,
    #[command(flatten)]
    effect: EffectArg,
    #[command(flatten)]
    wanted: WantedArgs,
    #[command(flatten)]
    fields: OrderArgs,
    #[command(flatten)]
    letter: LetterArgs,
}

/// Shows the email for an order in a file, or for items of a table.
pub async fn preview(args: &PreviewArgs) -> Result<(), Fault> {
    let letterhead = args.letter.letterhead_to_look_at()?;
    let wanted = args.wanted.wanted()?;
    match (&args.order, &args.table) {
        (Some(file), _) => of_file(args, file, &letterhead, &wanted),
        (None, Some(table)) => of_table(args, table, &letterhead, &wanted).await,
        (None, None) => Err(Fault::wrong("name the order's file, or --table")),
    }
}

/// Writes the email as `.eml`, `.html` and `.txt`, and prints the paths.
fn of_file(
    args: &PreviewArgs,
    file: &Path,
    letterhead: &Letterhead,
    wanted: &Wanted,
) -> Result<(), Fault> {
    let in_file = || format!("{}", file.display());
    let item = read_item(file);
    let item = item.with_context(in_file).map_err(Fault::Setting)?;
    let mapping = args.fields.with_default_id("id")?;
    let wants = wanted.wants(&item).with_context(in_file);
    if !wants.map_err(Fault::Setting)? {
        return Ok(print_all(&format!("{}: {UNWANTED}\n", file.display()))?);
    }
    let order = mapping.order(&item).with_context(in_file);
    let order = order.map_err(Fault::Setting)?;
    let name = file.file_stem().filter(|stem| *stem != "-");
    let out = args.out.as_deref().unwrap_or(Path::new("."));
    let name = out.join(name.unwrap_or("order".as_ref()));
    let made = mail(args, &order, letterhead, Some(&name)).with_context(in_file);
    let (subject, files) = made.map_err(Fault::Setting)?;
    let files = files.iter().map(|file| format!("{}\n", file.display()));
    let files: String = files.collect();
    Ok(print_all(&format!("Subject: {subject}\n{files}"))?)
}

const UNWANTED: &str = "not an order to confirm (--only, --not-before)";

/// Prints the email of each item, or the reason why it gets none.
async fn of_table(
    args: &PreviewArgs,
    table: &str,
    letterhead: &Letterhead,
    wanted: &Wanted,
) -> Result<(), Fault> {
    let clients = aws::clients(None).await.map_err(Fault::Setting)?;
    let found = table_key(&clients.dynamodb, table).await;
    let found = found.map_err(Fault::setting)?;
    let mapping = args.fields.of_table(&found)?;
    let items = items(args, &clients, table, &found).await?;
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let (mut mails, mut left_out, mut failed) = (0_u32, 0_u32, 0_u32);
    let mut text = String::new();
    for (n, item) in (1..).zip(&items) {
        let key = plain(&key_in_words(&keys(item, &found)));
        let seen = look(args, item, (&mapping, wanted, letterhead), n).and_then(|seen| {
            let Some((order, subject, files)) = seen else {
                return Ok(None);
            };
            match ids.insert(order.clone(), key.clone()) {
                Some(other) => Err(anyhow!(
                    "has the same order id, {order}, as {other}: only one of them would be \
                     mailed; set an --id that differs"
                )),
                None => Ok(Some((order, subject, files))),
            }
        });
        // Writing into a String cannot fail.
        let _ = match seen {
            Ok(Some((order, subject, files))) => {
                mails += 1;
                let _ = writeln!(text, "{key}: order {}: {subject}", plain(&order));
                files
                    .iter()
                    .try_for_each(|file| writeln!(text, "  {}", file.display()))
            }
            Ok(None) => {
                left_out += 1;
                writeln!(text, "{key}: {UNWANTED}")
            }
            Err(error) => {
                failed += 1;
                writeln!(text, "{key}: FAILS: {}", plain(&format!("{error:#}")))
            }
        };
    }
    let _ = writeln!(
        text,
        "{} items: {mails} become mails, {left_out} are not orders, {failed} fail",
        items.len()
    );
    print_all(&text)?;
    if failed > 0 { Err(Fault::No) } else { Ok(()) }
}

async fn items(
    args: &PreviewArgs,
    clients: &Clients,
    table: &str,
    found: &TableKey,
) -> Result<Vec<Item>, Fault> {
    let client = &clients.dynamodb;
    let Some(key) = &args.key else {
        return Ok(sample(client, table, args.sample).await?);
    };
    let orders = DynamoDbLookup::new().refetching(client.clone(), table);
    match orders.order(&keys_of(found, key)?).await? {
        Current::Item(item) => Ok(vec![item]),
        _ => Err(Fault::Work(anyhow!(
            "table {table} has no item with the key {key}"
        ))),
    }
}

/// The item's key attributes.
fn keys(item: &Item, table: &TableKey) -> Item {
    let sort = table.sort.as_ref().map(|sort| &sort.name);
    let mut keys = item.clone();
    keys.inner_mut()
        .retain(|name, _| *name == table.partition.name || Some(name) == sort);
    keys
}

type Previewed = (String, String, Vec<PathBuf>);

/// The order's id, the email's subject and its files. `None` if the item is not wanted.
fn look(
    args: &PreviewArgs,
    item: &Item,
    (mapping, wanted, letterhead): (&Mapping, &Wanted, &Letterhead),
    number: usize,
) -> anyhow::Result<Option<Previewed>> {
    if !wanted.wants(item)? {
        return Ok(None);
    }
    let order = mapping.order(item)?;
    let named = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    let name: String = order.id.chars().map(named).take(60).collect();
    let path = args
        .out
        .as_ref()
        .map(|out| out.join(format!("{number}-{name}")));
    let (subject, files) = mail(args, &order, letterhead, path.as_deref())?;
    Ok(Some((order.id, subject, files)))
}

/// Renders the email, and writes its files if a path is given.
fn mail(
    args: &PreviewArgs,
    order: &Order,
    letterhead: &Letterhead,
    path: Option<&Path>,
) -> anyhow::Result<(String, Vec<PathBuf>)> {
    let content = letterhead.content(order)?;
    let frozen = Frozen {
        date: Clock::system().now(),
        key: EffectKey::new(&args.effect.or_default(), &order.id),
    };
    let mail = letterhead.render(order, &frozen)?;
    let mut files = Vec::new();
    if let Some(path) = path {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        files.push(write(path, "eml", &mail.bytes)?);
        files.push(write(path, "html", content.html.as_bytes())?);
        files.push(write(path, "txt", content.text.as_bytes())?);
    }
    Ok((content.subject, files))
}

fn write(name: &Path, ending: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    // `with_extension` would replace the end of a name with dots.
    let mut path = name.as_os_str().to_owned();
    path.push(format!(".{ending}"));
    let path = PathBuf::from(path);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
