//! JSON's grammar (RFC 8259), one pass over text that is known to be UTF-8, with the offset of whatever breaks it.
//!
//! Values are skipped without recursion and without looking inside them; what a caller wants of an object it takes
//! as slices of the text. Nesting is bounded, so that a stack of 128 bits is all that skipping needs.
//!
//! Over 500 lines, a quarter of them tests.

use std::borrow::Cow;

use crate::error::{DecodeError, Kind};
use crate::escape;
use crate::word::{self, below, equal};

/// How deep a message may nest, its own object counted as 1 (docs/reference/wire.md).
pub const DEPTH_LIMIT: u32 = 128;

/// A value that a field may have.
#[derive(Debug)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A string.
    String(Raw<'a>),
    /// Anything else, skipped.
    Other(Kind),
}

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    text: &'a str,
    escapes: bool,
}

impl<'a> Raw<'a> {
    /// Its characters.
    #[must_use]
    pub fn read(self) -> Cow<'a, str> {
        if self.escapes { Cow::Owned(escape::read(self.text)) } else { Cow::Borrowed(self.text) }
    }

    /// Its characters, if they stand there as they are.
    #[must_use]
    pub const fn plain(self) -> Option<&'a str> {
        if self.escapes { None } else { Some(self.text) }
    }
}

impl Value<'_> {
    /// What it is; `null`, which fits everywhere, never needs a name.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Bool(_) => Kind::Bool,
            Self::Other(kind) => *kind,
            Self::String(_) | Self::Null => Kind::String,
        }
    }
}

/// A position in the text of one message.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Stands before the first byte.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Reads a whole message that should be one object: `field` is called behind each key's colon, with what the key
    /// stands for, and must take the value. `null` is an object without fields.
    ///
    /// Peers write their keys in one order: `expected` has them as they stand there, quotes and colon included, and a
    /// key that is the next of them, or one further on, is neither scanned nor looked up. All others `name` knows.
    ///
    /// # Errors
    ///
    /// What `field` returns, whatever breaks the grammar, and a value that is not an object.
    pub fn message<F: Copy>(
        &mut self,
        expected: &[(&[u8], F)],
        name: impl Fn(Raw<'a>) -> Option<F>,
        field: impl FnMut(&mut Self, Option<F>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let other = match self.token()? {
            b'{' => {
                self.fields(expected, name, field)?;
                None
            }
            _ => match self.value(0)? {
                Value::Null => None,
                other => Some(other.kind()),
            },
        };
        self.white_space();
        if self.at < self.text.len() {
            return Err(DecodeError::More(self.at));
        }
        other.map_or(Ok(()), |kind| Err(DecodeError::NotAnObject(kind)))
    }

    /// Reads an object, standing at its brace; `field` is called behind each key's colon, with the key.
    ///
    /// # Errors
    ///
    /// What `field` returns, and whatever breaks the grammar.
    pub fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, Raw<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.fields(&[], Some, |scanner, key| key.map_or(Ok(()), |key| field(scanner, key)))
    }

    /// Reads what stands between the braces of an object that is not empty: `member` gets each key and its value.
    ///
    /// # Errors
    ///
    /// Whatever breaks the grammar.
    pub fn members(&mut self, mut member: impl FnMut(Raw<'a>, &Value<'a>)) -> Result<(), DecodeError> {
        loop {
            let key = self.key()?;
            member(key, &self.value(1)?);
            self.white_space();
            if !self.optional(b",") {
                return Ok(());
            }
        }
    }

    #[inline]
    fn fields<F: Copy>(
        &mut self,
        mut expected: &[(&[u8], F)],
        name: impl Fn(Raw<'a>) -> Option<F>,
        mut field: impl FnMut(&mut Self, Option<F>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.at += 1;
        if self.token()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let known = match self.take_any(&mut expected) {
                Some(known) => Some(known),
                None => name(self.key()?),
            };
            field(self, known)?;
            match self.token()? {
                b',' => {
                    self.at += 1;
                    self.token()?;
                }
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    /// Takes the first of these texts that stands here, and moves on behind it in the list too.
    #[inline]
    fn take_any<F: Copy>(&mut self, expected: &mut &[(&[u8], F)]) -> Option<F> {
        let here = self.text.as_bytes().get(self.at..)?;
        let (skipped, (text, known)) =
            expected.iter().enumerate().find(|(_, (text, _))| here.starts_with(text))?;
        self.at += text.len();
        *expected = &expected[skipped + 1..];
        Some(*known)
    }

    /// The next byte that is not white space; it is not taken.
    ///
    /// # Errors
    ///
    /// The text ends.
    #[inline]
    pub fn token(&mut self) -> Result<u8, DecodeError> {
        match self.text.as_bytes().get(self.at) {
            Some(&byte) if byte > b' ' => Ok(byte),
            _ => self.token_behind_space(),
        }
    }

    fn token_behind_space(&mut self) -> Result<u8, DecodeError> {
        self.white_space();
        self.text.as_bytes().get(self.at).copied().ok_or(DecodeError::EndsEarly(self.text.len()))
    }

    /// Takes the next value; `depth` levels are open around it.
    ///
    /// # Errors
    ///
    /// Whatever breaks the grammar, or too many levels.
    #[inline]
    pub fn value(&mut self, depth: u32) -> Result<Value<'a>, DecodeError> {
        match self.token()? {
            b'"' => self.string().map(Value::String),
            b'n' => self.literal("null").map(|()| Value::Null),
            b't' => self.literal("true").map(|()| Value::Bool(true)),
            b'f' => self.literal("false").map(|()| Value::Bool(false)),
            b'-' | b'0'..=b'9' => self.number().map(|()| Value::Other(Kind::Number)),
            b'[' => self.skip(depth).map(|()| Value::Other(Kind::Array)),
            b'{' => self.skip(depth).map(|()| Value::Other(Kind::Object)),
            _ => Err(self.unexpected()),
        }
    }

    /// Takes a string, standing at its quote, if `wanted` takes its characters up to the next quote, be it escaped
    /// or not. It must refuse a backslash and control characters: then that quote is the string's end.
    pub fn string_if<T>(&mut self, wanted: impl FnOnce(&'a [u8]) -> Option<T>) -> Option<T> {
        let rest = self.text.as_bytes().get(self.at + 1..)?;
        let end = memchr::memchr(b'"', rest)?;
        let taken = wanted(&rest[..end])?;
        self.at += end + 2;
        Some(taken)
    }

    /// What was taken since `start`.
    #[must_use]
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The offset of the next byte.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    fn white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    /// Takes a key and its colon, standing where the key should be.
    #[allow(clippy::inline_always)] // as `string`
    #[inline(always)]
    fn key(&mut self) -> Result<Raw<'a>, DecodeError> {
        if self.token()? != b'"' {
            return Err(self.unexpected());
        }
        let key = self.string()?;
        if self.token()? != b':' {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(key)
    }

    /// Takes a string, standing at its quote.
    ///
    /// # Errors
    ///
    /// Whatever breaks the grammar.
    // Handing the result over in memory costs more than all of this: a third of the time of a small message.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    pub fn string(&mut self) -> Result<Raw<'a>, DecodeError> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut escapes = false;
        loop {
            at += plain(bytes.get(at..).unwrap_or_default());
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    at = self.escape(at + 1)?;
                }
                Some(_) => return Err(DecodeError::Unexpected(at)),
                None => return Err(DecodeError::EndsEarly(at)),
            }
        }
        self.at = at + 1;
        Ok(Raw { text: self.text.get(start..at).unwrap_or_default(), escapes })
    }

    /// Checks an escape whose second character stands at `at`; returns the offset behind it.
    #[cold]
    fn escape(&self, at: usize) -> Result<usize, DecodeError> {
        let bytes = self.text.as_bytes();
        match bytes.get(at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
            Some(b'u') => {
                for digit in at + 1..at + 5 {
                    match bytes.get(digit) {
                        Some(byte) if byte.is_ascii_hexdigit() => {}
                        Some(_) => return Err(DecodeError::Unexpected(digit)),
                        None => return Err(DecodeError::EndsEarly(digit)),
                    }
                }
                Ok(at + 5)
            }
            Some(_) => Err(DecodeError::Unexpected(at)),
            None => Err(DecodeError::EndsEarly(at)),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), DecodeError> {
        for expected in word.bytes() {
            match self.text.as_bytes().get(self.at) {
                Some(&byte) if byte == expected => self.at += 1,
                Some(_) => return Err(self.unexpected()),
                None => return Err(DecodeError::EndsEarly(self.at)),
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), DecodeError> {
        self.optional(b"-");
        // A zero stands alone; what may follow it is a point or an exponent.
        if !self.optional(b"0") {
            self.digits()?;
        }
        if self.optional(b".") {
            self.digits()?;
        }
        if self.optional(b"eE") {
            self.optional(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    fn optional(&mut self, any: &[u8]) -> bool {
        let found = self.text.as_bytes().get(self.at).is_some_and(|byte| any.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn digits(&mut self) -> Result<(), DecodeError> {
        let start = self.at;
        while self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        match self.text.as_bytes().get(self.at) {
            _ if self.at > start => Ok(()),
            Some(_) => Err(self.unexpected()),
            None => Err(DecodeError::EndsEarly(self.at)),
        }
    }

    /// Takes an array or an object, standing at its bracket, inside `depth` open levels.
    fn skip(&mut self, depth: u32) -> Result<(), DecodeError> {
        // The open levels from here on: a bit each, 1 for an object, the innermost lowest.
        let mut objects: u128 = 0;
        let mut levels = 0;
        loop {
            let bracket = self.token()?;
            if bracket == b'[' || bracket == b'{' {
                if depth + levels >= DEPTH_LIMIT {
                    return Err(DecodeError::TooDeep(self.at));
                }
                self.at += 1;
                objects = objects << 1 | u128::from(bracket == b'{');
                levels += 1;
                // An empty one ends below; else its first key or value is next.
                match (self.token()?, bracket) {
                    (b']', b'[') | (b'}', b'{') => {}
                    (_, b'[') => continue,
                    _ => {
                        self.key()?;
                        continue;
                    }
                }
            } else {
                self.value(0)?;
            }
            loop {
                let in_object = objects & 1 == 1;
                match self.token()? {
                    b']' if !in_object => {}
                    b'}' if in_object => {}
                    b',' => {
                        self.at += 1;
                        if in_object {
                            self.key()?;
                        }
                        break;
                    }
                    _ => return Err(self.unexpected()),
                }
                self.at += 1;
                objects >>= 1;
                levels -= 1;
                if levels == 0 {
                    return Ok(());
                }
            }
        }
    }

    #[cold]
    const fn unexpected(&self) -> DecodeError {
        DecodeError::Unexpected(self.at)
    }
}

/// How many bytes stand before the first quote, backslash or control character.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    word::find(bytes, |word| below(word, 0x20) | equal(word, b'"') | equal(word, b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::Noise;

    fn check(text: &str) -> Result<(), DecodeError> {
        Scanner::new(text).message(&[], Some, |scanner, _| scanner.value(1).map(drop))
    }

    #[test]
    fn plain_equals_a_search() {
        let mut noise = Noise::new(7);
        for _ in 0..50_000 {
            let length = noise.below(40);
            let mut bytes: Vec<u8> = noise.bytes(length).iter().map(|byte| byte | 0x20).collect();
            if length > 0 {
                bytes[noise.below(length)] = b"\"\\\x00\x1f\x20\x7f\x80\xff!#[]"[noise.below(12)];
            }
            let expected =
                bytes.iter().position(|byte| byte < &0x20 || b"\"\\".contains(byte)).unwrap_or(length);
            assert_eq!(plain(&bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn accepts_and_refuses_what_serde_json_does() {
        const PIECES: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"\\n\"",
            "\\",
            "\\u00e9",
            "null",
            "true",
            "false",
            "nul",
            "0",
            "-",
            "12",
            "1.5",
            "1.",
            "e",
            "E+7",
            " ",
            "\t",
            "\r\n",
            "\u{b}",
            "é",
            "\u{1}",
            "{\"a\":1}",
            "[]",
            "{}",
        ];
        let mut noise = Noise::new(8);
        let mut sound = 0;
        for _ in 0..200_000 {
            let text: String = (0..noise.below(7)).map(|_| PIECES[noise.below(PIECES.len())]).collect();
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            if theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
                continue;
            }
            let ours = match check(&text) {
                Err(DecodeError::NotAnObject(_)) => Ok(()),
                other => other,
            };
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{text:?} {ours:?} {theirs:?}");
            sound += usize::from(ours.is_ok());
        }
        assert!(sound > 2_000, "{sound}");
    }

    #[test]
    fn names_the_first_byte_that_cannot_be() {
        for (text, expected) in [
            ("", DecodeError::EndsEarly(0)),
            (" \n", DecodeError::EndsEarly(2)),
            ("{\"a\":nul!}", DecodeError::Unexpected(8)),
            ("{\"a\":nul", DecodeError::EndsEarly(8)),
            ("{\"a\":01}", DecodeError::Unexpected(6)),
            ("{\"a\":-x}", DecodeError::Unexpected(6)),
            ("{\"a\":1.}", DecodeError::Unexpected(7)),
            ("{\"a\":1e+}", DecodeError::Unexpected(8)),
            ("{\"a\":-", DecodeError::EndsEarly(6)),
            ("{\"\\x\":1}", DecodeError::Unexpected(3)),
            ("{\"\\u12g4\":1}", DecodeError::Unexpected(6)),
            ("{\"\\u12", DecodeError::EndsEarly(6)),
            ("{\"\n\":1}", DecodeError::Unexpected(2)),
            ("{\"a\" 1}", DecodeError::Unexpected(5)),
            ("{\"a\":1,}", DecodeError::Unexpected(7)),
            ("{,}", DecodeError::Unexpected(1)),
            ("{\"a\":[1,]}", DecodeError::Unexpected(8)),
            ("{\"a\":[1}", DecodeError::Unexpected(7)),
            ("{\"a\":{\"b\":1]", DecodeError::Unexpected(11)),
            ("{\"a\":{\"b\"}}", DecodeError::Unexpected(9)),
            ("{} x", DecodeError::More(3)),
            ("{}}", DecodeError::More(2)),
            ("nullx", DecodeError::More(4)),
            ("12x", DecodeError::More(2)),
            ("\u{feff}{}", DecodeError::Unexpected(0)),
            ("[1]", DecodeError::NotAnObject(Kind::Array)),
            ("\"a\"", DecodeError::NotAnObject(Kind::String)),
            ("5", DecodeError::NotAnObject(Kind::Number)),
            ("true ", DecodeError::NotAnObject(Kind::Bool)),
        ] {
            assert_eq!(check(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn counts_levels_to_the_limit() {
        for (open, close) in [("[", "]"), ("{\"k\":", "}")] {
            let nested = |levels: usize| {
                let value = if open == "[" { "" } else { "1" };
                format!("{{\"x\":{}{value}{}}}", open.repeat(levels), close.repeat(levels))
            };
            assert_eq!(check(&nested(127)), Ok(()));
            let bracket = 5 + 127 * open.len();
            assert_eq!(check(&nested(128)), Err(DecodeError::TooDeep(bracket)));
        }
        assert_eq!(check(&"[".repeat(10_000_000)), Err(DecodeError::TooDeep(128)));
        let wide = format!("{{\"x\":[{}[]]}}", "[[],{}],".repeat(1000));
        assert_eq!(check(&wide), Ok(()));
    }
}
