//! The operating system's random bytes, drawn a block at a time: a system call costs more than the rest of a small
//! frame. A block is never shared over a fork: a child that went on with it would repeat its parent's ids.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use sage_ws_core::Random;

/// Takes from the thread's block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System;

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        BLOCK.with_borrow_mut(|block| block.take(bytes));
    }
}

/// Has a forked child begin with a block of its own.
pub(crate) fn forget_after_fork(py: Python<'_>) -> PyResult<()> {
    let os = py.import("os")?;
    // Windows does not fork.
    if os.hasattr("register_at_fork")? {
        let forget = PyCFunction::new_closure(py, None, None, |_, _| {
            FORKS.fetch_add(1, Ordering::Relaxed);
        })?;
        let keywords = pyo3::types::PyDict::new(py);
        keywords.set_item("after_in_child", forget)?;
        os.call_method("register_at_fork", (), Some(&keywords))?;
    }
    Ok(())
}

/// How many forks lie between this process and the one that imported this module.
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

struct Block {
    bytes: Vec<u8>,
    used: usize,
    forks: u32,
}

impl Block {
    fn take(&mut self, bytes: &mut [u8]) {
        let forks = forks();
        if self.bytes.len() - self.used < bytes.len() || self.forks != forks {
            self.refill();
            self.forks = forks;
        }
        let end = self.used + bytes.len();
        bytes.copy_from_slice(&self.bytes[self.used..end]);
        self.used = end;
    }

    #[cold]
    fn refill(&mut self) {
        self.bytes.resize(BLOCK_SIZE, 0);
        self.used = 0;
        // Without random bytes no frame may leave. No supported system fails here once it has booted.
        getrandom::fill(&mut self.bytes).expect("the operating system gives no random bytes");
    }
}

thread_local! {
    static BLOCK: RefCell<Block> = const { RefCell::new(Block { bytes: Vec::new(), used: 0, forks: 0 }) };
}

static FORKS: AtomicU32 = AtomicU32::new(0);
const BLOCK_SIZE: usize = 4096;
