//! The extended wire's vectors (tests/vectors/extended.json): each message in both encodings, read from either and
//! written as the other, and each refusal. minicbor is the second opinion on what is CBOR.

use std::path::PathBuf;

use minicbor::data::Token;
use sage_ws_core::error::Field;
use sage_ws_core::extended::{self, Message, MessageKind};
use sage_ws_core::wire::Response;
use sage_ws_core::{DecodeError, MakeBytes, Subprotocol};
use serde_json::Value;

struct Plain;

impl MakeBytes for Plain {
    type Bytes = Vec<u8>;

    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        fill(&mut bytes).then_some(bytes)
    }
}

fn vectors(group: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/extended.json");
    let mut all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    serde_json::from_value(all[group].take()).unwrap()
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn read<'a>(
    subprotocol: Subprotocol,
    given: Result<&'a str, &'a [u8]>,
) -> (Message<'a, Vec<u8>>, Result<(), DecodeError>) {
    let mut message = Message::default();
    let read = extended::decode(subprotocol, given, &mut Plain, &mut message);
    (message, read)
}

/// A message as this encoding has it.
fn written(subprotocol: Subprotocol, message: Message<'_, Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Message { kind, request, response, reason, .. } = message;
    match kind {
        Some(MessageKind::Request) => {
            extended::encode_request(subprotocol, &request, &mut bytes);
            assert_eq!(extended::request_size(subprotocol, &request), bytes.len());
        }
        Some(MessageKind::Response) => {
            let response = Response { task_id: request.task_id, ..response };
            extended::encode_response(subprotocol, &response, &mut bytes);
            assert_eq!(extended::response_size(subprotocol, &response), bytes.len());
        }
        Some(kind) => {
            extended::encode_note(subprotocol, kind, &request.id, request.credit, &reason, &mut bytes);
        }
        None => panic!("a message without a kind"),
    }
    bytes
}

#[test]
fn each_message_has_one_form_in_each_encoding() {
    let cases = vectors("messages");
    assert!(cases.len() >= 15);
    for case in cases {
        let (name, json, cbor) = (text(&case, "name"), text(&case, "json"), hex(text(&case, "cbor")));
        for to in [Subprotocol::Json, Subprotocol::Cbor] {
            let expected = if to == Subprotocol::Json { json.as_bytes() } else { &cbor };
            let readings = [
                read(Subprotocol::Json, Ok(json)),
                read(Subprotocol::Json, Err(json.as_bytes())),
                read(Subprotocol::Cbor, Err(&cbor)),
            ];
            for (message, outcome) in readings {
                assert_eq!(outcome, Ok(()), "{name}");
                assert!(!message.has_unknown, "{name}");
                let again = written(to, message);
                assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(expected), "{name}");
            }
        }
    }
}

#[test]
fn minicbor_reads_the_same_and_writes_the_same() {
    for case in vectors("messages") {
        let cbor = hex(text(&case, "cbor"));
        let tokens: Vec<Token<'_>> =
            minicbor::Decoder::new(&cbor).tokens().collect::<Result<_, _>>().unwrap();
        let mut again = minicbor::Encoder::new(Vec::new());
        again.tokens(&tokens).unwrap();
        assert_eq!(again.into_writer(), cbor, "{}", text(&case, "name"));
    }
}

#[test]
fn each_refusal_has_its_text() {
    for (subprotocol, group, least) in
        [(Subprotocol::Cbor, "cbor_refused", 90), (Subprotocol::Json, "json_refused", 15)]
    {
        let cases = vectors(group);
        assert!(cases.len() >= least);
        for case in cases {
            let (json, cbor) = (text(&case, "json"), hex(text(&case, "cbor")));
            let given = if subprotocol == Subprotocol::Json { Ok(json) } else { Err(cbor.as_slice()) };
            let error = read(subprotocol, given).1.unwrap_err();
            assert_eq!(error.to_string(), text(&case, "error"), "{case}");
            assert_eq!(error.field().map(Field::name), case["field"].as_str(), "{case}");
        }
    }
}

#[test]
fn what_is_unknown_is_told() {
    for case in vectors("cbor_unknown") {
        let cbor = hex(text(&case, "cbor"));
        let (message, outcome) = read(Subprotocol::Cbor, Err(&cbor));
        assert_eq!(outcome, Ok(()), "{case}");
        assert!(message.has_unknown || message.kind == Some(MessageKind::Unknown), "{case}");
    }
    for case in vectors("json_unknown") {
        let (message, outcome) = read(Subprotocol::Json, Ok(text(&case, "json")));
        assert_eq!(outcome, Ok(()), "{case}");
        assert!(message.has_unknown || message.kind == Some(MessageKind::Unknown), "{case}");
    }
}

#[test]
fn no_prefix_of_a_message_is_one() {
    for case in vectors("messages") {
        let cbor = hex(text(&case, "cbor"));
        for end in 0..cbor.len() {
            let error = read(Subprotocol::Cbor, Err(&cbor[..end])).1.unwrap_err();
            assert_eq!(error, DecodeError::CborEndsEarly(end), "{}", text(&case, "name"));
        }
    }
}

#[test]
fn no_string_is_too_long_for_its_head() {
    for length in [0_usize, 23, 24, 255, 256, 65_535, 65_536] {
        let id = "é".repeat(length / 2) + if length % 2 == 1 { "i" } else { "" };
        let mut bytes = Vec::new();
        extended::encode_note(Subprotocol::Cbor, MessageKind::Cancel, &id, None, "", &mut bytes);
        assert_eq!(read(Subprotocol::Cbor, Err(&bytes)).0.request.id, id);
    }
}

#[test]
fn seconds_become_milliseconds() {
    for (seconds, expected) in [
        (1.5, Some(1500)),
        (0.0019, Some(1)),
        (0.0, Some(0)),
        (-1.0, Some(0)),
        (1e300, Some((1 << 53) - 1)),
        (f64::INFINITY, None),
        (f64::NAN, None),
    ] {
        assert_eq!(extended::deadline_ms(seconds), expected, "{seconds}");
    }
}
