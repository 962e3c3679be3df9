//! The promises of a connection, at its face: what comes in, what goes out, who is told. The parity tests compare the
//! rest with the fallback core.

use std::path::PathBuf;

use sage_ws_core::{
    Connection, DecodeError, Delivery, Event, MakeBytes, Random, Request, Response, Role, SendError,
};
use serde_json::{Value, json};

/// Events in words.
#[derive(Default)]
struct Log(Vec<String>);

impl MakeBytes for Log {
    type Bytes = Vec<u8>;

    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        fill(&mut bytes).then_some(bytes)
    }
}

impl Delivery for Log {
    type Waiter = &'static str;

    fn deliver(&mut self, event: Event<'_, &'static str, Vec<u8>>) {
        let text = |bytes: &Option<Vec<u8>>| {
            String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
        };
        self.0.push(match event {
            Event::Request(request) => format!("{} {} {}", request.id, request.did, text(&request.payload)),
            Event::Answer(waiter, response) => {
                let Response { success, task_id, data, error, .. } = response;
                format!("{waiter}: {success} {task_id} {} {error}", text(data))
            }
            Event::BadAnswer(waiter, error) => format!("{waiter}: {error}"),
            Event::Part(waiter, response) => format!("{waiter} goes on: {}", text(&response.data)),
            Event::Cancel(id) => format!("cancel {id}"),
            Event::Credit(id, count) => format!("credit {id} {count}"),
            Event::GoAway(reason) => format!("goaway {reason}"),
            Event::Undecodable(error) => error.to_string(),
            Event::Text(text) => format!("text {text}"),
            Event::Binary(bytes) => format!("binary {bytes:02x?}"),
            Event::Pong(payload) => format!("pong {payload:02x?}"),
            Event::Closing { code, reason, by_peer } => {
                format!("closing {:?} {reason:?} {by_peer}", code.map(sage_ws_core::CloseCode::get))
            }
        });
    }
}

/// Masks that do nothing, and one id.
struct Zero;

impl Random for Zero {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

type Endpoint = Connection<&'static str, Zero>;

fn endpoint(role: Role) -> Endpoint {
    Connection::new(role, Some(1000), false, Zero)
}

fn receive(connection: &mut Endpoint, chunks: &[&[u8]]) -> Vec<String> {
    let (mut log, mut buffer) = (Log::default(), Vec::new());
    for chunk in chunks {
        connection.receive_data(chunk, &mut buffer, &mut log);
    }
    log.0
}

/// A frame as the peer of `role` writes it, with a mask that does nothing.
fn frame(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = if role == Role::Server { 0x80 } else { 0 };
    let mut bytes = match u8::try_from(payload.len()) {
        Ok(length @ ..=125) => vec![first, mask | length],
        _ => [&[first, mask | 0x7e][..], &u16::try_from(payload.len()).unwrap().to_be_bytes()].concat(),
    };
    if role == Role::Server {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

fn text(role: Role, value: &Value) -> Vec<u8> {
    frame(role, 0x81, value.to_string().as_bytes())
}

/// The JSON texts that a server has to send.
fn answers(server: &mut Endpoint) -> Vec<String> {
    let mut client = Connection::new(Role::Client, None, true, Zero);
    receive(&mut client, &[&server.data_to_send()])
}

fn message(id: &str) -> Request<'_, &[u8]> {
    Request {
        id: id.into(),
        did: "did:x".into(),
        task_id: "t".into(),
        payload: Some(b"hi"),
        ..Request::default()
    }
}

fn send(client: &mut Endpoint, id: &str, waiter: &'static str, deadline: f64) {
    client.send_message(&message(id), waiter, deadline).unwrap();
}

#[test]
fn a_call_goes_there_and_back() {
    let (mut client, mut server) = (endpoint(Role::Client), endpoint(Role::Server));
    send(&mut client, "m-1", "caller", f64::INFINITY);
    assert_eq!(receive(&mut server, &[&client.data_to_send()]), ["m-1 did:x hi"]);
    let response = Response { success: true, data: Some(b"yes"), ..Response::default() };
    server.send_response("m-1", "t", response).unwrap();
    assert_eq!(receive(&mut client, &[&server.data_to_send()]), ["caller: true t yes "]);
    assert_eq!((client.pending(), client.buffered()), (0, 0));
    assert_eq!((client.counters().sent, client.counters().received), (1, 1));
    assert_eq!((server.counters().sent, server.counters().received), (1, 1));
}

#[test]
fn any_chunking_gives_the_same_events_and_output() {
    for role in [Role::Client, Role::Server] {
        let mut stream =
            text(role, &json!({"id": "m", "did": "d", "payload": "aGk=", "message_id": "m", "task_id": "é"}));
        stream.extend(frame(role, 0x89, b"ping"));
        stream.extend(frame(role, 0x01, b"{\"message_id\":\"m"));
        stream.extend(frame(role, 0x8a, b"pong"));
        stream.extend(frame(role, 0x80, b"\"}"));
        stream.extend(frame(role, 0x82, b"{\"id\":5,\"success\":5}"));
        stream.extend(frame(role, 0x81, b"\xff"));
        let mut outcomes = [usize::MAX, 1, 2, 7, 31].map(|size| {
            let mut connection = endpoint(role);
            if role == Role::Client {
                send(&mut connection, "m", "caller", 1.0);
            }
            let events = receive(&mut connection, &stream.chunks(size.min(stream.len())).collect::<Vec<_>>());
            (events, connection.data_to_send())
        });
        let (first, others) = outcomes.split_first_mut().unwrap();
        assert!(first.0.len() > 3, "{:?}", first.0);
        assert!(others.iter().all(|other| other == first), "{others:?}");
    }
}

#[test]
fn requests_that_lack_something_are_answered_in_this_order() {
    let mut server = endpoint(Role::Server);
    for lacking in [
        json!({"task_id": "t"}),
        json!({"id": "m", "task_id": "t"}),
        json!({"id": "m", "task_id": "t", "did": "d", "payload": ""}),
    ] {
        assert!(receive(&mut server, &[&text(Role::Server, &lacking)]).is_empty());
    }
    assert_eq!(
        answers(&mut server),
        [
            "text {\"success\":false,\"message_id\":\"\",\"error\":\"message ID is required\"}\n",
            "text {\"success\":false,\"message_id\":\"m\",\"task_id\":\"t\",\"error\":\"DID is required\"}\n",
            "text {\"success\":false,\"message_id\":\"m\",\"task_id\":\"t\",\"error\":\"payload is required\"}\n",
        ]
    );
    assert_eq!((server.counters().invalid, server.spoken()), (3, true));
}

#[test]
fn the_third_undecodable_message_in_a_row_ends_the_connection() {
    let mut server = endpoint(Role::Server);
    let (bad, lacking) = (frame(Role::Server, 0x81, b"["), text(Role::Server, &json!({})));
    let events = receive(&mut server, &[&bad, &bad, &lacking, &bad, &bad, &bad, &bad]);
    assert_eq!(events.len(), 6);
    assert_eq!(events[5], "closing Some(1008) \"three undecodable messages in a row\" false");
    let answers = answers(&mut server);
    assert_eq!(
        answers[5],
        "text {\"success\":false,\"message_id\":\"\",\"error\":\"not JSON: ends early at byte 1\"}\n"
    );
    assert_eq!(answers[6], "closing Some(1008) \"three undecodable messages in a row\" true");
    assert!(server.closing());
}

#[test]
fn an_answer_ends_the_call_whose_id_it_carries_and_no_other() {
    let mut client = endpoint(Role::Client);
    for (id, waiter) in [("a", "first"), ("b", "second"), ("c", "third")] {
        send(&mut client, id, waiter, f64::INFINITY);
    }
    let answer = |value: Value| text(Role::Client, &value);
    let events = receive(
        &mut client,
        &[
            &answer(json!({"message_id": "b", "success": true, "error": "no"})),
            &answer(json!({"message_id": "b"})),
            &answer(json!({"message_id": "a", "data": 5})),
            &answer(json!({"message_id": 5})),
            &frame(Role::Client, 0x81, b"{\"message_id\":\"c\""),
        ],
    );
    assert_eq!(
        events,
        [
            "second: false t  no",
            "first: data: expected a base64 string, found number",
            "message_id: expected a string, found number",
            "not JSON: ends early at byte 17",
        ]
    );
    let counters = client.counters();
    assert_eq!((counters.received, counters.late, counters.invalid, client.pending()), (1, 1, 3, 1));
    assert_eq!(client.forget("c"), Some("third"));
}

#[test]
fn what_cannot_be_sent_leaves_nothing_behind() {
    let mut client = endpoint(Role::Client);
    let big = vec![0; 2000];
    let over = Request { payload: Some(big.as_slice()), ..message("big") };
    let escaped = "<".repeat(300);
    let grown = Request { did: escaped.as_str().into(), ..message("grown") };
    assert_eq!(
        client.send_message(&over, "w", 1.0),
        Err(SendError::MessageTooBig(over.encoded_size(), 1000))
    );
    assert_eq!(
        client.send_message(&grown, "w", 1.0),
        Err(SendError::MessageTooBig(grown.encoded_size(), 1000))
    );
    send(&mut client, "m", "w", 1.0);
    let buffered = client.buffered();
    assert_eq!(client.send_message(&message("m"), "w", 1.0), Err(SendError::DuplicateId));
    assert_eq!(client.send_text(&escaped.repeat(4)), Err(SendError::MessageTooBig(1200, 1000)));
    assert_eq!(client.send_ping(&[0; 126]), Err(SendError::PingTooLong));
    assert_eq!(client.send_close(Some(1014), ""), Err(SendError::CloseCode(1014)));
    assert_eq!(client.send_close(Some(1000), &"r".repeat(124)), Err(SendError::ReasonTooLong));
    assert_eq!((client.buffered(), client.pending(), client.closing()), (buffered, 1, false));
    client.send_close(Some(1000), "").unwrap();
    assert_eq!(client.send_message(&message("n"), "w", 1.0), Err(SendError::Closing));
}

#[test]
fn a_close_is_answered_once_and_ends_everything() {
    let mut server = endpoint(Role::Server);
    let close = frame(Role::Server, 0x88, b"\x03\xe9bye");
    assert_eq!(receive(&mut server, &[&close, &close]), ["closing Some(1001) \"bye\" true"]);
    server.send_response("m", "", Response::<&[u8]>::default()).unwrap();
    server.send_keepalive();
    assert_eq!(server.data_to_send(), b"\x88\x02\x03\xe9");

    let mut server = endpoint(Role::Server);
    server.send_close(None, "").unwrap();
    let late = text(Role::Server, &json!({"id": "m", "did": "d", "payload": "aGk="}));
    assert_eq!(receive(&mut server, &[&late, &close]), ["closing Some(1001) \"bye\" true"]);
    assert_eq!(server.data_to_send(), b"\x88\x00");
}

#[test]
fn pongs_that_are_stuck_are_bounded() {
    let mut server = endpoint(Role::Server);
    let ping = frame(Role::Server, 0x89, b"");
    server.set_blocked(true);
    assert!(receive(&mut server, &[&ping.repeat(64)]).is_empty());
    server.set_blocked(false);
    assert!(receive(&mut server, &[&ping.repeat(100)]).is_empty());
    server.set_blocked(true);
    let events = receive(&mut server, &[&ping.repeat(70)]);
    assert_eq!(events, ["closing Some(1008) \"too many pings unanswered\" false"]);
    assert_eq!(server.data_to_send().len(), (64 + 100 + 64) * 2 + 4 + "too many pings unanswered".len());
}

#[test]
fn a_keepalives_answer_is_neither_late_nor_delivered() {
    let mut client = endpoint(Role::Client);
    client.send_keepalive();
    assert_eq!(client.buffered(), 0, "no DID is known yet");
    send(&mut client, "m", "caller", 1.0);
    client.data_to_send();
    client.send_keepalive();
    let mut server = endpoint(Role::Server);
    assert!(receive(&mut server, &[&client.data_to_send()]).is_empty());
    let answer = server.data_to_send();
    assert!(receive(&mut client, &[&answer]).is_empty());
    assert_eq!((client.counters().late, client.pending()), (0, 1));
    assert!(receive(&mut client, &[&answer]).is_empty());
    assert_eq!(client.counters().late, 1);
}

#[test]
fn binary_that_is_not_utf8_is_a_decode_error() {
    let mut server = endpoint(Role::Server);
    let events = receive(&mut server, &[&frame(Role::Server, 0x82, b"{\"id\":\"\xff")]);
    assert_eq!(events, [DecodeError::NotUtf8(7).to_string()]);
    assert!(!server.closing());
}

#[test]
fn what_go_puts_on_the_socket_is_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/frames.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut read = 0;
    for case in vectors["messages"].as_array().unwrap() {
        let Some(raw) = case["raw"].as_str() else { continue };
        let bytes: Vec<u8> =
            (0..raw.len()).step_by(2).map(|at| u8::from_str_radix(&raw[at..at + 2], 16).unwrap()).collect();
        let role = if case["role"] == "client" { Role::Server } else { Role::Client };
        let mut connection = Connection::new(role, None, false, Zero);
        if role == Role::Client {
            let id = case["value"]["message_id"].as_str().unwrap();
            connection.send_message(&message(id), "caller", 1.0).unwrap();
        }
        let events = receive(&mut connection, &bytes.chunks(1000).collect::<Vec<_>>());
        assert_eq!(events.len(), 1, "{}: {events:?}", case["name"]);
        assert_eq!(connection.counters().received, 1, "{}: {events:?}", case["name"]);
        read += 1;
    }
    assert!(read > 20, "{read}");
}
