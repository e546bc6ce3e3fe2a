//! Which streams a table has, and had in the last 24 hours.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::TableDescription;
use aws_sdk_dynamodbstreams::Client;

use super::failed;
use crate::stores::aws_error::AwsError;
use crate::stores::source::SourceError;

/// Finds the streams of a table.
#[derive(Debug, Clone)]
pub(super) struct TableStreams {
    tables: aws_sdk_dynamodb::Client,
    /// As the user named it.
    name: Arc<str>,
    /// The table's ARN.
    arn: Arc<str>,
}

/// The streams of a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FoundStreams {
    /// The labels, oldest first.
    pub labels: BTreeSet<Arc<str>>,
    /// Why changes that are committed now are in none of them.
    pub trouble: Option<String>,
}

impl TableStreams {
    /// The streams of the table with this name or ARN, and this ARN.
    pub fn new(tables: aws_sdk_dynamodb::Client, name: &str, arn: &str) -> Self {
        Self {
            tables,
            name: name.into(),
            arn: arn.into(),
        }
    }

    /// The table's present stream, and those that the service lists: a disabled stream is listed for 24
    /// hours.
    pub async fn find(&self, streams: &Client) -> Result<FoundStreams, SourceError> {
        let mut found = self.present().await?;
        found.labels.extend(self.listed(streams).await?);
        Ok(found)
    }

    /// The table's present stream.
    async fn present(&self) -> Result<FoundStreams, SourceError> {
        let mut found = FoundStreams::default();
        let Some(table) = self.table().await? else {
            found.trouble = Some(format!("table {} does not exist", self.name));
            return Ok(found);
        };
        let enabled = table
            .stream_specification
            .is_some_and(|stream| stream.stream_enabled);
        match table.latest_stream_arn.filter(|_| enabled) {
            Some(arn) => found.labels.extend(self.label_of(&arn)),
            None => found.trouble = Some(self.switched_off()),
        }
        Ok(found)
    }

    /// The streams of the table that the service lists.
    async fn listed(&self, streams: &Client) -> Result<BTreeSet<Arc<str>>, SourceError> {
        let mut labels = BTreeSet::new();
        let mut after = None;
        loop {
            let list = streams.list_streams().table_name(&*self.name);
            let page = list.set_exclusive_start_stream_arn(after).send().await;
            let page = page.map_err(failed)?;
            let arns = page.streams.unwrap_or_default().into_iter();
            let arns = arns.filter_map(|stream| stream.stream_arn);
            labels.extend(arns.filter_map(|arn| self.label_of(&arn)));
            after = page.last_evaluated_stream_arn;
            if after.is_none() {
                return Ok(labels);
            }
        }
    }

    async fn table(&self) -> Result<Option<TableDescription>, SourceError> {
        let answer = self.tables.describe_table().table_name(&*self.name);
        match answer.send().await {
            Ok(answer) => Ok(answer.table),
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
            Err(error) => Err(SourceError::Other(AwsError::new(&error).into())),
        }
    }

    fn switched_off(&self) -> String {
        format!(
            "table {table} has no stream: enable one with aws dynamodb update-table --table-name \
             {table} --stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES",
            table = self.name
        )
    }

    /// The label of one of this table's streams.
    fn label_of(&self, arn: &str) -> Option<Arc<str>> {
        let (table, label) = arn.split_once("/stream/")?;
        (table == &*self.arn).then(|| label.into())
    }
}
