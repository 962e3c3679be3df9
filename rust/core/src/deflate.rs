//! permessage-deflate (RFC 7692): messages compressed before they are framed, and inflated as their bytes come.
//!
//! What the two ends agreed on is a [`Parameters`]; the agreement itself is made in the opening handshake, elsewhere.
//! A direction's state is made by the first message that needs it, and dropped behind each message where the
//! context is not taken over, so that a connection which never compresses holds none.

use std::fmt;

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use crate::error::Violation;

/// One direction, as negotiated (§7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Base-2 logarithm of the window, 8 to 15.
    pub window_bits: u8,
    /// Whether a message may refer to those before it.
    pub takeover: bool,
}

/// What was negotiated, and how to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// What this end compresses.
    pub send: Direction,
    /// What it inflates.
    pub receive: Direction,
    /// Messages of fewer bytes are sent as they are.
    pub threshold: usize,
    /// Effort, 0 to 9.
    pub level: u8,
    /// Memory for the effort, 1 to 9.
    pub memory_level: u8,
}

impl Parameters {
    /// Whether each number is one that the compressor takes.
    #[must_use]
    pub fn are_sound(&self) -> bool {
        let bits = |direction: Direction| (8..=15).contains(&direction.window_bits);
        bits(self.send) && bits(self.receive) && self.level <= 9 && (1..=9).contains(&self.memory_level)
    }
}

/// Compresses what is sent.
pub struct Deflater {
    parameters: Parameters,
    state: Option<Deflate>,
}

impl Deflater {
    /// Nothing compressed yet.
    #[must_use]
    pub const fn new(parameters: Parameters) -> Self {
        Self { parameters, state: None }
    }

    /// Whether a message of `size` bytes is worth it.
    #[must_use]
    pub const fn wants(&self, size: usize) -> bool {
        size >= self.parameters.threshold
    }

    /// The payload of the compressed message (§7.2.1); `None`: send it as it is. That is for messages which would not
    /// be shorter, if the next does not refer to them.
    pub fn deflate(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        if message.is_empty() {
            // §7.2.3.6. A second flush of nothing would give nothing.
            return self.parameters.send.takeover.then(|| vec![0]);
        }
        let mut state = self.state.take().unwrap_or_else(|| self.fresh());
        let mut deflated = Vec::new();
        let mut rest = message;
        loop {
            let start = deflated.len();
            let room = rest.len() / 2 + 128;
            deflated.resize(start + room, 0);
            let (read, written) = (state.total_in(), state.total_out());
            let status = state.compress(rest, &mut deflated[start..], DeflateFlush::SyncFlush).ok()?;
            let written = difference(state.total_out(), written);
            rest = rest.get(difference(state.total_in(), read)..)?;
            deflated.truncate(start + written);
            if rest.is_empty() && written < room {
                break;
            }
            if status == Status::StreamEnd {
                return None;
            }
        }
        deflated.truncate(deflated.len().checked_sub(TAIL.len())?);
        if self.parameters.send.takeover {
            self.state = Some(state);
        } else if deflated.len() >= message.len() {
            return None;
        }
        Some(deflated)
    }

    fn fresh(&self) -> Deflate {
        // A raw stream with a window of 2^8 is beyond zlib. With one of 2^9 no match reaches back over 250 bytes.
        let bits = self.parameters.send.window_bits.max(9);
        Deflate::new_with_config(DeflateConfig {
            level: self.parameters.level.into(),
            mem_level: self.parameters.memory_level.into(),
            window_bits: -i32::from(bits),
            ..DeflateConfig::default()
        })
    }
}

/// Inflates what comes, never beyond a limit.
pub struct Inflater {
    direction: Direction,
    state: Option<Inflate>,
}

impl Inflater {
    /// Nothing inflated yet.
    #[must_use]
    pub const fn new(direction: Direction) -> Self {
        Self { direction, state: None }
    }

    /// Appends to a message what the next piece of its payload gives, up to `limit` bytes and one.
    ///
    /// # Errors
    ///
    /// The message is over the limit, or no deflate stream; what was sound before that is in it.
    pub fn inflate(&mut self, piece: &[u8], message: &mut Vec<u8>, limit: usize) -> Result<(), Violation> {
        let mut rest = piece;
        let mut step = (16 * piece.len() + 256).min(STEP);
        loop {
            let start = message.len();
            let room = room(message, step, limit);
            message.resize(start + room, 0);
            let state = self.state.get_or_insert_with(|| fresh(self.direction));
            let (read, written) = (state.total_in(), state.total_out());
            let done = state.decompress(rest, &mut message[start..], InflateFlush::SyncFlush);
            let written = difference(state.total_out(), written);
            let read = difference(state.total_in(), read);
            message.truncate(start + written);
            rest = rest.get(read..).unwrap_or_default();
            if message.len() > limit {
                return Err(Violation::TooBig(limit));
            }
            match done {
                Err(_) => return Err(Violation::Deflate),
                // A block said that it was the last (§7.2.3.4): what follows knows nothing of what came before.
                Ok(Status::StreamEnd) => state.reset(false),
                Ok(_) if written == room => {
                    step = STEP;
                    continue;
                }
                Ok(_) if rest.is_empty() => return Ok(()),
                Ok(_) if read + written == 0 => return Err(Violation::Deflate),
                Ok(_) => {}
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// The payload has ended: it must stand where the four bytes that every sender takes off belong (§7.2.2).
    ///
    /// # Errors
    ///
    /// They do not end a block there.
    pub fn finish(&mut self) -> Result<(), Violation> {
        // One byte more than the tail: an inflater that stops at the end of a block leaves it alone.
        let state = self.state.get_or_insert_with(|| fresh(self.direction));
        let (read, written) = (state.total_in(), state.total_out());
        let done = state.decompress(&[0, 0, 0xff, 0xff, 0xff], &mut [0; 8], InflateFlush::Block);
        let sound = difference(state.total_in(), read) == TAIL.len() && state.total_out() == written;
        match done {
            Ok(Status::StreamEnd) if sound => state.reset(false),
            Ok(_) if sound => {}
            _ => return Err(Violation::Deflate),
        }
        if !self.direction.takeover {
            self.state = None;
        }
        Ok(())
    }
}

fn fresh(direction: Direction) -> Inflate {
    // Who compresses for a window of 2^8 with zlib looks ahead into one of 2^9.
    Inflate::new(false, direction.window_bits.max(9))
}

/// Makes room for so many bytes, or as many as the limit leaves and one; memory doubles, up to the limit and no further.
fn room(message: &mut Vec<u8>, step: usize, limit: usize) -> usize {
    let most = limit.saturating_add(1) - message.len();
    let wanted = step.min(most);
    if message.capacity() - message.len() < wanted {
        message.reserve_exact(wanted.max(message.len()).min(most));
    }
    wanted
}

/// How far a counter went on since it was read.
fn difference(now: u64, before: u64) -> usize {
    usize::try_from(now - before).unwrap_or(usize::MAX)
}

/// The longest payload of a message within `limit`: a compressor adds less, even to noise.
#[must_use]
pub const fn longest(limit: usize) -> usize {
    limit.saturating_add(limit / 4).saturating_add(64)
}

/// What a sender takes off, and the receiver puts back (§7.2.1, §7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Bytes that are cleared for the inflater at once: more are seldom needed, and each is written twice.
const STEP: usize = 16 * 1024;

impl fmt::Debug for Deflater {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Deflater({:?})", self.parameters)
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Inflater({:?})", self.direction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::Noise;

    const LIMIT: usize = 1 << 17;

    fn parameters(window_bits: u8, takeover: bool) -> Parameters {
        let direction = Direction { window_bits, takeover };
        Parameters { send: direction, receive: direction, threshold: 0, level: 6, memory_level: 5 }
    }

    /// Each payload inflated, in pieces of so many bytes.
    fn inflate(
        inflater: &mut Inflater,
        payload: &[u8],
        size: usize,
        limit: usize,
    ) -> Result<Vec<u8>, Violation> {
        let mut message = Vec::new();
        for piece in payload.chunks(size) {
            inflater.inflate(piece, &mut message, limit)?;
        }
        inflater.finish()?;
        Ok(message)
    }

    /// Text-like and noise, all sizes, parts of which come again.
    fn messages(noise: &mut Noise) -> Vec<Vec<u8>> {
        let words: Vec<_> = (0..40).map(|_| noise.bytes(7)).collect();
        [0, 1, 5, 100, 1000, 40_000, 0, 70_000, 3]
            .into_iter()
            .map(|length| match noise.below(3) {
                0 => noise.bytes(length),
                _ => (0..=length / 7).flat_map(|_| words[noise.below(40)].clone()).take(length).collect(),
            })
            .collect()
    }

    #[test]
    fn what_was_deflated_comes_back_in_any_pieces() {
        let mut noise = Noise::new(77);
        for window_bits in 8..=15 {
            for takeover in [false, true] {
                let parameters = parameters(window_bits, takeover);
                let mut deflater = Deflater::new(parameters);
                let mut inflaters =
                    [1, 3, 4096, usize::MAX].map(|size| (size, Inflater::new(parameters.receive)));
                for message in messages(&mut noise) {
                    let Some(payload) = deflater.deflate(&message) else {
                        assert!(!takeover);
                        continue;
                    };
                    assert!(payload.len() <= longest(message.len()));
                    for (size, inflater) in &mut inflaters {
                        assert!(inflate(inflater, &payload, *size, LIMIT).unwrap() == message, "{size}");
                    }
                }
                assert_eq!(deflater.state.is_some(), takeover);
                assert_eq!(inflaters[0].1.state.is_some(), takeover);
            }
        }
    }

    #[test]
    fn a_window_of_256_bytes_is_kept_to() {
        let mut noise = Noise::new(5);
        let word = noise.bytes(9);
        for level in 1..=9 {
            let mut deflater = Deflater::new(Parameters { level, ..parameters(8, true) });
            let mut inflater = Inflate::new(false, 8);
            for gap in (200..600).step_by(7) {
                let message = [&word[..], &noise.bytes(gap), &word].concat();
                let payload = [&deflater.deflate(&message).unwrap()[..], &TAIL].concat();
                let (mut came, mut read) = (Vec::new(), 0);
                // In steps so small that each match is looked up in the window.
                while came.len() < message.len() {
                    let (before, written) = (inflater.total_in(), inflater.total_out());
                    let mut step = [0; 1];
                    inflater.decompress(&payload[read..], &mut step, InflateFlush::SyncFlush).unwrap();
                    read += difference(inflater.total_in(), before);
                    came.extend_from_slice(&step[..difference(inflater.total_out(), written)]);
                }
                inflater.decompress(&payload[read..], &mut [0], InflateFlush::SyncFlush).unwrap();
                assert!(came == message, "{level} {gap}");
            }
        }
    }

    #[test]
    fn the_rfcs_examples() {
        let examples: [&[&[u8]]; 5] = [
            &[&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]],
            &[&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], &[0xf2, 0x00, 0x11, 0x00, 0x00]],
            &[&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]],
            &[&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]],
            &[&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]],
        ];
        for payloads in examples {
            let mut inflater = Inflater::new(parameters(15, true).receive);
            for payload in payloads {
                for size in [1, payload.len()] {
                    let mut other = Inflater::new(parameters(15, false).receive);
                    if payloads.len() == 1 {
                        assert_eq!(inflate(&mut other, payload, size, 5).unwrap(), b"Hello");
                    }
                }
                assert_eq!(inflate(&mut inflater, payload, 2, 5).unwrap(), b"Hello");
            }
        }
        let mut deflater = Deflater::new(parameters(15, true));
        assert_eq!(deflater.deflate(b"Hello").unwrap(), examples[1][0]);
        assert_eq!(deflater.deflate(b"Hello").unwrap(), examples[1][1]);
        assert_eq!(deflater.deflate(b"").unwrap(), [0]);
        assert_eq!(deflater.deflate(b"").unwrap(), [0]);
    }

    #[test]
    fn the_limit_is_exact_and_bounds_the_memory() {
        let bomb = Deflater::new(parameters(15, false)).deflate(&vec![0; 10 * LIMIT]).unwrap();
        for size in [1, 100, usize::MAX] {
            for limit in [0, 1, 1000, LIMIT, 10 * LIMIT - 1] {
                let mut message = Vec::new();
                let mut inflater = Inflater::new(parameters(15, false).receive);
                let failed =
                    bomb.chunks(size).find_map(|piece| inflater.inflate(piece, &mut message, limit).err());
                assert_eq!(failed, Some(Violation::TooBig(limit)));
                assert_eq!(message.len(), limit + 1);
                assert!(message.capacity() <= (limit + 1).max(8), "{} {limit}", message.capacity());
            }
            let mut inflater = Inflater::new(parameters(15, false).receive);
            assert_eq!(inflate(&mut inflater, &bomb, size, 10 * LIMIT).unwrap().len(), 10 * LIMIT);
        }
    }

    #[test]
    fn what_is_no_deflate_stream_is_refused() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let broken: [&[u8]; 6] = [
            b"",                                   // not even the header of the tail's block
            &hello[..6],                           // cut inside of a block
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48], // cut inside of a stored one
            &hello[..4],
            &[0x07],                   // the fourth kind of block
            &[0xf2, 0x00, 0x11, 0x00], // back beyond what there was
        ];
        for payload in broken {
            for size in [1, 100] {
                let mut inflater = Inflater::new(parameters(15, true).receive);
                assert_eq!(
                    inflate(&mut inflater, payload, size, 100),
                    Err(Violation::Deflate),
                    "{payload:x?}"
                );
            }
        }
        // What was taken off, and must not be there: an empty message follows, within the same.
        let mut inflater = Inflater::new(parameters(15, true).receive);
        assert_eq!(inflate(&mut inflater, &[&hello[..], &TAIL].concat(), 100, 100), Err(Violation::Deflate));
    }

    #[test]
    fn parameters_beyond_zlib_are_known() {
        let sound = parameters(15, true);
        assert!(sound.are_sound());
        assert!(!Parameters { level: 10, ..sound }.are_sound());
        assert!(!Parameters { memory_level: 0, ..sound }.are_sound());
        assert!(!Parameters { memory_level: 10, ..sound }.are_sound());
        assert!(!parameters(7, true).are_sound());
        assert!(!Parameters { receive: parameters(16, true).receive, ..sound }.are_sound());
    }
}
