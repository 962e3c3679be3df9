//! A request is what `serde_json` and wire.md's table make of it, and what is written of it is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sage_ws_core::error::Field;
use sage_ws_core::wire::{decode_request, encode_request};
use sage_ws_core::{DecodeError, Request};
use sage_ws_fuzz::Vectors;
use sage_ws_fuzz::message::{Message, judge, read};

const FIELDS: [Field; 8] = [
    Field::Id,
    Field::ContextId,
    Field::TaskId,
    Field::Payload,
    Field::Did,
    Field::Signature,
    Field::Metadata,
    Field::Role,
];

fn decode(text: &str) -> (Request<'_, Vec<u8>>, Result<(), DecodeError>) {
    let mut request = Request::default();
    let answer = decode_request(text, &mut Vectors, &mut request);
    (request, answer)
}

fn message(request: &Request<'_, Vec<u8>>) -> Message {
    let mut message = Message::default();
    for (key, text) in [
        ("id", &request.id),
        ("context_id", &request.context_id),
        ("task_id", &request.task_id),
        ("did", &request.did),
        ("role", &request.role),
    ] {
        if !text.is_empty() {
            message.texts.insert(key, text.to_string());
        }
    }
    for (key, octets) in [("payload", &request.payload), ("signature", &request.signature)] {
        message.octets.extend(octets.iter().map(|octets| (key, octets.clone())));
    }
    request.metadata.for_each(|key, value| {
        message.metadata.insert(key.into_owned(), value.into_owned());
    });
    message
}

fuzz_target!(|text: &str| {
    let (request, answer) = decode(text);
    judge(text, read(text, &FIELDS), answer, || message(&request));
    if answer.is_err() {
        return;
    }
    let mut written = Vec::new();
    encode_request(&request, &mut written);
    assert_eq!(request.encoded_size(), written.len());
    let written = String::from_utf8(written).expect("what is written is text");
    let (again, answer) = decode(&written);
    assert_eq!((message(&again), answer), (message(&request), Ok(())), "{written:?}");
    judge(&written, read(&written, &FIELDS), answer, || message(&again));
    let mut rewritten = Vec::new();
    encode_request(&again, &mut rewritten);
    assert_eq!(String::from_utf8_lossy(&rewritten), written);
});
