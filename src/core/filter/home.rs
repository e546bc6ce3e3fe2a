//! Which Region's worker handles a record of a global table.

use std::fmt;
use std::str::FromStr;

use serde_dynamo::AttributeValue;

use crate::core::record::Record;

/// On a replica of a global table, the stream of every Region carries every change. An attribute of the
/// item names the Region whose worker acts, so that one change has one effect.
///
/// The attribute is written together with the item, and never changed. A record without it belongs to
/// no Region, and no worker handles it. With the legacy version of global tables,
/// `aws:rep:updateregion` is such an attribute.
///
/// Source: [global tables and streams](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/V2globaltables_HowItWorks.html).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeRegion {
    attribute: String,
    region: String,
}

impl HomeRegion {
    /// The worker of `region`, for items whose `attribute` names their Region.
    pub fn new(attribute: &str, region: &str) -> Self {
        Self {
            attribute: attribute.to_owned(),
            region: region.to_owned(),
        }
    }

    /// Whether the record belongs to this Region according to its new image, or else its old image.
    pub fn is_of(&self, record: &Record) -> bool {
        let image = record.new_image.as_ref().or(record.old_image.as_ref());
        let value = image.and_then(|image| image.inner().get(&self.attribute));
        matches!(value, Some(AttributeValue::S(region)) if *region == self.region)
    }
}

impl FromStr for HomeRegion {
    type Err = BadHomeRegion;

    /// Parses `ATTRIBUTE=REGION`. The attribute's name can contain `=`.
    fn from_str(text: &str) -> Result<Self, BadHomeRegion> {
        match text.rsplit_once('=') {
            Some((attribute, region)) if !attribute.is_empty() && !region.is_empty() => {
                Ok(Self::new(attribute, region))
            }
            _ => Err(BadHomeRegion),
        }
    }
}

impl fmt::Display for HomeRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.attribute, self.region)
    }
}

/// The text does not name an attribute and a Region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write ATTRIBUTE=REGION, such as home_region=eu-central-1")]
pub struct BadHomeRegion;
