//! UTF-8 (RFC 3629), checked piece by piece, so that bad text is refused at its first bad byte (RFC 6455 §8.1)
//! however its frames and chunks are cut.

/// What a text message may still need: the bytes of a character whose end has not come.
#[derive(Debug, Default)]
pub struct Utf8 {
    tail: [u8; 4],
    length: usize,
}

impl Utf8 {
    /// Checks the next piece. `false`: no text can go on like this.
    #[must_use]
    pub fn push(&mut self, piece: &[u8]) -> bool {
        let mut piece = piece;
        while self.length > 0 {
            let [next, rest @ ..] = piece else { return true };
            piece = rest;
            self.tail[self.length] = *next;
            self.length += 1;
            match std::str::from_utf8(&self.tail[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match simdutf8::compat::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let tail = &piece[error.valid_up_to()..];
                self.length = tail.len();
                self.tail[..tail.len()].copy_from_slice(tail);
                true
            }
        }
    }
}

/// The whole of it, at once.
#[must_use]
pub fn whole(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}

/// The offset of the first byte of the first bad sequence, of bytes that are not text.
#[must_use]
pub fn first_bad(bytes: &[u8]) -> usize {
    simdutf8::compat::from_utf8(bytes).err().map_or(bytes.len(), |error| error.valid_up_to())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::{self, Noise};

    fn pieces(bytes: &[u8], cuts: &[usize]) -> bool {
        let mut check = Utf8::default();
        let mut at = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            if !check.push(&bytes[at..cut]) {
                return false;
            }
            at = cut;
        }
        check.length == 0
    }

    #[test]
    fn equals_the_naive_body_on_noise_cut_anywhere() {
        // Bytes from the edges of RFC 3629's table make bad and good sequences about equally often.
        const EDGES: &[u8] = &[
            0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xee,
            0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff,
        ];
        let mut noise = Noise::new(3);
        for _ in 0..20_000 {
            let length = noise.below(9);
            let bytes: Vec<u8> = (0..length).map(|_| EDGES[noise.below(EDGES.len())]).collect();
            let expected = naive::utf8(&bytes);
            assert_eq!(whole(&bytes).is_some(), expected.is_none(), "{bytes:02x?}");
            if let Some(at) = expected {
                assert_eq!(first_bad(&bytes), at, "{bytes:02x?}");
            }
            let first = noise.below(length + 1);
            let second = first + noise.below(length - first + 1);
            assert_eq!(pieces(&bytes, &[first, second]), expected.is_none(), "{bytes:02x?} {first} {second}");
        }
    }

    #[test]
    fn refuses_at_the_first_byte_that_cannot_follow() {
        let mut check = Utf8::default();
        assert!(check.push(b"ok \xed"));
        assert!(!check.push(b"\xa0"), "a surrogate");
        let mut check = Utf8::default();
        assert!(check.push(b"\xf4"));
        assert!(!check.push(b"\x90"), "above U+10FFFF");
    }
}
