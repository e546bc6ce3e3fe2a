//! What `run` follows: tables with all of their streams, or single streams.

use crate::confirmation::mapping::Mapping;
use crate::filter::HomeRegion;
use crate::stores::leases::dynamodb::DynamoDbLeases;
use crate::stores::leases::{Consistency, LeaseStore as _};
use crate::stores::source::StreamSource as _;
use crate::stores::source::dynamodb::DynamoDbStream;
use crate::stores::tables::dynamodb::{FollowedTable, ResolveError, TableStream, table_arn};
use crate::stores::tables::table_to_ask;
use crate::{Clock, GroupTable};
use anyhow::Context as _;

use super::EffectArgs;
use crate::cli::fault::Fault;
use crate::cli::host::aws::{Clients, must_exist};

/// A checked stream, and how its items become orders.
pub struct Followed {
    pub stream: DynamoDbStream,
    pub at: GroupTable,
    /// The name or ARN of the table.
    pub orders: String,
    pub mapping: Mapping,
    /// The attribute that is the table's partition key, if the table can be asked.
    pub partition_key: Option<String>,
    pub home: Option<HomeRegion>,
    /// Whether all of the table's streams are followed, or only this one.
    #[cfg_attr(
        not(feature = "lambda"),
        expect(dead_code, reason = "only Lambda reads it")
    )]
    pub all_streams: bool,
}

/// Checks everything that `run` should follow. `leases` is the lease table of a fleet.
pub async fn followed(
    clients: &Clients,
    effect: &EffectArgs,
    leases: Option<&String>,
) -> Result<Vec<Followed>, Fault> {
    let mut all: Vec<Followed> = Vec::new();
    let tables = effect.args.streams.table.iter().map(|table| (table, true));
    let streams = effect
        .args
        .streams
        .stream_arn
        .iter()
        .map(|arn| (arn, false));
    for (name, is_table) in tables.chain(streams) {
        let one = if is_table {
            of_table(clients, effect, (name, leases)).await?
        } else {
            of_stream(clients, effect, name).await?
        };
        if all.iter().any(|other| other.at == one.at) {
            return Err(Fault::wrong(format!(
                "{name} is named twice: once is enough"
            )));
        }
        all.push(one);
    }
    Ok(all)
}

/// The table's present stream, from which its earlier and later streams are found. If a group has begun
/// on a table that has no stream now, it waits for the next one.
async fn of_table(
    clients: &Clients,
    effect: &EffectArgs,
    (table, leases): (&str, Option<&String>),
) -> Result<Followed, Fault> {
    clients.must_reach(table)?;
    let found = match FollowedTable::describe(&clients.dynamodb, table).await {
        Ok(found) => found,
        Err(error) => return Err(gone(clients, effect, (table, leases), error).await?),
    };
    let at = GroupTable::new(effect.args.group.group.clone(), &found.arn);
    let usable = found.stream().and_then(TableStream::with_new_images);
    if let Err(why) = usable
        && !has_begun(clients, leases, &at).await?
    {
        return Err(Fault::setting(why));
    }
    let stream = DynamoDbStream::of_table(
        clients.streams.clone(),
        clients.dynamodb.clone(),
        (table, at.table()),
        Clock::system(),
    );
    let sort = found.sort_key.as_deref();
    Ok(Followed {
        stream: stream.with_new_images(),
        at,
        orders: table.to_owned(),
        mapping: effect.source.fields().of_key(&found.partition_key, sort)?,
        home: effect
            .args
            .records
            .home_region(&found.table, found.replicated)?,
        partition_key: Some(found.partition_key),
        all_streams: true,
    })
}

/// Why a table cannot be followed. A group that has begun waits until its table is created again.
async fn gone(
    clients: &Clients,
    effect: &EffectArgs,
    (table, leases): (&str, Option<&String>),
    error: ResolveError,
) -> Result<Fault, Fault> {
    let (ResolveError::NoTable { .. }, Some(lease_table)) = (&error, leases) else {
        return Ok(Fault::setting(error));
    };
    let arn = if table.starts_with("arn:") {
        table.to_owned()
    } else {
        // A table without an ARN is in the account and Region of the lease table.
        let beside = match table_arn(&clients.dynamodb, lease_table).await {
            Ok(arn) => arn,
            Err(ResolveError::NoTable { .. }) => return Ok(Fault::setting(error)),
            Err(other) => return Err(Fault::setting(other)),
        };
        let place = beside.split_once(":table/").map(|(place, _)| place);
        format!("{}:table/{table}", place.unwrap_or_default())
    };
    let at = GroupTable::new(effect.args.group.group.clone(), &arn);
    if !has_begun(clients, leases, &at).await? {
        return Ok(Fault::setting(error));
    }
    let error = anyhow::Error::from(error).context(format!(
        "group {} has begun on this table and waits until it is created again",
        at.group()
    ));
    Ok(Fault::Missing(error))
}

/// Whether the group has begun on this table. Then it has a place in the table's streams, and its
/// settings are not to blame.
async fn has_begun(
    clients: &Clients,
    leases: Option<&String>,
    at: &GroupTable,
) -> Result<bool, Fault> {
    let Some(table) = leases else {
        return Ok(false);
    };
    match must_exist(clients, table).await {
        Ok(()) => {}
        Err(fault) if fault.passes() => return Err(fault),
        Err(_) => return Ok(false),
    }
    let rows = DynamoDbLeases::new(clients.dynamodb.clone(), table, at);
    let view = rows.look(Consistency::Strong).await?;
    Ok(view.group.is_some())
}

/// The stream with this ARN.
async fn of_stream(clients: &Clients, effect: &EffectArgs, arn: &str) -> Result<Followed, Fault> {
    clients.must_reach(arn)?;
    let table = table_to_ask(arn).ok_or_else(|| {
        Fault::wrong(format!(
            "--stream-arn {arn} is not the ARN of a stream: expected one such as \
             arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
        ))
    })?;
    let stream = DynamoDbStream::new(clients.streams.clone(), arn, Clock::system());
    let described = stream.describe(None).await;
    let described = described
        .with_context(|| format!("stream {arn}"))
        .map_err(Fault::Setting)?;
    let view = described.streams.first().and_then(|stream| stream.view);
    if let Some(view) = view.filter(|view| !view.has_new_image()) {
        return Err(Fault::wrong(format!(
            "stream {arn} carries {view}, not the new image: NEW_AND_OLD_IMAGES is needed"
        )));
    }
    let orders = table.to_owned();
    let found = TableStream::resolve(&clients.dynamodb, table).await;
    let partition_key = found.as_ref().ok().map(|found| found.partition_key.clone());
    let (mapping, replicated) = match (effect.source.fields().named()?, found) {
        (Some(mapping), Ok(found)) => (mapping, found.replicated),
        // A stream outlives its table, and the switch to a new stream, by 24 hours.
        (Some(mapping), Err(ResolveError::NoTable { .. })) => (mapping, false),
        // A table without a stream may still be a replica. So may a table that cannot be read.
        (Some(mapping), Err(_)) if effect.args.records.has_home_region() => (mapping, true),
        (Some(_), Err(error)) => {
            let error = anyhow::Error::from(error).context(
                "cannot find out whether the table is a replica of a global table, in which \
                 case each Region would send an email: name this Region as --home-region \
                 ATTRIBUTE=REGION, or",
            );
            return Err(Fault::Setting(error));
        }
        (None, found) => {
            let found = found
                .context("--id is not set, and the table's key cannot be read")
                .map_err(Fault::Setting)?;
            let sort = found.sort_key.as_deref();
            let mapping = effect.source.fields().of_key(&found.partition_key, sort)?;
            (mapping, found.replicated)
        }
    };
    Ok(Followed {
        stream,
        at: GroupTable::new(effect.args.group.group.clone(), arn),
        orders,
        mapping,
        partition_key,
        home: effect.args.records.home_region(table, replicated)?,
        all_streams: false,
    })
}
