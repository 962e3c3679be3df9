//! Frames (RFC 6455 §5.2): the header both ways, and the mask.

use crate::fault::Fault;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Dialled: masks what it sends.
    Client,
    /// Accepted: sends unmasked.
    Server,
}

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The longest message that is taken.
pub(crate) const MESSAGE_LIMIT: usize = 64 << 20;

/// A header that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) key: Option<[u8; 4]>,
    /// Bytes of the header, its key included.
    pub(crate) size: usize,
    /// Bytes of the payload.
    pub(crate) length: usize,
}

/// Reads a header that came in at the end `role`; `None` means that it is not whole.
pub(crate) fn decode(bytes: &[u8], role: Role) -> Result<Option<Header>, Fault> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    let (fin, opcode, masked) = (first & 0x80 != 0, first & 0x0f, second & 0x80 != 0);
    if first & 0x70 != 0 {
        return Err(Fault::Broken(1002, "a reserved bit is set"));
    }
    if masked != (role == Role::Server) {
        return Err(Fault::Broken(1002, "a frame masked or unmasked against the rule"));
    }
    let (length, wide) = match second & 0x7f {
        126 => {
            let Some(&bytes) = rest.first_chunk() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(bytes)), 2)
        }
        127 => {
            let Some(&bytes) = rest.first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(bytes), 8)
        }
        short => (u64::from(short), 0),
    };
    if wide > 0 && length < 126 || wide == 8 && length <= 0xffff {
        return Err(Fault::Broken(1002, "a length that is not minimal"));
    }
    match opcode {
        CONTINUATION | TEXT | BINARY => {}
        CLOSE | PING | PONG if fin && wide == 0 => {}
        CLOSE | PING | PONG => return Err(Fault::Broken(1002, "a control frame cut in parts or too long")),
        _ => return Err(Fault::Broken(1002, "an unknown opcode")),
    }
    let Some(length) = usize::try_from(length).ok().filter(|&length| length <= MESSAGE_LIMIT) else {
        return Err(Fault::Broken(1009, "a frame over the limit"));
    };
    if !masked {
        return Ok(Some(Header { fin, opcode, key: None, size: 2 + wide, length }));
    }
    let Some(&key) = rest[wide..].first_chunk() else { return Ok(None) };
    Ok(Some(Header { fin, opcode, key: Some(key), size: 6 + wide, length }))
}

/// Appends a whole message in one frame: its header, what `write` appends, masked if there is a key.
///
/// `about` is how long `write` will probably be: if the header then has another size, the payload moves.
pub(crate) fn append(
    to: &mut Vec<u8>,
    opcode: u8,
    key: Option<[u8; 4]>,
    about: usize,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let begin = to.len();
    let guess = size(about, key);
    to.reserve(guess + about);
    to.resize(begin + guess, 0);
    write(to);
    let length = to.len() - begin - guess;
    let right = size(length, key);
    if right != guess {
        to.resize(begin + right.max(guess) + length, 0);
        to.copy_within(begin + guess..begin + guess + length, begin + right);
        to.truncate(begin + right + length);
    }
    let (header, payload) = to[begin..].split_at_mut(right);
    header[0] = 0x80 | opcode;
    match u16::try_from(length) {
        Ok(short @ ..126) => header[1] = short.to_be_bytes()[1],
        Ok(medium) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if let Some(key) = key {
        header[1] |= 0x80;
        header[right - 4..].copy_from_slice(&key);
        mask(payload, key);
    }
}

fn size(length: usize, key: Option<[u8; 4]>) -> usize {
    let plain = match length {
        ..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    if key.is_some() { plain + 4 } else { plain }
}

/// Masks or unmasks.
pub(crate) fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let mut pattern = [0; 64];
    for part in pattern.chunks_exact_mut(4) {
        part.copy_from_slice(&key);
    }
    // Blocks of a fixed size become whole vector registers.
    let mut blocks = bytes.chunks_exact_mut(64);
    for block in &mut blocks {
        for (byte, mask) in block.iter_mut().zip(&pattern) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in blocks.into_remainder().iter_mut().zip(&pattern) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(length: usize, about: usize, key: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = b"before".to_vec();
        append(&mut bytes, TEXT, key, about, |to| to.resize(to.len() + length, b'x'));
        bytes.split_off(6)
    }

    #[test]
    fn every_length_comes_back_whatever_was_guessed() {
        for length in [0, 1, 125, 126, 127, 65535, 65536, 100_000] {
            for about in [0, 126, 65536] {
                for key in [None, Some([1, 2, 3, 4])] {
                    let role = if key.is_some() { Role::Server } else { Role::Client };
                    let mut bytes = framed(length, about, key);
                    let header = decode(&bytes, role).unwrap().unwrap();
                    let size = bytes.len() - length;
                    assert_eq!(header, Header { fin: true, opcode: TEXT, key, size, length });
                    if let Some(key) = key {
                        mask(&mut bytes[size..], key);
                    }
                    assert!(bytes[size..].iter().all(|&byte| byte == b'x'));
                }
            }
        }
    }

    #[test]
    fn a_header_cut_anywhere_is_not_yet_one() {
        for length in [5, 300, 70_000] {
            let bytes = framed(length, length, Some([1, 2, 3, 4]));
            let size = bytes.len() - length;
            for cut in 0..size {
                assert_eq!(decode(&bytes[..cut], Role::Server), Ok(None), "{length} at {cut}");
            }
            assert!(decode(&bytes[..size], Role::Server).unwrap().is_some());
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let refused = |bytes: &[u8]| match decode(bytes, Role::Client) {
            Err(Fault::Broken(code, _)) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&[0xc1, 0]), 1002); // a reserved bit
        assert_eq!(refused(&[0x83, 0]), 1002); // an opcode that is none
        assert_eq!(refused(&[0x81, 0x80]), 1002); // masked by a server
        assert_eq!(refused(&[0x09, 0]), 1002); // a fragment of a ping
        assert_eq!(refused(&[0x89, 126, 0, 126]), 1002); // a long ping
        assert_eq!(refused(&[0x81, 126, 0, 125]), 1002); // a length that has a shorter form
        assert_eq!(refused(&[0x81, 127, 0, 0, 0, 0, 0, 0, 255, 255]), 1002);
        assert_eq!(refused(&[0x81, 127, 255, 0, 0, 0, 0, 0, 0, 0]), 1009);
    }

    #[test]
    fn the_mask_is_each_byte_with_the_key_in_turn() {
        let key = [0xa1, 0xb2, 0xc3, 0xd4];
        for length in 0..200 {
            let mut bytes: Vec<u8> = (0..length).collect();
            mask(&mut bytes, key);
            let slowly: Vec<u8> = (0..length).zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            assert_eq!(bytes, slowly);
        }
    }
}
