//! A search for any of several bytes, eight at a time in a plain integer: strings here are too short for anything
//! wider to pay, and this needs no `unsafe`.

/// The offset of the first byte that `flags` marks, or the length. `flags` looks at eight bytes, the first one
/// lowest, and sets the high bit of those to stop at: the lowest bit that it sets must be exact.
#[inline]
pub(crate) fn find(bytes: &[u8], flags: impl Fn(u64) -> u64) -> usize {
    let mut at = 0;
    let mut rest = bytes;
    while let Some((chunk, behind)) = rest.split_first_chunk() {
        let found = flags(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
        rest = behind;
    }
    if let Some(last) = bytes.last_chunk() {
        // Looks again at bytes that are known to be plain, so that what is found is in the rest.
        let found = flags(u64::from_le_bytes(*last));
        return if found == 0 { bytes.len() } else { bytes.len() - 8 + found.trailing_zeros() as usize / 8 };
    }
    let mut chunk = [PLAIN; 8];
    chunk[..rest.len()].copy_from_slice(rest);
    let found = flags(u64::from_le_bytes(chunk));
    if found == 0 { bytes.len() } else { found.trailing_zeros() as usize / 8 }
}

/// The high bit of each byte below `limit`, which is 0x80 or less; exact up to the lowest one.
#[inline]
pub(crate) const fn below(word: u64, limit: u8) -> u64 {
    // A byte below the limit borrows from the next; that one may then be marked without reason.
    word.wrapping_sub(ONES * limit as u64) & !word & (ONES << 7)
}

/// The high bit of each byte that is `byte`; exact up to the lowest one.
#[inline]
pub(crate) const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

/// Every byte with these bits set besides its own.
#[inline]
pub(crate) const fn with_bits(word: u64, bits: u8) -> u64 {
    word | (ONES * bits as u64)
}

const ONES: u64 = u64::MAX / 255;
/// A letter: no caller stops at one.
const PLAIN: u8 = b'a';

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::Noise;

    #[test]
    fn finds_what_a_plain_search_finds() {
        let mut noise = Noise::new(9);
        for _ in 0..100_000 {
            let length = noise.below(30);
            let bytes: Vec<u8> =
                (0..length).map(|_| b"ab\x00\x1f\x20\x7f\x80\x9f\xa0\xff\"!#&"[noise.below(14)]).collect();
            let found = find(&bytes, |word| below(word, 0x20) | equal(with_bits(word, 4), b'&'));
            let expected = bytes.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'&');
            assert_eq!(found, expected.unwrap_or(length), "{bytes:02x?}");
        }
    }
}
