//! A hash that is the same on every build and machine.

/// FNV-1a. Unlike the standard library's hasher, it is the same on every build and machine.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}
