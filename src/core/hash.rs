//! A hash that every build and machine computes alike.

/// FNV-1a: the same on every build and machine, unlike the standard library's hasher.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}
