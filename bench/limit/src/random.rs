//! Unpredictable bytes, and the ids made of them.

use rand::rngs::{StdRng, SysError, SysRng};
use rand::{Rng, SeedableRng};

/// A source of unpredictable bytes: masking keys must be (RFC 6455 §5.3), and ids should be.
pub(crate) struct Random(StdRng);

/// A UUID as text.
pub(crate) type Id = [u8; 36];

impl Random {
    /// Seeded by the operating system.
    pub(crate) fn new() -> Result<Self, SysError> {
        StdRng::try_from_rng(&mut SysRng).map(Self)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A version 4 UUID (RFC 9562 §5.4), lower case.
    #[inline]
    pub(crate) fn uuid4(&mut self) -> Id {
        let mut bytes = self.array::<16>();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = [b'-'; 36];
        for (byte, at) in bytes.into_iter().zip([0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34]) {
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 0x0f)];
        }
        text
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_shows_its_version_and_variant_and_is_fresh() {
        let mut random = Random::new().unwrap();
        let (one, another) = (random.uuid4(), random.uuid4());
        assert_ne!(one, another);
        for (at, byte) in one.into_iter().enumerate() {
            match at {
                8 | 13 | 18 | 23 => assert_eq!(byte, b'-'),
                14 => assert_eq!(byte, b'4'),
                19 => assert!(b"89ab".contains(&byte)),
                _ => assert!(HEX.contains(&byte)),
            }
        }
    }
}
