//! Ready frames, waiting for the next flush. A payload is encoded straight into the buffer, behind room for a header
//! that is written, and a client's payload masked, when its length is known.

use crate::deflate::Deflater;
use crate::frame::{self, Opcode, Role};
use crate::mask;
use crate::random::Random;

/// What is to be sent.
#[derive(Debug)]
pub struct Output {
    bytes: Vec<u8>,
    /// How many of them are gone: a socket seldom takes all of a large message at once.
    gone: usize,
    role: Role,
}

/// A frame that was begun and not finished.
#[derive(Debug)]
pub struct Unfinished {
    start: usize,
    header: usize,
}

impl Output {
    /// Nothing, from the end `role`.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { bytes: Vec::new(), gone: 0, role }
    }

    /// Gives an empty buffer to write into, used if nothing is waiting in another one.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        if self.bytes.is_empty() {
            self.bytes = buffer;
        }
    }

    /// Begins a frame whose payload will have about `expected` bytes; the caller appends it to [`Self::payload`].
    pub fn begin(&mut self, expected: usize) -> Unfinished {
        if self.gone >= LARGE && self.gone >= self.bytes.len() / 2 {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        let start = self.bytes.len();
        let header = frame::size(expected, self.role);
        let needed = header + expected;
        // Large ones come alone: room for a second one would be twice the memory.
        if needed < LARGE {
            self.bytes.reserve(needed);
        } else {
            self.bytes.reserve_exact(needed);
        }
        self.bytes.resize(start + header, 0);
        Unfinished { start, header }
    }

    /// Where an unfinished frame's payload is appended.
    pub fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes of payload so far.
    #[must_use]
    pub fn length(&self, unfinished: &Unfinished) -> usize {
        self.bytes.len() - unfinished.start - unfinished.header
    }

    /// Writes the header and masks what a client sends.
    pub fn finish<R: Random>(&mut self, unfinished: &Unfinished, opcode: Opcode, random: &mut R) {
        let length = self.length(unfinished);
        let Unfinished { start, header } = *unfinished;
        let size = frame::size(length, self.role);
        if size != header {
            // Escapes took the length over a boundary that it was not expected to cross, or absent fields under it.
            self.bytes.splice(start..start + header, std::iter::repeat_n(0, size));
        }
        let (header, payload) = self.bytes[start..].split_at_mut(size);
        frame::encode(header, opcode, length, self.role);
        if self.role == Role::Client {
            let mut key = [0; 4];
            random.fill(&mut key);
            header[size - 4..].copy_from_slice(&key);
            mask::apply(payload, key, 0);
        }
    }

    /// Does the same for a message that is compressed here.
    #[cold]
    pub fn finish_deflated<R: Random>(
        &mut self,
        unfinished: &Unfinished,
        opcode: Opcode,
        deflater: &mut Deflater,
        random: &mut R,
    ) {
        let payload = unfinished.start + unfinished.header;
        let compressed = deflater.deflate(&self.bytes[payload..]);
        if let Some(compressed) = &compressed {
            self.bytes.truncate(payload);
            self.bytes.extend_from_slice(compressed);
        }
        self.finish(unfinished, opcode, random);
        if compressed.is_some() {
            self.bytes[unfinished.start] |= frame::RSV1;
        }
    }

    /// Takes an unfinished frame back, and the memory that it made necessary.
    pub fn cancel(&mut self, unfinished: &Unfinished) {
        self.bytes.truncate(unfinished.start);
        self.bytes.shrink_to_fit();
    }

    /// A frame whose payload is there already.
    pub fn frame<R: Random>(&mut self, opcode: Opcode, payload: &[u8], random: &mut R) {
        let unfinished = self.begin(payload.len());
        self.bytes.extend_from_slice(payload);
        self.finish(&unfinished, opcode, random);
    }

    /// All of it, buffer and all: an idle connection holds none.
    pub fn take(&mut self) -> Vec<u8> {
        self.bytes.drain(..std::mem::take(&mut self.gone));
        std::mem::take(&mut self.bytes)
    }

    /// All of it, to be written from where it is.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    /// The first `length` bytes were written. With the last of them the buffer is given back.
    pub fn written(&mut self, length: usize) -> Option<Vec<u8>> {
        self.gone += length;
        (self.gone == self.bytes.len()).then(|| {
            self.gone = 0;
            std::mem::take(&mut self.bytes)
        })
    }

    /// Bytes waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.gone
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// From here on a frame gets the room that it needs and no more.
const LARGE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::{self, Noise};

    #[test]
    fn the_header_fits_however_wrong_the_expectation() {
        for role in [Role::Client, Role::Server] {
            for expected in [0, 125, 126, 65535, 65536] {
                for length in [0, 125, 126, 65535, 65536] {
                    let mut output = Output::new(role);
                    output.frame(Opcode::Ping, b"before", &mut Noise::new(1));
                    let before = output.len();
                    let unfinished = output.begin(expected);
                    output.payload().extend(std::iter::repeat_n(b'x', length));
                    assert_eq!(output.length(&unfinished), length);
                    output.finish(&unfinished, Opcode::Text, &mut Noise::new(2));
                    let bytes = output.take();
                    let peer = if role == Role::Client { Role::Server } else { Role::Client };
                    let header = frame::decode(&bytes[before..], peer, false).unwrap().unwrap();
                    assert_eq!((header.fin, header.opcode), (true, Opcode::Text));
                    let payload = &bytes[before + header.size..];
                    assert_eq!(header.length, payload.len() as u64);
                    let key = match role {
                        Role::Client => payload_key(&bytes[..before + header.size]),
                        Role::Server => [0; 4],
                    };
                    assert_eq!(naive::mask(payload, key, 0), vec![b'x'; length]);
                }
            }
        }
    }

    #[test]
    fn a_lent_buffer_is_used_unless_another_is_in_use() {
        let mut output = Output::new(Role::Server);
        output.lend(Vec::with_capacity(1000));
        output.frame(Opcode::Text, b"one", &mut Noise::new(1));
        output.lend(Vec::with_capacity(2000));
        output.frame(Opcode::Text, b"two", &mut Noise::new(1));
        let bytes = output.take();
        assert_eq!((bytes.capacity(), bytes.as_slice()), (1000, &b"\x81\x03one\x81\x03two"[..]));
        assert_eq!(output.take().capacity(), 0);
    }

    fn payload_key(header: &[u8]) -> [u8; 4] {
        *header.last_chunk().unwrap()
    }

    #[test]
    fn what_is_written_in_part_goes_on_from_there() {
        let mut output = Output::new(Role::Server);
        output.frame(Opcode::Binary, &vec![b'x'; 2 * LARGE], &mut Noise::new(1));
        let all = output.waiting().to_vec();
        assert!(output.written(LARGE + 20).is_none());
        assert_eq!(output.waiting(), &all[LARGE + 20..]);
        // What is gone makes room for what comes.
        output.frame(Opcode::Text, b"more", &mut Noise::new(1));
        assert_eq!(output.bytes.len(), output.len());
        let rest = [&all[LARGE + 20..], b"\x81\x04more"].concat();
        assert_eq!(output.waiting(), rest);
        assert!(output.written(1).is_none());
        assert_eq!(output.take(), rest[1..]);
        output.frame(Opcode::Text, b"last", &mut Noise::new(1));
        assert_eq!(output.written(6).unwrap(), b"\x81\x04last");
        assert!(output.is_empty());
    }

    #[test]
    fn a_cancelled_frame_leaves_the_others() {
        let mut output = Output::new(Role::Server);
        output.frame(Opcode::Binary, b"kept", &mut Noise::new(1));
        let unfinished = output.begin(1 << 20);
        output.payload().extend_from_slice(b"gone");
        output.cancel(&unfinished);
        assert!(output.bytes.capacity() < 100);
        assert_eq!(output.take(), b"\x82\x04kept");
        assert!(output.is_empty());
    }
}
