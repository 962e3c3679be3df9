//! Base64 (RFC 4648 §4), as Go's `encoding/base64` reads it: the standard alphabet, padded; CR and LF anywhere
//! are ignored, the padding's inside included; trailing bits need not be zero (docs/reference/wire.md).
//!
//! What our own and every other usual encoder writes goes through the vectorised body; the rest of what Go accepts,
//! and everything that it refuses, through the plain one below, which knows where and why.

use base64_simd::{Out, STANDARD};

/// Where decoded bytes are put: the caller's own kind of bytes, written once.
pub trait MakeBytes {
    /// Bytes as the caller keeps them.
    type Bytes;

    /// Bytes of this length, filled by `fill`; `None` where it refuses.
    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Self::Bytes>;

    /// These bytes, as they are.
    fn copy(&mut self, bytes: &[u8]) -> Option<Self::Bytes> {
        self.make(bytes.len(), |to| {
            to.copy_from_slice(bytes);
            true
        })
    }
}

/// What is wrong with text that should be base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base64Error {
    /// The first byte that is not of the alphabet, `=`, CR or LF.
    Character(usize),
    /// Length or padding.
    Padding,
}

/// Appends the encoded form.
pub fn encode(bytes: &[u8], to: &mut Vec<u8>) {
    STANDARD.encode_append(bytes, to);
}

/// The length of the encoded form.
#[must_use]
pub const fn encoded_length(length: usize) -> usize {
    length.div_ceil(3) * 4
}

/// Decodes the usual form: no line ends, trailing bits zero. `None` for any other, be it good or bad.
pub fn decode_usual<M: MakeBytes>(text: &[u8], maker: &mut M) -> Option<M::Bytes> {
    let padding = match text {
        [.., b'=', b'='] => 2,
        [.., b'='] => 1,
        _ => 0,
    };
    let length = (text.len() / 4 * 3).checked_sub(padding)?;
    maker.make(length, |bytes| {
        STANDARD.decode(text, Out::from_slice(bytes)).is_ok_and(|decoded| decoded.len() == length)
    })
}

/// Decodes whatever Go accepts; `None` is no bytes at all.
///
/// # Errors
///
/// A character that base64 does not have, wherever it stands; otherwise wrong padding.
pub fn decode<M: MakeBytes>(text: &[u8], maker: &mut M) -> Result<Option<M::Bytes>, Base64Error> {
    if let Some(at) = text.iter().position(|&byte| VALUES[usize::from(byte)] == ILLEGAL) {
        return Err(Base64Error::Character(at));
    }
    let mut digits: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    if digits.len() % 4 != 0 {
        return Err(Base64Error::Padding);
    }
    let characters = digits.len();
    while digits.last() == Some(&b'=') {
        digits.pop();
    }
    // Padding fills the last group of four and is never a group of its own; a lone digit holds less than a byte.
    let sound = match (digits.len() % 4, characters - digits.len()) {
        (0, 0) | (2, 2) | (3, 1) => !digits.contains(&b'='),
        _ => false,
    };
    if !sound {
        return Err(Base64Error::Padding);
    }
    if digits.is_empty() {
        return Ok(None);
    }
    let made = maker.make(digits.len() * 3 / 4, |bytes| {
        for (group, bytes) in digits.chunks(4).zip(bytes.chunks_mut(3)) {
            let bits = group.iter().fold(0, |bits, &digit| bits << 6 | u32::from(VALUES[usize::from(digit)]));
            let bits = bits << (6 * (4 - group.len()));
            bytes.copy_from_slice(&bits.to_be_bytes()[1..=bytes.len()]);
        }
        true
    });
    Ok(made)
}

const ILLEGAL: u8 = 0xff;
const IGNORED: u8 = 0xfe;
const VALUES: [u8; 256] = {
    let mut values = [ILLEGAL; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0;
    while value < 64 {
        #[allow(clippy::cast_possible_truncation)] // below 64
        let digit = value as u8;
        values[alphabet[value] as usize] = digit;
        value += 1;
    }
    values[b'=' as usize] = IGNORED;
    values[b'\r' as usize] = IGNORED;
    values[b'\n' as usize] = IGNORED;
    values
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::{self, Noise};

    struct Plain;
    impl MakeBytes for Plain {
        type Bytes = Vec<u8>;
        fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
            let mut bytes = vec![0; length];
            fill(&mut bytes).then_some(bytes)
        }
    }

    #[test]
    fn what_is_encoded_comes_back_by_both_bodies() {
        let mut noise = Noise::new(4);
        for length in 0..400 {
            let bytes = noise.bytes(length);
            let mut text = Vec::new();
            encode(&bytes, &mut text);
            assert_eq!(text.len(), encoded_length(length));
            assert_eq!(naive::base64(&text).as_ref(), Ok(&bytes));
            assert_eq!(decode_usual(&text, &mut Plain).as_ref(), Some(&bytes));
            assert_eq!(decode(&text, &mut Plain).unwrap().unwrap_or_default(), bytes);
        }
    }

    #[test]
    fn equals_the_naive_body_on_noise() {
        const CHARACTERS: &[u8] = b"AQIg/+9z===\r\n\n";
        let mut noise = Noise::new(5);
        for round in 0..50_000 {
            let length = noise.below(14);
            let mut text: Vec<u8> = (0..length).map(|_| CHARACTERS[noise.below(CHARACTERS.len())]).collect();
            if round % 8 == 0 && length > 0 {
                text[noise.below(length)] = noise.array::<1>()[0];
            }
            let expected = naive::base64(&text);
            let found =
                decode(&text, &mut Plain).map(Option::unwrap_or_default).map_err(|error| match error {
                    Base64Error::Character(at) => Some(at),
                    Base64Error::Padding => None,
                });
            assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(&text));
            if let Some(bytes) = decode_usual(&text, &mut Plain) {
                assert_eq!(Ok(bytes), expected, "{:?}", String::from_utf8_lossy(&text));
            }
        }
    }
}
