//! An existing table: its ARN, its key, its stream and some of its items.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType, TableDescription};
use serde_dynamo::Item;

use crate::core::record::StreamView;
use crate::stores::aws_error::AwsError;
use crate::stores::tables::key::{KeyAttribute, KeyKind, TableKey};

/// Some items of a table from one Scan: at most this many are read.
///
/// # Errors
///
/// A missing permission, no connection.
pub async fn sample(client: &Client, table: &str, count: i32) -> anyhow::Result<Vec<Item>> {
    let scan = client.scan().table_name(table).limit(count);
    let answer = scan.send().await.map_err(|error| failed(table, &error))?;
    let items = answer.items.into_iter().flatten();
    Ok(items.map(Item::from).collect())
}

/// A table and its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStream {
    /// The table's name.
    pub table: String,
    /// The ARN of the stream that is enabled now.
    pub arn: String,
    /// Which images its records carry.
    pub view: StreamView,
    /// The name of the table's partition key.
    pub partition_key: String,
    /// The name of its sort key, if it has one.
    pub sort_key: Option<String>,
    /// Whether it is a replica of a global table.
    pub replicated: bool,
}

/// Why a table cannot be followed, and how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no such table here.
    #[error(
        "table {table} does not exist in this account and Region: check the name, or create it"
    )]
    NoTable {
        /// The table.
        table: String,
    },
    /// The table has no stream that is enabled.
    #[error(
        "table {table} has no stream: enable one with the view type NEW_AND_OLD_IMAGES \
         (aws dynamodb update-table --table-name {table} --stream-specification \
         StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES)"
    )]
    NoStream {
        /// The table.
        table: String,
    },
    /// The records of the stream do not carry the item as it is after the change.
    #[error(
        "the stream of table {table} carries {view}, not the new image: disable it and enable one \
         with NEW_AND_OLD_IMAGES (the view of a stream cannot be changed)"
    )]
    NoNewImages {
        /// The table.
        table: String,
        /// What the stream carries.
        view: StreamView,
    },
    /// The table could not be described: no connection, no permission, and the like.
    #[error(transparent)]
    Call(AwsError),
    /// The answer lacks a required field.
    #[error("DynamoDB DescribeTable on table {table}: the answer has no {what}")]
    Odd {
        /// The table.
        table: String,
        /// What is missing.
        what: &'static str,
    },
}

/// The ARN of a table. `table` is a name or an ARN; an ARN needs no call.
///
/// # Errors
///
/// [`ResolveError::NoTable`] or [`ResolveError::Call`].
pub async fn table_arn(client: &Client, table: &str) -> Result<String, ResolveError> {
    if table.starts_with("arn:") {
        return Ok(table.to_owned());
    }
    let arn = described(client, table).await?.table_arn;
    arn.ok_or_else(|| odd(table, "ARN"))
}

/// The ARN and the key of a table. `table` is a name or an ARN.
///
/// # Errors
///
/// [`ResolveError::NoTable`], [`ResolveError::Call`] or [`ResolveError::Odd`].
pub async fn table_key(client: &Client, table: &str) -> Result<TableKey, ResolveError> {
    let described = described(client, table).await?;
    let attribute = |kind: &KeyType| {
        let mut keys = described.key_schema().iter();
        let name = keys.find(|key| key.key_type() == kind)?.attribute_name();
        let mut definitions = described.attribute_definitions().iter();
        let definition = definitions.find(|one| one.attribute_name() == name)?;
        let kind = match definition.attribute_type() {
            ScalarAttributeType::N => KeyKind::Number,
            ScalarAttributeType::B => KeyKind::Binary,
            _ => KeyKind::Text,
        };
        Some(KeyAttribute {
            name: name.to_owned(),
            kind,
        })
    };
    Ok(TableKey {
        arn: described
            .table_arn()
            .ok_or_else(|| odd(table, "ARN"))?
            .to_owned(),
        partition: attribute(&KeyType::Hash).ok_or_else(|| odd(table, "key"))?,
        sort: attribute(&KeyType::Range),
    })
}

fn odd(table: &str, what: &'static str) -> ResolveError {
    ResolveError::Odd {
        table: table.to_owned(),
        what,
    }
}

async fn described(client: &Client, table: &str) -> Result<TableDescription, ResolveError> {
    let answer = client.describe_table().table_name(table).send().await;
    let answer = answer.map_err(|error| match error.code() {
        Some("ResourceNotFoundException") => ResolveError::NoTable {
            table: table.to_owned(),
        },
        _ => ResolveError::Call(failed(table, &error)),
    })?;
    answer.table.ok_or_else(|| odd(table, "table"))
}

/// A table, with or without a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedTable {
    /// The table's name.
    pub table: String,
    /// The table's ARN.
    pub arn: String,
    /// The name of its partition key.
    pub partition_key: String,
    /// The name of its sort key, if it has one.
    pub sort_key: Option<String>,
    /// Whether it is a replica of a global table.
    pub replicated: bool,
    /// The ARN of the stream that is enabled now, and which images its records carry.
    stream: Option<(String, StreamView)>,
}

impl FollowedTable {
    /// Finds a table. `table` is a name or an ARN.
    ///
    /// # Errors
    ///
    /// [`ResolveError::NoTable`], [`ResolveError::Call`] or [`ResolveError::Odd`].
    pub async fn describe(client: &Client, table: &str) -> Result<Self, ResolveError> {
        let described = described(client, table).await?;
        let view = described
            .stream_specification
            .filter(|stream| stream.stream_enabled)
            .and_then(|stream| stream.stream_view_type)
            .and_then(|view| StreamView::from_word(view.as_str()));
        let key = |kind: &KeyType| {
            let keys = described.key_schema.iter().flatten();
            let mut named = keys.filter(|key| key.key_type == *kind);
            named.next().map(|key| key.attribute_name.clone())
        };
        Ok(Self {
            table: described.table_name.unwrap_or_else(|| table.to_owned()),
            arn: described.table_arn.ok_or_else(|| odd(table, "ARN"))?,
            partition_key: key(&KeyType::Hash).ok_or_else(|| odd(table, "key"))?,
            sort_key: key(&KeyType::Range),
            replicated: described.replicas.is_some_and(|others| !others.is_empty()),
            stream: described.latest_stream_arn.zip(view),
        })
    }

    /// The present stream.
    ///
    /// # Errors
    ///
    /// [`ResolveError::NoStream`].
    pub fn stream(&self) -> Result<TableStream, ResolveError> {
        let Some((arn, view)) = self.stream.clone() else {
            return Err(ResolveError::NoStream {
                table: self.table.clone(),
            });
        };
        Ok(TableStream {
            table: self.table.clone(),
            arn,
            view,
            partition_key: self.partition_key.clone(),
            sort_key: self.sort_key.clone(),
            replicated: self.replicated,
        })
    }
}

impl TableStream {
    /// Finds the stream of a table. `table` is a name or an ARN.
    ///
    /// # Errors
    ///
    /// All but [`ResolveError::NoNewImages`].
    pub async fn resolve(client: &Client, table: &str) -> Result<Self, ResolveError> {
        FollowedTable::describe(client, table).await?.stream()
    }

    /// Returns itself if its records include the item after the change.
    ///
    /// # Errors
    ///
    /// [`ResolveError::NoNewImages`].
    pub fn with_new_images(self) -> Result<Self, ResolveError> {
        if self.view.has_new_image() {
            return Ok(self);
        }
        Err(ResolveError::NoNewImages {
            table: self.table,
            view: self.view,
        })
    }
}

pub(in crate::stores::tables) fn failed<E>(
    table: &str,
    error: &SdkError<E, HttpResponse>,
) -> AwsError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    AwsError::new(error).on(format!("table {table}"))
}
