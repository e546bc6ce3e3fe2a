//! How an item becomes an order, from the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::confirmation::address::Domains;
use crate::confirmation::mapping::Mapping;
use crate::confirmation::setting::Setting;
use crate::stores::tables::key::TableKey;
use anyhow::Context as _;
use clap::Args;

use crate::cli::fault::Fault;

/// How an item becomes an order: Jinja expressions over the item.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Orders")]
pub struct OrderArgs {
    /// JSON file with the expressions below by name, such as {"email": "customer.email"}; flags override it
    #[arg(long, value_name = "FILE", env = "AFTERCOMMIT_MAP")]
    map: Option<PathBuf>,
    /// Order id: one email is sent per id. Like all of these, a Jinja expression over the item's
    /// attributes, such as SK|replace("ORDER#", "") [default: the table's key, such as cust-7/ORDER-1]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_ID")]
    id: Option<String>,
    /// Customer's address, such as customer.email [default: email]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_EMAIL")]
    email: Option<String>,
    /// Customer's name [default: name or customer_name]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_NAME")]
    name: Option<String>,
    /// Total with its unit: total|decimal for 19.99, total|minor for 1999 [default: total|minor]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_TOTAL")]
    total: Option<String>,
    /// Currency: an attribute, or a constant in quotes: "'EUR'" [default: currency]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_CURRENCY")]
    currency: Option<String>,
    /// List of order lines [default: lines or items]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LINES")]
    lines: Option<String>,
    /// Article of a line, over the line's attributes [default: name or title, or the line itself if it is a
    /// string]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LINE_NAME")]
    line_name: Option<String>,
    /// Quantity of a line [default: quantity]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LINE_QUANTITY")]
    line_quantity: Option<String>,
    /// Unit price of a line, with its unit [default: unit_price|minor]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LINE_PRICE")]
    line_price: Option<String>,
    /// Customer's language: for de, body.de.txt replaces body.txt if it exists [default: language]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_LANGUAGE")]
    language: Option<String>,
    /// Reply-To of this order's email, such as seller.email [default: --reply-to]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_ORDER_REPLY_TO")]
    order_reply_to: Option<String>,
    /// Where bounces of this order's email go, such as seller.bounces [default: --bounces-to]
    #[arg(long, value_name = "EXPR", env = "AFTERCOMMIT_ORDER_BOUNCES_TO")]
    order_bounces_to: Option<String>,
    /// Allow domains without a dot, such as localhost
    #[arg(long, env = "AFTERCOMMIT_ALLOW_DOTLESS_DOMAINS")]
    allow_dotless_domains: bool,
}

impl OrderArgs {
    /// Only an id.
    pub fn of_id(id: Option<String>) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    fn flag(&self, setting: Setting) -> Option<&String> {
        match setting {
            Setting::Id => self.id.as_ref(),
            Setting::Email => self.email.as_ref(),
            Setting::Name => self.name.as_ref(),
            Setting::Total => self.total.as_ref(),
            Setting::Currency => self.currency.as_ref(),
            Setting::Lines => self.lines.as_ref(),
            Setting::LineName => self.line_name.as_ref(),
            Setting::LineQuantity => self.line_quantity.as_ref(),
            Setting::LinePrice => self.line_price.as_ref(),
            Setting::Language => self.language.as_ref(),
            Setting::ReplyTo => self.order_reply_to.as_ref(),
            Setting::BouncesTo => self.order_bounces_to.as_ref(),
        }
    }

    /// Whether an order says where its bounces go.
    pub fn sets_bounces(&self) -> bool {
        self.order_bounces_to.is_some()
    }

    /// The expressions of --map.
    fn of_file(&self) -> Result<BTreeMap<String, String>, Fault> {
        let Some(path) = &self.map else {
            return Ok(BTreeMap::new());
        };
        let of_file = || format!("--map {}", path.display());
        let text = std::fs::read_to_string(path).with_context(of_file);
        let text = text.map_err(Fault::Setting)?;
        let map: BTreeMap<String, String> = serde_json::from_str(&text)
            .context("expected a JSON object of expressions by name")
            .with_context(of_file)
            .map_err(Fault::Setting)?;
        let names = Setting::ALL.map(Setting::name);
        match map.keys().find(|name| !names.contains(&name.as_str())) {
            Some(unknown) => Err(Fault::wrong(format!(
                "{}: unknown setting {unknown:?}; expected one of {}",
                of_file(),
                names.join(", ")
            ))),
            None => Ok(map),
        }
    }

    /// The mapping. If no id is set, it uses this expression.
    pub fn with_default_id(&self, id: &str) -> Result<Mapping, Fault> {
        let file = self.of_file()?;
        let mut mapping = Mapping::new(id).map_err(Fault::setting)?;
        for setting in Setting::ALL {
            let (origin, expression) = match (self.flag(setting), file.get(setting.name())) {
                (Some(expression), _) => ("--".to_owned(), expression),
                (None, Some(expression)) => {
                    let path = self.map.as_deref().unwrap_or(Path::new(""));
                    (format!("--map {}: ", path.display()), expression)
                }
                (None, None) => continue,
            };
            mapping = mapping
                .with(setting, expression)
                .map_err(|error| Fault::wrong(format!("{origin}{error}")))?;
        }
        if self.allow_dotless_domains {
            mapping.domains = Domains::Any;
        }
        Ok(mapping)
    }

    /// The mapping for a table. If no id is set, it is the table's key.
    pub fn of_table(&self, key: &TableKey) -> Result<Mapping, Fault> {
        let sort = key.sort.as_ref().map(|sort| &*sort.name);
        self.of_key(&key.partition.name, sort)
    }

    /// The same, for a table whose key has these attributes.
    pub fn of_key(&self, partition: &str, sort: Option<&str>) -> Result<Mapping, Fault> {
        self.with_default_id(&Mapping::key_expression(partition, sort))
    }

    /// The mapping, if an id is set.
    pub fn named(&self) -> Result<Option<Mapping>, Fault> {
        if self.id.is_none() && !self.of_file()?.contains_key(Setting::Id.name()) {
            return Ok(None);
        }
        self.with_default_id("id").map(Some)
    }
}
