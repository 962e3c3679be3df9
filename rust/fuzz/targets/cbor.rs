//! What is taken is what minicbor takes and the rules allow; and a message that was read is the same after it was
//! written, in either encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sage_ws_core::extended::{self, Message, MessageKind};
use sage_ws_core::{DecodeError, Response, Subprotocol};
use sage_ws_fuzz::{Vectors, cbor};

type Read<'a> = Message<'a, Vec<u8>>;

fn read(subprotocol: Subprotocol, data: &[u8]) -> (Read<'_>, Result<(), DecodeError>) {
    let mut message = Message::default();
    let read = extended::decode(subprotocol, Err(data), &mut Vectors, &mut message);
    (message, read)
}

/// The message as it would be sent, of the fields of its kind; nothing of an unknown one.
fn written(subprotocol: Subprotocol, message: &Read<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Message { kind, request, response, reason, .. } = message;
    match kind {
        Some(MessageKind::Request) => {
            extended::encode_request(subprotocol, request, &mut bytes);
            assert_eq!(extended::request_size(subprotocol, request), bytes.len());
        }
        Some(MessageKind::Response) => {
            let response = Response { task_id: request.task_id.clone(), ..response.clone() };
            extended::encode_response(subprotocol, &response, &mut bytes);
            assert_eq!(extended::response_size(subprotocol, &response), bytes.len());
        }
        Some(kind @ (MessageKind::Cancel | MessageKind::Credit)) => {
            extended::encode_note(subprotocol, *kind, &request.id, request.credit, "", &mut bytes);
        }
        Some(MessageKind::GoAway) => {
            extended::encode_note(subprotocol, MessageKind::GoAway, "", None, reason, &mut bytes);
        }
        _ => {}
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let (message, outcome) = read(Subprotocol::Cbor, data);
    let is_sound = outcome.is_ok_and(|()| true) || outcome.is_err_and(DecodeError::is_sound_json);
    assert_eq!(is_sound, cbor::is_message(data), "{outcome:?}");
    if outcome.is_err() {
        return;
    }
    let first = written(Subprotocol::Cbor, &message);
    if first.is_empty() {
        return;
    }
    assert!(cbor::is_message(&first));
    for subprotocol in [Subprotocol::Cbor, Subprotocol::Json] {
        let bytes = written(subprotocol, &message);
        let (again, outcome) = read(subprotocol, &bytes);
        assert_eq!(outcome, Ok(()), "{bytes:02x?}");
        assert!(!again.has_unknown);
        assert_eq!(written(Subprotocol::Cbor, &again), first);
    }
});
