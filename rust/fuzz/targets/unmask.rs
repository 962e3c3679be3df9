//! Masking is the plain loop at any offset, in place and copied, whole and cut.
//!
//! The input: 4 bytes of key, 8 of offset, 2 of a cut, 1 of repetitions (long payloads are masked by parts), payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sage_ws_core::mask::{append, apply};
use sage_ws_fuzz::plain;

/// Two parts and some, of those in which `append` masks.
const LONGEST: usize = 20_000;

fuzz_target!(|input: &[u8]| {
    let Some((&key, rest)) = input.split_first_chunk::<4>() else { return };
    let Some((&offset, rest)) = rest.split_first_chunk::<8>() else { return };
    let Some((&cut, rest)) = rest.split_first_chunk::<2>() else { return };
    let Some((&repetitions, payload)) = rest.split_first() else { return };
    let offset = usize::from_le_bytes(offset);
    let mut payload = payload.repeat(usize::from(repetitions) + 1);
    payload.truncate(LONGEST);
    let expected = plain::mask(&payload, key, offset);

    let mut whole = payload.clone();
    apply(&mut whole, key, offset);
    assert_eq!(whole, expected);

    let mut copy = cut.to_vec();
    append(&payload, key, offset, &mut copy);
    assert_eq!(copy, [&cut[..], &expected].concat());

    let mut parts = payload;
    let cut = usize::from(u16::from_le_bytes(cut)) % (parts.len() + 1);
    let (first, second) = parts.split_at_mut(cut);
    apply(first, key, offset);
    apply(second, key, offset.wrapping_add(cut));
    assert_eq!(parts, expected);
});
