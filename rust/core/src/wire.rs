//! Requests and responses as JSON: the two tables of wire.md. Go's reader is the law, but for what that page lists:
//! nesting deeper than 128, arrays of numbers for bytes, and anything behind the value are refused.
//!
//! One pass over the text, one match per key. Strings stay slices of the text unless they hold escapes; bytes are
//! decoded straight to where the caller keeps them. A wrong type does not end the pass, because a syntax error behind
//! it is found first (as in Go): the first one is kept and returned at the end.
//!
//! Over 500 lines: both messages, each read and written, with a short way for the usual text and a whole one.

use std::borrow::Cow;

use crate::base64::{self, Base64Error};
use crate::error::{DecodeError, Field};
use crate::escape;
use crate::metadata::Metadata;
use crate::scan::{Raw, Scanner, Value};

pub use crate::base64::MakeBytes;

/// Client to server. Bytes that are absent, `null` or empty are `None`.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // docs/reference/wire.md's table is the documentation
pub struct Request<'a, B> {
    pub id: Cow<'a, str>,
    pub context_id: Cow<'a, str>,
    pub task_id: Cow<'a, str>,
    pub payload: Option<B>,
    pub did: Cow<'a, str>,
    pub signature: Option<B>,
    pub metadata: Metadata<'a>,
    pub role: Cow<'a, str>,
    /// Extended: how long the answer is waited for.
    pub deadline_ms: Option<u64>,
    /// Extended: how many parts the answer may come in.
    pub credit: Option<u32>,
}

/// Server to client.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // docs/reference/wire.md's table is the documentation
pub struct Response<'a, B> {
    pub success: bool,
    pub message_id: Cow<'a, str>,
    pub task_id: Cow<'a, str>,
    pub data: Option<B>,
    pub error: Cow<'a, str>,
    /// Extended: it is a part, and further ones follow.
    pub more: bool,
}

impl<B> Default for Request<'_, B> {
    fn default() -> Self {
        Self {
            id: EMPTY,
            context_id: EMPTY,
            task_id: EMPTY,
            payload: None,
            did: EMPTY,
            signature: None,
            metadata: Metadata::default(),
            role: EMPTY,
            deadline_ms: None,
            credit: None,
        }
    }
}

impl<B> Default for Response<'_, B> {
    fn default() -> Self {
        Self { success: false, message_id: EMPTY, task_id: EMPTY, data: None, error: EMPTY, more: false }
    }
}

/// Reads a request into `request`, which is empty before. It is filled where it stands because moving it costs as
/// much as reading its strings.
///
/// # Errors
///
/// The first offence against the grammar, else the first value of a wrong type or that is not base64.
pub fn decode_request<'a, M: MakeBytes>(
    text: &'a str,
    maker: &mut M,
    request: &mut Request<'a, M::Bytes>,
) -> Result<(), DecodeError> {
    let mut fields = Fields { maker, flaw: None };
    Scanner::new(text).message(&REQUEST_KEYS, request_field, |scanner, field| match field {
        Some(Field::Id) => fields.text(scanner, Field::Id, &mut request.id),
        Some(Field::ContextId) => fields.text(scanner, Field::ContextId, &mut request.context_id),
        Some(Field::TaskId) => fields.text(scanner, Field::TaskId, &mut request.task_id),
        Some(Field::Payload) => fields.bytes(scanner, Field::Payload, &mut request.payload),
        Some(Field::Did) => fields.text(scanner, Field::Did, &mut request.did),
        Some(Field::Signature) => fields.bytes(scanner, Field::Signature, &mut request.signature),
        Some(Field::Metadata) => fields.metadata(scanner, &mut request.metadata),
        Some(Field::Role) => fields.text(scanner, Field::Role, &mut request.role),
        _ => scanner.value(1).map(drop),
    })?;
    fields.flaw.map_or(Ok(()), Err)
}

/// Reads a response into `response`, which is empty before. With a wrong type or bad base64 its other fields are
/// read all the same.
///
/// # Errors
///
/// As [`decode_request`].
pub fn decode_response<'a, M: MakeBytes>(
    text: &'a str,
    maker: &mut M,
    response: &mut Response<'a, M::Bytes>,
) -> Result<(), DecodeError> {
    let mut fields = Fields { maker, flaw: None };
    Scanner::new(text).message(&RESPONSE_KEYS, response_field, |scanner, field| match field {
        Some(Field::Success) => fields.bool(scanner, Field::Success, &mut response.success),
        Some(Field::MessageId) => fields.text(scanner, Field::MessageId, &mut response.message_id),
        Some(Field::TaskId) => fields.text(scanner, Field::TaskId, &mut response.task_id),
        Some(Field::Data) => fields.bytes(scanner, Field::Data, &mut response.data),
        Some(Field::Error) => fields.text(scanner, Field::Error, &mut response.error),
        _ => scanner.value(1).map(drop),
    })?;
    fields.flaw.map_or(Ok(()), Err)
}

/// Appends a request as Go writes it, its newline included.
pub fn encode_request<B: AsRef<[u8]>>(request: &Request<'_, B>, to: &mut Vec<u8>) {
    to.extend_from_slice(b"{\"id\":");
    escape::write(&request.id, to);
    write_optional(b",\"context_id\":", &request.context_id, to);
    write_optional(b",\"task_id\":", &request.task_id, to);
    to.extend_from_slice(b",\"payload\":");
    write_bytes(octets(request.payload.as_ref()), to);
    to.extend_from_slice(b",\"did\":");
    escape::write(&request.did, to);
    to.extend_from_slice(b",\"signature\":");
    write_bytes(octets(request.signature.as_ref()), to);
    if !request.metadata.is_empty() {
        to.extend_from_slice(b",\"metadata\":{");
        request.metadata.write(to);
        to.push(b'}');
    }
    write_optional(b",\"role\":", &request.role, to);
    to.extend_from_slice(b"}\n");
}

/// Appends a response as Go writes it, its newline included.
pub fn encode_response<B: AsRef<[u8]>>(response: &Response<'_, B>, to: &mut Vec<u8>) {
    let success: &[u8] = if response.success { b"{\"success\":true" } else { b"{\"success\":false" };
    to.extend_from_slice(success);
    to.extend_from_slice(b",\"message_id\":");
    escape::write(&response.message_id, to);
    write_optional(b",\"task_id\":", &response.task_id, to);
    let data = octets(response.data.as_ref());
    if !data.is_empty() {
        to.extend_from_slice(DATA_KEY);
        write_bytes(data, to);
    }
    write_optional(b",\"error\":", &response.error, to);
    to.extend_from_slice(b"}\n");
}

impl<B: AsRef<[u8]>> Request<'_, B> {
    /// Bytes on the wire, counted without encoding the bytes.
    #[must_use]
    pub fn encoded_size(&self) -> usize {
        let mut rest = Vec::new();
        encode_request(&self.without_bytes(), &mut rest);
        let bytes = [octets(self.payload.as_ref()), octets(self.signature.as_ref())];
        rest.len() - 2 * NULL.len() + bytes.iter().map(|bytes| written_length(bytes)).sum::<usize>()
    }

    /// The same request without payload and signature: what is counted by writing it.
    pub(crate) fn without_bytes(&self) -> Request<'_, &[u8]> {
        Request {
            id: Cow::Borrowed(&self.id),
            context_id: Cow::Borrowed(&self.context_id),
            task_id: Cow::Borrowed(&self.task_id),
            payload: None,
            did: Cow::Borrowed(&self.did),
            signature: None,
            metadata: self.metadata.view(),
            role: Cow::Borrowed(&self.role),
            deadline_ms: self.deadline_ms,
            credit: self.credit,
        }
    }

    /// About how many bytes the request has on the wire: escapes make it more, and fields that are absent less.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        let texts = [&self.id, &self.context_id, &self.task_id, &self.did, &self.role];
        let bytes = [octets(self.payload.as_ref()), octets(self.signature.as_ref())];
        REQUEST_FRAME
            + texts.iter().map(|text| text.len()).sum::<usize>()
            + bytes.iter().map(|bytes| base64::encoded_length(bytes.len())).sum::<usize>()
            + self.metadata.length()
    }
}

impl<B: AsRef<[u8]>> Response<'_, B> {
    /// Bytes on the wire, counted without encoding the data.
    #[must_use]
    pub fn encoded_size(&self) -> usize {
        let mut rest = Vec::new();
        encode_response(&self.without_bytes(), &mut rest);
        let data = octets(self.data.as_ref());
        rest.len() + if data.is_empty() { 0 } else { DATA_KEY.len() + written_length(data) }
    }

    /// The same response without its data, as [`Request::without_bytes`].
    pub(crate) fn without_bytes(&self) -> Response<'_, &[u8]> {
        Response {
            success: self.success,
            message_id: Cow::Borrowed(&self.message_id),
            task_id: Cow::Borrowed(&self.task_id),
            data: None,
            error: Cow::Borrowed(&self.error),
            more: self.more,
        }
    }

    /// As [`Request::size_hint`].
    #[must_use]
    pub fn size_hint(&self) -> usize {
        RESPONSE_FRAME
            + self.message_id.len()
            + self.task_id.len()
            + base64::encoded_length(octets(self.data.as_ref()).len())
            + self.error.len()
    }
}

/// What reading a field needs beside its place.
pub(crate) struct Fields<'m, M> {
    pub(crate) maker: &'m mut M,
    /// The first value that was not what it should be.
    pub(crate) flaw: Option<DecodeError>,
}

impl<M: MakeBytes> Fields<'_, M> {
    pub(crate) fn text<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        field: Field,
        place: &mut Cow<'a, str>,
    ) -> Result<(), DecodeError> {
        if scanner.token()? == b'"' {
            let raw = scanner.string()?;
            match raw.plain() {
                Some(text) => *place = Cow::Borrowed(text),
                None => unescape(raw, place),
            }
            return Ok(());
        }
        match scanner.value(1)? {
            Value::Null => {}
            other => self.wrong_type(field, &other),
        }
        Ok(())
    }

    pub(crate) fn bool(
        &mut self,
        scanner: &mut Scanner<'_>,
        field: Field,
        place: &mut bool,
    ) -> Result<(), DecodeError> {
        match scanner.value(1)? {
            Value::Bool(value) => *place = value,
            Value::Null => {}
            other => self.wrong_type(field, &other),
        }
        Ok(())
    }

    pub(crate) fn bytes(
        &mut self,
        scanner: &mut Scanner<'_>,
        field: Field,
        place: &mut Option<M::Bytes>,
    ) -> Result<(), DecodeError> {
        // Text that decodes holds neither backslash nor control character: its end needs no scan of its own.
        if scanner.token()? == b'"' {
            if let Some(bytes) = scanner.string_if(|text| match text {
                [] => Some(None),
                text => base64::decode_usual(text, self.maker).map(Some),
            }) {
                *place = bytes;
                return Ok(());
            }
        }
        match scanner.value(1)? {
            Value::String(raw) => match base64::decode(raw.read().as_bytes(), self.maker) {
                Ok(bytes) => *place = bytes,
                Err(Base64Error::Character(at)) => self.flaw(DecodeError::Base64Character(field, at)),
                Err(Base64Error::Padding) => self.flaw(DecodeError::Base64Padding(field)),
            },
            Value::Null => *place = None,
            other => self.wrong_type(field, &other),
        }
        Ok(())
    }

    pub(crate) fn metadata<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        place: &mut Metadata<'a>,
    ) -> Result<(), DecodeError> {
        if scanner.token()? != b'{' {
            match scanner.value(1)? {
                Value::Null => *place = Metadata::default(),
                other => self.wrong_type(Field::Metadata, &other),
            }
            return Ok(());
        }
        let start = scanner.position();
        scanner.object(|scanner, _| {
            if scanner.token()? == b'"' {
                return scanner.string().map(drop);
            }
            match scanner.value(2)? {
                Value::Null => {}
                other => self.flaw(DecodeError::MetadataValue(other.kind())),
            }
            Ok(())
        })?;
        let object = scanner.since(start);
        let entries =
            object.strip_prefix('{').and_then(|object| object.strip_suffix('}')).unwrap_or_default();
        let entries = entries.trim_matches([' ', '\t', '\n', '\r']);
        *place = std::mem::take(place).merge(Metadata::from_json(entries));
        Ok(())
    }

    #[cold]
    pub(crate) fn wrong_type(&mut self, field: Field, found: &Value<'_>) {
        self.flaw(DecodeError::Type(field, found.kind()));
    }

    #[cold]
    pub(crate) fn flaw(&mut self, error: DecodeError) {
        self.flaw.get_or_insert(error);
    }
}

#[inline]
fn request_field(key: Raw<'_>) -> Option<Field> {
    Some(match key.plain() {
        Some("id") => Field::Id,
        Some("context_id") => Field::ContextId,
        Some("task_id") => Field::TaskId,
        Some("payload") => Field::Payload,
        Some("did") => Field::Did,
        Some("signature") => Field::Signature,
        Some("metadata") => Field::Metadata,
        Some("role") => Field::Role,
        _ => return folded(key, &REQUEST_FIELDS),
    })
}

#[inline]
fn response_field(key: Raw<'_>) -> Option<Field> {
    Some(match key.plain() {
        Some("success") => Field::Success,
        Some("message_id") => Field::MessageId,
        Some("task_id") => Field::TaskId,
        Some("data") => Field::Data,
        Some("error") => Field::Error,
        _ => return folded(key, &RESPONSE_FIELDS),
    })
}

/// The field whose key this is after unescaping and Unicode's simple case folding, as Go matches keys.
#[cold]
pub(crate) fn folded(key: Raw<'_>, fields: &[Field]) -> Option<Field> {
    let key = key.read();
    let fold = |character| match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    fields.iter().copied().find(|field| key.chars().map(fold).eq(field.name().chars()))
}

#[cold]
fn unescape<'a>(raw: Raw<'a>, place: &mut Cow<'a, str>) {
    *place = raw.read();
}

pub(crate) fn octets<B: AsRef<[u8]>>(bytes: Option<&B>) -> &[u8] {
    bytes.map_or(&[], AsRef::as_ref)
}

fn write_optional(key: &[u8], text: &str, to: &mut Vec<u8>) {
    if !text.is_empty() {
        to.extend_from_slice(key);
        escape::write(text, to);
    }
}

/// Empty bytes are written as `null`, as a Go program that left them unset does.
pub(crate) fn write_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    if bytes.is_empty() {
        to.extend_from_slice(NULL);
    } else {
        to.push(b'"');
        base64::encode(bytes, to);
        to.push(b'"');
    }
}

fn written_length(bytes: &[u8]) -> usize {
    if bytes.is_empty() { NULL.len() } else { base64::encoded_length(bytes.len()) + 2 }
}

const NULL: &[u8] = b"null";
const DATA_KEY: &[u8] = b",\"data\":";
const EMPTY: Cow<'static, str> = Cow::Borrowed("");
const REQUEST_FRAME: usize =
    r#"{"id":"","context_id":"","task_id":"","payload":"","did":"","signature":"","metadata":{},"role":""}"#
        .len()
        + 1;
const RESPONSE_FRAME: usize = r#"{"success":true,"message_id":"","task_id":"","data":""}"#.len() + 1;
/// Keys as Go and ourselves write them, in their order.
const REQUEST_KEYS: [(&[u8], Field); 8] = [
    (b"\"id\":", Field::Id),
    (b"\"context_id\":", Field::ContextId),
    (b"\"task_id\":", Field::TaskId),
    (b"\"payload\":", Field::Payload),
    (b"\"did\":", Field::Did),
    (b"\"signature\":", Field::Signature),
    (b"\"metadata\":", Field::Metadata),
    (b"\"role\":", Field::Role),
];
const RESPONSE_KEYS: [(&[u8], Field); 5] = [
    (b"\"success\":", Field::Success),
    (b"\"message_id\":", Field::MessageId),
    (b"\"task_id\":", Field::TaskId),
    (b"\"data\":", Field::Data),
    (b"\"error\":", Field::Error),
];
const REQUEST_FIELDS: [Field; 8] = [
    Field::Id,
    Field::ContextId,
    Field::TaskId,
    Field::Payload,
    Field::Did,
    Field::Signature,
    Field::Metadata,
    Field::Role,
];
const RESPONSE_FIELDS: [Field; 5] =
    [Field::Success, Field::MessageId, Field::TaskId, Field::Data, Field::Error];

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;
    impl MakeBytes for Plain {
        type Bytes = Vec<u8>;
        fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
            let mut bytes = vec![0; length];
            fill(&mut bytes).then_some(bytes)
        }
    }

    fn read(text: &str) -> Result<Request<'_, Vec<u8>>, DecodeError> {
        let mut request = Request::default();
        decode_request(text, &mut Plain, &mut request).map(|()| request)
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn every_refusal_names_the_field() {
        for (text, expected) in [
            (r#"{"id":5}"#, "id: expected a string, found number"),
            (r#"{"DID":[]}"#, "did: expected a string, found array"),
            (r#"{"payload":[1]}"#, "payload: expected a base64 string, found array"),
            (r#"{"metadata":"x"}"#, "metadata: expected an object of strings, found string"),
            (r#"{"metadata":{"a":[{}]}}"#, "metadata: expected an object of strings, found array in a value"),
            (r#"{"signature":"QQ\u00e9=*"}"#, "signature: illegal base64 character at 2"),
            (r#"{"payload":"QQ"}"#, "payload: illegal base64 padding"),
            (r#"{"id":5,"payload":"*"}"#, "id: expected a string, found number"),
            (r#"{"payload":"*","id":5}"#, "payload: illegal base64 character at 0"),
            (r#"{"id":5"#, "not JSON: ends early at byte 7"),
            (r#"{"id":5} x"#, "not JSON: more after the value at byte 9"),
            ("[]", "expected an object, found array"),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
        let mut response = Response::default();
        let bad =
            decode_response(r#"{"success":"x","message_id":"m"}"#, &mut Plain, &mut response).unwrap_err();
        assert_eq!(bad.to_string(), "success: expected a bool, found string");
        assert_eq!(response.message_id, "m");
    }

    #[test]
    fn a_wrong_type_does_not_hide_a_level_too_many() {
        let metadata = format!(r#"{{"id":5,"metadata":{{"a":{}"#, "[".repeat(127));
        assert_eq!(error(&metadata), "nested deeper than 128 at byte 150");
    }

    #[test]
    fn a_raw_control_character_in_base64_is_a_syntax_error() {
        assert_eq!(error("{\"payload\":\"QU\nJD\"}"), "not JSON: unexpected character at byte 14");
        assert_eq!(error("{\"payload\":\"QU\\"), "not JSON: ends early at byte 15");
    }

    #[test]
    fn keys_fold_as_in_go() {
        for key in ["task_id", "TASK_ID", "ta\u{17f}\u{212a}_id", r"tas\u006B_id", r"\u0074ask_id"] {
            let text = format!(r#"{{"{key}":"t"}}"#);
            assert_eq!(read(&text).unwrap().task_id, "t", "{key}");
        }
        assert_eq!(read(r#"{"task id":"t","taskid":"t"}"#).unwrap().task_id, "");
    }

    #[test]
    fn a_size_counted_is_the_size_written() {
        for length in [0, 1, 2, 3, 100] {
            let bytes = vec![7; length];
            let request = Request {
                id: "i".into(),
                payload: Some(bytes.as_slice()),
                signature: Some(bytes.as_slice()),
                metadata: Metadata::from_pairs([("b", "<"), ("a", "")]),
                ..Request::default()
            };
            let mut written = Vec::new();
            encode_request(&request, &mut written);
            assert_eq!(request.encoded_size(), written.len());
            let response =
                Response { data: Some(bytes.as_slice()), error: "\n".into(), ..Response::default() };
            written.clear();
            encode_response(&response, &mut written);
            assert_eq!(response.encoded_size(), written.len());
        }
    }
}
