//! A mail as the ledger keeps it with a claim, so that it can be repeated byte for byte after a
//! deployment changed the template, the sender or the key.

use anyhow::{Context as _, bail};
use lettre::Address;
use lettre::address::Envelope;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

use super::mail::Mail;
use crate::core::claim::Kept;
use crate::stores::ledger::EffectKey;

/// The largest mail that is kept, packed: a larger one would cost its claim too much.
const MOST: usize = 8 * 1024;
/// The largest mail that is packed at all.
const MOST_UNPACKED: usize = 256 * 1024;
/// How hard to try: a little more gains nothing on text of this length.
const LEVEL: u8 = 6;

/// The mail and its envelope, packed; `None` if it is too large to be kept.
pub(super) fn pack(mail: &Mail) -> Option<Kept> {
    if mail.bytes.len() > MOST_UNPACKED {
        return None;
    }
    let mut plain = String::new();
    let to = mail.envelope.to().iter();
    for address in mail.envelope.from().into_iter().chain(to) {
        plain.push_str(address.as_ref());
        plain.push('\n');
    }
    plain.push('\n');
    let mut plain = plain.into_bytes();
    plain.extend(&mail.bytes);
    let packed = compress_to_vec(&plain, LEVEL);
    (packed.len() <= MOST).then_some(Kept(packed))
}

/// The mail that was packed.
pub(super) fn unpack(kept: &Kept, key: &EffectKey) -> anyhow::Result<Mail> {
    let plain = decompress_to_vec_with_limit(&kept.0, 2 * MOST_UNPACKED);
    let plain = plain
        .ok()
        .context("the email kept in the ledger is damaged")?;
    let end = plain.windows(2).position(|two| two == b"\n\n");
    let end = end.context("the email kept in the ledger has no envelope")?;
    let (envelope, bytes) = plain.split_at(end);
    let addresses: Result<Vec<Address>, _> = std::str::from_utf8(envelope)?
        .lines()
        .map(str::parse)
        .collect();
    let mut addresses = addresses?.into_iter();
    let (Some(from), Some(to)) = (addresses.next(), addresses.next()) else {
        bail!("the email kept in the ledger has no recipient");
    };
    let bytes = bytes.get(2..).unwrap_or_default().to_vec();
    let envelope = Envelope::new(Some(from), vec![to])?;
    Ok(Mail::of_bytes(key, envelope, bytes))
}
