//! What Go's `encoding/json` writes and reads (tests/vectors, whose README says how they were made): every case,
//! byte for byte and value for value, but for those that docs/reference/wire.md decides otherwise.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sage_ws_core::base64::{Base64Error, decode};
use sage_ws_core::error::Field;
use sage_ws_core::wire::{decode_request, decode_response, encode_request, encode_response};
use sage_ws_core::{DecodeError, MakeBytes, Metadata, Request, Response};
use serde_json::Value;

struct Plain;

impl MakeBytes for Plain {
    type Bytes = Vec<u8>;

    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        fill(&mut bytes).then_some(bytes)
    }
}

fn cases(file: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

/// Bytes in hex under `key`, or as many as `key_gen` says, by the README's rule.
fn bytes(value: &Value, key: &str) -> Vec<u8> {
    if let Some(length) = value[format!("{key}_gen")].as_u64() {
        return (0..length).map(|index| u8::try_from((31 * index + 7) % 256).unwrap()).collect();
    }
    let hex = text(value, key);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn some(bytes: Vec<u8>) -> Option<Vec<u8>> {
    (!bytes.is_empty()).then_some(bytes)
}

fn request(value: &Value) -> Request<'_, Vec<u8>> {
    let metadata: BTreeMap<String, String> = match value["metadata"].as_object() {
        None => BTreeMap::new(),
        Some(entries) => {
            entries.iter().map(|(key, _)| (key.clone(), text(&value["metadata"], key).into())).collect()
        }
    };
    Request {
        id: text(value, "id").into(),
        context_id: text(value, "context_id").into(),
        task_id: text(value, "task_id").into(),
        payload: some(bytes(value, "payload")),
        did: text(value, "did").into(),
        signature: some(bytes(value, "signature")),
        metadata: Metadata::from_pairs(metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
        role: text(value, "role").into(),
        ..Request::default()
    }
}

fn response(value: &Value) -> Response<'_, Vec<u8>> {
    Response {
        success: value["success"].as_bool().unwrap_or_default(),
        message_id: text(value, "message_id").into(),
        task_id: text(value, "task_id").into(),
        data: some(bytes(value, "data")),
        error: text(value, "error").into(),
        more: false,
    }
}

#[test]
fn writes_what_go_writes() {
    let mut checked = 0;
    for case in cases("encode.json") {
        let (name, value) = (text(&case, "name"), &case["value"]);
        let empty_bytes = value["payload"] == "" || value["signature"] == "";
        if empty_bytes || case.get("value_hex").is_some() {
            continue; // ours writes null; and a str is UTF-8
        }
        let mut written = Vec::new();
        match text(&case, "kind") {
            "message" => encode_request(&request(value), &mut written),
            _ => encode_response(&response(value), &mut written),
        }
        assert_eq!(written.len() as u64, case["wire_len"], "{name}");
        if let Some(wire) = case["wire"].as_str() {
            assert_eq!(String::from_utf8_lossy(&written), wire, "{name}");
        }
        checked += 1;
    }
    assert!(checked > 200, "{checked}");
}

fn class(error: DecodeError) -> &'static str {
    match error {
        DecodeError::EndsEarly(_) => "truncated",
        DecodeError::NotAnObject(_) | DecodeError::Type(..) | DecodeError::MetadataValue(_) => "type",
        DecodeError::Base64Character(..) | DecodeError::Base64Padding(_) => "base64",
        DecodeError::TooDeep(_) => "depth",
        _ => "syntax",
    }
}

/// Compares what was read, or the refusal, with the case; the error is handed back for more.
fn judge<T: PartialEq + std::fmt::Debug>(
    case: &Value,
    read: Result<T, DecodeError>,
    expected: impl Fn(&Value) -> T,
) {
    let name = text(case, "name");
    let accepted = case["ok"] == true && case.get("ours").is_none();
    match read {
        Ok(value) => {
            assert!(accepted, "{name}: accepted");
            assert_eq!(value, expected(&case["value"]), "{name}");
        }
        Err(error) => {
            assert!(!accepted, "{name}: {error}");
            if let Some(field) = case["field"].as_str() {
                assert_eq!(error.field().map(Field::name), Some(field), "{name}: {error}");
            }
            // Go finds some lengths at the first byte that shows them, which it calls depth or truncation as well.
            if case.get("ours").is_none() && case["error"] != "depth" && name != "message/depth-200-unclosed"
            {
                assert_eq!(class(error), text(case, "error"), "{name}: {error}");
            }
        }
    }
}

type Fields = (Vec<String>, Vec<Vec<u8>>, bool, BTreeMap<String, String>);

fn request_fields(request: &Request<'_, Vec<u8>>) -> Fields {
    let texts = [&request.id, &request.context_id, &request.task_id, &request.did, &request.role];
    let octets = [request.payload.clone(), request.signature.clone()];
    let mut metadata = BTreeMap::new();
    request.metadata.for_each(|key, value| {
        metadata.insert(key.into_owned(), value.into_owned());
    });
    (texts.map(ToString::to_string).into(), octets.map(Option::unwrap_or_default).into(), false, metadata)
}

fn response_fields(response: &Response<'_, Vec<u8>>) -> Fields {
    let texts = [&response.message_id, &response.task_id, &response.error];
    let data = response.data.clone().unwrap_or_default();
    (texts.map(ToString::to_string).into(), vec![data], response.success, BTreeMap::new())
}

#[test]
fn reads_what_go_reads_and_refuses_what_it_refuses() {
    let cases = cases("decode.json");
    assert_eq!(cases.len(), 508);
    for case in &cases {
        let name = text(case, "name");
        let wire = match decode(text(case, "wire").as_bytes(), &mut Plain) {
            Ok(wire) => wire.unwrap_or_default(),
            Err(Base64Error::Character(_) | Base64Error::Padding) => panic!("{name}: the case itself"),
        };
        let Ok(wire) = String::from_utf8(wire) else {
            assert!(case.get("ours").is_some(), "{name}: not UTF-8");
            continue;
        };
        if text(case, "kind") == "message" {
            let mut read = Request::default();
            let outcome = decode_request(&wire, &mut Plain, &mut read).map(|()| request_fields(&read));
            judge(case, outcome, |value| request_fields(&request(value)));
        } else {
            let mut read = Response::default();
            let outcome = decode_response(&wire, &mut Plain, &mut read).map(|()| response_fields(&read));
            judge(case, outcome, |value| response_fields(&response(value)));
        }
    }
}
