//! The payload of an effect, as the ledger keeps it with a claim.

use anyhow::Context as _;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use sha2::{Digest, Sha256};

use crate::core::claim::Kept;

/// The largest payload that is kept, packed. A larger one would make its claim too expensive.
const MOST: usize = 8 * 1024;
/// The largest payload that is packed at all.
const MOST_UNPACKED: usize = 256 * 1024;
/// The compression level: a higher one gains nothing on text of this length.
const LEVEL: u8 = 6;

/// What a claim keeps of a payload.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) digest: Option<String>,
    /// The payload itself, unless it is too large or is never repeated.
    pub(super) kept: Option<Kept>,
}

impl Payload {
    pub(super) fn of(bytes: &[u8], repeats: bool) -> Self {
        Self {
            digest: Some(digest(bytes)),
            kept: repeats.then(|| pack(bytes)).flatten(),
        }
    }
}

fn pack(payload: &[u8]) -> Option<Kept> {
    if payload.len() > MOST_UNPACKED {
        return None;
    }
    let packed = compress_to_vec(payload, LEVEL);
    (packed.len() <= MOST).then_some(Kept(packed))
}

/// The unpacked payload.
pub(super) fn unpack(kept: &Kept) -> anyhow::Result<Vec<u8>> {
    let payload = decompress_to_vec_with_limit(&kept.0, MOST_UNPACKED);
    payload
        .ok()
        .context("the payload kept in the ledger is damaged")
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut text, byte| {
        let digit = |four: u8| char::from_digit(u32::from(four), 16).unwrap_or('0');
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
        text
    })
}
