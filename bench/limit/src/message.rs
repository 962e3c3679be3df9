//! SAGE's two messages, to and from JSON.

use std::borrow::Cow;

use base64_simd::STANDARD;

use crate::canonical::Canonical;
use crate::json::{Cursor, Malformed, append_escaped};
use crate::random::Id;

/// What a client sends, as a server sees it. Payload and signature are decoded into buffers of the reader's.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) context_id: Cow<'a, str>,
    pub(crate) task_id: Cow<'a, str>,
    pub(crate) did: Cow<'a, str>,
    pub(crate) role: Cow<'a, str>,
    /// Entries of the metadata, each checked; no handler here looks at them.
    pub(crate) metadata: usize,
}

impl<'a> Request<'a> {
    pub(crate) fn decode(
        text: &'a str,
        payload: &mut Vec<u8>,
        signature: &mut Vec<u8>,
    ) -> Result<Self, Malformed> {
        payload.clear();
        signature.clear();
        if let Some(request) = Self::decode_canonical(text, payload, signature) {
            return Ok(request);
        }
        Self::decode_any(text, payload, signature)
    }

    #[inline]
    fn decode_canonical(text: &'a str, payload: &mut Vec<u8>, signature: &mut Vec<u8>) -> Option<Self> {
        let mut rest = Canonical(text);
        rest.expect("{\"id\":\"")?;
        let id = rest.text()?;
        let context_id = rest.text_after(",\"context_id\":\"")?;
        let task_id = rest.text_after(",\"task_id\":\"")?;
        rest.expect(",\"payload\":\"")?;
        rest.base64(payload)?;
        rest.expect(",\"did\":\"")?;
        let did = rest.text()?;
        rest.expect(",\"signature\":\"")?;
        rest.base64(signature)?;
        let mut metadata = 0;
        if rest.has(",\"metadata\":{\"") {
            loop {
                rest.text()?;
                rest.expect(":\"")?;
                rest.text()?;
                metadata += 1;
                if !rest.has(",\"") {
                    break;
                }
            }
            rest.expect("}")?;
        }
        let role = rest.text_after(",\"role\":\"")?;
        rest.expect("}")?;
        rest.end()?;
        Some(Self {
            id: id.into(),
            context_id: context_id.into(),
            task_id: task_id.into(),
            did: did.into(),
            role: role.into(),
            metadata,
        })
    }

    #[cold]
    fn decode_any(text: &'a str, payload: &mut Vec<u8>, signature: &mut Vec<u8>) -> Result<Self, Malformed> {
        let mut request = Self::default();
        let mut cursor = Cursor::new(text);
        payload.clear();
        signature.clear();
        cursor.object(|cursor, key| {
            let field = match key {
                "id" => &mut request.id,
                "context_id" => &mut request.context_id,
                "task_id" => &mut request.task_id,
                "payload" => return cursor.base64(payload),
                "did" => &mut request.did,
                "signature" => return cursor.base64(signature),
                "metadata" => {
                    request.metadata = metadata(cursor)?;
                    return Ok(());
                }
                "role" => &mut request.role,
                _ => return cursor.skip(),
            };
            if let Some(text) = cursor.string_or_null()? {
                *field = text;
            }
            Ok(())
        })?;
        cursor.end()?;
        Ok(request)
    }
}

fn metadata(cursor: &mut Cursor<'_>) -> Result<usize, Malformed> {
    if cursor.null() {
        return Ok(0);
    }
    let mut entries = 0;
    cursor.object(|cursor, _| {
        entries += 1;
        cursor.string_or_null().map(drop)
    })?;
    Ok(entries)
}

/// What a client sends, as it writes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) id: &'a Id,
    pub(crate) context_id: &'a str,
    pub(crate) task_id: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) did: &'a str,
    pub(crate) signature: &'a [u8],
    pub(crate) metadata: &'a [(&'a str, &'a str)],
    pub(crate) role: &'a str,
}

impl Sent<'_> {
    /// Bytes of its JSON, if nothing in it is escaped and its metadata is small.
    pub(crate) fn about(&self) -> usize {
        let texts =
            self.id.len() + self.context_id.len() + self.task_id.len() + self.did.len() + self.role.len();
        160 + texts + encoded_length(self.payload) + encoded_length(self.signature)
    }

    pub(crate) fn append(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(b"{\"id\":\"");
        to.extend_from_slice(self.id);
        append_field(to, b"\",\"context_id\":\"", self.context_id);
        append_field(to, b"\",\"task_id\":\"", self.task_id);
        to.extend_from_slice(b"\",\"payload\":\"");
        STANDARD.encode_append(self.payload, to);
        to.extend_from_slice(b"\",\"did\":\"");
        append_escaped(to, self.did);
        to.extend_from_slice(b"\",\"signature\":\"");
        STANDARD.encode_append(self.signature, to);
        let mut before: &[u8] = b"\",\"metadata\":{\"";
        for (key, value) in self.metadata {
            to.extend_from_slice(before);
            append_escaped(to, key);
            to.extend_from_slice(b"\":\"");
            append_escaped(to, value);
            before = b"\",\"";
        }
        if self.metadata.is_empty() {
            append_field(to, b"\",\"role\":\"", self.role);
            to.extend_from_slice(b"\"}\n");
        } else if self.role.is_empty() {
            to.extend_from_slice(b"\"}}\n");
        } else {
            append_field(to, b"\"},\"role\":\"", self.role);
            to.extend_from_slice(b"\"}\n");
        }
    }
}

fn append_field(to: &mut Vec<u8>, before: &[u8], value: &str) {
    if !value.is_empty() {
        to.extend_from_slice(before);
        append_escaped(to, value);
    }
}

/// What a server answers, as a client sees it. The data is decoded into a buffer of the reader's.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) success: bool,
    pub(crate) message_id: Cow<'a, str>,
    pub(crate) task_id: Cow<'a, str>,
    pub(crate) error: Cow<'a, str>,
}

impl<'a> Response<'a> {
    pub(crate) fn decode(text: &'a str, data: &mut Vec<u8>) -> Result<Self, Malformed> {
        data.clear();
        if let Some(response) = Self::decode_canonical(text, data) {
            return Ok(response);
        }
        Self::decode_any(text, data)
    }

    #[inline]
    fn decode_canonical(text: &'a str, data: &mut Vec<u8>) -> Option<Self> {
        let mut rest = Canonical(text);
        rest.expect("{\"success\":true,\"message_id\":\"")?;
        let message_id = rest.text()?;
        let task_id = rest.text_after(",\"task_id\":\"")?;
        rest.expect(",\"data\":\"")?;
        rest.base64(data)?;
        rest.expect("}")?;
        rest.end()?;
        Some(Self {
            success: true,
            message_id: message_id.into(),
            task_id: task_id.into(),
            error: Cow::Borrowed(""),
        })
    }

    #[cold]
    fn decode_any(text: &'a str, data: &mut Vec<u8>) -> Result<Self, Malformed> {
        let mut response = Self::default();
        let mut cursor = Cursor::new(text);
        data.clear();
        cursor.object(|cursor, key| {
            let field = match key {
                "success" => {
                    response.success = cursor.bool()?;
                    return Ok(());
                }
                "message_id" => &mut response.message_id,
                "task_id" => &mut response.task_id,
                "data" => return cursor.base64(data),
                "error" => &mut response.error,
                _ => return cursor.skip(),
            };
            if let Some(text) = cursor.string_or_null()? {
                *field = text;
            }
            Ok(())
        })?;
        cursor.end()?;
        Ok(response)
    }
}

/// Bytes of an answer's JSON, if nothing in it is escaped.
pub(crate) fn answer_about(id: &str, task_id: &str, data: &[u8]) -> usize {
    64 + id.len() + task_id.len() + encoded_length(data)
}

/// Appends the answer of a handler that gave `data`.
pub(crate) fn append_answer(to: &mut Vec<u8>, id: &str, task_id: &str, data: &[u8]) {
    to.extend_from_slice(b"{\"success\":true,\"message_id\":\"");
    append_escaped(to, id);
    append_field(to, b"\",\"task_id\":\"", task_id);
    if !data.is_empty() {
        to.extend_from_slice(b"\",\"data\":\"");
        STANDARD.encode_append(data, to);
    }
    to.extend_from_slice(b"\"}\n");
}

/// Appends the answer to what cannot be handled.
pub(crate) fn append_refusal(to: &mut Vec<u8>, id: &str, task_id: &str, error: &str) {
    to.extend_from_slice(b"{\"success\":false,\"message_id\":\"");
    append_escaped(to, id);
    append_field(to, b"\",\"task_id\":\"", task_id);
    to.extend_from_slice(b"\",\"error\":\"");
    append_escaped(to, error);
    to.extend_from_slice(b"\"}\n");
}

fn encoded_length(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(3) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &Id = b"00112233-4455-4677-8899-aabbccddeeff";
    const SENT: Sent<'_> = Sent {
        id: ID,
        context_id: "ctx",
        task_id: "task",
        payload: b"pay\xff",
        did: "did:sage:<x>",
        signature: b"sig",
        metadata: &[("a", "1"), ("b", "\n")],
        role: "agent",
    };
    const WRITTEN: &str = concat!(
        r#"{"id":"00112233-4455-4677-8899-aabbccddeeff","context_id":"ctx","task_id":"task","#,
        r#""payload":"cGF5/w==","did":"did:sage:\u003cx\u003e","signature":"c2ln","#,
        r#""metadata":{"a":"1","b":"\n"},"role":"agent"}"#,
        "\n"
    );

    fn written(sent: &Sent<'_>) -> String {
        let mut bytes = Vec::new();
        sent.append(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn request(text: &str) -> Result<(Request<'_>, Vec<u8>, Vec<u8>), Malformed> {
        let (mut payload, mut signature) = (b"old".to_vec(), b"old".to_vec());
        Request::decode(text, &mut payload, &mut signature).map(|request| (request, payload, signature))
    }

    #[test]
    fn a_request_is_written_as_go_writes_it() {
        assert_eq!(written(&SENT), WRITTEN);
        let bare = Sent { context_id: "", task_id: "", did: "d", metadata: &[], role: "", ..SENT };
        let expected = r#"{"id":"00112233-4455-4677-8899-aabbccddeeff","payload":"cGF5/w==","did":"d","signature":"c2ln"}"#;
        assert_eq!(written(&bare), format!("{expected}\n"));
        let expected = expected.replace('}', r#","metadata":{"a":"b"}}"#);
        assert_eq!(written(&Sent { metadata: &[("a", "b")], ..bare }), format!("{expected}\n"));
        let expected = expected.replace(r#"{"a":"b"}"#, r#"{"a":"b"},"role":"r""#);
        assert_eq!(written(&Sent { metadata: &[("a", "b")], role: "r", ..bare }), format!("{expected}\n"));
        assert!(written(&SENT).len() < SENT.about() + 40);
    }

    #[test]
    fn a_request_comes_back_in_any_form() {
        let go = WRITTEN.replace(r"\u003cx\u003e", "x").replace(r"\n", "2");
        let (canonical, payload, signature) = request(&go).unwrap();
        assert!(Request::decode_canonical(&go, &mut Vec::new(), &mut Vec::new()).is_some());
        assert_eq!((&*canonical.id, &*canonical.context_id), (std::str::from_utf8(ID).unwrap(), "ctx"));
        assert_eq!((&*canonical.task_id, &*canonical.did), ("task", "did:sage:x"));
        assert_eq!((&*canonical.role, canonical.metadata), ("agent", 2));
        assert_eq!((&*payload, &*signature), (&b"pay\xff"[..], &b"sig"[..]));
        let any = [
            go.replace(':', ": ").replace("did: sage: x", "did:sage:x").replace(',', ", "),
            go.replace("{\"id\"", "\n{ \"unknown\": [1, {\"id\": null}], \"id\""),
            go.replace("\"id\"", r#""\u0069d""#),
            go.replace(r#"{"id":"00112233-4455-4677-8899-aabbccddeeff","#, "{")
                .replace("}\n", r#","id":"00112233-4455-4677-8899-aabbccddeeff"} "#),
            go.replace("c2ln", r"c\n2\r\nln"),
            go.replace("\"task\"", r#""t\u0061sk""#),
        ];
        for text in any {
            assert!(Request::decode_canonical(&text, &mut Vec::new(), &mut Vec::new()).is_none(), "{text}");
            assert_eq!(request(&text), Ok((canonical.clone(), payload.clone(), signature.clone())), "{text}");
        }
    }

    #[test]
    fn fields_may_be_missing_or_null() {
        let empty = Ok((Request::default(), Vec::new(), Vec::new()));
        assert_eq!(request("{}"), empty);
        assert_eq!(request(r#"{"id":null,"payload":null,"signature":null,"metadata":null}"#), empty);
        assert_eq!(request(r#"{"id":"","payload":"","metadata":{}}"#), empty);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for wrong in [
            "",
            "[]",
            "{",
            r#"{"id":5}"#,
            r#"{"payload":"a"}"#,
            r#"{"payload":"YQ=="#,
            r#"{"payload":"!!!!"}"#,
            r#"{"metadata":{"a":1}}"#,
            r#"{"metadata":"a"}"#,
            r#"{"id":"a"}{}"#,
            r#"{"id":"a",}"#,
            r#"{"id" "a"}"#,
        ] {
            assert!(request(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_comes_back_in_any_form() {
        let mut bytes = Vec::new();
        append_answer(&mut bytes, "an id", "task", b"data\xff");
        let go = String::from_utf8(bytes).unwrap();
        assert_eq!(
            go,
            "{\"success\":true,\"message_id\":\"an id\",\"task_id\":\"task\",\"data\":\"ZGF0Yf8=\"}\n"
        );
        let expected = Response {
            success: true,
            message_id: "an id".into(),
            task_id: "task".into(),
            ..Response::default()
        };
        assert!(Response::decode_canonical(&go, &mut Vec::new()).is_some());
        for text in [go.clone(), go.replace(',', " , "), go.replace("task_id", r"task\u005fid")] {
            let mut data = b"old".to_vec();
            assert_eq!(Response::decode(&text, &mut data), Ok(expected.clone()), "{text}");
            assert_eq!(data, b"data\xff");
        }
    }

    #[test]
    fn a_refusal_comes_back() {
        let mut bytes = Vec::new();
        append_refusal(&mut bytes, "an id", "", "no \"payload\"");
        let go = String::from_utf8(bytes).unwrap();
        assert_eq!(go, "{\"success\":false,\"message_id\":\"an id\",\"error\":\"no \\\"payload\\\"\"}\n");
        let mut data = b"old".to_vec();
        let refused =
            Response { message_id: "an id".into(), error: "no \"payload\"".into(), ..Response::default() };
        assert_eq!(Response::decode(&go, &mut data), Ok(refused));
        assert!(data.is_empty());
    }
}
