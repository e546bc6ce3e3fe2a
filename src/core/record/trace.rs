//! The trace that a record belongs to. A stream has no headers, so the trace context of the writer
//! survives only as an attribute of the item.

use serde_dynamo::AttributeValue;

use super::Record;

/// The attribute with the W3C trace context.
///
/// Source: [traceparent](https://www.w3.org/TR/trace-context/#traceparent-header).
pub const TRACEPARENT: &str = "traceparent";

impl Record {
    /// The item's `traceparent`, if it is valid.
    pub fn traceparent(&self) -> Option<&str> {
        let image = self.new_image.as_ref().or(self.old_image.as_ref())?;
        match image.get(TRACEPARENT)? {
            AttributeValue::S(text) => trace_id(text).map(|_| &**text),
            _ => None,
        }
    }

    /// The id of the trace, 32 hexadecimal digits, if the item carries a valid `traceparent`.
    pub fn trace_id(&self) -> Option<&str> {
        trace_id(self.traceparent()?)
    }
}

fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, digits| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |text: &str| text.bytes().any(|b| b != b'0');
    // Later versions can have more parts; version 00 has these four.
    let form = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let valid = form && hex(trace, 32) && some(trace) && hex(parent, 16) && some(parent);
    (valid && hex(flags, 2)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::trace_id;

    #[test]
    fn only_a_valid_traceparent_names_a_trace() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(trace_id(&format!("00-{trace}-{parent}-01")), Some(trace));
        assert_eq!(
            trace_id(&format!("01-{trace}-{parent}-01-more")),
            Some(trace)
        );
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            trace.to_owned(),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{zeros}-{parent}-01"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{trace}-{parent}-ann@example.com"),
        ] {
            assert_eq!(trace_id(&wrong), None, "{wrong}");
        }
    }
}
