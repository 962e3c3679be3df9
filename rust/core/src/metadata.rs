//! A message's metadata: strings by string, kept as the JSON that stands between the braces, or as the map of CBOR.
//!
//! Few handlers look at it, so it is read when somebody asks. One allocation holds all of it, whatever the number of
//! entries; what was written by [`Metadata::from_pairs`] with its keys in order goes out as it stands.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::cbor::{self, Major, Reader};
use crate::error::DecodeError;
use crate::escape;
use crate::scan::{Scanner, Value};

/// The entries.
#[derive(Debug, Clone, Default)]
pub struct Metadata<'a>(Entries<'a>);

/// How they are kept; known to be sound.
#[derive(Debug, Clone)]
enum Entries<'a> {
    /// `"key":"value",…` without the braces; empty where there is no entry. If `canonical`, they are the bytes that Go
    /// writes: escaped as it does, keys in order and each there once.
    Json { text: Cow<'a, str>, canonical: bool },
    /// A map with at least one entry, in its one encoding.
    Cbor(Cow<'a, [u8]>),
}

impl Default for Entries<'_> {
    fn default() -> Self {
        Self::Json { text: Cow::Borrowed(""), canonical: false }
    }
}

impl<'a> Metadata<'a> {
    /// From what stands between the braces of a JSON object known to be sound, its values strings or null.
    #[must_use]
    pub const fn from_json(entries: &'a str) -> Self {
        Self(Entries::Json { text: Cow::Borrowed(entries), canonical: false })
    }

    /// From a map of CBOR known to be deterministic, text strings by text strings, and not empty.
    #[must_use]
    pub const fn from_cbor(map: &'a [u8]) -> Self {
        Self(Entries::Cbor(Cow::Borrowed(map)))
    }

    /// From keys and values, each key given once.
    #[must_use]
    pub fn from_pairs<'b>(pairs: impl IntoIterator<Item = (&'b str, &'b str)>) -> Self {
        let mut entries = Vec::with_capacity(USUAL);
        let mut canonical = true;
        let mut last = None;
        for (key, value) in pairs {
            canonical &= last < Some(key);
            last = Some(key);
            write_entry(key, value, &mut entries);
        }
        let text = Cow::Owned(String::from_utf8(entries).unwrap_or_default());
        Self(Entries::Json { text, canonical })
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length() == 0
    }

    /// The length of the entries as they are kept, which is about what they have on the wire.
    #[must_use]
    pub fn length(&self) -> usize {
        match &self.0 {
            Entries::Json { text, .. } => text.len(),
            Entries::Cbor(map) => map.len(),
        }
    }

    /// Adds another object's entries: a key that stands in both takes the later value.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if other.is_empty() { self } else { other };
        }
        // Appended: a message may name its metadata as often as it has room for, and what came before is not copied.
        let mut text = self.json().into_owned();
        text.push(',');
        text.push_str(&other.json());
        Self(Entries::Json { text: Cow::Owned(text), canonical: false })
    }

    fn json(self) -> Cow<'a, str> {
        if let Entries::Json { text, .. } = self.0 {
            return text;
        }
        let mut entries = Vec::new();
        self.write(&mut entries);
        Cow::Owned(String::from_utf8(entries).unwrap_or_default())
    }

    /// The same, owning its text: copied, unless it does.
    #[must_use]
    pub fn into_owned(self) -> Metadata<'static> {
        Metadata(match self.0 {
            Entries::Json { text, canonical } => {
                Entries::Json { text: Cow::Owned(text.into_owned()), canonical }
            }
            Entries::Cbor(map) => Entries::Cbor(Cow::Owned(map.into_owned())),
        })
    }

    /// The same, borrowing the text.
    #[must_use]
    pub fn view(&self) -> Metadata<'_> {
        Metadata(match &self.0 {
            Entries::Json { text, canonical } => {
                Entries::Json { text: Cow::Borrowed(text), canonical: *canonical }
            }
            Entries::Cbor(map) => Entries::Cbor(Cow::Borrowed(map)),
        })
    }

    /// Keys and values in their order. A key that stands in JSON twice comes twice: the later value counts.
    pub fn for_each<'s>(&'s self, mut entry: impl FnMut(Cow<'s, str>, Cow<'s, str>)) {
        let sound = match &self.0 {
            Entries::Json { text, .. } if text.is_empty() => Ok(()),
            Entries::Json { text, .. } => Scanner::new(text).members(|key, value| {
                let value = match value {
                    Value::String(raw) => raw.read(),
                    _ => Cow::Borrowed(""),
                };
                entry(key.read(), value);
            }),
            Entries::Cbor(map) => each_of_cbor(map, &mut entry),
        };
        debug_assert_eq!(sound, Ok(()));
    }

    /// Appends the entries as a map of CBOR: keys in the order of their encodings, the shorter first, each once.
    pub fn write_cbor(&self, to: &mut Vec<u8>) {
        if let Entries::Cbor(map) = &self.0 {
            to.extend_from_slice(map);
            return;
        }
        // Most have one entry, or few that stand in that order already: they are written as they are read.
        let start = to.len();
        to.push(0);
        let mut count: u8 = 0;
        let mut last = None;
        let mut in_order = true;
        self.for_each(|key, value| {
            cbor::write_text(&key, to);
            cbor::write_text(&value, to);
            count = count.saturating_add(1);
            let this = (key.len(), key);
            in_order &= last.as_ref() < Some(&this);
            last = Some(this);
        });
        if in_order && count < 24 {
            to[start] = cbor::SHORT_MAP + count;
            return;
        }
        to.truncate(start);
        self.write_cbor_sorted(to);
    }

    #[cold]
    fn write_cbor_sorted(&self, to: &mut Vec<u8>) {
        let mut entries = BTreeMap::new();
        self.for_each(|key, value| {
            entries.insert((key.len(), key), value);
        });
        cbor::write_head(Major::Map, entries.len() as u64, to);
        for ((_, key), value) in &entries {
            cbor::write_text(key, to);
            cbor::write_text(value, to);
        }
    }

    /// Appends the entries as Go writes them: keys in the order of their UTF-8 bytes, each once.
    pub fn write(&self, to: &mut Vec<u8>) {
        if let Entries::Json { text, canonical: true } = &self.0 {
            to.extend_from_slice(text.as_bytes());
            return;
        }
        let mut sorted = BTreeMap::new();
        self.for_each(|key, value| {
            sorted.insert(key, value);
        });
        let mut first = true;
        for (key, value) in &sorted {
            if !first {
                to.push(b',');
            }
            first = false;
            escape::write(key, to);
            to.push(b':');
            escape::write(value, to);
        }
    }
}

fn each_of_cbor<'s>(
    map: &'s [u8],
    entry: &mut impl FnMut(Cow<'s, str>, Cow<'s, str>),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(map);
    let text = |reader: &mut Reader<'s>| reader.head().and_then(|head| reader.text(head));
    for _ in 0..reader.head()?.argument {
        entry(Cow::Borrowed(text(&mut reader)?), Cow::Borrowed(text(&mut reader)?));
    }
    Ok(())
}

/// Equal are the same keys with the same values, however they are written.
impl PartialEq for Metadata<'_> {
    fn eq(&self, other: &Self) -> bool {
        let written = |metadata: &Self| {
            let mut bytes = Vec::new();
            metadata.write(&mut bytes);
            bytes
        };
        match (&self.0, &other.0) {
            (Entries::Json { text: left, .. }, Entries::Json { text: right, .. }) if left == right => true,
            (Entries::Cbor(left), Entries::Cbor(right)) => left == right,
            _ => written(self) == written(other),
        }
    }
}

impl Eq for Metadata<'_> {}

/// Bytes of a few short entries: one allocation for all of them.
const USUAL: usize = 64;

fn write_entry(key: &str, value: &str, to: &mut Vec<u8>) {
    if !to.is_empty() {
        to.push(b',');
    }
    escape::write(key, to);
    to.push(b':');
    escape::write(value, to);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(metadata: &Metadata<'_>) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        metadata.for_each(|key, value| pairs.push((key.into_owned(), value.into_owned())));
        pairs
    }

    fn written(metadata: &Metadata<'_>) -> String {
        let mut bytes = Vec::new();
        metadata.write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn owned(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn keeps_the_order_given_and_writes_the_keys_sorted() {
        let metadata = Metadata::from_pairs([("b", "<"), ("a", "\n")]);
        assert_eq!(pairs(&metadata), [owned("b", "<"), owned("a", "\n")]);
        assert_eq!(written(&metadata), r#""a":"\n","b":"\u003c""#);
        assert_eq!(written(&Metadata::from_pairs([("a", "1"), ("b", "2")])), r#""a":"1","b":"2""#);
    }

    #[test]
    fn reads_what_json_allows_and_writes_it_as_go_does() {
        let metadata = Metadata::from_json(" \"b\" : null ,\"a\":\"\\u0041/\", \"b\":\"2\"");
        assert_eq!(pairs(&metadata), [owned("b", ""), owned("a", "A/"), owned("b", "2")]);
        assert_eq!(written(&metadata), r#""a":"A/","b":"2""#);
    }

    #[test]
    fn a_map_of_cbor_has_the_shorter_keys_first() {
        let expected = b"\xa3\x61b\x61<\x62aa\x60\x62ab\x611";
        for metadata in [
            Metadata::from_pairs([("ab", "1"), ("b", "<"), ("aa", "")]),
            Metadata::from_pairs([("b", "<"), ("aa", ""), ("ab", "1")]),
            Metadata::from_json(r#""ab":"2","b":"\u003c", "aa":null,"ab":"1""#),
            Metadata::from_cbor(expected),
        ] {
            let mut bytes = Vec::new();
            metadata.write_cbor(&mut bytes);
            assert_eq!(bytes, expected);
            assert_eq!(written(&metadata), r#""aa":"","ab":"1","b":"\u003c""#);
            assert_eq!(metadata, Metadata::from_cbor(expected).into_owned());
        }
        let many: Vec<String> = (10..40).map(|number| number.to_string()).collect();
        let metadata = Metadata::from_pairs(many.iter().map(|key| (key.as_str(), "")));
        let mut bytes = Vec::new();
        metadata.write_cbor(&mut bytes);
        assert_eq!(bytes[..6], *b"\xb8\x1e\x6210\x60");
        assert_eq!(pairs(&Metadata::from_cbor(&bytes)).len(), 30);
    }

    #[test]
    fn what_is_merged_is_not_copied_each_time() {
        let mut merged = Metadata::default();
        let (mut place, mut moves) = (None, 0);
        for _ in 0..5000 {
            merged = merged.merge(Metadata::from_json(r#""key":"value""#));
            let Entries::Json { text, .. } = &merged.0 else { unreachable!() };
            moves += u32::from(place.replace(text.as_ptr()) != Some(text.as_ptr()));
        }
        assert!(moves < 50, "{moves}");
        assert_eq!(merged.length(), 5000 * 14 - 1);
    }

    #[test]
    fn merges_and_compares_by_value() {
        let (first, second) = (Metadata::from_json(r#""a":"1""#), Metadata::from_json(r#""b":"\u0032""#));
        let merged = first.clone().merge(second).merge(Metadata::default());
        assert_eq!(merged, Metadata::from_pairs([("b", "2"), ("a", "1")]));
        assert_ne!(merged, first);
        assert_eq!(Metadata::default(), Metadata::from_json(""));
    }
}
