//! Masking and base64 by the words of their RFCs, a byte and a digit at a time.

/// RFC 6455 §5.3: octet i of the payload XOR octet i MOD 4 of the key; `offset` octets came before.
#[must_use]
pub fn mask(bytes: &[u8], key: [u8; 4], offset: usize) -> Vec<u8> {
    let mut masked = Vec::with_capacity(bytes.len());
    let mut turn = offset % 4;
    for byte in bytes {
        masked.push(byte ^ key[turn]);
        turn = (turn + 1) % 4;
    }
    masked
}

/// RFC 4648 §4 as wire.md has it: CR and LF ignored, trailing bits of any value. `Err(Some(offset))` is a byte that
/// does not belong there at all, `Err(None)` a wrong length or padding.
///
/// # Errors
///
/// See above.
pub fn base64(text: &[u8]) -> Result<Vec<u8>, Option<usize>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut sixes = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' => sixes.push(None),
            digit => {
                let value = ALPHABET.iter().position(|known| known == digit).ok_or(Some(at))?;
                sixes.push(Some(u32::try_from(value).unwrap_or_default()));
            }
        }
    }
    let groups = sixes.len() / 4;
    if sixes.len() % 4 != 0 {
        return Err(None);
    }
    let mut bytes = Vec::new();
    for (index, group) in sixes.chunks(4).enumerate() {
        let (digits, padding) = match *group {
            [Some(a), Some(b), Some(c), Some(d)] => ([a, b, c, d], 0),
            [Some(a), Some(b), Some(c), None] if index + 1 == groups => ([a, b, c, 0], 1),
            [Some(a), Some(b), None, None] if index + 1 == groups => ([a, b, 0, 0], 2),
            _ => return Err(None),
        };
        let bits = digits.iter().fold(0, |bits, digit| bits * 64 + digit);
        bytes.extend(&bits.to_be_bytes()[1..4 - padding]);
    }
    Ok(bytes)
}
