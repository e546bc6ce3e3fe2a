//! A sparse index: it contains only rows that have its attribute, so that they can be found and counted
//! without reading the others.
//!
//! Source: [sparse indexes](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-indexes-general-sparse-indexes.html).

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndex,
    GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TableDescription,
};

use crate::stores::aws_error::AwsError;

/// An index with the keys of the rows that have an attribute.
#[derive(Debug, Clone, Copy)]
pub struct Index {
    /// Its name.
    pub name: &'static str,
    /// The attribute, a text.
    pub attribute: &'static str,
    /// The table's partition key, by which the rows of one value are ordered.
    pub then: &'static str,
}

impl Index {
    /// Its part in the creation of a table.
    pub fn with_table(self) -> anyhow::Result<GlobalSecondaryIndex> {
        let index = GlobalSecondaryIndex::builder().index_name(self.name);
        let index = index.set_key_schema(Some(self.keys()?));
        Ok(index.projection(keys_only()).build()?)
    }

    /// The definition of its attribute.
    pub fn definition(self) -> anyhow::Result<AttributeDefinition> {
        let definition = AttributeDefinition::builder().attribute_name(self.attribute);
        Ok(definition.attribute_type(ScalarAttributeType::S).build()?)
    }

    /// Adds it to an existing table. It fills by itself, which takes minutes; until then it cannot be
    /// queried.
    pub async fn add_to(self, client: &Client, table: &TableDescription) -> anyhow::Result<()> {
        let mut there = table.global_secondary_indexes().iter();
        let name = table.table_name().unwrap_or_default();
        if there.any(|index| index.index_name() == Some(self.name)) {
            return Ok(());
        }
        let index = CreateGlobalSecondaryIndexAction::builder().index_name(self.name);
        let index = index.set_key_schema(Some(self.keys()?));
        let create = index.projection(keys_only()).build()?;
        let update = client.update_table().table_name(name);
        update
            .set_attribute_definitions(Some(self.attributes(table)?))
            .global_secondary_index_updates(
                GlobalSecondaryIndexUpdate::builder().create(create).build(),
            )
            .send()
            .await
            .map_err(|error| {
                let at = format!("table {name}, index {}", self.name);
                AwsError::new(&error).on(at)
            })?;
        tracing::info!(
            table = name,
            index = self.name,
            "the index is being created"
        );
        Ok(())
    }

    fn attributes(self, table: &TableDescription) -> anyhow::Result<Vec<AttributeDefinition>> {
        let mut all = table.attribute_definitions().to_vec();
        all.push(self.definition()?);
        Ok(all)
    }

    fn keys(self) -> anyhow::Result<Vec<KeySchemaElement>> {
        let key = |name, kind| {
            let key = KeySchemaElement::builder().attribute_name(name);
            key.key_type(kind).build()
        };
        Ok(vec![
            key(self.attribute, KeyType::Hash)?,
            key(self.then, KeyType::Range)?,
        ])
    }
}

fn keys_only() -> Projection {
    let kind = ProjectionType::KeysOnly;
    Projection::builder().projection_type(kind).build()
}
