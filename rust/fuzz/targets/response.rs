//! A response is what `serde_json` and wire.md's table make of it, and what is written of it is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sage_ws_core::error::Field;
use sage_ws_core::wire::{decode_response, encode_response};
use sage_ws_core::{DecodeError, Response};
use sage_ws_fuzz::Vectors;
use sage_ws_fuzz::message::{Message, judge, read};

const FIELDS: [Field; 5] = [Field::Success, Field::MessageId, Field::TaskId, Field::Data, Field::Error];

fn decode(text: &str) -> (Response<'_, Vec<u8>>, Result<(), DecodeError>) {
    let mut response = Response::default();
    let answer = decode_response(text, &mut Vectors, &mut response);
    (response, answer)
}

fn message(response: &Response<'_, Vec<u8>>) -> Message {
    let mut message = Message { success: response.success, ..Message::default() };
    for (key, text) in
        [("message_id", &response.message_id), ("task_id", &response.task_id), ("error", &response.error)]
    {
        if !text.is_empty() {
            message.texts.insert(key, text.to_string());
        }
    }
    message.octets.extend(response.data.iter().map(|octets| ("data", octets.clone())));
    message
}

fuzz_target!(|text: &str| {
    let (response, answer) = decode(text);
    judge(text, read(text, &FIELDS), answer, || message(&response));
    if answer.is_err() {
        return;
    }
    let mut written = Vec::new();
    encode_response(&response, &mut written);
    assert_eq!(response.encoded_size(), written.len());
    let written = String::from_utf8(written).expect("what is written is text");
    let (again, answer) = decode(&written);
    assert_eq!((message(&again), answer), (message(&response), Ok(())), "{written:?}");
    judge(&written, read(&written, &FIELDS), answer, || message(&again));
    let mut rewritten = Vec::new();
    encode_response(&again, &mut rewritten);
    assert_eq!(String::from_utf8_lossy(&rewritten), written);
});
