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

const BLOCK: usize = 64;

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
