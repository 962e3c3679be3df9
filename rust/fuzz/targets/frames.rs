//! However a peer's bytes are cut, the events, the output and the close code are those of one chunk; and what is
//! written in answer breaks no rule of the other end.
//!
//! The input: a byte of options, two of a seed for the cuts, then the stream. With `BUILT` the stream is made here:
//! of a first byte, a length and a payload for each frame, so that masked text is not left to luck.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use sage_ws_core::deflate::{Direction, Parameters};
use sage_ws_core::frame::Role;
use sage_ws_core::{Connection, Delivery, Event, MakeBytes, Request};
use sage_ws_fuzz::{Sequence, Vectors, plain};

const CLIENT: u8 = 1;
const RAW: u8 = 2;
const BUILT: u8 = 4;
const LIMITED: u8 = 8;
const BLOCKED: u8 = 16;
const CLOSED: u8 = 32;
const COMPRESSED: u8 = 64;

/// A stream that is longer gets no further frame.
const LONGEST: usize = 66_000;

/// What can be seen of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    events: Vec<String>,
    output: Vec<u8>,
    state: String,
    /// A rule was broken by the peer.
    failed: bool,
}

impl MakeBytes for Seen {
    type Bytes = Vec<u8>;
    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
        Vectors.make(length, fill)
    }
}

impl Delivery for Seen {
    type Waiter = usize;
    fn deliver(&mut self, event: Event<'_, usize, Vec<u8>>) {
        self.failed |= matches!(event, Event::Closing { by_peer: false, .. });
        self.events.push(format!("{event:?}"));
    }
}

fn run<'a>(options: u8, role: Role, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let limit = (options & LIMITED != 0).then_some(300);
    let mut connection = Connection::new(role, limit, options & RAW != 0, Sequence(1));
    if options & COMPRESSED != 0 {
        let direction = Direction { window_bits: 15, takeover: true };
        connection.set_deflate(Parameters {
            send: direction,
            receive: direction,
            threshold: usize::MAX,
            level: 6,
            memory_level: 8,
        });
    }
    if role == Role::Client {
        for (waiter, id) in ["a", "m-1", "é"].into_iter().enumerate() {
            let request = Request::<&[u8]> { id: Cow::Borrowed(id), did: "d".into(), ..Request::default() };
            let _ = connection.send_message(&request, waiter, f64::INFINITY);
        }
    }
    if options & CLOSED != 0 {
        let _ = connection.send_close(Some(1000), "");
    }
    connection.set_blocked(options & BLOCKED != 0);
    let (mut seen, mut buffer) = (Seen::default(), Vec::new());
    for chunk in chunks {
        connection.receive_data(chunk, &mut buffer, &mut seen);
        seen.output.extend(connection.data_to_send());
    }
    seen.output.extend(connection.data_to_send());
    seen.state = format!(
        "{:?} {} {} {}",
        connection.counters(),
        connection.pending(),
        connection.closing(),
        connection.spoken()
    );
    seen
}

/// Frames as a peer writes them, of the bytes that say what they hold.
fn build(mut plan: &[u8], role: Role) -> Vec<u8> {
    let mut stream = Vec::new();
    while let [first, length, rest @ ..] = plan
        && stream.len() < LONGEST
    {
        let (payload, rest) = if let 253.. = length {
            (Cow::Owned(vec![b' '; [126, 300, 65_536][usize::from(length - 253)]]), rest)
        } else {
            let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
            (Cow::Borrowed(payload), rest)
        };
        plan = rest;
        stream.push(*first);
        let mask = if role == Role::Server { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => stream.push(mask | length.to_le_bytes()[0]),
            length @ 126..65_536 => {
                stream.push(mask | 0x7e);
                stream.extend(&length.to_be_bytes()[6..]);
            }
            length => {
                stream.push(mask | 0x7f);
                stream.extend(length.to_be_bytes());
            }
        }
        let key = [0x00, *first, 0x55, *length];
        if role == Role::Server {
            stream.extend(key);
            stream.extend(plain::mask(&payload, key, 0));
        } else {
            stream.extend(&*payload);
        }
    }
    stream
}

/// Chunks whose sizes follow from the seed; 0 is a chunk for each byte, if the stream is not a long one.
fn cut(mut stream: &[u8], seed: u16) -> Vec<&[u8]> {
    let mut sequence = Sequence(u64::from(seed));
    let least = stream.len() / 1000 + 1;
    let mut chunks = Vec::new();
    while !stream.is_empty() {
        let most = [1, 4, 16, 200, 100_000][if seed == 0 { 0 } else { sequence.below(5) }];
        let (chunk, rest) = stream.split_at(stream.len().min(least + sequence.below(most)));
        chunks.push(chunk);
        stream = rest;
    }
    chunks
}

fuzz_target!(|input: &[u8]| {
    let [options, low, high, rest @ ..] = input else { return };
    let (role, peer) =
        if options & CLIENT == 0 { (Role::Server, Role::Client) } else { (Role::Client, Role::Server) };
    let stream = if options & BUILT == 0 { Cow::Borrowed(rest) } else { Cow::Owned(build(rest, role)) };
    let whole = run(*options, role, [&*stream]);
    let chunks = cut(&stream, u16::from_le_bytes([*low, *high]));
    assert_eq!(run(*options, role, chunks), whole);
    assert!(!run(RAW, peer, [&*whole.output]).failed, "{:02x?}", whole.output);
});
