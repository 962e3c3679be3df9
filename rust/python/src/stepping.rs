//! What an event loop does with contexts and coroutines, done without a callback of its own for each: contexts are
//! copied and entered, and coroutines take their first step, by CPython's functions for it.

// Those functions have no safe face in PyO3 yet. Each is called once, here.
#![allow(unsafe_code)]

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

/// What the first step of a coroutine gave.
pub(crate) enum Step<'py> {
    /// It returned this.
    Returned(Bound<'py, PyAny>),
    /// It waits for this, a future.
    Waits(Bound<'py, PyAny>),
}

/// A copy of a `contextvars.Context`.
pub(crate) fn copied<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the interpreter is attached, and the argument is a live object; of another type than Context, the
    // function raises. It returns a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(context.py(), ffi::PyContext_Copy(context.as_ptr())) }
}

/// Does something with `context` as the current one, and leaves it however that ends.
///
/// # Errors
///
/// RuntimeError: the context is entered already.
pub(crate) fn within<T>(context: &Bound<'_, PyAny>, run: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    // SAFETY: as in `copied`; the function returns 0, or -1 with an exception set.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(raised(context.py()));
    }
    let left = Leave(context);
    let outcome = run();
    drop(left);
    outcome
}

/// Leaves a context that was entered, also while a panic unwinds.
struct Leave<'a, 'py>(&'a Bound<'py, PyAny>);

impl Drop for Leave<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: as in `copied`; this context was entered by `within`, and whatever ran since has left what it
        // entered, so that it is the current one. If it were not, an exception is set, which is taken here.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } != 0 {
            raised(self.0.py()).write_unraisable(self.0.py(), None);
        }
    }
}

/// Runs a coroutine up to its first suspension, or its end.
///
/// # Errors
///
/// What it raised.
pub(crate) fn first_step<'py>(coroutine: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
    let py = coroutine.py();
    let mut value = std::ptr::null_mut();
    let none = Borrowed::from(py.None().bind(py)).as_ptr();
    // SAFETY: the interpreter is attached, both arguments are live objects, None for ever, and `value` has room for
    // the result.
    let step = unsafe { ffi::PyIter_Send(coroutine.as_ptr(), none, &raw mut value) };
    if step == ffi::PySendResult::PYGEN_ERROR {
        return Err(raised(py));
    }
    // SAFETY: without an error the function leaves a new reference in `value`.
    let value = unsafe { Bound::from_owned_ptr_or_err(py, value) }?;
    Ok(if step == ffi::PySendResult::PYGEN_RETURN { Step::Returned(value) } else { Step::Waits(value) })
}

fn raised(py: Python<'_>) -> PyErr {
    PyErr::take(py).unwrap_or_else(|| PyRuntimeError::new_err("a call failed without an exception"))
}
