//! Times as numbers: since 1970, and in rows as whole milliseconds. Earlier times count as 1970.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u64", try_from = "u64")]
pub struct Millis(pub SystemTime);

impl From<Millis> for u64 {
    fn from(Millis(time): Millis) -> Self {
        millis(since_1970(time))
    }
}

impl TryFrom<u64> for Millis {
    type Error = &'static str;

    fn try_from(millis: u64) -> Result<Self, Self::Error> {
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
        time.map(Self).ok_or("it is not a time")
    }
}

/// The time since 1970.
pub(crate) fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    Millis(*time).serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
    Millis::deserialize(from).map(|Millis(time)| time)
}

/// A time that a row can leave out.
pub(crate) mod if_any {
    use super::{Deserialize, Deserializer, Millis, Serialize, Serializer, SystemTime};

    #[expect(clippy::ref_option, reason = "serde calls it with this type")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Millis).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let time = Option::<Millis>::deserialize(from)?;
        Ok(time.map(|Millis(time)| time))
    }
}

/// A duration in whole milliseconds.
pub(crate) mod length {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, millis};

    pub(crate) fn serialize<S: Serializer>(length: &Duration, to: S) -> Result<S::Ok, S::Error> {
        millis(*length).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}
