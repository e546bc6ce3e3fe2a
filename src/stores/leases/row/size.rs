//! How large the rows are, as DynamoDB counts them.
//!
//! Source: [item sizes](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html).

#![allow(clippy::unwrap_used)]

use super::*;

/// The bytes of each row of a look, in the order in which a query reads them.
pub(crate) fn of_rows<'a>(
    view: &'a View,
    group_table: &'a str,
) -> impl Iterator<Item = usize> + 'a {
    let of = |row: &str, attributes: anyhow::Result<_>| {
        size(&item(group_table, row, attributes.unwrap()))
    };
    let leases = view.leases.values().map(move |row| {
        let key = if view.archived.contains(&row.shard) {
            archive_key(&row.shard)
        } else {
            lease_key(&row.shard)
        };
        of(&key, attributes(row, row.format))
    });
    let workers = view.workers.values();
    let workers =
        workers.map(move |row| of(&worker_key(&row.incarnation), attributes(row, FIRST_FORMAT)));
    leases.chain(workers)
}

fn size(item: &Item) -> usize {
    let fields = item.inner().iter();
    fields
        .map(|(name, value)| name.len() + of_value(value))
        .sum()
}

fn of_value(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        AttributeValue::L(values) => {
            3 + values
                .iter()
                .map(|value| 1 + of_value(value))
                .sum::<usize>()
        }
        AttributeValue::M(fields) => {
            let fields = fields.iter();
            3 + fields
                .map(|(name, value)| 1 + name.len() + of_value(value))
                .sum::<usize>()
        }
        _ => 1,
    }
}
