//! Both bodies of base64 are the plain one, and what was decoded is encoded as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sage_ws_core::base64::{Base64Error, decode, decode_usual, encode, encoded_length};
use sage_ws_fuzz::{Vectors, plain};

fuzz_target!(|text: &[u8]| {
    let expected = plain::base64(text);
    let found = decode(text, &mut Vectors).map(Option::unwrap_or_default).map_err(|error| match error {
        Base64Error::Character(at) => Some(at),
        Base64Error::Padding => None,
    });
    assert_eq!(found, expected);
    let usual = decode_usual(text, &mut Vectors);
    if let Some(bytes) = &usual {
        assert_eq!(Ok(bytes), expected.as_ref());
    }
    // The text, read as bytes: any bytes there are.
    let mut encoded = Vec::new();
    encode(text, &mut encoded);
    assert_eq!(encoded.len(), encoded_length(text.len()));
    assert_eq!(plain::base64(&encoded).as_deref(), Ok(text));
    assert_eq!(decode_usual(&encoded, &mut Vectors).as_deref(), Some(text));
    // The usual form is exactly what we write ourselves.
    if let Ok(bytes) = expected {
        encoded.clear();
        encode(&bytes, &mut encoded);
        assert_eq!(usual.is_some(), encoded == text);
    }
});
