//! Masking (RFC 6455 §5.3): every payload byte XOR a byte of the key, in turn. Masking undoes itself.

/// Masks or unmasks in place. `offset` is how many bytes of the payload came before these.
pub fn apply(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let mut pattern = [0; BLOCK];
    for part in pattern.chunks_exact_mut(4) {
        part.copy_from_slice(&key);
    }
    // Blocks of a fixed size: the compiler turns the inner loop into whole vector registers.
    let mut blocks = bytes.chunks_exact_mut(BLOCK);
    for block in &mut blocks {
        for (byte, mask) in block.iter_mut().zip(&pattern) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in blocks.into_remainder().iter_mut().zip(&pattern) {
        *byte ^= mask;
    }
}

/// Appends a masked or unmasked copy.
pub fn append(bytes: &[u8], key: [u8; 4], offset: usize, to: &mut Vec<u8>) {
    to.reserve(bytes.len());
    // By parts that are still in the nearest cache when they are masked.
    for (index, part) in bytes.chunks(PART).enumerate() {
        let start = to.len();
        to.extend_from_slice(part);
        apply(&mut to[start..], key, offset.wrapping_add(index * PART));
    }
}

const BLOCK: usize = 64;
const PART: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::{self, Noise};

    #[test]
    fn equals_the_naive_body_at_every_length_and_offset() {
        let mut noise = Noise::new(1);
        for length in 0..300 {
            let key = noise.array();
            let bytes = noise.bytes(length);
            for offset in 0..5 {
                let mut fast = bytes.clone();
                apply(&mut fast, key, offset);
                assert_eq!(fast, naive::mask(&bytes, key, offset), "{length} {offset}");
            }
        }
    }

    #[test]
    fn a_copy_equals_the_naive_body() {
        let mut noise = Noise::new(11);
        for length in [0, 1, 63, 64, 65, PART - 1, PART, PART + 1, 3 * PART + 7] {
            let (key, bytes) = (noise.array(), noise.bytes(length));
            for offset in 0..5 {
                let mut copy = b"before".to_vec();
                append(&bytes, key, offset, &mut copy);
                assert_eq!(copy[6..], naive::mask(&bytes, key, offset), "{length} {offset}");
            }
        }
    }

    #[test]
    fn equals_the_naive_body_wherever_the_payload_is_cut() {
        let mut noise = Noise::new(2);
        let (key, bytes) = (noise.array(), noise.bytes(200));
        let whole = naive::mask(&bytes, key, 0);
        for cut in 0..bytes.len() {
            let mut parts = bytes.clone();
            let (first, second) = parts.split_at_mut(cut);
            apply(first, key, 0);
            apply(second, key, cut);
            assert_eq!(parts, whole, "{cut}");
        }
    }
}
