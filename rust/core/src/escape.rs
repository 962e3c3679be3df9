//! JSON strings, written as Go's `encoding/json` writes them (wire.md) and read as RFC 8259 §7 says.

use crate::word::{self, below, equal, with_bits};

/// Appends the string in quotes. Besides what JSON demands, `<`, `>`, `&`, U+2028 and U+2029 are escaped.
pub fn write(text: &str, to: &mut Vec<u8>) {
    to.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain(rest));
        to.extend_from_slice(plain);
        if special.is_empty() {
            break;
        }
        rest = &special[write_special(special, to)..];
    }
    to.push(b'"');
}

/// Writes one special character and says how many bytes of the text it took.
#[cold]
fn write_special(text: &[u8], to: &mut Vec<u8>) -> usize {
    let short = match *text {
        [b'"', ..] => b'"',
        [b'\\', ..] => b'\\',
        [0x08, ..] => b'b',
        [0x0c, ..] => b'f',
        [b'\n', ..] => b'n',
        [b'\r', ..] => b'r',
        [b'\t', ..] => b't',
        // U+2028 and U+2029; all other characters that begin with 0xe2 stand for themselves.
        [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
            to.extend_from_slice(if last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            return 3;
        }
        [0xe2, ..] => {
            to.push(0xe2);
            return 1;
        }
        [byte, ..] => {
            let hex = b"0123456789abcdef";
            to.extend_from_slice(b"\\u00");
            to.extend_from_slice(&[hex[usize::from(byte >> 4)], hex[usize::from(byte & 0x0f)]]);
            return 1;
        }
        [] => return 0,
    };
    to.extend_from_slice(&[b'\\', short]);
    1
}

/// How many bytes stand before the first that `write_special` must look at.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    word::find(bytes, |word| {
        let quote_or_ampersand = equal(with_bits(word, b'"' ^ b'&'), b'&');
        let angle_bracket = equal(with_bits(word, b'<' ^ b'>'), b'>');
        // 0xe2 begins U+2028 and U+2029.
        below(word, 0x20) | quote_or_ampersand | angle_bracket | equal(word, b'\\') | equal(word, 0xe2)
    })
}

/// The characters of a string whose escapes are known to be sound. A surrogate without its other half becomes
/// U+FFFD, as in Go.
#[must_use]
pub fn read(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, _)) = rest.split_once('\\') {
        text.push_str(plain);
        let escape = rest.get(plain.len()..).unwrap_or_default();
        let (character, size) = read_escape(escape);
        text.push(character);
        rest = escape.get(size..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// The character that the escape at the beginning of `text` stands for, and the escape's length.
fn read_escape(text: &str) -> (char, usize) {
    let character = match text.as_bytes().get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return read_unicode(text),
        Some(&itself) => char::from(itself),
        None => char::REPLACEMENT_CHARACTER,
    };
    (character, 2)
}

fn read_unicode(text: &str) -> (char, usize) {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?;
        u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    };
    let first = unit(0).unwrap_or(0xfffd);
    match char::decode_utf16([first].into_iter().chain(unit(6))).next() {
        Some(Ok(character)) => (character, if character.len_utf16() == 2 { 12 } else { 6 }),
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::{self, Noise};

    const CHARACTERS: &[char] = &[
        '"', '\\', '/', '\u{8}', '\u{c}', '\n', '\r', '\t', '\0', '\u{1f}', ' ', '<', '>', '&', 'a',
        '\u{7f}', 'é', '\u{2027}', '\u{2028}', '\u{2029}', '\u{202a}', '€', '\u{fffd}', '😀',
    ];

    #[test]
    fn equals_the_naive_body_and_comes_back() {
        let mut noise = Noise::new(6);
        for _ in 0..20_000 {
            let length = noise.below(24);
            let text: String = (0..length).map(|_| CHARACTERS[noise.below(CHARACTERS.len())]).collect();
            let mut written = Vec::new();
            write(&text, &mut written);
            assert_eq!(String::from_utf8(written.clone()).unwrap(), naive::escape(&text));
            let raw = std::str::from_utf8(&written[1..written.len() - 1]).unwrap();
            assert_eq!(read(raw), text);
        }
    }

    #[test]
    fn surrogates_pair_up_or_become_replacement_characters() {
        for (raw, text) in [
            (r"\ud83d\ude00", "😀"),
            (r"\ud83dx", "\u{fffd}x"),
            (r"\ude00\ud83d", "\u{fffd}\u{fffd}"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\ud83d\n", "\u{fffd}\n"),
            (r"\uD83D\uDE00\/\u00e9", "😀/é"),
        ] {
            assert_eq!(read(raw), text, "{raw}");
        }
    }
}
