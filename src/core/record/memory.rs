//! How much memory a record takes.
//!
//! The stream's own size is useless for a budget: a record of 122 bytes takes ten times that here, in
//! hash tables and small allocations.

use std::mem::size_of;

use serde_dynamo::{AttributeValue, Item};

use super::Record;

impl Record {
    /// The memory of the record in bytes: the struct, everything that it points to, and the allocator's
    /// overhead. This is an estimate; `bench -- memory` compares it with the process.
    pub fn memory(&self) -> usize {
        let images = [self.new_image.as_ref(), self.old_image.as_ref()];
        let images = images.into_iter().flatten().chain([&self.keys]);
        size_of::<Self>()
            + allocated(self.event_id.capacity())
            + allocated(self.sequence_number.capacity())
            + images.map(item).sum::<usize>()
    }
}

/// What the allocator reserves for this many bytes: a header of 8 bytes, multiples of 16, at least 32.
///
/// Source: [glibc, malloc internals](https://sourceware.org/glibc/wiki/MallocInternals).
fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        bytes => (bytes + 8).next_multiple_of(16).max(32),
    }
}

fn item(item: &Item) -> usize {
    table(item.inner())
}

/// A hash table has a power of two of slots, of which at most seven eighths are used, and one extra
/// byte per slot.
///
/// Source: [hashbrown](https://github.com/rust-lang/hashbrown/blob/master/src/raw.rs).
fn table(map: &std::collections::HashMap<String, AttributeValue>) -> usize {
    let places = match map.capacity() {
        0 => return 0,
        1..=3 => 4,
        4..=7 => 8,
        more => (more * 8 / 7).next_power_of_two(),
    };
    let entries = map
        .iter()
        .map(|(name, of)| allocated(name.capacity()) + value(of));
    allocated(places * (size_of::<(String, AttributeValue)>() + 1) + 16) + entries.sum::<usize>()
}

/// The memory that a value points to.
fn value(of: &AttributeValue) -> usize {
    let texts = |all: &Vec<String>| {
        let each = all.iter().map(|one| allocated(one.capacity()));
        allocated(all.capacity() * size_of::<String>()) + each.sum::<usize>()
    };
    match of {
        AttributeValue::N(text) | AttributeValue::S(text) => allocated(text.capacity()),
        AttributeValue::B(bytes) => allocated(bytes.capacity()),
        AttributeValue::Bool(_) | AttributeValue::Null(_) => 0,
        AttributeValue::M(map) => table(map),
        AttributeValue::L(list) => {
            let places = allocated(list.capacity() * size_of::<AttributeValue>());
            places + list.iter().map(value).sum::<usize>()
        }
        AttributeValue::Ss(all) | AttributeValue::Ns(all) => texts(all),
        AttributeValue::Bs(all) => {
            let each = all.iter().map(|one| allocated(one.capacity()));
            allocated(all.capacity() * size_of::<Vec<u8>>()) + each.sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_small_item_takes_several_times_what_the_stream_counts() {
        let order = HashMap::from([
            ("id".to_owned(), AttributeValue::S("order-1".to_owned())),
            ("total".to_owned(), AttributeValue::N("1999".to_owned())),
        ]);
        let counted = "id".len() + "order-1".len() + "total".len() + "1999".len();
        let taken = item(&Item::from(order));
        assert!((10 * counted..100 * counted).contains(&taken), "{taken}");
    }

    #[test]
    fn what_is_nested_counts() {
        let of = |value| item(&Item::from(HashMap::from([("a".to_owned(), value)])));
        let text = || AttributeValue::S("x".repeat(1000));
        let flat = of(AttributeValue::Null(true));
        let list = of(AttributeValue::L(vec![text(), text()]));
        let map = of(AttributeValue::M(HashMap::from([("b".to_owned(), text())])));
        assert!(list > flat + 2000, "{list}");
        assert!(map > flat + 1000, "{map}");
    }
}
