//! However a compressed message is cut, it inflates to the same, or fails by the same rule; it is never over the
//! limit by more than a byte; and what was deflated here inflates to what it was.
//!
//! The input: a byte of options, two of a seed for the cuts and the parameters, then payloads, or messages to be
//! compressed: each is its length, a byte, and as many bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sage_ws_core::Violation;
use sage_ws_core::deflate::{Deflater, Direction, Inflater, Parameters, longest};
use sage_ws_fuzz::Sequence;

const TAKEOVER: u8 = 1;
const DEFLATED: u8 = 2;
const LIMITED: u8 = 4;
const REPEATED: u8 = 8;

const LIMIT: usize = 500;
const UNLIMITED: usize = 1 << 20;

/// What a payload comes to in pieces of these sizes, and how much of it there was.
fn run(
    inflater: &mut Inflater,
    mut payload: &[u8],
    limit: usize,
    mut size: impl FnMut() -> usize,
) -> (Vec<u8>, Option<Violation>) {
    let mut message = Vec::new();
    while !payload.is_empty() {
        let (piece, rest) = payload.split_at(payload.len().min(size()));
        payload = rest;
        if let Err(violation) = inflater.inflate(piece, &mut message, limit) {
            return (message, Some(violation));
        }
    }
    let ended = inflater.finish().err();
    (message, ended)
}

fn pieces(mut rest: &[u8], repeated: bool) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while let Some((&length, behind)) = rest.split_first() {
        let (piece, behind) = behind.split_at(behind.len().min(length.into()));
        rest = behind;
        pieces.push(piece.repeat(if repeated { 1 + usize::from(length) * 2 } else { 1 }));
    }
    pieces
}

fuzz_target!(|input: &[u8]| {
    let [options, low, high, rest @ ..] = input else { return };
    let seed = u16::from_le_bytes([*low, *high]);
    let mut sequence = Sequence(seed.into());
    let takeover = options & TAKEOVER != 0;
    let limit = if options & LIMITED != 0 { LIMIT } else { UNLIMITED };
    let mut pieces = pieces(rest, options & REPEATED != 0);
    // What does not keep to its window may still be at hand, by how it is cut: a foreign payload has the largest.
    let mut direction = Direction { window_bits: 15, takeover };
    let mut messages = Vec::new();
    if options & DEFLATED != 0 {
        direction.window_bits = u8::try_from(8 + sequence.below(8)).unwrap();
        let parameters = Parameters {
            send: direction,
            receive: direction,
            threshold: 0,
            level: u8::try_from(sequence.below(10)).unwrap(),
            memory_level: u8::try_from(1 + sequence.below(9)).unwrap(),
        };
        assert!(parameters.are_sound());
        let mut deflater = Deflater::new(parameters);
        messages = std::mem::take(&mut pieces);
        for message in &messages {
            let Some(payload) = deflater.deflate(message) else {
                assert!(!takeover);
                return;
            };
            assert!(payload.len() <= longest(message.len()));
            assert!(takeover || payload.len() < message.len());
            pieces.push(payload);
        }
    }
    let mut ends = [Inflater::new(direction), Inflater::new(direction), Inflater::new(direction)];
    for (number, payload) in pieces.iter().enumerate() {
        let [whole, bytewise, cut] = &mut ends;
        let inflated = run(whole, payload, limit, || payload.len());
        assert_eq!(run(bytewise, payload, limit, || 1), inflated);
        assert_eq!(run(cut, payload, limit, || 1 + sequence.below(50)), inflated);
        let (message, violation) = inflated;
        assert!(message.len() <= limit + usize::from(violation == Some(Violation::TooBig(limit))));
        if let Some(expected) = messages.get(number) {
            if expected.len() <= limit {
                assert_eq!((&message, violation), (expected, None));
            } else {
                assert_eq!((&message[..], violation), (&expected[..=limit], Some(Violation::TooBig(limit))));
            }
        }
        if violation.is_some() {
            return;
        }
    }
});
