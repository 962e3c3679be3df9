//! Messages of `sage.1.json` and `sage.1.cbor` (docs/reference/wire.md): one table of fields, by name and by number.
//!
//! A message has a kind; a field that belongs to another kind is read, so that its type is checked, and not looked at.
//! In JSON the rules are those of [`wire`], in CBOR those of [`cbor`]; a wrong type does not end the pass in either.
//!
//! Over 500 lines: both encodings of one table, each with a short way for the usual message and a whole one.

use std::borrow::Cow;

use crate::base64::{self, MakeBytes};
use crate::cbor::{self, Head, Major, Reader};
use crate::error::{DecodeError, Field, Kind};
use crate::escape;
use crate::metadata::Metadata;
use crate::scan::{Raw, Scanner, Value};
use crate::utf8;
use crate::wire::{self, Fields, Request, Response, octets};

/// What was negotiated: how extended messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// `sage.1.json`
    Json,
    /// `sage.1.cbor`
    Cbor,
}

/// What a message is, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the name says it
pub enum MessageKind {
    Request,
    Response,
    Cancel,
    Credit,
    GoAway,
    /// Of a later version.
    Unknown,
}

/// A message with the fields of all kinds. The task id stands in the request, whatever the kind.
#[derive(Debug)]
pub struct Message<'a, B> {
    /// `None`: it does not say.
    pub kind: Option<MessageKind>,
    /// The fields of a request, and a cancel's and a credit's.
    pub request: Request<'a, B>,
    /// The fields of a response.
    pub response: Response<'a, B>,
    /// Why the peer goes away.
    pub reason: Cow<'a, str>,
    /// Whether there were fields that are not in the table.
    pub has_unknown: bool,
}

impl Subprotocol {
    /// By its name.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        match name {
            "sage.1.json" => Some(Self::Json),
            "sage.1.cbor" => Some(Self::Cbor),
            _ => None,
        }
    }
}

impl MessageKind {
    fn of_number(number: u64) -> Self {
        let known = usize::try_from(number).ok().and_then(|number| KINDS.get(number));
        known.copied().unwrap_or(Self::Unknown)
    }

    fn of_name(name: &str) -> Self {
        KINDS.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Unknown)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Cancel => "cancel",
            Self::Credit => "credit",
            Self::GoAway => "goaway",
            Self::Unknown => "",
        }
    }
}

impl<B> Default for Message<'_, B> {
    fn default() -> Self {
        Self {
            kind: None,
            request: Request::default(),
            response: Response::default(),
            reason: Cow::Borrowed(""),
            has_unknown: false,
        }
    }
}

/// What travels of so many seconds; `None` for a time without end.
#[must_use]
pub fn deadline_ms(remaining: f64) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // clamped
    remaining.is_finite().then(|| (remaining * 1000.0).clamp(0.0, LONGEST_DEADLINE as f64) as u64)
}

// ── decode ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Reads a message, a text one's text or a binary one's bytes, into `message`, which is empty before.
///
/// # Errors
///
/// The first offence against the grammar, else the first field that is not what it should be, else that the kind is
/// missing. With the latter two the other fields are read all the same.
pub fn decode<'a, M: MakeBytes>(
    subprotocol: Subprotocol,
    given: Result<&'a str, &'a [u8]>,
    maker: &mut M,
    message: &mut Message<'a, M::Bytes>,
) -> Result<(), DecodeError> {
    match (subprotocol, given) {
        (Subprotocol::Cbor, Err(bytes)) => decode_cbor(bytes, maker, message)?,
        (Subprotocol::Cbor, Ok(_)) => return Err(DecodeError::TextForCbor),
        (Subprotocol::Json, Ok(text)) => decode_json(text, maker, message)?,
        (Subprotocol::Json, Err(bytes)) => {
            let text = utf8::whole(bytes).ok_or_else(|| DecodeError::NotUtf8(utf8::first_bad(bytes)))?;
            decode_json(text, maker, message)?;
        }
    }
    if message.kind.is_none() { Err(DecodeError::NoKind) } else { Ok(()) }
}

fn decode_json<'a, M: MakeBytes>(
    text: &'a str,
    maker: &mut M,
    message: &mut Message<'a, M::Bytes>,
) -> Result<(), DecodeError> {
    let mut fields = Fields { maker, flaw: None };
    let Message { kind, request, response, reason, has_unknown } = message;
    Scanner::new(text).message(&KEYS, field_of_key, |scanner, field| match field {
        Some(Field::Kind) => json_kind(scanner, &mut fields, kind),
        Some(field @ Field::Id) => fields.text(scanner, field, &mut request.id),
        Some(field @ Field::ContextId) => fields.text(scanner, field, &mut request.context_id),
        Some(field @ Field::TaskId) => fields.text(scanner, field, &mut request.task_id),
        Some(field @ Field::Payload) => fields.bytes(scanner, field, &mut request.payload),
        Some(field @ Field::Did) => fields.text(scanner, field, &mut request.did),
        Some(field @ Field::Signature) => fields.bytes(scanner, field, &mut request.signature),
        Some(Field::Metadata) => fields.metadata(scanner, &mut request.metadata),
        Some(field @ Field::Role) => fields.text(scanner, field, &mut request.role),
        Some(field @ Field::Success) => fields.bool(scanner, field, &mut response.success),
        Some(field @ Field::MessageId) => fields.text(scanner, field, &mut response.message_id),
        Some(field @ Field::Data) => fields.bytes(scanner, field, &mut response.data),
        Some(field @ Field::Error) => fields.text(scanner, field, &mut response.error),
        Some(field @ Field::DeadlineMs) => {
            let number = json_integer(scanner, &mut fields, field, LONGEST_DEADLINE)?;
            request.deadline_ms = number.or(request.deadline_ms);
            Ok(())
        }
        Some(field @ Field::Credit) => {
            let number = json_integer(scanner, &mut fields, field, u64::from(u32::MAX))?;
            request.credit = number.and_then(|number| number.try_into().ok()).or(request.credit);
            Ok(())
        }
        Some(field @ Field::More) => fields.bool(scanner, field, &mut response.more),
        Some(field @ Field::Reason) => fields.text(scanner, field, reason),
        None => {
            *has_unknown = true;
            scanner.value(1).map(drop)
        }
    })?;
    fields.flaw.map_or(Ok(()), Err)
}

fn json_kind<M: MakeBytes>(
    scanner: &mut Scanner<'_>,
    fields: &mut Fields<'_, M>,
    kind: &mut Option<MessageKind>,
) -> Result<(), DecodeError> {
    match scanner.value(1)? {
        Value::String(raw) => *kind = Some(MessageKind::of_name(&raw.read())),
        Value::Null => {}
        other => fields.wrong_type(Field::Kind, &other),
    }
    Ok(())
}

/// An integer up to `most`, as a double holds it; `None` for null.
fn json_integer<M: MakeBytes>(
    scanner: &mut Scanner<'_>,
    fields: &mut Fields<'_, M>,
    field: Field,
    most: u64,
) -> Result<Option<u64>, DecodeError> {
    scanner.token()?;
    let start = scanner.position();
    let value = scanner.value(1)?;
    match value {
        Value::Null => return Ok(None),
        Value::Other(Kind::Number) => {
            let number: f64 = scanner.since(start).parse().unwrap_or(f64::NAN);
            #[allow(clippy::cast_precision_loss)] // both limits are exact
            let fits = (0.0..=most as f64).contains(&number) && number.fract() == 0.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it fits
            if fits {
                return Ok(Some(number as u64));
            }
        }
        _ => {}
    }
    fields.wrong_type(field, &value);
    Ok(None)
}

fn decode_cbor<'a, M: MakeBytes>(
    bytes: &'a [u8],
    maker: &mut M,
    message: &mut Message<'a, M::Bytes>,
) -> Result<(), DecodeError> {
    let mut items = Items { reader: Reader::new(bytes), maker, flaw: None };
    let map = items.reader.head()?;
    if map.major != Major::Map {
        items.reader.rest(map, 0, 0)?;
        items.reader.end()?;
        return Err(DecodeError::NotAMap(map.major.kind()));
    }
    let mut left = map.argument;
    let mut before = items.fields(message, &mut left)?;
    // What is left is none of ours, for keys come in order.
    for _ in 0..left {
        items.reader.key(&mut before, 1)?;
        items.reader.skip(1)?;
        message.has_unknown = true;
    }
    items.reader.end()?;
    items.flaw.map_or(Ok(()), Err)
}

/// What reading a field of CBOR needs beside its place.
struct Items<'a, 'm, M> {
    reader: Reader<'a>,
    maker: &'m mut M,
    flaw: Option<DecodeError>,
}

impl<'a, M: MakeBytes> Items<'a, '_, M> {
    /// The fields of the table, in its order, as far as they are there; gives the last key. A branch for each of them
    /// costs less than one for all, which nobody can tell beforehand.
    fn fields(
        &mut self,
        message: &mut Message<'a, M::Bytes>,
        left: &mut u64,
    ) -> Result<&'a [u8], DecodeError> {
        let Message { kind, request, response, reason, .. } = message;
        let mut last: &[u8] = &[];
        macro_rules! if_next {
            ($field:ident, $take:expr) => {
                if *left > 0 && self.reader.take(number_of(Field::$field)) {
                    last = self.reader.since(self.reader.position() - 1);
                    *left -= 1;
                    $take;
                }
            };
        }
        if_next!(Kind, *kind = self.integer(Field::Kind, u64::MAX)?.map(MessageKind::of_number));
        if_next!(Id, self.text(Field::Id, &mut request.id)?);
        if_next!(ContextId, self.text(Field::ContextId, &mut request.context_id)?);
        if_next!(TaskId, self.text(Field::TaskId, &mut request.task_id)?);
        if_next!(Payload, self.bytes(Field::Payload, &mut request.payload)?);
        if_next!(Did, self.text(Field::Did, &mut request.did)?);
        if_next!(Signature, self.bytes(Field::Signature, &mut request.signature)?);
        if_next!(Metadata, self.metadata(&mut request.metadata)?);
        if_next!(Role, self.text(Field::Role, &mut request.role)?);
        if_next!(Success, self.bool(Field::Success, &mut response.success)?);
        if_next!(MessageId, self.text(Field::MessageId, &mut response.message_id)?);
        if_next!(Data, self.bytes(Field::Data, &mut response.data)?);
        if_next!(Error, self.text(Field::Error, &mut response.error)?);
        if_next!(DeadlineMs, request.deadline_ms = self.integer(Field::DeadlineMs, LONGEST_DEADLINE)?);
        if_next!(Credit, {
            let number = self.integer(Field::Credit, u64::from(u32::MAX))?;
            request.credit = number.and_then(|number| number.try_into().ok());
        });
        if_next!(More, self.bool(Field::More, &mut response.more)?);
        if_next!(Reason, self.text(Field::Reason, reason)?);
        Ok(last)
    }

    /// The head of a field's item, if it is of this type; else the item is passed over, and the flaw kept.
    #[allow(clippy::inline_always)] // as `Reader::head`
    #[inline(always)]
    fn expect(&mut self, field: Field, major: Major) -> Result<Option<Head>, DecodeError> {
        let start = self.reader.position();
        let head = self.reader.head()?;
        if head.major == major {
            return Ok(Some(head));
        }
        self.reader.rest(head, start, 1)?;
        self.flaw(DecodeError::CborType(field, head.major.kind()));
        Ok(None)
    }

    #[allow(clippy::inline_always)] // as `Reader::head`
    #[inline(always)]
    fn text(&mut self, field: Field, place: &mut Cow<'a, str>) -> Result<(), DecodeError> {
        if let Some(head) = self.expect(field, Major::Text)? {
            *place = Cow::Borrowed(self.reader.text(head)?);
        }
        Ok(())
    }

    #[inline]
    fn bytes(&mut self, field: Field, place: &mut Option<M::Bytes>) -> Result<(), DecodeError> {
        if let Some(head) = self.expect(field, Major::Bytes)? {
            let octets = self.reader.octets(head);
            if !octets.is_empty() {
                *place = self.maker.copy(octets);
            }
        }
        Ok(())
    }

    fn bool(&mut self, field: Field, place: &mut bool) -> Result<(), DecodeError> {
        if let Some(head) = self.expect(field, Major::Bool)? {
            *place = head.argument == 1;
        }
        Ok(())
    }

    fn integer(&mut self, field: Field, most: u64) -> Result<Option<u64>, DecodeError> {
        let Some(head) = self.expect(field, Major::Unsigned)? else { return Ok(None) };
        if head.argument > most {
            self.flaw(DecodeError::CborType(field, Kind::Number));
            return Ok(None);
        }
        Ok(Some(head.argument))
    }

    fn metadata(&mut self, place: &mut Metadata<'a>) -> Result<(), DecodeError> {
        let start = self.reader.position();
        let Some(map) = self.expect(Field::Metadata, Major::Map)? else { return Ok(()) };
        let mut before: &[u8] = &[];
        for _ in 0..map.argument {
            let key = self.reader.position();
            self.entry(true)?;
            self.reader.in_order(&mut before, key)?;
            self.entry(false)?;
        }
        if map.argument > 0 {
            *place = Metadata::from_cbor(self.reader.since(start));
        }
        Ok(())
    }

    /// A key or a value of the metadata.
    #[allow(clippy::inline_always)] // as `Reader::head`
    #[inline(always)]
    fn entry(&mut self, is_key: bool) -> Result<(), DecodeError> {
        let start = self.reader.position();
        let head = self.reader.head()?;
        if head.major == Major::Text {
            return self.reader.text(head).map(drop);
        }
        self.reader.rest(head, start, 2)?;
        self.flaw(DecodeError::CborEntry(head.major.kind(), is_key));
        Ok(())
    }

    #[cold]
    fn flaw(&mut self, error: DecodeError) {
        self.flaw.get_or_insert(error);
    }
}

#[inline]
fn field_of_key(key: Raw<'_>) -> Option<Field> {
    let known = key.plain().and_then(|key| FIELDS.iter().find(|field| field.name() == key));
    known.copied().or_else(|| wire::folded(key, &FIELDS))
}

// ── encode ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Appends a request.
pub fn encode_request<B: AsRef<[u8]>>(subprotocol: Subprotocol, request: &Request<'_, B>, to: &mut Vec<u8>) {
    let mut writer = Writer::new(subprotocol, MessageKind::Request, to);
    writer.text(Field::Id, &request.id);
    writer.text(Field::ContextId, &request.context_id);
    writer.text(Field::TaskId, &request.task_id);
    writer.bytes(Field::Payload, octets(request.payload.as_ref()));
    writer.text(Field::Did, &request.did);
    writer.bytes(Field::Signature, octets(request.signature.as_ref()));
    writer.metadata(&request.metadata);
    writer.text(Field::Role, &request.role);
    writer.integer(Field::DeadlineMs, request.deadline_ms);
    writer.integer(Field::Credit, request.credit.map(u64::from));
    writer.finish();
}

/// Appends a response.
pub fn encode_response<B: AsRef<[u8]>>(
    subprotocol: Subprotocol,
    response: &Response<'_, B>,
    to: &mut Vec<u8>,
) {
    let mut writer = Writer::new(subprotocol, MessageKind::Response, to);
    writer.text(Field::TaskId, &response.task_id);
    writer.bool(Field::Success, response.success);
    writer.text(Field::MessageId, &response.message_id);
    writer.bytes(Field::Data, octets(response.data.as_ref()));
    writer.text(Field::Error, &response.error);
    if response.more {
        writer.bool(Field::More, true);
    }
    writer.finish();
}

/// Appends a message of one of the other kinds, which have no other fields.
pub fn encode_note(
    subprotocol: Subprotocol,
    kind: MessageKind,
    id: &str,
    credit: Option<u32>,
    reason: &str,
    to: &mut Vec<u8>,
) {
    let mut writer = Writer::new(subprotocol, kind, to);
    writer.text(Field::Id, id);
    writer.integer(Field::Credit, credit.map(u64::from));
    writer.text(Field::Reason, reason);
    writer.finish();
}

/// Bytes of a request on the wire, counted without encoding its bytes.
#[must_use]
pub fn request_size<B: AsRef<[u8]>>(subprotocol: Subprotocol, request: &Request<'_, B>) -> usize {
    let mut rest = Vec::new();
    encode_request(subprotocol, &request.without_bytes(), &mut rest);
    rest.len()
        + added_size(subprotocol, Field::Payload, octets(request.payload.as_ref()))
        + added_size(subprotocol, Field::Signature, octets(request.signature.as_ref()))
}

/// Bytes of a response on the wire, counted without encoding its data.
#[must_use]
pub fn response_size<B: AsRef<[u8]>>(subprotocol: Subprotocol, response: &Response<'_, B>) -> usize {
    let mut rest = Vec::new();
    encode_response(subprotocol, &response.without_bytes(), &mut rest);
    rest.len() + added_size(subprotocol, Field::Data, octets(response.data.as_ref()))
}

/// About how many bytes the request has on the wire.
#[must_use]
pub fn request_hint<B: AsRef<[u8]>>(subprotocol: Subprotocol, request: &Request<'_, B>) -> usize {
    match subprotocol {
        Subprotocol::Json => request.size_hint() + JSON_FRAME,
        Subprotocol::Cbor => {
            let texts = [&request.id, &request.context_id, &request.task_id, &request.did, &request.role];
            let bytes = [octets(request.payload.as_ref()), octets(request.signature.as_ref())];
            CBOR_FRAME
                + texts.iter().map(|text| item_size(text.len())).sum::<usize>()
                + bytes.iter().map(|bytes| item_size(bytes.len())).sum::<usize>()
                + request.metadata.length()
        }
    }
}

/// About how many bytes the response has on the wire.
#[must_use]
pub fn response_hint<B: AsRef<[u8]>>(subprotocol: Subprotocol, response: &Response<'_, B>) -> usize {
    match subprotocol {
        Subprotocol::Json => response.size_hint() + JSON_FRAME,
        Subprotocol::Cbor => {
            let texts = [&response.message_id, &response.task_id, &response.error];
            CBOR_FRAME
                + texts.iter().map(|text| item_size(text.len())).sum::<usize>()
                + item_size(octets(response.data.as_ref()).len())
        }
    }
}

/// Bytes of a field of CBOR with so many.
const fn item_size(length: usize) -> usize {
    if length == 0 { 0 } else { 1 + cbor::head_size(length as u64) + length }
}

/// Bytes that a field with these adds to a message.
fn added_size(subprotocol: Subprotocol, field: Field, bytes: &[u8]) -> usize {
    match subprotocol {
        Subprotocol::Cbor => item_size(bytes.len()),
        Subprotocol::Json if bytes.is_empty() => 0,
        Subprotocol::Json => r#","":"""#.len() + field.name().len() + base64::encoded_length(bytes.len()),
    }
}

/// A message that is being written: its fields in the order of their numbers.
struct Writer<'t> {
    subprotocol: Subprotocol,
    to: &'t mut Vec<u8>,
    start: usize,
    fields: u8,
}

impl<'t> Writer<'t> {
    #[inline]
    fn new(subprotocol: Subprotocol, kind: MessageKind, to: &'t mut Vec<u8>) -> Self {
        let start = to.len();
        match subprotocol {
            // Fewer than 24 fields, whose number stands in the map's one byte: it is written at the end.
            Subprotocol::Cbor => to.extend_from_slice(&[cbor::SHORT_MAP, 0, kind as u8]),
            Subprotocol::Json => {
                to.extend_from_slice(b"{\"kind\":\"");
                to.extend_from_slice(kind.name().as_bytes());
                to.push(b'"');
            }
        }
        Self { subprotocol, to, start, fields: 1 }
    }

    #[inline]
    fn key(&mut self, field: Field) {
        match self.subprotocol {
            Subprotocol::Cbor => {
                self.to.push(number_of(field));
                self.fields += 1;
            }
            Subprotocol::Json => {
                self.to.extend_from_slice(b",\"");
                self.to.extend_from_slice(field.name().as_bytes());
                self.to.extend_from_slice(b"\":");
            }
        }
    }

    #[inline]
    fn text(&mut self, field: Field, text: &str) {
        if text.is_empty() {
            return;
        }
        self.key(field);
        match self.subprotocol {
            Subprotocol::Cbor => cbor::write_text(text, self.to),
            Subprotocol::Json => escape::write(text, self.to),
        }
    }

    #[inline]
    fn bytes(&mut self, field: Field, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.key(field);
        match self.subprotocol {
            Subprotocol::Cbor => {
                cbor::write_head(Major::Bytes, bytes.len() as u64, self.to);
                self.to.extend_from_slice(bytes);
            }
            Subprotocol::Json => wire::write_bytes(bytes, self.to),
        }
    }

    fn bool(&mut self, field: Field, value: bool) {
        self.key(field);
        match self.subprotocol {
            Subprotocol::Cbor => cbor::write_head(Major::Bool, u64::from(value), self.to),
            Subprotocol::Json => self.to.extend_from_slice(if value { b"true" } else { b"false" }),
        }
    }

    fn integer(&mut self, field: Field, value: Option<u64>) {
        let Some(value) = value else { return };
        self.key(field);
        match self.subprotocol {
            Subprotocol::Cbor => cbor::write_head(Major::Unsigned, value, self.to),
            Subprotocol::Json => self.to.extend_from_slice(value.to_string().as_bytes()),
        }
    }

    fn metadata(&mut self, metadata: &Metadata<'_>) {
        if metadata.is_empty() {
            return;
        }
        self.key(Field::Metadata);
        match self.subprotocol {
            Subprotocol::Cbor => metadata.write_cbor(self.to),
            Subprotocol::Json => {
                self.to.push(b'{');
                metadata.write(self.to);
                self.to.push(b'}');
            }
        }
    }

    #[inline]
    fn finish(self) {
        match self.subprotocol {
            Subprotocol::Cbor => self.to[self.start] = cbor::SHORT_MAP + self.fields,
            Subprotocol::Json => self.to.extend_from_slice(b"}\n"),
        }
    }
}

/// A field's number; they stand in [`FIELDS`] in its order.
#[inline]
const fn number_of(field: Field) -> u8 {
    match field {
        Field::Kind => 0,
        Field::Id => 1,
        Field::ContextId => 2,
        Field::TaskId => 3,
        Field::Payload => 4,
        Field::Did => 5,
        Field::Signature => 6,
        Field::Metadata => 7,
        Field::Role => 8,
        Field::Success => 9,
        Field::MessageId => 10,
        Field::Data => 11,
        Field::Error => 12,
        Field::DeadlineMs => 13,
        Field::Credit => 14,
        Field::More => 15,
        Field::Reason => 16,
    }
}

/// What an extended message has beside what a plain one has, in JSON.
const JSON_FRAME: usize = r#""kind":"response","#.len();
/// The map's head, the kind, and `success`.
const CBOR_FRAME: usize = 5;
/// The largest integer that every JSON reader keeps.
const LONGEST_DEADLINE: u64 = (1 << 53) - 1;
/// By their numbers.
const KINDS: [MessageKind; 5] = [
    MessageKind::Request,
    MessageKind::Response,
    MessageKind::Cancel,
    MessageKind::Credit,
    MessageKind::GoAway,
];
const FIELDS: [Field; 17] = [
    Field::Kind,
    Field::Id,
    Field::ContextId,
    Field::TaskId,
    Field::Payload,
    Field::Did,
    Field::Signature,
    Field::Metadata,
    Field::Role,
    Field::Success,
    Field::MessageId,
    Field::Data,
    Field::Error,
    Field::DeadlineMs,
    Field::Credit,
    Field::More,
    Field::Reason,
];
/// Keys as ourselves write them, in their order.
const KEYS: [(&[u8], Field); 17] = [
    (b"\"kind\":", Field::Kind),
    (b"\"id\":", Field::Id),
    (b"\"context_id\":", Field::ContextId),
    (b"\"task_id\":", Field::TaskId),
    (b"\"payload\":", Field::Payload),
    (b"\"did\":", Field::Did),
    (b"\"signature\":", Field::Signature),
    (b"\"metadata\":", Field::Metadata),
    (b"\"role\":", Field::Role),
    (b"\"success\":", Field::Success),
    (b"\"message_id\":", Field::MessageId),
    (b"\"data\":", Field::Data),
    (b"\"error\":", Field::Error),
    (b"\"deadline_ms\":", Field::DeadlineMs),
    (b"\"credit\":", Field::Credit),
    (b"\"more\":", Field::More),
    (b"\"reason\":", Field::Reason),
];
