//! CBOR (RFC 8949) as `sage.1.cbor` has it: the deterministic encoding of §4.2.1 and nothing beside it.
//!
//! Lengths and integers in their shortest form, definite lengths, keys in the order of their encoded bytes and each
//! once; no tags, no floats, no simple values but false and true; text is UTF-8, and items nest up to a limit. All of it
//! is asked of what is read, in unknown fields and inside keys too, and the first offence in the order of the bytes is
//! told. Nothing is allocated for a length that is claimed: what is read stays a slice of the message.

use crate::error::{DecodeError, Kind, Offence};
use crate::utf8;

/// How deep a message may nest, its own map counted as 1.
pub const DEPTH_LIMIT: u32 = 16;

/// An item's major type (§3.1), as far as it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the name says it
pub enum Major {
    Unsigned,
    Negative,
    Bytes,
    Text,
    Array,
    Map,
    Bool,
}

/// An item's head: what it is, and a number, a length, a count, or 0 and 1 for false and true.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// What it is.
    pub major: Major,
    /// What goes with it.
    pub argument: u64,
}

/// A position in the bytes of one message.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Major {
    /// What errors call it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Unsigned | Self::Negative => Kind::Number,
            Self::Bytes => Kind::Bytes,
            Self::Text => Kind::String,
            Self::Array => Kind::Array,
            Self::Map => Kind::Map,
            Self::Bool => Kind::Bool,
        }
    }
}

impl<'a> Reader<'a> {
    /// Stands before the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The offset of the next byte.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// What was taken since `start`.
    #[must_use]
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Takes the next byte if it is this one.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    /// Takes the head of the next item.
    ///
    /// # Errors
    ///
    /// It has no place here, or the bytes end before it does; those of a string count as its own.
    // Handing results over in memory costs more than all of this, as in `scan`.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    pub fn head(&mut self) -> Result<Head, DecodeError> {
        let at = self.at;
        let Some(&initial) = self.bytes.get(at) else { return Err(self.ends_early()) };
        let information = initial & 0x1f;
        let major = match initial >> 5 {
            0 => Major::Unsigned,
            1 => Major::Negative,
            2 => Major::Bytes,
            3 => Major::Text,
            4 => Major::Array,
            5 => Major::Map,
            7 if information == FALSE || information == FALSE + 1 => Major::Bool,
            _ => return Err(misplaced(initial, at)),
        };
        self.at += 1;
        let argument = match information {
            0..24 if major == Major::Bool => u64::from(information - FALSE),
            0..24 => u64::from(information),
            24 => self.argument::<1>(24)?,
            25 => self.argument::<2>(1 << 8)?,
            26 => self.argument::<4>(1 << 16)?,
            27 => self.argument::<8>(1 << 32)?,
            _ => return Err(misplaced(initial, at)),
        };
        if matches!(major, Major::Bytes | Major::Text) && argument > (self.bytes.len() - self.at) as u64 {
            return Err(self.ends_early());
        }
        Ok(Head { major, argument })
    }

    /// An argument in bytes of its own, which is at least `least` where no shorter form has room for it.
    #[inline]
    fn argument<const N: usize>(&mut self, least: u64) -> Result<u64, DecodeError> {
        let Some(bytes) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) else {
            return Err(self.ends_early());
        };
        let argument = bytes.iter().fold(0, |argument, &byte| argument << 8 | u64::from(byte));
        if argument < least {
            return Err(DecodeError::Cbor(Offence::NotShortest, self.at - 1));
        }
        self.at += N;
        Ok(argument)
    }

    /// Takes the bytes of a string, behind its head.
    #[inline]
    pub fn octets(&mut self, head: Head) -> &'a [u8] {
        let start = self.at;
        self.at += usize::try_from(head.argument).unwrap_or_default();
        self.since(start)
    }

    /// Takes the text of a string, behind its head.
    ///
    /// # Errors
    ///
    /// It is not UTF-8.
    #[allow(clippy::inline_always)] // as `head`
    #[inline(always)]
    pub fn text(&mut self, head: Head) -> Result<&'a str, DecodeError> {
        let start = self.at;
        let octets = self.octets(head);
        let text = if octets.len() < SHORT { std::str::from_utf8(octets).ok() } else { utf8::whole(octets) };
        text.ok_or_else(|| DecodeError::NotUtf8(start + utf8::first_bad(octets)))
    }

    /// Takes what is left of an item behind its head, which began at `start`, inside of `above` open levels; all of it
    /// is checked.
    ///
    /// # Errors
    ///
    /// Its first offence.
    pub fn rest(&mut self, head: Head, start: usize, above: u32) -> Result<(), DecodeError> {
        match head.major {
            Major::Unsigned | Major::Negative | Major::Bool => {}
            Major::Bytes => drop(self.octets(head)),
            Major::Text => drop(self.text(head)?),
            Major::Array => {
                refuse_depth(start, above)?;
                for _ in 0..head.argument {
                    self.skip(above + 1)?;
                }
            }
            Major::Map => {
                refuse_depth(start, above)?;
                let mut before: &[u8] = &[];
                for _ in 0..head.argument {
                    self.key(&mut before, above + 1)?;
                    self.skip(above + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Takes an item, inside of `above` open levels.
    ///
    /// # Errors
    ///
    /// Its first offence.
    pub fn skip(&mut self, above: u32) -> Result<Head, DecodeError> {
        let start = self.at;
        let head = self.head()?;
        self.rest(head, start, above)?;
        Ok(head)
    }

    /// Takes a map's next key, as it stands there; `before` is the one before it, and becomes this one.
    ///
    /// # Errors
    ///
    /// Its first offence, or that it is not greater than the one before.
    #[allow(clippy::inline_always)] // as `head`
    #[inline(always)]
    pub fn key(&mut self, before: &mut &'a [u8], above: u32) -> Result<(), DecodeError> {
        let start = self.at;
        match self.bytes.get(start) {
            // A small number: no encoding but its own begins with its byte.
            Some(byte @ 0..24) if before.first() < Some(byte) => {
                self.at += 1;
                *before = self.since(start);
                Ok(())
            }
            _ => {
                self.skip(above)?;
                self.in_order(before, start)
            }
        }
    }

    /// Judges a key that was taken since `start`.
    ///
    /// # Errors
    ///
    /// It is not greater than the one before.
    #[inline]
    pub fn in_order(&self, before: &mut &'a [u8], start: usize) -> Result<(), DecodeError> {
        let key = self.since(start);
        // Where nothing stands, nothing is compared: to load no byte from an address that is none costs 70 ns.
        if !before.is_empty() && key <= *before {
            let offence = if key == *before { Offence::DuplicateKey } else { Offence::KeyOutOfOrder };
            return Err(DecodeError::Cbor(offence, start));
        }
        *before = key;
        Ok(())
    }

    /// Nothing stands behind the message's map.
    ///
    /// # Errors
    ///
    /// Something does.
    pub const fn end(&self) -> Result<(), DecodeError> {
        if self.at < self.bytes.len() { Err(DecodeError::CborMore(self.at)) } else { Ok(()) }
    }

    #[cold]
    const fn ends_early(&self) -> DecodeError {
        DecodeError::CborEndsEarly(self.bytes.len())
    }
}

/// Why no item may begin with this byte.
#[cold]
const fn misplaced(initial: u8, at: usize) -> DecodeError {
    DecodeError::Cbor(
        match (initial >> 5, initial & 0x1f) {
            (2..=5, 31) => Offence::IndefiniteLength,
            (_, 28..) => return DecodeError::CborInitialByte(at),
            (6, _) => Offence::Tag,
            (_, 25..28) => Offence::Float,
            _ => Offence::SimpleValue,
        },
        at,
    )
}

/// An array or a map may begin at `start`, inside of so many others, or not.
///
/// # Errors
///
/// It may not.
pub const fn refuse_depth(start: usize, above: u32) -> Result<(), DecodeError> {
    if above >= DEPTH_LIMIT { Err(DecodeError::CborTooDeep(start)) } else { Ok(()) }
}

// ── write ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Appends the shortest head with this argument.
#[inline]
pub fn write_head(major: Major, argument: u64, to: &mut Vec<u8>) {
    let first = match major {
        Major::Unsigned => 0x00,
        Major::Negative => 0x20,
        Major::Bytes => 0x40,
        Major::Text => 0x60,
        Major::Array => 0x80,
        Major::Map => 0xa0,
        Major::Bool => 0xe0 + FALSE,
    };
    let bytes = argument.to_be_bytes();
    let (information, used): (u8, &[u8]) = match argument {
        0..24 => (bytes[7], &[]),
        24..0x100 => (24, &bytes[7..]),
        0x100..0x1_0000 => (25, &bytes[6..]),
        0x1_0000..0x1_0000_0000 => (26, &bytes[4..]),
        _ => (27, &bytes),
    };
    to.push(first + information);
    to.extend_from_slice(used);
}

/// Appends a text string.
#[inline]
pub fn write_text(text: &str, to: &mut Vec<u8>) {
    write_head(Major::Text, text.len() as u64, to);
    to.extend_from_slice(text.as_bytes());
}

/// Bytes of a head with this argument.
#[must_use]
pub const fn head_size(argument: u64) -> usize {
    match argument {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// The first byte of a map of no entries; up to 23 are added to it.
pub const SHORT_MAP: u8 = 0xa0;
/// Bytes of a text from which on the vectorised check is the faster one.
const SHORT: usize = 128;
/// The simple value that is false; true is the next.
const FALSE: u8 = 20;
