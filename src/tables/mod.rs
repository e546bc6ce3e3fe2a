//! The tables: making the engine's own, and finding the stream of the one that it follows.

pub mod dynamodb;
pub mod key;
mod index {
    pub(super) mod dynamodb;
}

/// The table's name in the ARN of a stream.
pub fn table_of(arn: &str) -> Option<&str> {
    let (_, rest) = arn.strip_prefix("arn:")?.split_once(":table/")?;
    let (table, label) = rest.split_once("/stream/")?;
    (!table.is_empty() && !label.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::table_of;

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
