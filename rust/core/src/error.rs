//! What can go wrong, and the only place of its texts. The fallback core says the same words.
//!
//! Three kinds, by who is told: a [`Violation`] goes to the peer in a close frame, a [`DecodeError`] to the caller or
//! (on a server) to the peer in an answer, a [`SendError`] to our own caller.

use std::fmt;

use crate::close::CloseCode;

/// A broken rule that ends the connection (RFC 6455 §7.1.7): a close code and a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// RSV1-3 set without an extension (§5.2), or RSV1 where RFC 7692 §6 does not have it.
    ReservedBits,
    /// An opcode that §11.8 does not know.
    UnknownOpcode(u8),
    /// A server must not mask (§5.1).
    MaskedServerFrame,
    /// A client must mask (§5.1).
    UnmaskedClientFrame,
    /// A control frame over 125 bytes (§5.5).
    ControlTooLong,
    /// A control frame in fragments (§5.5).
    ControlFragmented,
    /// A length not in its shortest form (§5.2).
    LengthNotMinimal,
    /// A 64-bit length with its top bit set (§5.2).
    LengthTopBit,
    /// A continuation frame that continues nothing (§5.4).
    LoneContinuation,
    /// A text or binary frame while a fragmented message is unfinished (§5.4).
    InterleavedMessage,
    /// A close frame whose payload is one byte (§5.5.1).
    CloseOneByte,
    /// A close code that must not be sent (§7.4).
    CloseCode(u16),
    /// A text message that is not UTF-8 (§8.1).
    TextNotUtf8,
    /// A close reason that is not UTF-8 (§5.5.1).
    ReasonNotUtf8,
    /// A compressed message that does not inflate (RFC 7692 §7.2.2).
    Deflate,
    /// A message over this limit (§7.4.1, 1009).
    TooBig(usize),
    /// Pings faster than we can answer them.
    TooManyPings,
    /// A peer that does not speak SAGE (docs/reference/wire.md).
    ThreeUndecodable,
}

impl Violation {
    /// The close code that tells the peer.
    #[must_use]
    pub const fn code(self) -> CloseCode {
        match self {
            Self::TextNotUtf8 | Self::ReasonNotUtf8 | Self::Deflate => CloseCode::INVALID_DATA,
            Self::TooBig(_) => CloseCode::TOO_BIG,
            Self::TooManyPings | Self::ThreeUndecodable => CloseCode::POLICY_VIOLATION,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match *self {
            Self::ReservedBits => "reserved bits set",
            Self::UnknownOpcode(opcode) => return write!(to, "unknown opcode {opcode}"),
            Self::MaskedServerFrame => "masked frame from a server",
            Self::UnmaskedClientFrame => "unmasked frame from a client",
            Self::ControlTooLong => "control frame longer than 125 bytes",
            Self::ControlFragmented => "fragmented control frame",
            Self::LengthNotMinimal => "length not minimal",
            Self::LengthTopBit => "length with its top bit set",
            Self::LoneContinuation => "continuation without a message",
            Self::InterleavedMessage => "new message inside fragments",
            Self::CloseOneByte => "close frame with one byte",
            Self::CloseCode(code) => return write!(to, "invalid close code {code}"),
            Self::TextNotUtf8 => "invalid UTF-8",
            Self::ReasonNotUtf8 => "invalid UTF-8 in a close reason",
            Self::Deflate => "broken deflate stream",
            Self::TooBig(limit) => return write!(to, "message over {limit} bytes"),
            Self::TooManyPings => "too many pings unanswered",
            Self::ThreeUndecodable => "three undecodable messages in a row",
        })
    }
}

/// A key of a request or a response, as docs/reference/wire.md's tables have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the name says it
pub enum Field {
    Id,
    ContextId,
    TaskId,
    Payload,
    Did,
    Signature,
    Metadata,
    Role,
    Success,
    MessageId,
    Data,
    Error,
    Kind,
    DeadlineMs,
    Credit,
    More,
    Reason,
}

impl Field {
    /// The key on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::ContextId => "context_id",
            Self::TaskId => "task_id",
            Self::Payload => "payload",
            Self::Did => "did",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
            Self::Role => "role",
            Self::Success => "success",
            Self::MessageId => "message_id",
            Self::Data => "data",
            Self::Error => "error",
            Self::Kind => "kind",
            Self::DeadlineMs => "deadline_ms",
            Self::Credit => "credit",
            Self::More => "more",
            Self::Reason => "reason",
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Payload | Self::Signature | Self::Data => "a base64 string",
            Self::Metadata => "an object of strings",
            Self::Success | Self::More => "a bool",
            Self::DeadlineMs => "an integer from 0 to 9007199254740991",
            Self::Credit => "an integer from 0 to 4294967295",
            _ => "a string",
        }
    }

    const fn expected_in_cbor(self) -> &'static str {
        match self {
            Self::Payload | Self::Signature | Self::Data => "bytes",
            Self::Metadata => "a map of strings",
            Self::Kind => "an integer",
            other => other.expected(),
        }
    }
}

/// What a value of JSON or CBOR is, `null` apart: in JSON it fits everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the name says it
pub enum Kind {
    String,
    Number,
    Bool,
    Array,
    Object,
    Bytes,
    Map,
}

impl fmt::Display for Kind {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Array => "array",
            Self::Object => "object",
            Self::Bytes => "bytes",
            Self::Map => "map",
        })
    }
}

/// What the extended wire does not take, though CBOR may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the name says it
pub enum Offence {
    IndefiniteLength,
    NotShortest,
    Tag,
    Float,
    SimpleValue,
    DuplicateKey,
    KeyOutOfOrder,
}

impl fmt::Display for Offence {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::IndefiniteLength => "indefinite length",
            Self::NotShortest => "not in its shortest form",
            Self::Tag => "tag",
            Self::Float => "float",
            Self::SimpleValue => "simple value",
            Self::DuplicateKey => "duplicate key",
            Self::KeyOutOfOrder => "key out of order",
        })
    }
}

/// Bytes that are not the message they should be. Offsets are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The first byte of the first sequence that is not UTF-8.
    NotUtf8(usize),
    /// The first byte at which no JSON text can go on.
    Unexpected(usize),
    /// The message's length: its value is not whole.
    EndsEarly(usize),
    /// The first byte behind the value that is not white space.
    More(usize),
    /// The bracket that opens a level too many.
    TooDeep(usize),
    /// Sound JSON, but not an object.
    NotAnObject(Kind),
    /// A field's value is of the wrong type.
    Type(Field, Kind),
    /// A value inside the metadata is not a string.
    MetadataValue(Kind),
    /// A character that base64 does not have; the offset counts in the unescaped string.
    Base64Character(Field, usize),
    /// Base64 whose length or padding is wrong.
    Base64Padding(Field),
    /// A text message, where CBOR was negotiated.
    TextForCbor,
    /// The message's length: its item is not whole.
    CborEndsEarly(usize),
    /// A byte that begins no item.
    CborInitialByte(usize),
    /// The first byte behind the item.
    CborMore(usize),
    /// CBOR that the extended wire does not have, and where its item begins.
    Cbor(Offence, usize),
    /// The array or map of a level too many.
    CborTooDeep(usize),
    /// Sound CBOR, but not a map.
    NotAMap(Kind),
    /// A field's item is of the wrong type.
    CborType(Field, Kind),
    /// A value (or a key, if true) inside the metadata is not a text string.
    CborEntry(Kind, bool),
    /// An extended message that does not say what it is.
    NoKind,
}

impl DecodeError {
    /// Whether the text was an object in sound JSON, or a map in CBOR as it should be, with a field that was not.
    #[must_use]
    pub const fn is_sound_json(self) -> bool {
        self.field().is_some()
    }

    /// The key whose value was wrong, if it was one in particular.
    #[must_use]
    pub const fn field(self) -> Option<Field> {
        match self {
            Self::Type(field, _)
            | Self::CborType(field, _)
            | Self::Base64Character(field, _)
            | Self::Base64Padding(field) => Some(field),
            Self::MetadataValue(_) | Self::CborEntry(..) => Some(Field::Metadata),
            Self::NoKind => Some(Field::Kind),
            _ => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotUtf8(at) => write!(to, "not UTF-8 at byte {at}"),
            Self::Unexpected(at) => write!(to, "not JSON: unexpected character at byte {at}"),
            Self::EndsEarly(at) => write!(to, "not JSON: ends early at byte {at}"),
            Self::More(at) => write!(to, "not JSON: more after the value at byte {at}"),
            Self::TooDeep(at) => write!(to, "nested deeper than {} at byte {at}", crate::scan::DEPTH_LIMIT),
            Self::NotAnObject(found) => write!(to, "expected an object, found {found}"),
            Self::Type(field, found) => {
                write!(to, "{}: expected {}, found {found}", field.name(), field.expected())
            }
            Self::MetadataValue(found) => write!(
                to,
                "{}: expected {}, found {found} in a value",
                Field::Metadata.name(),
                Field::Metadata.expected()
            ),
            Self::Base64Character(field, at) => {
                write!(to, "{}: illegal base64 character at {at}", field.name())
            }
            Self::Base64Padding(field) => write!(to, "{}: illegal base64 padding", field.name()),
            Self::TextForCbor => to.write_str("expected CBOR, found a TEXT message"),
            Self::CborEndsEarly(at) => write!(to, "not CBOR: ends early at byte {at}"),
            Self::CborInitialByte(at) => write!(to, "not CBOR: bad initial byte at byte {at}"),
            Self::CborMore(at) => write!(to, "not CBOR: more after the value at byte {at}"),
            Self::Cbor(offence, at) => write!(to, "refused CBOR: {offence} at byte {at}"),
            Self::CborTooDeep(at) => {
                write!(to, "nested deeper than {} at byte {at}", crate::cbor::DEPTH_LIMIT)
            }
            Self::NotAMap(found) => write!(to, "expected a map, found {found}"),
            Self::CborType(field, found) => {
                write!(to, "{}: expected {}, found {found}", field.name(), field.expected_in_cbor())
            }
            Self::CborEntry(found, is_key) => {
                let (field, place) = (Field::Metadata, if is_key { "key" } else { "value" });
                let (name, expected) = (field.name(), field.expected_in_cbor());
                write!(to, "{name}: expected {expected}, found {found} in a {place}")
            }
            Self::NoKind => write!(to, "{}: missing", Field::Kind.name()),
        }
    }
}

/// Why something was not sent: nothing of it is in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// A close frame was sent or received.
    Closing,
    /// A message with this id awaits its answer.
    DuplicateId,
    /// A message of this size is over the limit.
    MessageTooBig(usize, usize),
    /// A response of this size is over the limit.
    ResponseTooBig(usize, usize),
    /// A ping's payload is over 125 bytes (RFC 6455 §5.5).
    PingTooLong,
    /// A close code that must not be sent (§7.4).
    CloseCode(i64),
    /// A close reason that does not fit a control frame (§5.5).
    ReasonTooLong,
    /// A response in parts, on a connection whose peer does not know them.
    NotExtended,
}

impl fmt::Display for SendError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Closing => to.write_str("connection is closing"),
            // Without the id: it is the peer's or the user's text, which the binding escapes.
            Self::DuplicateId => to.write_str("a message with this id is in flight"),
            Self::MessageTooBig(size, limit) => {
                write!(to, "message of {size} bytes is over max_message_size {limit}")
            }
            Self::ResponseTooBig(size, limit) => {
                write!(to, "response of {size} bytes is over max_message_size {limit}")
            }
            Self::PingTooLong => to.write_str("ping payload over 125 bytes"),
            Self::CloseCode(code) => write!(to, "invalid close code {code}"),
            Self::ReasonTooLong => to.write_str("close reason over 123 bytes"),
            Self::NotExtended => to.write_str("a response in parts needs an extended connection"),
        }
    }
}

impl std::error::Error for Violation {}
impl std::error::Error for DecodeError {}
impl std::error::Error for SendError {}
