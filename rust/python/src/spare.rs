//! Buffers that nobody uses at the moment, a few per thread: a connection holds one only while it has something in
//! it, and the next to need one finds it with its memory mapped.

use std::cell::RefCell;

/// An empty buffer, large where a large one was given back.
pub(crate) fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if (1..=CAPACITY_LIMIT).contains(&buffer.capacity()) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                buffer.clear();
                spare.push(buffer);
            }
        });
    }
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// One for what comes in and one for what goes out.
const KEPT: usize = 2;
/// A message with a payload of 1 MiB as JSON, and some room; a larger one pays for its memory each time.
const CAPACITY_LIMIT: usize = 2 * 1024 * 1024;
