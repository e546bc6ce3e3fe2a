//! The changes that are committed to the simulated table.

use std::time::SystemTime;

use serde_dynamo::{AttributeValue, Item};

use crate::core::filter::Filter;
use crate::core::record::{Event, Record};
use crate::stores::source::memory::Commit;

/// How many different items are changed.
const KEYS: u64 = 12;

/// An attribute of changes that a filter keeps out in some worlds, and that filter.
const NOISE: &str = "noise";
const NO_NOISE: &str = r#"{"dynamodb": {"NewImage": {"noise": {"S": [{"exists": false}]}}}}"#;

/// Makes the changes that are committed.
pub(super) type Commits = Box<dyn Fn(&mut fastrand::Rng, SystemTime) -> Commit + Send + Sync>;

/// A change to one of a few items.
pub(super) fn change_of_few(rng: &mut fastrand::Rng, created: SystemTime) -> Commit {
    let id = AttributeValue::S(format!("item-{}", rng.u64(..KEYS)));
    let keys = Item::from(std::collections::HashMap::from([("id".to_owned(), id)]));
    let mut image = keys.inner().clone();
    if rng.u32(..8) == 0 {
        image.insert(NOISE.to_owned(), AttributeValue::S(String::new()));
    }
    Commit {
        event: Event::Modify,
        keys,
        old_image: None,
        new_image: Some(image.into()),
        created,
    }
}

/// The filter that keeps out some changes.
pub(super) fn no_noise() -> Option<Filter> {
    Filter::parse(NO_NOISE).ok()
}

/// Whether a filter keeps out a change.
pub(super) fn is_noise(record: &Record) -> bool {
    let image = record.new_image.as_ref();
    image.is_some_and(|image| image.inner().contains_key(NOISE))
}
