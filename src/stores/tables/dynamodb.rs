//! Creating tables in DynamoDB, and finding the stream of an existing one.
//!
//! Creating a table can be repeated: existing parts stay, missing parts are added, and the next call
//! completes what a crash interrupted.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    ScalarAttributeType, StreamSpecification, StreamViewType, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};

use super::found::dynamodb::failed;
pub use super::found::dynamodb::{
    FollowedTable, ResolveError, TableStream, sample, table_arn, table_key,
};
use super::index::dynamodb::Index;
use crate::stores::dead_letter::row as letters;
use crate::stores::leases::row::{GROUP_TABLE, ROW};
use crate::stores::ledger::row::{ATTENTION, ATTENTION_INDEX, EFFECT, EXPIRES};

/// The partition key of the suppression list: the hash of an address.
#[cfg(feature = "mail")]
pub(crate) const ADDRESS: &str = "address";

/// The time between two checks of a table that is being created.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// How long a table may take to become usable. A new table takes seconds.
const PATIENCE: Duration = Duration::from_mins(2);

/// Whether a table is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It was created.
    Created,
    /// It existed.
    Existed,
}

/// The key attributes of a table, all of them strings.
#[derive(Debug, Clone, Copy)]
struct KeyNames {
    partition: &'static str,
    sort: Option<&'static str>,
    index: Option<Index>,
}

impl KeyNames {
    fn of(partition: &'static str, sort: Option<&'static str>) -> Self {
        let index = None;
        Self {
            partition,
            sort,
            index,
        }
    }
}

/// Creates the lease table: key (`group_table`, `row`), on-demand, with point-in-time recovery if the
/// server has it. Returns when the table can be used.
///
/// # Errors
///
/// A table of this name with another key, a missing permission, no connection.
pub async fn create_lease_table(client: &Client, name: &str) -> anyhow::Result<Created> {
    let key = KeyNames::of(GROUP_TABLE, Some(ROW));
    let outcome = create(client, name, key, None).await?;
    enable_recovery(client, name).await?;
    Ok(outcome)
}

/// Creates the ledger's table: key `effect`, on-demand, time to live on `expires`, an index of the
/// effects that need a person's attention (`attention`), with point-in-time recovery if the server has
/// it. Returns when the table can be used. Adds the index to a table that has none.
///
/// # Errors
///
/// As [`create_lease_table`].
pub async fn create_ledger_table(client: &Client, name: &str) -> anyhow::Result<Created> {
    let index = Index {
        name: ATTENTION_INDEX,
        attribute: ATTENTION,
        then: EFFECT,
    };
    let key = KeyNames {
        index: Some(index),
        ..KeyNames::of(EFFECT, None)
    };
    let outcome = create(client, name, key, None).await?;
    enable_expiry(client, name).await?;
    enable_recovery(client, name).await?;
    Ok(outcome)
}

/// Creates the dead letters' table: key (`item`, `row`), on-demand, time to live on `expires`, with
/// point-in-time recovery if the server has it. Returns when the table can be used.
///
/// # Errors
///
/// As [`create_lease_table`].
pub async fn create_dead_letter_table(client: &Client, name: &str) -> anyhow::Result<Created> {
    let key = KeyNames::of(letters::ITEM, Some(letters::ROW));
    let outcome = create(client, name, key, None).await?;
    enable_expiry(client, name).await?;
    enable_recovery(client, name).await?;
    Ok(outcome)
}

/// Creates the table of the suppression list: key `address`, on-demand, with point-in-time recovery if
/// the server has it. Returns when the table can be used.
///
/// # Errors
///
/// As [`create_lease_table`].
#[cfg(feature = "mail")]
pub async fn create_suppression_table(client: &Client, name: &str) -> anyhow::Result<Created> {
    let key = KeyNames::of(ADDRESS, None);
    let outcome = create(client, name, key, None).await?;
    enable_recovery(client, name).await?;
    Ok(outcome)
}

/// Creates a sample table of orders for development: key `id`, on-demand, with a stream of new and old
/// images. Returns when the table can be used.
///
/// # Errors
///
/// As [`create_lease_table`].
pub async fn create_orders_table(client: &Client, name: &str) -> anyhow::Result<Created> {
    let key = KeyNames::of("id", None);
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::NewAndOldImages)
        .build()?;
    create(client, name, key, Some(stream)).await
}

async fn create(
    client: &Client,
    name: &str,
    key: KeyNames,
    stream: Option<StreamSpecification>,
) -> anyhow::Result<Created> {
    let mut schema = Vec::new();
    let mut attributes = Vec::new();
    let sort = key.sort.map(|name| (name, KeyType::Range));
    for (attribute, kind) in [(key.partition, KeyType::Hash)].into_iter().chain(sort) {
        let element = KeySchemaElement::builder().attribute_name(attribute);
        schema.push(element.key_type(kind).build()?);
        let definition = AttributeDefinition::builder().attribute_name(attribute);
        attributes.push(definition.attribute_type(ScalarAttributeType::S).build()?);
    }
    let index = key.index.map(|index| {
        attributes.push(index.definition()?);
        index.with_table().map(|index| vec![index])
    });
    let answer = client
        .create_table()
        .table_name(name)
        .set_key_schema(Some(schema.clone()))
        .set_attribute_definitions(Some(attributes))
        .set_global_secondary_indexes(index.transpose()?)
        .billing_mode(BillingMode::PayPerRequest)
        .set_stream_specification(stream)
        .send()
        .await;
    let outcome = match answer {
        Ok(_) => Created::Created,
        Err(error) if error.code() == Some("ResourceInUseException") => Created::Existed,
        Err(error) => return Err(failed(name, &error).into()),
    };
    let table = tokio::time::timeout(PATIENCE, active(client, name)).await;
    let table =
        table.with_context(|| format!("table {name} is not usable after {PATIENCE:?}"))??;
    if table.key_schema() != schema {
        let found: Vec<_> = table.key_schema().iter().collect();
        let found: Vec<_> = found.iter().map(|key| key.attribute_name()).collect();
        let wanted: Vec<_> = schema
            .iter()
            .map(KeySchemaElement::attribute_name)
            .collect();
        bail!("table {name} exists with the key {found:?}, not {wanted:?}: choose another name");
    }
    if let Some(index) = key.index {
        index.add_to(client, &table).await?;
    }
    Ok(outcome)
}

/// Waits until the table can be used.
async fn active(client: &Client, name: &str) -> anyhow::Result<TableDescription> {
    loop {
        let answer = client.describe_table().table_name(name).send().await;
        let table = match answer {
            Ok(answer) => answer.table,
            // A new table may not be visible for a moment.
            Err(error) if error.code() == Some("ResourceNotFoundException") => None,
            Err(error) => return Err(failed(name, &error).into()),
        };
        match table {
            Some(table) if table.table_status() == Some(&TableStatus::Active) => return Ok(table),
            _ => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// The service rejects enabling it twice, so it is looked up first, and again if another process was
/// quicker.
async fn enable_expiry(client: &Client, name: &str) -> anyhow::Result<()> {
    if expires(client, name).await? {
        return Ok(());
    }
    let expiry = TimeToLiveSpecification::builder()
        .enabled(true)
        .attribute_name(EXPIRES)
        .build()?;
    let update = client.update_time_to_live().table_name(name);
    match update.time_to_live_specification(expiry).send().await {
        Ok(_) => Ok(()),
        Err(_) if expires(client, name).await? => Ok(()),
        Err(error) => Err(failed(name, &error).into()),
    }
}

/// Whether the table's rows expire by the right attribute.
async fn expires(client: &Client, name: &str) -> anyhow::Result<bool> {
    let answer = client.describe_time_to_live().table_name(name).send().await;
    let answer = answer.map_err(|error| failed(name, &error))?;
    let now = answer.time_to_live_description;
    let status = now.as_ref().and_then(|now| now.time_to_live_status());
    if !matches!(
        status,
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
    ) {
        return Ok(false);
    }
    let attribute = now.as_ref().and_then(|now| now.attribute_name());
    if attribute != Some(EXPIRES) {
        bail!(
            "table {name} expires rows by the attribute {attribute:?}, not {EXPIRES:?}: change \
             its TTL setting"
        );
    }
    Ok(true)
}

/// While a new table's backups are being set up, the service refuses.
async fn enable_recovery(client: &Client, name: &str) -> anyhow::Result<()> {
    let enable = tokio::time::timeout(PATIENCE, async {
        loop {
            let recovery = PointInTimeRecoverySpecification::builder()
                .point_in_time_recovery_enabled(true)
                .build()?;
            let update = client.update_continuous_backups().table_name(name);
            let update = update.point_in_time_recovery_specification(recovery);
            let Err(error) = update.send().await else {
                return Ok(());
            };
            match error.code() {
                Some("ContinuousBackupsUnavailableException") => {
                    tokio::time::sleep(BETWEEN_LOOKS).await;
                }
                // Emulators have nothing to recover.
                Some("UnknownOperationException" | "NotImplementedException") => {
                    tracing::info!(
                        table = name,
                        "this server does not support point-in-time recovery"
                    );
                    return Ok(());
                }
                _ => return Err(failed(name, &error).into()),
            }
        }
    });
    enable
        .await
        .map_err(|_| anyhow!("table {name}: no point-in-time recovery after {PATIENCE:?}"))?
}
