//! A second opinion on a message: `serde_json` finds the values, and wire.md's table says what they mean.
//!
//! `serde_json` differs from the table in three points. A surrogate without its other half is an error there and
//! U+FFFD here: it is written so beforehand. How deep a value nests it does not mind when it only skips it: the
//! levels are counted here. And it says in its own words what it refuses: compared is whether, and whether the
//! text was too short.

use std::collections::BTreeMap;
use std::fmt;

use sage_ws_core::DecodeError;
use sage_ws_core::error::{Field, Kind};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::plain;

/// The fields that were found, by the kind of their values.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Strings, by key.
    pub texts: BTreeMap<&'static str, String>,
    /// Bytes, by key; empty bytes are none.
    pub octets: BTreeMap<&'static str, Vec<u8>>,
    /// `success`.
    pub success: bool,
    /// Key and value.
    pub metadata: BTreeMap<String, String>,
}

/// What the text is.
#[derive(Debug)]
pub enum Opinion {
    /// Not JSON; `true`: too short.
    NotJson(bool),
    /// JSON that nests too deep.
    TooDeep,
    /// JSON, but no object.
    NotAnObject(Kind),
    /// An object, and the first field with a value that it may not have. The others are read.
    Object(Message, Option<DecodeError>),
}

/// Reads a message with these fields.
#[must_use]
pub fn read(text: &str, fields: &[Field]) -> Opinion {
    let text = pair_surrogates(text);
    let value: Box<RawValue> = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(error) => return Opinion::NotJson(error.is_eof()),
    };
    if levels(&text) > 128 {
        return Opinion::TooDeep;
    }
    match kind(value.get()) {
        None => return Opinion::Object(Message::default(), None),
        Some(Kind::Object) => {}
        Some(other) => return Opinion::NotAnObject(other),
    }
    let mut message = Message::default();
    let mut flaw = None;
    for (key, value) in entries(value.get()) {
        let found = fields.iter().find(|field| field.name() == fold(&key));
        if let Some(Err(error)) = found.map(|field| message.take(*field, value.get())) {
            flaw.get_or_insert(error);
        }
    }
    Opinion::Object(message, flaw)
}

impl Message {
    fn take(&mut self, field: Field, value: &str) -> Result<(), DecodeError> {
        let name = field.name();
        match (field, kind(value)) {
            (Field::Payload | Field::Signature | Field::Data, None) => {
                self.octets.remove(name);
            }
            (Field::Metadata, None) => self.metadata.clear(),
            (_, None) => {}
            (Field::Payload | Field::Signature | Field::Data, Some(Kind::String)) => {
                let bytes = plain::base64(string(value).as_bytes()).map_err(|at| match at {
                    Some(at) => DecodeError::Base64Character(field, at),
                    None => DecodeError::Base64Padding(field),
                })?;
                self.octets.remove(name);
                if !bytes.is_empty() {
                    self.octets.insert(name, bytes);
                }
            }
            (Field::Success, Some(Kind::Bool)) => self.success = value == "true",
            (Field::Metadata, Some(Kind::Object)) => return self.merge(value),
            (
                Field::Id
                | Field::ContextId
                | Field::TaskId
                | Field::Did
                | Field::Role
                | Field::MessageId
                | Field::Error,
                Some(Kind::String),
            ) => {
                self.texts.remove(name);
                if value != "\"\"" {
                    self.texts.insert(name, string(value));
                }
            }
            (_, Some(other)) => return Err(DecodeError::Type(field, other)),
        }
        Ok(())
    }

    fn merge(&mut self, object: &str) -> Result<(), DecodeError> {
        let mut flaw = None;
        for (key, value) in entries(object) {
            let text = match kind(value.get()) {
                None => String::new(),
                Some(Kind::String) => string(value.get()),
                Some(other) => {
                    flaw.get_or_insert(DecodeError::MetadataValue(other));
                    continue;
                }
            };
            self.metadata.insert(key, text);
        }
        flaw.map_or(Ok(()), Err)
    }
}

/// By its first character; `None` is `null`.
fn kind(value: &str) -> Option<Kind> {
    match value.as_bytes().first() {
        Some(b'"') => Some(Kind::String),
        Some(b'{') => Some(Kind::Object),
        Some(b'[') => Some(Kind::Array),
        Some(b't' | b'f') => Some(Kind::Bool),
        Some(b'n') => None,
        _ => Some(Kind::Number),
    }
}

fn string(value: &str) -> String {
    serde_json::from_str(value).expect("a string of a text that was read before")
}

/// Keys and values in the order of the text, one that stands there twice included.
struct Entries(Vec<(String, Box<RawValue>)>);

fn entries(object: &str) -> Vec<(String, Box<RawValue>)> {
    serde_json::from_str::<Entries>(object).expect("an object of a text that was read before").0
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        from.deserialize_map(Collect)
    }
}

/// Unicode's simple case folding, as far as it meets the keys.
fn fold(key: &str) -> String {
    key.to_ascii_lowercase().replace('\u{17f}', "s").replace('\u{212a}', "k")
}

/// Writes U+FFFD, escaped, for each escaped surrogate that has no other half behind or before it.
fn pair_surrogates(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            // The escaped character goes with its backslash, which may be one itself.
            _ => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out + rest
}

/// The code unit that an escape at the beginning stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

/// How deep a JSON text nests.
fn levels(text: &str) -> usize {
    let (mut open, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => open += 1,
            b']' | b'}' if !quoted => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// Whether the core's answer is that of the opinion; `message` is what it read.
///
/// # Panics
///
/// If it is not.
pub fn judge(
    text: &str,
    opinion: Opinion,
    answer: Result<(), DecodeError>,
    message: impl FnOnce() -> Message,
) {
    match (opinion, answer) {
        (Opinion::NotJson(too_short), Err(DecodeError::EndsEarly(at))) => {
            // A number that lacks its digits is no end to serde_json.
            let number = text.ends_with(['-', '+', '.', 'e', 'E']);
            assert!((too_short || number) && at == text.len(), "{text:?}: ends early at {at}");
        }
        // What is too deep is refused before its end is seen.
        (Opinion::NotJson(_) | Opinion::TooDeep, Err(DecodeError::TooDeep(at))) => {
            assert_eq!(levels(&text[..=at]), 129, "{text:?}");
        }
        (Opinion::NotJson(too_short), Err(DecodeError::Unexpected(at) | DecodeError::More(at))) => {
            // serde_json wants an escape's four digits to be there before it looks at them.
            let escape = text[..at].rfind("\\u").is_some_and(|escape| escape + 6 > text.len());
            assert!(!too_short || escape, "{text:?}: unexpected at {at}");
        }
        (Opinion::NotAnObject(kind), answer) => {
            assert_eq!(answer, Err(DecodeError::NotAnObject(kind)), "{text:?}");
        }
        (Opinion::Object(expected, flaw), answer) => {
            assert_eq!(answer, flaw.map_or(Ok(()), Err), "{text:?}");
            // Of metadata with a flaw nothing is promised; of the other fields all is.
            let mut read = message();
            if flaw.is_some() {
                read.metadata.clone_from(&expected.metadata);
            }
            assert_eq!(read, expected, "{text:?}");
        }
        (opinion, answer) => panic!("{text:?}: {answer:?}, not {opinion:?}"),
    }
}
