//! What the core does for one message, piece by piece and whole: a program for callgrind, started by
//! `bench/instructions` (`make counts`) with a request and its response as JSON.
//!
//! Each operation runs `TIMES` times between two marks, then twice as often between two more: the difference is what so
//! many operations cost, and nothing else. A mark is a system call that callgrind is told to look out for.

use std::hint::black_box;

use sage_ws_core::base64;
use sage_ws_core::pending::Pending;
use sage_ws_core::{
    Connection, Delivery, Event, MakeBytes, Metadata, Random, Request, Response, Role, mask, utf8, wire,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [request, response] = &arguments[..] else {
        eprintln!("usage: instructions REQUEST RESPONSE (as JSON; `make counts` gives both)");
        std::process::exit(2);
    };
    for (size, bytes) in [("256 B", 256), ("64 KiB", 64 * 1024)] {
        count_bytes(size, &(0_u8..=255).cycle().take(bytes).collect::<Vec<u8>>());
    }
    count_json(request, response);
    count_correlation();
    count_server(request);
    count_client(request, response);
}

fn count_bytes(size: &str, bytes: &[u8]) {
    let mut buffer = Vec::new();
    count(&format!("unmask, {size}"), || {
        buffer.clear();
        mask::append(black_box(bytes), KEY, 0, &mut buffer);
    });
    let text = vec![b'a'; bytes.len()];
    count(&format!("check UTF-8, {size}"), || {
        black_box(utf8::whole(black_box(&text)));
    });
    count(&format!("encode base64, {size}"), || {
        buffer.clear();
        base64::encode(black_box(bytes), &mut buffer);
    });
    let (mut text, mut taken) = (Vec::new(), Taken::default());
    base64::encode(bytes, &mut text);
    count(&format!("decode base64, {size}"), || {
        taken.spare = base64::decode_usual(black_box(&text), &mut taken).expect("what was encoded");
    });
}

fn count_json(request: &str, response: &str) {
    count("parse request", || {
        black_box(parsed_request(black_box(request)));
    });
    count("parse response", || {
        black_box(parsed_response(black_box(response)));
    });
    let mut buffer = Vec::new();
    let values = request_to_send(request);
    count("encode request", || {
        buffer.clear();
        wire::encode_request(black_box(&values), &mut buffer);
    });
    let values = parsed_response(response);
    count("encode response", || {
        buffer.clear();
        wire::encode_response(black_box(&values), &mut buffer);
    });
}

/// A message's place in the table while another waits. With many, chance would have a say: hashes differ from run
/// to run, and places that look alike cost another comparison.
fn count_correlation() {
    let mut pending = Pending::default();
    pending.insert("00000000-0000-4000-8000-000000000000", "task-1", (), f64::INFINITY);
    let (id, task_id) = ("00000000-0000-4000-8000-000000000001", "task-2");
    count("correlate", || {
        pending.insert(black_box(id), black_box(task_id), (), f64::INFINITY);
        pending.remove(black_box(id)).expect("the call just added");
    });
}

/// A masked frame in, its values out; the answer's values in, its frame out.
fn count_server(request: &str) {
    let frame = frame_from(Role::Client, |client| {
        client.send_message(&request_to_send(request), (), f64::INFINITY).expect("within the limit");
    });
    let mut server = endpoint(Role::Server);
    let (mut buffer, mut taken) = (Vec::new(), Taken::default());
    count("server's end of a message", || {
        server.receive_data(black_box(&frame), &mut buffer, &mut taken);
        let (id, task_id, payload) = taken.request.take().expect("a whole request");
        let response = Response { success: true, data: Some(payload), ..Response::default() };
        server.send_response(&id, &task_id, response).expect("within the limit");
        let sent = server.data_to_send();
        server.lend(emptied(black_box(sent)));
    });
}

/// The message's values in, its masked frame out; the answer's frame in, its waiter out.
fn count_client(request: &str, response: &str) {
    let request = request_to_send(request);
    let frame = frame_from(Role::Server, |server| {
        server.send_response("", "", parsed_response(response)).expect("within the limit");
    });
    let mut client = endpoint(Role::Client);
    let (mut buffer, mut taken) = (Vec::new(), Taken::default());
    count("client's end of a message", || {
        client.send_message(black_box(&request), (), f64::INFINITY).expect("within the limit");
        let sent = client.data_to_send();
        client.lend(emptied(black_box(sent)));
        client.receive_data(black_box(&frame), &mut buffer, &mut taken);
        taken.answer.take().expect("the answer to this message");
    });
}

/// Runs the operation as the module says, and prints what the four marks enclose.
fn count(name: &str, mut operation: impl FnMut()) {
    for _ in 0..WARM_UP {
        operation();
    }
    for times in [TIMES, 2 * TIMES] {
        mark();
        for _ in 0..times {
            operation();
        }
        mark();
    }
    println!("{{\"name\": \"{name}\", \"operations\": {TIMES}}}");
}

fn mark() {
    #[cfg(unix)]
    let _ = std::os::unix::process::parent_id();
}

/// What came, as a binding takes it: owned.
#[derive(Default)]
struct Taken {
    /// Where the next bytes are put; usually nothing.
    spare: Vec<u8>,
    request: Option<(String, String, Vec<u8>)>,
    answer: Option<Vec<u8>>,
}

impl MakeBytes for Taken {
    type Bytes = Vec<u8>;

    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.spare);
        // Not zeros: they would come from `calloc`, which in glibc costs more or less with the shape of the heap.
        bytes.resize(length, 0xff);
        fill(&mut bytes).then_some(bytes)
    }
}

impl Delivery for Taken {
    type Waiter = ();

    fn deliver(&mut self, event: Event<'_, (), Vec<u8>>) {
        match event {
            Event::Request(request) => {
                let payload = request.payload.take().unwrap_or_default();
                self.request = Some((request.id.to_string(), request.task_id.to_string(), payload));
            }
            Event::Answer((), response) => self.answer = response.data.take(),
            _ => {}
        }
    }
}

/// The same masking keys in every run.
struct Fixed;

impl Random for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        for (byte, fixed) in bytes.iter_mut().zip(KEY.iter().cycle()) {
            *byte = *fixed;
        }
    }
}

type Endpoint = Connection<(), Fixed>;

fn endpoint(role: Role) -> Endpoint {
    Connection::new(role, Some(16 * 1024 * 1024), false, Fixed)
}

fn frame_from(role: Role, send: impl FnOnce(&mut Endpoint)) -> Vec<u8> {
    let mut sender = endpoint(role);
    send(&mut sender);
    sender.data_to_send()
}

fn parsed_request(text: &str) -> Request<'_, Vec<u8>> {
    let mut request = Request::default();
    wire::decode_request(text, &mut Taken::default(), &mut request).expect("a request in SAGE's form");
    request
}

/// As a caller builds it: its metadata came as keys and values.
fn request_to_send(text: &str) -> Request<'_, Vec<u8>> {
    let mut request = parsed_request(text);
    let mut pairs = Vec::new();
    request.metadata.for_each(|key, value| pairs.push((key.into_owned(), value.into_owned())));
    request.metadata = Metadata::from_pairs(pairs.iter().map(|(key, value)| (&**key, &**value)));
    request
}

fn parsed_response(text: &str) -> Response<'_, Vec<u8>> {
    let mut response = Response::default();
    wire::decode_response(text, &mut Taken::default(), &mut response).expect("a response in SAGE's form");
    response
}

fn emptied(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer
}

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const TIMES: usize = 64;
const WARM_UP: usize = 4;
