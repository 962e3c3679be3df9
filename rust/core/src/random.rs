//! Random bytes, through one seam, and the ids made of them. Where the bytes come from is the caller's affair.

/// A source of unpredictable bytes: masking keys must be (RFC 6455 §5.3), and ids should be.
pub trait Random {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// A version 4 UUID as text (RFC 9562 §5.4), lower case: 36 characters of ASCII.
pub fn uuid4<R: Random>(random: &mut R) -> Uuid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    for (byte, at) in bytes.into_iter().zip(PLACES) {
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 0x0f)];
    }
    Uuid(text)
}

/// The text of a UUID.
pub struct Uuid([u8; 36]);

impl Uuid {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // ASCII by construction; an empty id would be refused by the peer, not misread.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::Noise;

    #[test]
    fn a_uuid_shows_its_bytes_version_and_variant() {
        struct Counting;
        impl Random for Counting {
            fn fill(&mut self, bytes: &mut [u8]) {
                (0_u8..).zip(bytes).for_each(|(index, byte)| *byte = 0x11 * index);
            }
        }
        assert_eq!(uuid4(&mut Counting).as_str(), "00112233-4455-4677-8899-aabbccddeeff");
    }

    #[test]
    fn uuids_differ() {
        let mut noise = Noise::new(1);
        assert_ne!(uuid4(&mut noise).as_str(), uuid4(&mut noise).as_str());
    }
}
