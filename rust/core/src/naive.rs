//! Bodies of a few lines that are too slow to ship and too simple to be wrong: the oracles of the unit tests.

use crate::random::Random;

/// Masking (RFC 6455 §5.3).
pub(crate) fn mask(bytes: &[u8], key: [u8; 4], offset: usize) -> Vec<u8> {
    bytes.iter().enumerate().map(|(index, byte)| byte ^ key[(index + offset) % 4]).collect()
}

/// The offset of the first bad sequence, by RFC 3629's table of well-formed ones (§4).
pub(crate) fn utf8(bytes: &[u8]) -> Option<usize> {
    let tail = |byte: Option<&u8>, low, high| byte.is_some_and(|byte| (low..=high).contains(byte));
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (size, low, high) = match rest[0] {
            0x00..=0x7f => (1, 0, 0),
            0xc2..=0xdf => (2, 0x80, 0xbf),
            0xe0 => (3, 0xa0, 0xbf),
            0xed => (3, 0x80, 0x9f),
            0xe1..=0xef => (3, 0x80, 0xbf),
            0xf0 => (4, 0x90, 0xbf),
            0xf1..=0xf3 => (4, 0x80, 0xbf),
            0xf4 => (4, 0x80, 0x8f),
            _ => return Some(at),
        };
        let sound = (size < 2 || tail(rest.get(1), low, high))
            && (size < 3 || tail(rest.get(2), 0x80, 0xbf))
            && (size < 4 || tail(rest.get(3), 0x80, 0xbf));
        if !sound {
            return Some(at);
        }
        at += size;
    }
    None
}

/// Base64 as Go's `encoding/base64` reads it: the bytes, or `Err(Some(offset))` for a character that it does not
/// have and `Err(None)` for a wrong length or padding.
pub(crate) fn base64(text: &[u8]) -> Result<Vec<u8>, Option<usize>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    if let Some(at) = text.iter().position(|&byte| value(byte).is_none() && !b"=\r\n".contains(&byte)) {
        return Err(Some(at));
    }
    let characters: Vec<u8> = text.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
    if characters.len() % 4 != 0 {
        return Err(None);
    }
    let padding = characters.iter().rev().take_while(|&&byte| byte == b'=').count();
    let digits = &characters[..characters.len() - padding];
    if padding > 2 || digits.contains(&b'=') {
        return Err(None);
    }
    let bits: Vec<u8> = digits
        .iter()
        .flat_map(|&byte| {
            let value = value(byte).unwrap();
            (0..6).rev().map(move |bit| value >> bit & 1)
        })
        .collect();
    Ok(bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect())
}

/// A JSON string as Go writes it, by docs/reference/wire.md's rules.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.extend(format!("\\u{:04x}", character as u32).chars());
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

/// A small pseudo-random source, so that a failing test fails again (xorshift64*).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_be_bytes()[0])
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

impl Random for Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.next().to_be_bytes()[0]);
    }
}
