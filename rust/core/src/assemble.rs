//! Frames cut out of chunks, and messages joined from fragments (RFC 6455 §5.4).
//!
//! A frame that stands whole in a chunk and is a message by itself, which nearly all are, is handed on as it is
//! (client) or unmasked into the caller's buffer (server). All others are collected here. Memory is taken for
//! bytes that have come, never for a length that a header claims.

use crate::error::Violation;
use crate::frame::{self, Header, Opcode, Role};
use crate::mask;
use crate::utf8::Utf8;

/// A whole message or control frame.
#[derive(Debug)]
pub struct Whole<'d> {
    /// What it is: never a continuation.
    pub opcode: Opcode,
    /// Its payload, a slice of the chunk; `None`: it is in the caller's buffer.
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
    text: Utf8,
    /// A control frame's payload so far: it may come between a message's fragments.
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    fin: bool,
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
            text: Utf8::default(),
            control: Vec::new(),
        }
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
            if let Some(header) = frame::decode(rest, self.role)? {
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
            if let Some(header) = frame::decode(head, self.role)? {
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
        let is_text = !frame.opcode.is_control() && self.message == Some(Opcode::Text);
        let collected = if frame.opcode.is_control() { &mut self.control } else { &mut self.fragments };
        let start = collected.len();
        // Twice what has come, as ever, but not more than will come.
        let room = length as u64 + (frame.remaining - length as u64).min((start + length) as u64);
        collected.reserve_exact(usize::try_from(room).unwrap_or(length));
        collected.extend_from_slice(piece);
        let piece = &mut collected[start..];
        if let Some(key) = frame.key {
            mask::apply(piece, key, frame.received);
        }
        frame.received = frame.received.wrapping_add(length);
        frame.remaining -= length as u64;
        if is_text && !self.text.push(piece) {
            return Err(Violation::TextNotUtf8);
        }
        Ok(())
    }
}

impl Frame {
    fn new(header: &Header, head: &[u8], role: Role) -> Self {
        let key = match role {
            Role::Server => head.last_chunk().copied(),
            Role::Client => None,
        };
        Self { fin: header.fin, opcode: header.opcode, remaining: header.length, received: 0, key }
    }

    /// The fast path: a message or control frame of one frame, which is whole in the chunk.
    fn whole<'d>(&self, rest: &mut &'d [u8], buffer: &mut Vec<u8>) -> Option<Whole<'d>> {
        if !self.fin || self.opcode == Opcode::Continuation {
            return None;
        }
        let (payload, behind) = rest.split_at_checked(usize::try_from(self.remaining).ok()?)?;
        *rest = behind;
        let payload = match self.key {
            None => Some(payload),
            Some(key) => {
                buffer.clear();
                buffer.extend_from_slice(payload);
                mask::apply(buffer, key, 0);
                None
            }
        };
        Some(Whole { opcode: self.opcode, payload })
    }
}
