//! Positions in a shard.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A stream's position marker: a numeric string of up to 40 digits.
///
/// Ordered as a number ("9" < "10", leading zeros are ignored), but kept as the stream's own string,
/// because `AFTER_SEQUENCE_NUMBER` requires it.
///
/// Source: [StreamRecord](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html).
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SequenceNumber(String);

impl SequenceNumber {
    /// The longest sequence number that the service documents, in digits.
    pub const MAX_DIGITS: usize = 40;

    /// Parses a sequence number.
    ///
    /// # Errors
    ///
    /// The text is not 1 to 40 ASCII digits.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidSequenceNumber> {
        let text = text.into();
        let digits = (1..=Self::MAX_DIGITS).contains(&text.len());
        if digits && text.bytes().all(|b| b.is_ascii_digit()) {
            Ok(Self(text))
        } else {
            Err(InvalidSequenceNumber(text))
        }
    }

    /// The string as the stream gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// 40 digits with leading zeros, so that the text sorts like the number.
    pub fn padded(&self) -> String {
        let digits = self.0.trim_start_matches('0');
        format!("{digits:0>width$}", width = Self::MAX_DIGITS)
    }

    /// Its size on the heap, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn digits(&self) -> &[u8] {
        let bytes = self.0.as_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == b'0').count();
        bytes.get(zeros..).unwrap_or_default()
    }
}

/// A sequence number that is not 1 to 40 digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sequence number {0:?} is not 1 to 40 digits")]
pub struct InvalidSequenceNumber(String);

impl TryFrom<String> for SequenceNumber {
    type Error = InvalidSequenceNumber;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        Self::parse(digits)
    }
}

impl From<SequenceNumber> for String {
    fn from(number: SequenceNumber) -> Self {
        number.0
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        // The service pads all numbers of a stream to the same length.
        if self.0.len() == other.0.len() {
            return self.0.cmp(&other.0);
        }
        let (a, b) = (self.digits(), other.digits());
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SequenceNumber {}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The position in a shard to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The oldest record that the shard still holds.
    Horizon,
    /// Directly after this record.
    After(SequenceNumber),
}
