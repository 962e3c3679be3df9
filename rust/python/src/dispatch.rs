//! `Dispatch`: requests that are ready, and their handlers' first steps.
//!
//! A handler that does not suspend is run from its call to its answer here, in a context of its own and within the
//! task that called [`Dispatch::run`]. All others are handed to that task where they stand, in the shape of a
//! [`Dispatch::run`] result, and it goes on with them.

use std::collections::VecDeque;

use pyo3::exceptions::{PyGeneratorExit, PyKeyboardInterrupt, PySystemExit};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyString, PyType};

use crate::message::SecureMessage;
use crate::response::Response;
#[cfg(target_os = "linux")]
use crate::socket::Socket;
use crate::stepping::{Step, copied, first_step, within};

/// Requests that wait for a worker, and the way from each to its answer.
///
/// Args:
///     handler: what serves them.
///     takes_call: whether it wants `(message, call)`.
///     context: each request runs in a copy of it.
#[pyclass(module = "sage_ws._core._rust")]
pub(crate) struct Dispatch {
    handler: Py<PyAny>,
    takes_call: bool,
    context: Py<PyAny>,
    ready: VecDeque<Request>,
    /// A worker was called for what is ready.
    #[pyo3(get, set)]
    summoned: bool,
    /// Links with answers that no batch has taken along yet.
    unflushed: Vec<Py<PyAny>>,
}

struct Request {
    link: Py<PyAny>,
    socket: Option<Py<PyAny>>,
    message: Py<SecureMessage>,
}

/// Where a handler stands that is not done: its link, message and context; what its call gave; whether that is a
/// coroutine which was started, and what it waits for; and what it raised.
type Stopped<'py> = (
    Py<PyAny>,
    Py<SecureMessage>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    bool,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
);

/// How far a handler came by itself.
enum Outcome<'py> {
    Reply(Bound<'py, PyAny>),
    Suspended(Bound<'py, PyAny>, Bound<'py, PyAny>),
    Other(Bound<'py, PyAny>),
}

#[pymethods]
impl Dispatch {
    #[new]
    const fn new(handler: Py<PyAny>, takes_call: bool, context: Py<PyAny>) -> Self {
        Self { handler, takes_call, context, ready: VecDeque::new(), summoned: false, unflushed: Vec::new() }
    }

    /// Requests come in.
    ///
    /// Args:
    ///     link: where they came from.
    ///     socket: its direct socket, if it has one.
    ///     messages: the requests.
    fn submit(
        &mut self,
        link: &Bound<'_, PyAny>,
        socket: &Bound<'_, PyAny>,
        messages: &Bound<'_, PyList>,
    ) -> PyResult<()> {
        let socket = Some(socket).filter(|socket| !socket.is_none());
        for message in messages {
            self.ready.push_back(Request {
                link: link.clone().unbind(),
                socket: socket.cloned().map(Bound::unbind),
                message: message.cast_into_exact::<SecureMessage>()?.unbind(),
            });
        }
        Ok(())
    }

    /// Requests that no worker has taken.
    fn __len__(&self) -> usize {
        self.ready.len()
    }

    /// The ids of those that came from this link, in their order.
    fn ready(&self, py: Python<'_>, link: &Bound<'_, PyAny>) -> Vec<Py<PyString>> {
        let of_link = self.ready.iter().filter(|request| request.link.is(link));
        of_link.map(|request| request.message.get().id.clone_ref(py)).collect()
    }

    /// Forget them.
    fn clear(slf: &Bound<'_, Self>) -> PyResult<()> {
        let ready = std::mem::take(&mut slf.try_borrow_mut()?.ready);
        drop(ready);
        Ok(())
    }

    /// Serve until no request is ready, a handler needs more than its first step, or `task` is cancelled.
    ///
    /// Args:
    ///     task: the task that calls this.
    ///
    /// Returns:
    ///     None, or `(link, message, context, outcome, started, awaited, error)` of the request whose handler is not
    ///     done: `error` if it raised; else what its call gave, whether that is a coroutine which was started, and
    ///     what it waits for then. Its link awaits an answer.
    fn run<'py>(slf: &Bound<'py, Self>, task: &Bound<'py, PyAny>) -> PyResult<Option<Stopped<'py>>> {
        let py = slf.py();
        let (handler, takes_call, context) = {
            let dispatch = slf.try_borrow()?;
            let (handler, context) = (dispatch.handler.bind(py).clone(), dispatch.context.bind(py).clone());
            (handler, dispatch.takes_call, context)
        };
        loop {
            let Some(Request { link, socket, message }) = slf.try_borrow_mut()?.ready.pop_front() else {
                return Ok(None);
            };
            let own = copied(&context)?;
            if message.get().has_terms() {
                link.bind(py).call_method1(intern!(py, "entering"), (&message, &own))?;
            }
            let call = if takes_call {
                Some(link.bind(py).call_method1(intern!(py, "call"), (&message, &own))?)
            } else {
                None
            };
            let outcome = within(&own, || match call {
                Some(call) => started(handler.call1((&message, call))?),
                None => started(handler.call1((&message,))?),
            });
            match outcome {
                Ok(Outcome::Reply(reply)) => {
                    Self::answer(slf, &link, socket.as_ref(), message.bind(py), &reply)?;
                }
                Ok(Outcome::Suspended(coroutine, awaited)) => {
                    return Ok(Some((link, message, own, Some(coroutine), true, Some(awaited), None)));
                }
                Ok(Outcome::Other(outcome)) => {
                    return Ok(Some((link, message, own, Some(outcome), false, None, None)));
                }
                Err(error) if goes_through(py, &error) => {
                    link.bind(py).call_method0(intern!(py, "answered"))?;
                    return Err(error);
                }
                Err(error) => {
                    let error = error.into_value(py).into_bound(py).into_any();
                    return Ok(Some((link, message, own, None, false, None, Some(error))));
                }
            }
            if task.call_method0(intern!(py, "cancelling"))?.is_truthy()? {
                return Ok(None);
            }
        }
    }

    /// The rest of a batch leaves.
    fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let unflushed = std::mem::take(&mut slf.try_borrow_mut()?.unflushed);
        for link in unflushed {
            link.bind(py).call_method0(intern!(py, "flush"))?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.handler)?;
        visit.call(&self.context)?;
        self.unflushed.iter().try_for_each(|link| visit.call(link))?;
        self.ready.iter().try_for_each(|request| {
            visit.call(&request.link)?;
            visit.call(&request.socket)?;
            visit.call(&request.message)
        })
    }

    fn __clear__(&mut self) {
        self.ready.clear();
        self.unflushed.clear();
    }
}

impl Dispatch {
    /// Requests that came over a direct socket; returns whether a worker is to be called.
    pub(crate) fn take(
        &mut self,
        link: &Bound<'_, PyAny>,
        socket: &Bound<'_, PyAny>,
        messages: impl Iterator<Item = Py<SecureMessage>>,
    ) -> bool {
        self.ready.extend(messages.map(|message| Request {
            link: link.clone().unbind(),
            socket: Some(socket.clone().unbind()),
            message,
        }));
        !std::mem::replace(&mut self.summoned, true)
    }

    /// Over a direct socket the core takes the answer from here; else the link does.
    fn answer(
        slf: &Bound<'_, Self>,
        link: &Py<PyAny>,
        socket: Option<&Py<PyAny>>,
        message: &Bound<'_, SecureMessage>,
        reply: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        #[cfg(target_os = "linux")]
        if let Some(socket) = socket {
            if Socket::answer(socket.bind(py).cast::<Socket>()?, message, reply)? {
                return Ok(());
            }
        }
        let answered = link.bind(py).call_method1(intern!(py, "answer"), (message, reply))?;
        let flushed = answered.is_truthy()?;
        let mut dispatch = slf.try_borrow_mut()?;
        match dispatch.unflushed.iter().position(|one| one.is(link)) {
            Some(at) if flushed => drop(dispatch.unflushed.remove(at)),
            None if !flushed => dispatch.unflushed.push(link.clone_ref(py)),
            _ => {}
        }
        Ok(())
    }
}

/// What a handler's call gave, a coroutine after its first step.
fn started(outcome: Bound<'_, PyAny>) -> PyResult<Outcome<'_>> {
    let py = outcome.py();
    let coroutine = COROUTINE.import(py, "types", "CoroutineType")?;
    Ok(if outcome.get_type().is(coroutine) {
        match first_step(&outcome)? {
            Step::Returned(reply) => Outcome::Reply(reply),
            Step::Waits(awaited) => Outcome::Suspended(outcome, awaited),
        }
    } else if outcome.is_none() || outcome.is_instance_of::<PyBytes>() || outcome.is_instance_of::<Response>()
    {
        Outcome::Reply(outcome)
    } else {
        Outcome::Other(outcome)
    })
}

/// What ends the process or the worker is no answer.
#[cold]
fn goes_through(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py)
        || error.is_instance_of::<PySystemExit>(py)
        || error.is_instance_of::<PyGeneratorExit>(py)
}

static COROUTINE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
