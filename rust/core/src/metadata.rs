//! A message's metadata: strings by string, kept as the JSON that stands between the braces.
//!
//! Few handlers look at it, so it is read when somebody asks. One allocation holds all of it, whatever the number of
//! entries; what was written by [`Metadata::from_pairs`] with its keys in order goes out as it stands.

use std::borrow::Cow;

use crate::cbor::{self, Major};
use crate::escape;
use crate::scan::{Scanner, Value};

/// The entries, as JSON known to be sound.
#[derive(Debug, Clone, Default)]
pub struct Metadata<'a> {
    /// `"key":"value",…` without the braces; empty where there is no entry.
    entries: Cow<'a, str>,
    /// Whether `entries` are the bytes that Go writes: escaped as it does, keys in order and each there once.
    canonical: bool,
}

impl<'a> Metadata<'a> {
    /// From what stands between the braces of a JSON object known to be sound, its values strings or null.
    #[must_use]
    pub const fn from_json(entries: &'a str) -> Self {
        Self { entries: Cow::Borrowed(entries), canonical: false }
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
        Self { entries: Cow::Owned(String::from_utf8(entries).unwrap_or_default()), canonical }
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The length of the entries as JSON.
    #[must_use]
    pub fn length(&self) -> usize {
        self.entries.len()
    }

    /// Adds another object's entries: a key that stands in both takes the later value.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if other.is_empty() { self } else { other };
        }
        Self { entries: Cow::Owned(format!("{},{}", self.entries, other.entries)), canonical: false }
    }

    /// The same, owning its text.
    #[must_use]
    pub fn to_owned(&self) -> Metadata<'static> {
        Metadata { entries: Cow::Owned((*self.entries).to_owned()), canonical: self.canonical }
    }

    /// The same, owning its text: copied, unless it does.
    #[must_use]
    pub fn into_owned(self) -> Metadata<'static> {
        Metadata { entries: Cow::Owned(self.entries.into_owned()), canonical: self.canonical }
    }

    /// The same, borrowing the text.
    #[must_use]
    pub fn view(&self) -> Metadata<'_> {
        Metadata { entries: Cow::Borrowed(&self.entries), canonical: self.canonical }
    }

    /// Keys and values in the order of the text. A key that stands there twice comes twice: the later value counts.
    pub fn for_each<'s>(&'s self, mut entry: impl FnMut(Cow<'s, str>, Cow<'s, str>)) {
        if self.entries.is_empty() {
            return;
        }
        let sound = Scanner::new(&self.entries).members(|key, value| {
            let value = match value {
                Value::String(raw) => raw.read(),
                _ => Cow::Borrowed(""),
            };
            entry(key.read(), value);
        });
        debug_assert_eq!(sound, Ok(()));
    }

    /// Appends the entries as a map of CBOR: keys in the order of their encodings, the shorter first, each once.
    pub fn write_cbor(&self, to: &mut Vec<u8>) {
        let mut entries = Vec::new();
        self.for_each(|key, value| entries.push((key, value)));
        // Stable: of those with the same key, the last in the text comes last, and counts.
        entries.sort_by(|(left, _), (right, _)| (left.len(), left).cmp(&(right.len(), right)));
        let is_last = |index: usize| entries.get(index + 1).is_none_or(|next| next.0 != entries[index].0);
        let last = (0..entries.len()).filter(|&index| is_last(index));
        cbor::write_head(Major::Map, last.clone().count() as u64, to);
        for index in last {
            let (key, value) = &entries[index];
            cbor::write_text(key, to);
            cbor::write_text(value, to);
        }
    }

    /// Appends the entries as Go writes them: keys in the order of their UTF-8 bytes, each once.
    pub fn write(&self, to: &mut Vec<u8>) {
        if self.canonical {
            to.extend_from_slice(self.entries.as_bytes());
            return;
        }
        let mut sorted = std::collections::BTreeMap::new();
        self.for_each(|key, value| {
            sorted.insert(key.into_owned(), value.into_owned());
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

/// Equal are the same keys with the same values, however they are written.
impl PartialEq for Metadata<'_> {
    fn eq(&self, other: &Self) -> bool {
        let written = |metadata: &Self| {
            let mut bytes = Vec::new();
            metadata.write(&mut bytes);
            bytes
        };
        self.entries == other.entries || written(self) == written(other)
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
    fn merges_and_compares_by_value() {
        let (first, second) = (Metadata::from_json(r#""a":"1""#), Metadata::from_json(r#""b":"\u0032""#));
        let merged = first.clone().merge(second).merge(Metadata::default());
        assert_eq!(merged, Metadata::from_pairs([("b", "2"), ("a", "1")]));
        assert_ne!(merged, first);
        assert_eq!(Metadata::default(), Metadata::from_json(""));
    }
}
