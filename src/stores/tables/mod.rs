//! The tables: creates those of the engine, and finds the stream of the table that it follows.

pub mod dynamodb;
pub mod key;
mod found {
    pub(super) mod dynamodb;
}
mod index {
    pub(super) mod dynamodb;
}

/// The table's name in the ARN of a stream.
pub fn table_of(arn: &str) -> Option<&str> {
    let (_, rest) = arn.strip_prefix("arn:")?.split_once(":table/")?;
    let (table, label) = rest.split_once("/stream/")?;
    (!table.is_empty() && !label.is_empty()).then_some(table)
}

/// How a call names the table of a stream: by its ARN, so that another account's table is never
/// confused with one of the same name here. Emulators, whose account is all zeros, know only names.
///
/// Source: [cross-account access](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/access-control-resource-based.html).
pub fn table_to_ask(stream: &str) -> Option<&str> {
    let name = table_of(stream)?;
    let (table, _) = stream.split_once("/stream/")?;
    let emulated = table.split(':').nth(4) == Some("000000000000");
    Some(if emulated { name } else { table })
}

/// The Region in an ARN, if it is an AWS Region: emulators use other names.
pub fn region_of(arn: &str) -> Option<&str> {
    let region = arn.strip_prefix("arn:")?.split(':').nth(2)?;
    region.contains('-').then_some(region)
}

#[cfg(test)]
mod tests {
    use super::{region_of, table_of, table_to_ask};

    #[test]
    fn a_table_of_another_account_is_asked_for_by_its_arn() {
        let table = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders";
        let stream = format!("{table}/stream/2026-01-01T00:00:00.000");
        assert_eq!(table_to_ask(&stream), Some(table));
        assert_eq!(region_of(&stream), Some("eu-west-1"));
        let local = "arn:aws:dynamodb:ddblocal:000000000000:table/orders/stream/x";
        assert_eq!(table_to_ask(local), Some("orders"));
        assert_eq!(region_of(local), None);
        assert_eq!(region_of("orders"), None);
    }

    #[test]
    fn the_table_is_read_from_a_streams_arn() {
        let stream = "arn:aws:dynamodb:us-east-1:0:table/my.orders/stream/2026-01-01T00:00:00.000";
        assert_eq!(table_of(stream), Some("my.orders"));
        for wrong in [
            "orders",
            "arn:aws:dynamodb:us-east-1:0:table/orders",
            "arn::table//stream/x",
        ] {
            assert_eq!(table_of(wrong), None, "{wrong}");
        }
    }
}
