//! Frame headers (RFC 6455 §5.2), decoded from a slice and encoded into one.
//!
//! ```text
//!  bits   1     3      4       1     7      0, 16 or 64     0 or 32
//!       +-----+------+--------+------+-----+---------------+-----------+
//!       | fin | rsv  | opcode | mask | len | extended len  | key       |  payload …
//!       +-----+------+--------+------+-----+---------------+-----------+
//! ```
//!
//! Checked here is what a header shows by itself, as soon as its bytes are there: two bytes are enough for the
//! reserved bits, the opcode, the masking rule and the control frames' rules. What needs the frames before it
//! (§5.4) or the limit is `assemble`'s.

use crate::error::Violation;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Dialled; masks what it sends (§5.3).
    Client,
    /// Accepted; sends unmasked.
    Server,
}

/// What a frame is (§5.2, §11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with a fragmented message.
    Continuation = 0,
    /// Begins a message of UTF-8 text.
    Text = 1,
    /// Begins a message of bytes.
    Binary = 2,
    /// Begins or answers the closing handshake.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    const fn new(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping or pong: whole in one frame, and allowed between fragments (§5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

/// A header, its masking key apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The last (or only) fragment of its message.
    pub fin: bool,
    /// The message that it begins is compressed (RFC 7692 §6).
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// Bytes of payload.
    pub length: u64,
    /// Bytes of the header itself, the masking key included.
    pub size: usize,
}

/// Reads a header that came in at the end `role`. `None`: not enough bytes yet.
///
/// The header is known as soon as its length is; the last four of its `size` bytes (the masking key, towards a
/// server) may still be to come. `deflate`: RSV1 may mark a message as compressed.
///
/// # Errors
///
/// The first rule broken, in the order of the bits.
pub fn decode(bytes: &[u8], role: Role, deflate: bool) -> Result<Option<Header>, Violation> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & RSV != 0 && !(deflate && first & RSV == RSV1 && begins_message(first)) {
        return Err(Violation::ReservedBits);
    }
    let Some(opcode) = Opcode::new(first & OPCODE) else {
        return Err(Violation::UnknownOpcode(first & OPCODE));
    };
    let fin = first & FIN != 0;
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }
    let masked = second & MASK != 0;
    match role {
        Role::Client if masked => return Err(Violation::MaskedServerFrame),
        Role::Server if !masked => return Err(Violation::UnmaskedClientFrame),
        _ => {}
    }
    let short = second & !MASK;
    if opcode.is_control() && short > CONTROL_LIMIT {
        return Err(Violation::ControlTooLong);
    }
    let (length, extended) = match short {
        LENGTH_16 => {
            let Some(bytes) = rest.first_chunk() else { return Ok(None) };
            let length = u64::from(u16::from_be_bytes(*bytes));
            if length < u64::from(LENGTH_16) {
                return Err(Violation::LengthNotMinimal);
            }
            (length, 2)
        }
        LENGTH_64 => {
            let Some(bytes) = rest.first_chunk() else { return Ok(None) };
            let length = u64::from_be_bytes(*bytes);
            if length >> 63 != 0 {
                return Err(Violation::LengthTopBit);
            }
            if u16::try_from(length).is_ok() {
                return Err(Violation::LengthNotMinimal);
            }
            (length, 8)
        }
        short => (u64::from(short), 0),
    };
    let size = 2 + extended + if masked { 4 } else { 0 };
    Ok(Some(Header { fin, rsv1: first & RSV1 != 0, opcode, length, size }))
}

#[cold]
const fn begins_message(first: u8) -> bool {
    first & OPCODE == Opcode::Text as u8 || first & OPCODE == Opcode::Binary as u8
}

/// Bytes of the header of an unfragmented frame sent from the end `role`.
#[must_use]
pub const fn size(length: usize, role: Role) -> usize {
    let key = match role {
        Role::Client => 4,
        Role::Server => 0,
    };
    key + if length < LENGTH_16 as usize {
        2
    } else if length <= u16::MAX as usize {
        4
    } else {
        10
    }
}

/// Writes the header of an unfragmented frame into `space`, which is [`size`] bytes long. A client's key follows
/// the length; it stands in the last four bytes, which are left alone here.
pub fn encode(space: &mut [u8], opcode: Opcode, length: usize, role: Role) {
    let mask = match role {
        Role::Client => MASK,
        Role::Server => 0,
    };
    let [first, second, extended @ ..] = space else { return };
    *first = FIN | opcode as u8;
    if length < usize::from(LENGTH_16) {
        #[allow(clippy::cast_possible_truncation)] // compared in the line above
        let short = length as u8;
        *second = mask | short;
    } else if let Ok(length) = u16::try_from(length) {
        *second = mask | LENGTH_16;
        if let Some(bytes) = extended.first_chunk_mut() {
            *bytes = length.to_be_bytes();
        }
    } else {
        *second = mask | LENGTH_64;
        if let Some(bytes) = extended.first_chunk_mut() {
            *bytes = (length as u64).to_be_bytes();
        }
    }
}

/// The longest header: 64-bit length and masking key.
pub const SIZE_LIMIT: usize = 14;
/// The longest payload of a control frame (§5.5).
pub const CONTROL_LIMIT: u8 = 125;

/// The bit of a frame's first byte that marks a compressed message.
pub const RSV1: u8 = 0x40;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    fn client_frame(bytes: &[u8]) -> Result<Option<Header>, Violation> {
        decode(bytes, Role::Server, false)
    }

    #[test]
    fn every_length_comes_back_at_both_ends() {
        for role in [Role::Client, Role::Server] {
            let peer = if role == Role::Client { Role::Server } else { Role::Client };
            for length in [0, 1, 125, 126, 127, 65535, 65536, 1 << 40] {
                let mut space = vec![0; size(length, role)];
                encode(&mut space, Opcode::Text, length, role);
                let header = decode(&space, peer, false).unwrap().unwrap();
                let expected = Header {
                    fin: true,
                    rsv1: false,
                    opcode: Opcode::Text,
                    length: length as u64,
                    size: space.len(),
                };
                assert_eq!(header, expected);
            }
        }
    }

    #[test]
    fn says_not_yet_until_the_length_is_there() {
        let whole = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0];
        for cut in 0..whole.len() {
            assert_eq!(client_frame(&whole[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(client_frame(&whole).unwrap().unwrap().length, 65536);
    }

    #[test]
    fn the_masking_rule_depends_on_the_end() {
        assert_eq!(decode(&[0x81, 0x00], Role::Server, false), Err(Violation::UnmaskedClientFrame));
        assert_eq!(decode(&[0x81, 0x80], Role::Client, false), Err(Violation::MaskedServerFrame));
    }

    #[test]
    fn two_bytes_are_enough_to_refuse() {
        assert_eq!(client_frame(&[0xc1, 0xff]), Err(Violation::ReservedBits));
        assert_eq!(client_frame(&[0x83, 0xff]), Err(Violation::UnknownOpcode(3)));
        assert_eq!(client_frame(&[0x8b, 0xff]), Err(Violation::UnknownOpcode(11)));
        assert_eq!(client_frame(&[0x09, 0x80]), Err(Violation::ControlFragmented));
        assert_eq!(client_frame(&[0x89, 0xfe]), Err(Violation::ControlTooLong));
    }

    #[test]
    fn a_control_frame_of_125_bytes_is_read() {
        let expected = Header { fin: true, rsv1: false, opcode: Opcode::Ping, length: 125, size: 6 };
        assert_eq!(client_frame(&[0x89, 0xfd, 1, 2, 3, 4]), Ok(Some(expected)));
    }

    #[test]
    fn the_rules_are_judged_in_the_order_of_the_bits() {
        assert_eq!(client_frame(&[0x7b, 0x7e]), Err(Violation::ReservedBits));
        assert_eq!(client_frame(&[0x0b, 0x7e]), Err(Violation::UnknownOpcode(11)));
        assert_eq!(client_frame(&[0x09, 0x7e]), Err(Violation::ControlFragmented));
        assert_eq!(client_frame(&[0x89, 0x7e]), Err(Violation::UnmaskedClientFrame));
    }

    #[test]
    fn a_length_has_one_form() {
        assert_eq!(client_frame(&[0x81, 0xfe, 0, 125]), Err(Violation::LengthNotMinimal));
        let long = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes()].concat();
        assert_eq!(client_frame(&long(65535)), Err(Violation::LengthNotMinimal));
        assert_eq!(client_frame(&long(1 << 63)), Err(Violation::LengthTopBit));
        assert!(client_frame(&long(65536)).is_ok());
    }

    #[test]
    fn one_reserved_bit_marks_a_compressed_message() {
        let reserved = Err(Violation::ReservedBits);
        for first in 0..=255 {
            let decoded = decode(&[first, 0], Role::Client, true);
            match (first & RSV, first & OPCODE) {
                (0, _) => assert_ne!(decoded, reserved, "{first:x}"),
                (RSV1, 1 | 2) => assert!(decoded.unwrap().unwrap().rsv1, "{first:x}"),
                _ => assert_eq!(decoded, reserved, "{first:x}"),
            }
        }
    }
}
