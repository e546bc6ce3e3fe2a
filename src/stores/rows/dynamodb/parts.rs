//! The parts of a transaction, as the SDK has them.

use aws_sdk_dynamodb::types::{ConditionCheck, Delete, Put, TransactWriteItem, Update};

use super::{attributes, names, values};
use crate::stores::rows::expression::RowExpression;
use crate::stores::rows::fields::Fields;
use crate::stores::rows::transaction::Part;

/// The part as the SDK's type. `table` is the table of the transaction.
pub(super) fn in_sdk(part: Part, table: &str) -> anyhow::Result<TransactWriteItem> {
    let item = TransactWriteItem::builder();
    Ok(match part {
        Part::Update(key, how) => item.update(
            Update::builder()
                .table_name(table)
                .set_key(Some(attributes(key)))
                .set_update_expression(how.update())
                .set_condition_expression(how.condition())
                .set_expression_attribute_names(names(&how))
                .set_expression_attribute_values(values(&how))
                .build()?,
        ),
        Part::Put(row, when) => item.put(
            Put::builder()
                .table_name(table)
                .set_item(Some(row.into()))
                .set_condition_expression(when.condition())
                .set_expression_attribute_names(names(&when))
                .set_expression_attribute_values(values(&when))
                .build()?,
        ),
        Part::Delete(key, when) => item.delete(
            Delete::builder()
                .table_name(table)
                .set_key(Some(attributes(key)))
                .set_condition_expression(when.condition())
                .set_expression_attribute_names(names(&when))
                .set_expression_attribute_values(values(&when))
                .build()?,
        ),
        Part::Demand(key, when) => item.condition_check(demand(table, key, &when)?),
        Part::DemandOf(table, key, when) => item.condition_check(demand(&table, key, &when)?),
    }
    .build())
}

fn demand(table: &str, key: Fields, when: &RowExpression) -> anyhow::Result<ConditionCheck> {
    let demand = ConditionCheck::builder()
        .table_name(table)
        .set_key(Some(attributes(key)))
        .set_condition_expression(when.condition())
        .set_expression_attribute_names(names(when))
        .set_expression_attribute_values(values(when));
    Ok(demand.build()?)
}
