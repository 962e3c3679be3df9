//! What the targets share: the oracles, which are independent of the core, and the smallest things it asks for.

pub mod cbor;
pub mod message;
pub mod plain;

use sage_ws_core::{MakeBytes, Random};

/// Keeps bytes as a vector.
pub struct Vectors;

impl MakeBytes for Vectors {
    type Bytes = Vec<u8>;

    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        fill(&mut bytes).then_some(bytes)
    }
}

/// Numbers that follow from their seed: masking keys that two runs have in common, and the places of cuts.
pub struct Sequence(pub u64);

impl Sequence {
    /// Less than `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        // Knuth's multiplier; the upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % end
    }
}

impl Random for Sequence {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.below(256).to_le_bytes()[0]);
    }
}
