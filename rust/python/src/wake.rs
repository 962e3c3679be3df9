//! Whoever waits for a future of asyncio, stepped without a turn of the event loop.
//!
//! A future schedules its callback: a handle and a turn of the loop for each answer. Answers come by the batch, from
//! a callback of the loop in which no task runs: there the task that waits can be stepped at once, by the same
//! callback that it has left with the future. So the callback is taken back before the result is set. Where there is
//! none, or more than one, or the future is of another make, it schedules as ever.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::stepping::within;

/// Somebody to be stepped: the future that is done, the callback that it would have scheduled, and its context.
pub(crate) struct Sleeper<'py> {
    future: Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
}

/// What became of a result.
pub(crate) enum Settled<'py> {
    /// Somebody is to be stepped.
    Sleeper(Sleeper<'py>),
    /// The future schedules who waits by itself.
    Scheduled,
    /// The future was cancelled: nobody waits.
    Missed,
}

/// Sets a future's result.
pub(crate) fn settle<'py>(future: Bound<'py, PyAny>, result: &Bound<'py, PyAny>) -> PyResult<Settled<'py>> {
    let py = future.py();
    let settled = match only_callback(&future) {
        Some((callback, context)) => {
            future.call_method1(intern!(py, "remove_done_callback"), (&callback,))?;
            Settled::Sleeper(Sleeper { future: future.clone(), callback, context })
        }
        None if future.call_method0(intern!(py, "done"))?.is_truthy()? => return Ok(Settled::Missed),
        None => Settled::Scheduled,
    };
    future.call_method1(intern!(py, "set_result"), (result,))?;
    Ok(settled)
}

/// The callback of a future that has one, with its context.
fn only_callback<'py>(future: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let callbacks = future.getattr(intern!(future.py(), "_callbacks")).ok()?;
    let callbacks = callbacks.cast_exact::<PyList>().ok().filter(|callbacks| callbacks.len() == 1)?;
    let pair = callbacks.get_item(0).ok()?;
    let pair = pair.cast_exact::<PyTuple>().ok().filter(|pair| pair.len() == 2)?;
    Some((pair.get_item(0).ok()?, pair.get_item(1).ok()?))
}

impl Sleeper<'_> {
    /// Steps it, now: no task may be running.
    ///
    /// # Errors
    ///
    /// What goes through a loop: KeyboardInterrupt, SystemExit.
    pub(crate) fn step(&self) -> PyResult<()> {
        within(&self.context, || self.callback.call1((&self.future,))).map(drop)
    }

    /// Has it stepped in the loop's next round.
    pub(crate) fn schedule(&self) -> PyResult<()> {
        let py = self.future.py();
        let event_loop = self.future.call_method0(intern!(py, "get_loop"))?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), &self.context)?;
        event_loop
            .call_method(intern!(py, "call_soon"), (&self.callback, &self.future), Some(&keywords))
            .map(drop)
    }
}

/// Steps all of them in one pass; where one step raises what goes through the loop, the others are not forgotten.
pub(crate) fn step_all(sleepers: &[Sleeper<'_>], may_step: bool) -> PyResult<()> {
    let mut outcome = Ok(());
    for sleeper in sleepers {
        if may_step && outcome.is_ok() {
            outcome = sleeper.step();
        } else {
            sleeper.schedule()?;
        }
    }
    outcome
}
