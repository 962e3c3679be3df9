//! A second opinion on CBOR: minicbor reads an item and writes it again, and the extended wire's rules are looked at
//! one by one. What it wrote is what was read only if that was in its shortest form.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// Whether these bytes are one map as the extended wire has it.
#[must_use]
pub fn is_message(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::new(bytes);
    let is_map = matches!(decoder.datatype(), Ok(Type::Map));
    is_map && rewritten(&mut decoder, 0).is_some_and(|again| again == bytes)
}

/// The next item, written again; `None` for one that has no place there.
fn rewritten(decoder: &mut Decoder<'_>, above: u32) -> Option<Vec<u8>> {
    let mut to = Encoder::new(Vec::new());
    let may_nest = above < 16;
    match decoder.datatype().ok()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => to.u64(decoder.u64().ok()?).ok()?,
        Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => to.int(decoder.int().ok()?).ok()?,
        Type::Bool => to.bool(decoder.bool().ok()?).ok()?,
        Type::Bytes => to.bytes(decoder.bytes().ok()?).ok()?,
        Type::String => to.str(decoder.str().ok()?).ok()?,
        Type::Array if may_nest => {
            let count = decoder.array().ok()??;
            let to = to.array(count).ok()?;
            for _ in 0..count {
                to.writer_mut().extend(rewritten(decoder, above + 1)?);
            }
            to
        }
        Type::Map if may_nest => {
            let count = decoder.map().ok()??;
            let to = to.map(count).ok()?;
            let mut before = Vec::new();
            for _ in 0..count {
                let key = rewritten(decoder, above + 1)?;
                if key <= before {
                    return None;
                }
                to.writer_mut().extend(&key);
                to.writer_mut().extend(rewritten(decoder, above + 1)?);
                before = key;
            }
            to
        }
        _ => return None,
    };
    Some(to.into_writer())
}
