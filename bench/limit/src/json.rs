//! JSON as SAGE needs it: a cursor over one value, and strings written as Go writes them.

use std::borrow::Cow;

use base64_simd::STANDARD;
use memchr::memchr2;

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A place in a JSON text.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn literal(&mut self, literal: &str) -> bool {
        let found = self.rest().starts_with(literal.as_bytes());
        if found {
            self.at += literal.len();
        }
        found
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(Malformed("something follows the value")) }
    }

    /// Walks an object: `value` is given each key, and reads or skips its value.
    #[inline]
    pub(crate) fn object(
        &mut self,
        mut value: impl FnMut(&mut Self, &str) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.space();
        if !self.take(b'{') {
            return Err(Malformed("an object is expected"));
        }
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(Malformed("a colon is expected"));
            }
            self.space();
            value(self, &key)?;
            self.space();
            if !self.take(b',') {
                break;
            }
            self.space();
        }
        if self.take(b'}') { Ok(()) } else { Err(Malformed("a comma or the object's end is expected")) }
    }

    /// A string, or `None` for `null`.
    #[inline]
    pub(crate) fn string_or_null(&mut self) -> Result<Option<Cow<'a, str>>, Malformed> {
        if self.null() { Ok(None) } else { self.string().map(Some) }
    }

    /// Takes a `null`.
    #[inline]
    pub(crate) fn null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.literal("null")
    }

    /// A bool; `null` is false.
    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        if self.literal("true") {
            Ok(true)
        } else if self.literal("false") || self.literal("null") {
            Ok(false)
        } else {
            Err(Malformed("a bool is expected"))
        }
    }

    /// A string.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        if !self.take(b'"') {
            return Err(Malformed("a string is expected"));
        }
        let plain = self.plain();
        if self.take(b'"') { Ok(Cow::Borrowed(plain)) } else { self.escaped(plain).map(Cow::Owned) }
    }

    /// Takes what is plain.
    fn plain(&mut self) -> &'a str {
        let begin = self.at;
        self.at += plain_length(self.rest());
        &self.text[begin..self.at]
    }

    /// The rest of a string that is not plain, after its plain beginning.
    #[cold]
    fn escaped(&mut self, plain: &str) -> Result<String, Malformed> {
        let mut value = plain.to_owned();
        loop {
            value.push_str(self.plain());
            if self.take(b'"') {
                return Ok(value);
            }
            if !self.take(b'\\') {
                return Err(Malformed("a string without end, or with a raw control character"));
            }
            let escape = self.peek().ok_or(Malformed("a string without end"))?;
            self.at += 1;
            value.push(match escape {
                b'"' | b'\\' | b'/' => char::from(escape),
                b'b' => '\x08',
                b'f' => '\x0c',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode()?,
                _ => return Err(Malformed("an unknown escape")),
            });
        }
    }

    /// What follows `\u`; half of a surrogate pair alone is U+FFFD.
    fn unicode(&mut self) -> Result<char, Malformed> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.rest().starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let digits = self.rest().first_chunk::<4>().filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or(Malformed("four hexadecimal digits are expected"))?;
        self.at += 4;
        Ok(code)
    }

    /// A string of base64 or `null`, decoded into `to`, which is emptied before.
    pub(crate) fn base64(&mut self, to: &mut Vec<u8>) -> Result<(), Malformed> {
        to.clear();
        if let Some(text) = self.string_or_null()? {
            let wrong = |_| Malformed("base64 is expected");
            if memchr2(b'\r', b'\n', text.as_bytes()).is_none() {
                STANDARD.decode_append(text.as_bytes(), to).map_err(wrong)?;
            } else {
                let joined: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
                STANDARD.decode_append(joined, to).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// Any value, read past.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_within(DEPTH_LIMIT)
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed("nested too deeply"))?;
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(|cursor, _| cursor.skip_within(depth)),
            Some(b'[') => {
                self.at += 1;
                self.space();
                if self.take(b']') {
                    return Ok(());
                }
                loop {
                    self.space();
                    self.skip_within(depth)?;
                    self.space();
                    if !self.take(b',') {
                        break;
                    }
                }
                if self.take(b']') {
                    Ok(())
                } else {
                    Err(Malformed("a comma or the array's end is expected"))
                }
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.literal("true") || self.literal("false") || self.literal("null") => Ok(()),
            _ => Err(Malformed("a value is expected")),
        }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count > 0 { Ok(()) } else { Err(Malformed("a digit is expected")) }
    }
}

/// Bytes before the first quote, backslash or control character, or all.
#[inline]
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((&word, after)) = rest.split_first_chunk() {
        let found = special(u64::from_le_bytes(word));
        if found != 0 {
            return bytes.len() - rest.len() + found.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    let found = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    bytes.len() - rest.len() + found.unwrap_or(rest.len())
}

/// The top bit of each byte that is a quote, a backslash or below a space; the lowest is right, those above may not be.
#[inline]
const fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let zeros = quote.wrapping_sub(ONES) & !quote | backslash.wrapping_sub(ONES) & !backslash;
    (zeros | word.wrapping_sub(ONES * 0x20) & !word) & TOPS
}

/// Appends a string's inside, escaped as Go escapes it.
#[inline]
pub(crate) fn append_escaped(to: &mut Vec<u8>, text: &str) {
    if is_plain(text.as_bytes()) {
        to.extend_from_slice(text.as_bytes());
    } else {
        append_escaping(to, text);
    }
}

#[cold]
fn append_escaping(to: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '"' => to.extend_from_slice(b"\\\""),
            '\\' => to.extend_from_slice(b"\\\\"),
            '\x08' => to.extend_from_slice(b"\\b"),
            '\x0c' => to.extend_from_slice(b"\\f"),
            '\n' => to.extend_from_slice(b"\\n"),
            '\r' => to.extend_from_slice(b"\\r"),
            '\t' => to.extend_from_slice(b"\\t"),
            ..'\x20' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                to.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            _ => to.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Go escapes none of these bytes; what is not ASCII counts as though it did.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    // Sixteen at a time are one register; the last sixteen may overlap those before.
    match bytes.last_chunk() {
        Some(last) => {
            bytes.chunks_exact(16).filter_map(<[u8]>::first_chunk).all(are_plain) && are_plain(last)
        }
        None => !bytes.iter().fold(false, |found, &byte| found | SPECIAL[usize::from(byte)]),
    }
}

#[inline]
fn are_plain(bytes: &[u8; 16]) -> bool {
    let special = bytes.map(|byte| {
        // `"` and `&` differ in one bit, so do `<` and `>`. No branches: these become vector instructions.
        u8::from(byte.wrapping_sub(0x20) > 0x5e)
            | u8::from(byte & !4 == b'"')
            | u8::from(byte & !2 == b'<')
            | u8::from(byte == b'\\')
    });
    u128::from_ne_bytes(special) == 0
}

const SPECIAL: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0x20_u8;
    while byte < 0x7f {
        table[byte as usize] = matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    table
};

/// Values in values that are read past.
const DEPTH_LIMIT: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Result<String, Malformed> {
        let mut cursor = Cursor::new(text);
        let value = cursor.string()?.into_owned();
        cursor.end().map(|()| value)
    }

    fn skipped(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip().and_then(|()| cursor.end()).is_ok()
    }

    #[test]
    fn strings_with_every_escape() {
        assert_eq!(string(r#""plain""#).unwrap(), "plain");
        assert_eq!(string(r#""""#).unwrap(), "");
        assert_eq!(string(r#""a\"\\\/\b\f\n\r\tz""#).unwrap(), "a\"\\/\x08\x0c\n\r\tz");
        assert_eq!(string(r#""\u00e9\u20ac\ud83d\uDE00""#).unwrap(), "é€😀");
        assert_eq!(string(r#""\ud800, \ud800\u0041, \udc00""#).unwrap(), "\u{fffd}, \u{fffd}A, \u{fffd}");
        for wrong in [r#""no end"#, "\"a\nb\"", r#""\x""#, r#""\u12g4""#, r#""\u+123""#, r#""\"#, "", "5"] {
            assert!(string(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_special_byte_is_found_at_any_place() {
        for special in [b'"', b'\\', 0x1f, 0] {
            for length in 0..40 {
                for at in 0..length {
                    let mut bytes = vec![b'!'; length];
                    bytes[at] = special;
                    assert_eq!(plain_length(&bytes), at);
                    // What follows may be special too, or look nearly so.
                    bytes[at + 1..].fill(special ^ 1);
                    assert_eq!(plain_length(&bytes), at);
                }
            }
        }
        let beyond = "\u{7f} é€ ~ longer than one word";
        assert_eq!(plain_length(beyond.as_bytes()), beyond.len());
    }

    #[test]
    fn strings_are_written_as_go_writes_them() {
        let written = |text: &str| {
            let mut bytes = Vec::new();
            append_escaped(&mut bytes, text);
            String::from_utf8(bytes).unwrap()
        };
        for byte in 0..0x80_u8 {
            let escaped = match byte {
                b'"' => "\\\"".to_owned(),
                b'\\' => "\\\\".to_owned(),
                0x08 => "\\b".to_owned(),
                0x0c => "\\f".to_owned(),
                b'\n' => "\\n".to_owned(),
                b'\r' => "\\r".to_owned(),
                b'\t' => "\\t".to_owned(),
                ..0x20 | b'<' | b'>' | b'&' => format!("\\u00{byte:02x}"),
                _ => char::from(byte).to_string(),
            };
            for before in [0, 3, 15, 16, 40] {
                let before = "-".repeat(before);
                let text = format!("{before}{}", char::from(byte));
                assert_eq!(written(&text), format!("{before}{escaped}"), "{byte:#x}");
            }
        }
        assert_eq!(written("é\u{2028}\u{2029}😀"), "é\\u2028\\u2029😀");
    }

    #[test]
    fn unknown_values_are_read_past() {
        for value in ["5", "-0.5e+10", "1E9", "true", "null", "[]", "[1, [2, {}]]", r#"{"a": {"b": "\""}}"#] {
            assert!(skipped(value), "{value}");
        }
        for wrong in
            ["", "01", "1.", "-", "1e", "tru", "[1,]", "[1", "{1:2}", r#"{"a"}"#, r#"{"a":1,}"#, "1 2"]
        {
            assert!(!skipped(wrong), "{wrong}");
        }
        assert!(skipped(&("[".repeat(DEPTH_LIMIT) + &"]".repeat(DEPTH_LIMIT))));
        assert!(!skipped(&("[".repeat(DEPTH_LIMIT + 1) + &"]".repeat(DEPTH_LIMIT + 1))));
    }
}
