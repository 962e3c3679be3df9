//! Frames cut out of chunks, and messages joined from fragments (RFC 6455 §5.4).
//!
//! A frame that stands whole in a chunk and is a message by itself, which nearly all are, is handed on as it is
//! (client) or unmasked into the caller's buffer (server). All others are collected here. Memory is taken for
//! bytes that have come, never for a length that a header claims.

use crate::deflate::{self, Inflater};
use crate::error::Violation;
use crate::frame::{self, Header, Opcode, Role};
use crate::mask;
use crate::utf8::Utf8;

/// A whole message or control frame.
#[derive(Debug)]
pub struct Whole<'d> {
    /// What it is: never a continuation.
    pub opcode: Opcode,
    /// Its payload, a slice of the chunk; `None`: it is in the caller's buffer. Text of one frame that came whole is
    /// not checked yet, and of any text the end may be missing.
    pub payload: Option<&'d [u8]>,
}

/// Where a connection stands between two chunks.
#[derive(Debug)]
pub struct Assembler {
    role: Role,
    limit: Option<usize>,
    /// A header that is cut by the chunk's end.
    head: [u8; frame::SIZE_LIMIT],
    head_length: usize,
    /// The frame whose payload is not whole yet.
    frame: Option<Frame>,
    /// The opcode of the message whose last fragment is not there yet, and its payload so far.
    message: Option<Opcode>,
    fragments: Vec<u8>,
    /// Where compression was negotiated, and whether that message is compressed.
    inflater: Option<Box<Inflater>>,
    compressed: bool,
    text: Utf8,
    /// A control frame's payload so far: it may come between a message's fragments.
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    fin: bool,
    rsv1: bool,
    opcode: Opcode,
    /// Bytes of payload to come, and how many were there.
    remaining: u64,
    received: usize,
    key: Option<[u8; 4]>,
}

impl Assembler {
    /// For the end `role`; messages over `limit` are refused.
    #[must_use]
    pub fn new(role: Role, limit: Option<usize>) -> Self {
        Self {
            role,
            limit,
            head: [0; frame::SIZE_LIMIT],
            head_length: 0,
            frame: None,
            message: None,
            fragments: Vec::new(),
            inflater: None,
            compressed: false,
            text: Utf8::default(),
            control: Vec::new(),
        }
    }

    /// Takes compressed messages too.
    pub fn set_inflater(&mut self, inflater: Inflater) {
        self.inflater = Some(Box::new(inflater));
    }

    /// Nothing more is read: lets go of what it holds.
    pub fn release(&mut self) {
        self.inflater = None;
        self.fragments = Vec::new();
    }

    /// Takes bytes from the front of `rest` up to the end of the next whole message or control frame. `None`: all
    /// are taken and more are needed.
    ///
    /// # Errors
    ///
    /// The first rule that is broken, at the earliest byte that shows it.
    pub fn advance<'d>(
        &mut self,
        rest: &mut &'d [u8],
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Whole<'d>>, Violation> {
        loop {
            let Some(mut frame) = self.frame.take() else {
                let Some(frame) = self.header(rest)? else { return Ok(None) };
                if let Some(whole) = frame.whole(rest, buffer) {
                    return Ok(Some(whole));
                }
                if !frame.opcode.is_control() && self.message.is_none() {
                    self.message = Some(frame.opcode);
                    self.compressed = frame.rsv1;
                    self.borrow(buffer, frame.remaining);
                }
                self.frame = Some(frame);
                continue;
            };
            self.collect(&mut frame, rest)?;
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if !frame.fin {
                continue;
            }
            let opcode = if frame.opcode.is_control() {
                *buffer = std::mem::take(&mut self.control);
                frame.opcode
            } else {
                self.inflated()?;
                *buffer = std::mem::take(&mut self.fragments);
                self.text = Utf8::default();
                self.message.take().unwrap_or(Opcode::Text)
            };
            return Ok(Some(Whole { opcode, payload: None }));
        }
    }

    /// The next frame's header, its masking key included.
    fn header(&mut self, rest: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        if self.head_length == 0 {
            if let Some(header) = frame::decode(rest, self.role, self.inflater.is_some())? {
                self.check(&header)?;
                if let Some((head, behind)) = rest.split_at_checked(header.size) {
                    *rest = behind;
                    return Ok(Some(Frame::new(&header, head, self.role)));
                }
            }
        }
        while let [next, behind @ ..] = *rest {
            *rest = behind;
            self.head[self.head_length] = *next;
            self.head_length += 1;
            let head = &self.head[..self.head_length];
            if let Some(header) = frame::decode(head, self.role, self.inflater.is_some())? {
                self.check(&header)?;
                if header.size == head.len() {
                    self.head_length = 0;
                    return Ok(Some(Frame::new(&header, head, self.role)));
                }
            }
        }
        Ok(None)
    }

    /// The rules that take what came before: fragments in order (§5.4), and the limit (§7.4.1, 1009).
    fn check(&self, header: &Header) -> Result<(), Violation> {
        match header.opcode {
            Opcode::Continuation if self.message.is_none() => return Err(Violation::LoneContinuation),
            Opcode::Text | Opcode::Binary if self.message.is_some() => {
                return Err(Violation::InterleavedMessage);
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => return Ok(()),
            _ => {}
        }
        match self.limit {
            Some(limit) if header.length.saturating_add(self.fragments.len() as u64) > limit as u64 => {
                // What a compressed message inflates to is counted as it comes.
                let compressed = header.rsv1 || (self.compressed && self.message.is_some());
                if compressed && header.length <= deflate::longest(limit) as u64 {
                    return Ok(());
                }
                Err(Violation::TooBig(limit))
            }
            _ => Ok(()),
        }
    }

    /// Collects in the caller's buffer, which it gets back with the whole message, if the frame will fill enough of it.
    fn borrow(&mut self, buffer: &mut Vec<u8>, claimed: u64) {
        if claimed >= buffer.capacity() as u64 / 4 {
            buffer.clear();
            self.fragments = std::mem::take(buffer);
        }
    }

    /// Takes what the chunk has of the frame's payload.
    fn collect(&mut self, frame: &mut Frame, rest: &mut &[u8]) -> Result<(), Violation> {
        let length =
            usize::try_from(frame.remaining).map_or(rest.len(), |remaining| remaining.min(rest.len()));
        let (piece, behind) = rest.split_at(length);
        *rest = behind;
        if self.compressed && !frame.opcode.is_control() {
            return self.inflate(frame, piece);
        }
        let is_text = !frame.opcode.is_control() && self.message == Some(Opcode::Text);
        let collected = if frame.opcode.is_control() { &mut self.control } else { &mut self.fragments };
        let start = collected.len();
        // Twice what has come, as ever, but not more than will come.
        let room = length as u64 + (frame.remaining - length as u64).min((start + length) as u64);
        collected.reserve_exact(usize::try_from(room).unwrap_or(length));
        match frame.key {
            Some(key) => mask::append(piece, key, frame.received, collected),
            None => collected.extend_from_slice(piece),
        }
        let piece = &collected[start..];
        frame.received = frame.received.wrapping_add(length);
        frame.remaining -= length as u64;
        if is_text && !self.text.push(piece) {
            return Err(Violation::TextNotUtf8);
        }
        Ok(())
    }
}

/// What is different for a compressed message.
impl Assembler {
    /// Inflates what the chunk has of the frame's payload.
    #[cold]
    fn inflate(&mut self, frame: &mut Frame, piece: &[u8]) -> Result<(), Violation> {
        let Some(inflater) = &mut self.inflater else { return Ok(()) };
        let limit = self.limit.unwrap_or(usize::MAX);
        let start = self.fragments.len();
        let mut plain = [0; BLOCK];
        let mut done = Ok(());
        for block in piece.chunks(BLOCK) {
            let block = match frame.key {
                Some(key) => {
                    let plain = &mut plain[..block.len()];
                    plain.copy_from_slice(block);
                    mask::apply(plain, key, frame.received);
                    plain
                }
                None => block,
            };
            frame.received = frame.received.wrapping_add(block.len());
            done = inflater.inflate(block, &mut self.fragments, limit);
            if done.is_err() {
                break;
            }
        }
        frame.remaining -= piece.len() as u64;
        // Of two broken rules the one that came first is told.
        let end = self.fragments.len().min(limit);
        if self.message == Some(Opcode::Text) && !self.text.push(&self.fragments[start..end]) {
            return Err(Violation::TextNotUtf8);
        }
        done
    }

    /// A message's payload is whole.
    fn inflated(&mut self) -> Result<(), Violation> {
        if std::mem::take(&mut self.compressed) {
            if let Some(inflater) = &mut self.inflater {
                return inflater.finish();
            }
        }
        Ok(())
    }
}

/// Bytes that are unmasked for the inflater at once.
const BLOCK: usize = 4096;

impl Frame {
    fn new(header: &Header, head: &[u8], role: Role) -> Self {
        let key = match role {
            Role::Server => head.last_chunk().copied(),
            Role::Client => None,
        };
        Self {
            fin: header.fin,
            rsv1: header.rsv1,
            opcode: header.opcode,
            remaining: header.length,
            received: 0,
            key,
        }
    }

    /// The fast path: a message, not compressed, or control frame of one frame, which is whole in the chunk.
    fn whole<'d>(&self, rest: &mut &'d [u8], buffer: &mut Vec<u8>) -> Option<Whole<'d>> {
        if !self.fin || self.rsv1 || self.opcode == Opcode::Continuation {
            return None;
        }
        let (payload, behind) = rest.split_at_checked(usize::try_from(self.remaining).ok()?)?;
        *rest = behind;
        let payload = match self.key {
            None => Some(payload),
            Some(key) => {
                buffer.clear();
                mask::append(payload, key, 0, buffer);
                None
            }
        };
        Some(Whole { opcode: self.opcode, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::{self, Noise};

    /// What came out: opcodes and payloads, and the rule that ended it.
    type Outcome = (Vec<(Opcode, Vec<u8>)>, Option<Violation>);

    fn run(role: Role, limit: Option<usize>, chunks: &[&[u8]]) -> Outcome {
        let mut assembler = Assembler::new(role, limit);
        let (mut whole, mut buffer) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let mut rest = *chunk;
            loop {
                match assembler.advance(&mut rest, &mut buffer) {
                    Ok(Some(Whole { opcode, payload })) => {
                        let payload = payload.unwrap_or(&buffer);
                        // What came whole is checked by the connection.
                        if opcode == Opcode::Text && naive::utf8(payload).is_some() {
                            return (whole, Some(Violation::TextNotUtf8));
                        }
                        whole.push((opcode, payload.to_vec()));
                    }
                    Ok(None) => break,
                    Err(violation) => return (whole, Some(violation)),
                }
            }
        }
        (whole, None)
    }

    fn frame(role: Role, first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
        let mask = if role == Role::Server { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match u16::try_from(payload.len()) {
            Ok(length @ ..=125) => bytes.push(mask | length.to_be_bytes()[1]),
            Ok(length) => {
                bytes.push(mask | 0x7e);
                bytes.extend(length.to_be_bytes());
            }
            Err(_) => {
                bytes.push(mask | 0x7f);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        if mask == 0 {
            bytes.extend(payload);
        } else {
            bytes.extend(key);
            bytes.extend(naive::mask(payload, key, 0));
        }
        bytes
    }

    #[test]
    fn any_chunking_gives_the_same() {
        let mut noise = Noise::new(10);
        for round in 0..3_000 {
            let role = if round % 2 == 0 { Role::Client } else { Role::Server };
            let mut stream = Vec::new();
            for _ in 0..noise.below(6) {
                let first = [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x80, 0x89, 0x8a, 0x88][noise.below(10)];
                let length = [0, 1, 3, 125, 126, 300][noise.below(if first & 8 == 0 { 6 } else { 4 })];
                let text = "aé€😀".bytes().cycle().skip(noise.below(10)).take(length).collect::<Vec<_>>();
                stream.extend(frame(role, first, &text, noise.array()));
            }
            let whole = run(role, Some(500), &[&stream]);
            assert_eq!(run(role, Some(500), &stream.chunks(1).collect::<Vec<_>>()), whole, "{stream:02x?}");
            let size = 1 + noise.below(90);
            assert_eq!(
                run(role, Some(500), &stream.chunks(size).collect::<Vec<_>>()),
                whole,
                "{stream:02x?}"
            );
        }
    }

    #[test]
    fn control_frames_come_between_fragments_and_gorillas_empty_end_counts() {
        let stream = [
            frame(Role::Client, 0x01, b"one ", [0; 4]),
            frame(Role::Client, 0x89, b"?", [0; 4]),
            frame(Role::Client, 0x00, b"two", [0; 4]),
            frame(Role::Client, 0x80, b"", [0; 4]),
        ]
        .concat();
        let expected = vec![(Opcode::Ping, b"?".to_vec()), (Opcode::Text, b"one two".to_vec())];
        assert_eq!(run(Role::Client, None, &[&stream]), (expected, None));
    }

    #[test]
    fn fragments_out_of_order_are_refused() {
        let lone = frame(Role::Client, 0x80, b"", [0; 4]);
        assert_eq!(run(Role::Client, None, &[&lone]).1, Some(Violation::LoneContinuation));
        let second = [frame(Role::Client, 0x01, b"a", [0; 4]), vec![0x82, 0x00]].concat();
        assert_eq!(run(Role::Client, None, &[&second]).1, Some(Violation::InterleavedMessage));
    }

    #[test]
    fn a_client_hands_on_a_slice_of_the_chunk() {
        let chunk = frame(Role::Client, 0x81, b"text", [0; 4]);
        let mut rest = chunk.as_slice();
        let mut assembler = Assembler::new(Role::Client, None);
        let whole = assembler.advance(&mut rest, &mut Vec::new()).unwrap().unwrap();
        assert_eq!(whole.payload.unwrap().as_ptr(), chunk[2..].as_ptr());
        assert!(rest.is_empty());
    }

    #[test]
    fn the_limit_is_exact_and_counts_all_fragments() {
        let fits =
            [frame(Role::Server, 0x02, &[7; 6], [1; 4]), frame(Role::Server, 0x80, &[7; 4], [2; 4])].concat();
        assert_eq!(run(Role::Server, Some(10), &[&fits]).0, [(Opcode::Binary, vec![7; 10])]);
        assert_eq!(run(Role::Server, Some(9), &[&fits]).1, Some(Violation::TooBig(9)));
        // The claim is enough, before the masking key is there.
        assert_eq!(run(Role::Server, Some(9), &[&[0x82, 0x8a]]).1, Some(Violation::TooBig(9)));
        assert_eq!(run(Role::Server, Some(9), &[&[0x89, 0x8a]]).1, None);
    }

    #[test]
    fn bad_text_is_refused_at_its_byte() {
        let mut assembler = Assembler::new(Role::Client, None);
        let mut buffer = Vec::new();
        assert!(matches!(assembler.advance(&mut &b"\x01\x02\xe2\x82"[..], &mut buffer), Ok(None)));
        assert!(matches!(assembler.advance(&mut &b"\x80\x7d\xac"[..], &mut buffer), Ok(None)));
        let bad = assembler.advance(&mut &b"\xff"[..], &mut buffer);
        assert_eq!(bad.unwrap_err(), Violation::TextNotUtf8);
    }

    #[test]
    fn memory_follows_the_bytes_not_the_claim() {
        let mut assembler = Assembler::new(Role::Client, None);
        let mut rest = &b"\x82\x7f\x00\x00\x00\x40\x00\x00\x00\x00abc"[..];
        assert!(assembler.advance(&mut rest, &mut Vec::new()).unwrap().is_none());
        assert!(assembler.fragments.capacity() < 16, "{}", assembler.fragments.capacity());
    }

    #[test]
    fn a_large_message_is_collected_in_the_callers_buffer() {
        let message = frame(Role::Client, 0x82, &[9; 1000], [0; 4]);
        let mut buffer = Vec::with_capacity(3000);
        let lent = buffer.as_ptr();
        let mut assembler = Assembler::new(Role::Client, None);
        let (mut first, mut second) = message.split_at(500);
        assert!(assembler.advance(&mut first, &mut buffer).unwrap().is_none());
        assert_eq!(buffer.capacity(), 0);
        assert!(assembler.advance(&mut second, &mut buffer).unwrap().unwrap().payload.is_none());
        assert_eq!((buffer.as_ptr(), buffer.len(), assembler.fragments.capacity()), (lent, 1000, 0));
        // One that would leave most of it unused is collected elsewhere.
        assert!(assembler.advance(&mut &b"\x82\x05ab"[..], &mut buffer).unwrap().is_none());
        assert_eq!(buffer.as_ptr(), lent);
    }
}
