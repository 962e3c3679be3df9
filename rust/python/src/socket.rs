//! `Socket`: a connection's descriptor, from which its core is fed and into which its output is written, without
//! bytes objects in between.
//!
//! It speaks to two objects of Python: its *link* gets the values of each read and is told when the kernel refuses
//! bytes, its *transport* is told of what is rare: the output went out at last, or the connection ended.
//!
//! Over 500 lines, a third of them documentation: a class of Python's has its methods in one block.

use pyo3::call::PyCallArgs;
use pyo3::exceptions::PyOSError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyType};
use sage_ws_core::extended::deadline_ms;
use sage_ws_io::{Interest, Token};

use crate::connection::{Connection, response};
use crate::delivery::{Call, Delivery, Received, object};
use crate::dispatch::Dispatch;
use crate::errors::send_error;
use crate::message::SecureMessage;
use crate::poller::Poller;
use crate::response::Response;
use crate::spare;
use crate::wake::{Settled, Sleeper, settle, step_all};

/// One socket of a `Poller`, made by `Poller.add`.
#[pyclass(module = "sage_ws._core._rust")]
pub(crate) struct Socket {
    poller: Py<Poller>,
    of_loop: Py<PyDict>,
    pub(crate) connection: Py<Connection>,
    link: Option<Py<PyAny>>,
    transport: Option<Py<PyAny>>,
    io: Option<sage_ws_io::Socket>,
    token: Token,
    interest: Interest,
    /// The kernel refused bytes, and has not taken all of them since.
    blocked: bool,
    /// It is in the poller's list of those with something to write.
    unflushed: bool,
    max_pending: usize,
    read_timeout: f64,
    /// Where requests go that nothing stands in the way of, what calls a worker, and how many run at once.
    dispatch: Option<(Py<Dispatch>, Py<PyAny>)>,
    max_concurrency: usize,
    /// Loop time at which the link is looked at.
    #[pyo3(get, set)]
    due: f64,
    /// The link is to be told of each read, to `stay_awake()`.
    #[pyo3(get, set)]
    busy_poll: bool,
    /// Loop time at which bytes came last.
    #[pyo3(get, set)]
    last_received: f64,
}

/// What a write came to.
enum Written {
    All,
    Refused,
    Lost(std::io::Error),
}

impl Socket {
    pub(crate) const fn new(
        poller: Py<Poller>,
        of_loop: Py<PyDict>,
        connection: Py<Connection>,
        link: Py<PyAny>,
        io: sage_ws_io::Socket,
        token: Token,
    ) -> Self {
        Self {
            poller,
            of_loop,
            connection,
            link: Some(link),
            transport: None,
            io: Some(io),
            token,
            interest: Interest { read: false, write: false },
            blocked: false,
            unflushed: false,
            max_pending: 0,
            read_timeout: f64::INFINITY,
            dispatch: None,
            max_concurrency: 0,
            due: f64::INFINITY,
            busy_poll: false,
            last_received: f64::NEG_INFINITY,
        }
    }

    fn watch(&mut self, py: Python<'_>, interest: Interest) -> PyResult<()> {
        if let Some(io) = &self.io {
            self.poller.bind(py).try_borrow()?.watch(io, self.token, self.interest, interest)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// One read: through the core, answers to their waiters, everything else to the link.
    pub(crate) fn readable(slf: &Bound<'_, Self>, round: &mut Round<'_>) -> PyResult<()> {
        let py = slf.py();
        let mut delivery = Delivery::new(py);
        let mut socket = slf.try_borrow_mut()?;
        socket.last_received = round.now;
        let is_busy = socket.busy_poll;
        let Some(io) = socket.io.as_ref().filter(|_| socket.interest.read) else { return Ok(()) };
        let length = match io.receive(round.scratch) {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => {
                drop(socket);
                return Self::tell_transport(slf, None);
            }
            Ok(Some(length)) => length,
            Err(error) => {
                drop(socket);
                return Self::tell_transport(slf, os_error(py, &error));
            }
        };
        let mut connection = socket.connection.bind(py).try_borrow_mut()?;
        connection.core.receive_data(&round.scratch[..length], round.buffer, &mut delivery);
        let replied = connection.core.buffered() > 0;
        let watched = connection.watched || socket.blocked;
        drop(connection);
        drop(socket);
        let mut received = delivery.received();
        if !watched {
            received = Self::dispatch(slf, received)?;
        }
        let (sleepers, values, missed) = sorted(py, received)?;
        if missed > 0 {
            slf.try_borrow()?.connection.bind(py).try_borrow_mut()?.core.miss(missed);
        }
        // The link first: whoever is stepped shall see a connection that ends as one that has.
        let mut told = Ok(());
        if is_busy {
            told = Self::call_link(slf, intern!(py, "stay_awake"), ());
        }
        if told.is_ok() && (watched || values.is_some()) {
            told = Self::call_link(slf, intern!(py, "values_received"), (values,));
        }
        step_all(&sleepers, round.may_step && told.is_ok())?;
        told?;
        if replied { Self::flush(slf) } else { Ok(()) }
    }

    /// Requests that nothing stands in the way of go to the workers from here: all of them, or none. Gives back what
    /// is for the link.
    fn dispatch(slf: &Bound<'_, Self>, received: Vec<Received>) -> PyResult<Vec<Received>> {
        let py = slf.py();
        let socket = slf.try_borrow()?;
        let Some(((dispatch, summon), link)) = socket.dispatch.as_ref().zip(socket.link.as_ref()) else {
            return Ok(received);
        };
        let mut connection = socket.connection.bind(py).try_borrow_mut()?;
        let running = connection.running + received.len();
        let only_requests = received.iter().all(|one| matches!(one, Received::Message(_)));
        if received.is_empty() || !only_requests || running > socket.max_concurrency {
            return Ok(received);
        }
        connection.running = running;
        drop(connection);
        let (dispatch, summon, link) = (dispatch.clone_ref(py), summon.clone_ref(py), link.clone_ref(py));
        let poller = socket.poller.clone_ref(py);
        drop(socket);
        let mut messages = Vec::with_capacity(received.len());
        for one in received {
            if let Received::Message(message) = one {
                messages.push(Py::new(py, message)?);
            }
        }
        if dispatch.bind(py).try_borrow_mut()?.take(link.bind(py), slf.as_any(), messages.into_iter()) {
            Poller::call_later(poller.bind(py), summon)?;
        }
        Ok(Vec::new())
    }

    fn call_link<'py>(
        slf: &Bound<'py, Self>,
        method: &Bound<'py, PyString>,
        arguments: impl PyCallArgs<'py>,
    ) -> PyResult<()> {
        let link = slf.try_borrow()?.link.as_ref().map(|link| link.clone_ref(slf.py()));
        link.map_or(Ok(()), |link| link.bind(slf.py()).call_method1(method, arguments).map(drop))
    }

    /// The kernel takes bytes again.
    pub(crate) fn writable(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let mut socket = slf.try_borrow_mut()?;
        if !socket.interest.write {
            return Ok(());
        }
        match socket.write(py)? {
            Written::Refused => Ok(()),
            Written::All => {
                socket.blocked = false;
                let interest = Interest { write: false, ..socket.interest };
                socket.watch(py, interest)?;
                let transport = socket.transport.as_ref().map(|transport| transport.clone_ref(py));
                drop(socket);
                match transport {
                    Some(transport) => transport.bind(py).call_method0(intern!(py, "drained")).map(drop),
                    None => Ok(()),
                }
            }
            Written::Lost(error) => {
                drop(socket);
                Self::tell_transport(slf, os_error(py, &error))
            }
        }
    }

    fn write(&self, py: Python<'_>) -> PyResult<Written> {
        let Some(io) = &self.io else { return Ok(Written::All) };
        let mut connection = self.connection.bind(py).try_borrow_mut()?;
        connection.unwritten = 0;
        let output = connection.core.output();
        if output.is_empty() {
            return Ok(Written::All);
        }
        match io.send(output) {
            Ok(length) => {
                if let Some(buffer) = connection.core.written(length) {
                    spare::give(buffer);
                }
                Ok(if connection.core.buffered() == 0 { Written::All } else { Written::Refused })
            }
            Err(error) => Ok(Written::Lost(error)),
        }
    }

    /// The connection ended: in order, or by this error.
    pub(crate) fn tell_transport(slf: &Bound<'_, Self>, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let Some(transport) = slf.try_borrow()?.transport.as_ref().map(|one| one.clone_ref(py)) else {
            return Ok(());
        };
        transport.bind(py).call_method1(intern!(py, "ended"), (error,)).map(drop)
    }

    /// Queues the answer to a request, and writes it if much has come together or nothing runs any more. False where
    /// the link has to see to it: nothing was done.
    pub(crate) fn answer(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, SecureMessage>,
        reply: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let py = slf.py();
        let socket = slf.try_borrow()?;
        let mut connection = socket.connection.bind(py).try_borrow_mut()?;
        let Some(response) = response(reply)?.filter(|_| !connection.watched) else { return Ok(false) };
        let message = message.get();
        let (id, task_id) = (message.id.to_str(py)?, message.task_id.to_str(py)?);
        connection.lend_buffer();
        if connection.core.send_response(id, task_id, response).is_err() {
            return Ok(false);
        }
        connection.running = connection.running.saturating_sub(1);
        connection.unwritten += 1;
        let much = connection.core.buffered() >= ANSWERS_AT || connection.unwritten >= ANSWERS_TOGETHER;
        let done = connection.running == 0 || much;
        drop(connection);
        let unflushed = socket.unflushed;
        drop(socket);
        if done {
            Self::flush(slf)?;
        } else if !unflushed {
            Self::flush_soon(slf)?;
        }
        Ok(true)
    }
}

#[pymethods]
impl Socket {
    /// Who is told of what is rare: `drained()` and `ended(error)`. Reading begins.
    fn start(slf: &Bound<'_, Self>, transport: Py<PyAny>) -> PyResult<()> {
        slf.try_borrow_mut()?.transport = Some(transport);
        Self::set_reading(slf, true)
    }

    /// Read, or do not.
    fn set_reading(slf: &Bound<'_, Self>, reading: bool) -> PyResult<()> {
        let mut socket = slf.try_borrow_mut()?;
        let interest = Interest { read: reading, ..socket.interest };
        socket.watch(slf.py(), interest)
    }

    /// Hand requests to the workers, of a server or a client, as long as the connection is not watched.
    ///
    /// Args:
    ///     dispatch: the workers' requests.
    ///     summon: calls a worker.
    ///     max_concurrency: requests of this connection that run at once.
    fn serve(&mut self, dispatch: Py<Dispatch>, summon: Py<PyAny>, max_concurrency: usize) {
        self.dispatch = Some((dispatch, summon));
        self.max_concurrency = max_concurrency;
    }

    /// What `ask` needs to know of its client.
    ///
    /// Args:
    ///     max_pending: messages in flight at most.
    ///     read_timeout: seconds to wait for an answer; infinity for no limit.
    fn limit(&mut self, max_pending: usize, read_timeout: f64) {
        (self.max_pending, self.read_timeout) = (max_pending, read_timeout);
    }

    /// Send a request, if nothing at all stands in its way.
    ///
    /// Returns:
    ///     The future of its answer; None where something does, and whoever asks has to look closer: the kernel
    ///     refuses bytes, `max_pending` is reached, another loop is running, it is no message, or the time for an
    ///     answer ends before the link is looked at anyway.
    ///
    /// Raises:
    ///     ClosedError: after a close frame was sent or received.
    ///     DuplicateIdError: while another message with this id is in flight.
    ///     MessageTooBigError: over the limit.
    fn ask<'py>(slf: &Bound<'py, Self>, message: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let Ok(message) = message.cast_exact::<SecureMessage>() else { return Ok(None) };
        let socket = slf.try_borrow()?;
        let pending = socket.connection.bind(py).try_borrow()?.core.pending();
        if socket.blocked || socket.io.is_none() || pending >= socket.max_pending {
            return Ok(None);
        }
        let Some(now) = socket.poller.bind(py).try_borrow()?.time_in_loop(py)? else { return Ok(None) };
        let deadline = now + socket.read_timeout;
        if deadline < socket.due {
            return Ok(None);
        }
        drop(socket);
        Self::send(slf, message, deadline, f64::INFINITY).map(Some)
    }

    /// Send a request now if it is alone in flight or much has come together, else with its batch.
    ///
    /// Args:
    ///     message: the request.
    ///     deadline: when `Connection.expire` gives up on it; infinity for never.
    ///     remaining: seconds that the peer is told it has; infinity for no limit.
    ///
    /// Returns:
    ///     The future of its answer.
    ///
    /// Raises:
    ///     ClosedError: after a close frame was sent or received.
    ///     DuplicateIdError: while another message with this id is in flight.
    ///     MessageTooBigError: over the limit.
    #[pyo3(
        signature = (message, deadline, remaining = f64::INFINITY),
        text_signature = "($self, message, deadline, remaining=...)"
    )]
    fn send<'py>(
        slf: &Bound<'py, Self>,
        message: &Bound<'py, SecureMessage>,
        deadline: f64,
        remaining: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let socket = slf.try_borrow()?;
        let future = FUTURE.import(py, "asyncio", "Future")?.call((), Some(socket.of_loop.bind(py)))?;
        let value = message.get();
        let mut request = value.request(py)?;
        let call = Call { waiter: future.clone().unbind(), id: value.id.clone_ref(py) };
        let mut connection = socket.connection.bind(py).try_borrow_mut()?;
        if remaining < f64::INFINITY && connection.core.extended() {
            request.deadline_ms = deadline_ms(remaining);
        }
        connection.lend_buffer();
        let sent = connection.core.send_message(&request, call, deadline);
        let alone = connection.core.pending() == 1;
        connection.unwritten += 1;
        let full = connection.core.buffered() >= REQUESTS_AT || connection.unwritten >= REQUESTS_TOGETHER;
        drop(connection);
        sent.map_err(|error| send_error(py, error, Some(value.id.bind(py))))?;
        let (blocked, unflushed) = (socket.blocked, socket.unflushed);
        drop(socket);
        if (alone || full) && !blocked {
            Self::flush(slf)?;
        } else if !unflushed {
            Self::flush_soon(slf)?;
        }
        Ok(future)
    }

    /// Write what the core has queued, unless the kernel takes nothing now. What it refuses waits in the core, the
    /// link's `pause_writing` is called, and the transport's `drained` when it is gone.
    pub(crate) fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let mut socket = slf.try_borrow_mut()?;
        socket.unflushed = false;
        if socket.blocked {
            return Ok(());
        }
        match socket.write(py)? {
            Written::All => Ok(()),
            Written::Refused => {
                socket.blocked = true;
                let interest = Interest { write: true, ..socket.interest };
                socket.watch(py, interest)?;
                drop(socket);
                Self::call_link(slf, intern!(py, "pause_writing"), ())
            }
            Written::Lost(error) => {
                drop(socket);
                Self::tell_transport(slf, os_error(py, &error))
            }
        }
    }

    /// Flush when the batch at hand is worked through, or in the loop's next round: one write for many frames.
    pub(crate) fn flush_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let mut socket = slf.try_borrow_mut()?;
        if socket.unflushed {
            return Ok(());
        }
        socket.unflushed = true;
        let poller = socket.poller.clone_ref(slf.py());
        drop(socket);
        Poller::flush_later(poller.bind(slf.py()), slf)
    }

    /// Tell the peer that nothing more will come.
    fn shut_writing(&self) {
        if let Some(io) = &self.io {
            // A connection that is lost already is found out by the next read.
            let _ = io.shut_writing();
        }
    }

    /// Close the descriptor, now; what was not written is lost.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let mut socket = slf.try_borrow_mut()?;
        let watched = socket.watch(py, Interest { read: false, write: false });
        let io = socket.io.take();
        let (link, transport, dispatch) =
            (socket.link.take(), socket.transport.take(), socket.dispatch.take());
        let (poller, token) = (socket.poller.clone_ref(py), socket.token);
        drop(socket);
        drop((io, link, transport, dispatch));
        poller.bind(py).try_borrow_mut()?.remove(token);
        watched
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.io.is_none()
    }

    /// The descriptor; -1 when it is closed.
    fn fileno(&self) -> i32 {
        use std::os::fd::{AsFd, AsRawFd};
        self.io.as_ref().map_or(-1, |io| io.as_fd().as_raw_fd())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.poller)?;
        visit.call(&self.of_loop)?;
        visit.call(&self.connection)?;
        visit.call(&self.link)?;
        if let Some((dispatch, summon)) = &self.dispatch {
            visit.call(dispatch)?;
            visit.call(summon)?;
        }
        visit.call(&self.transport)
    }

    fn __clear__(&mut self) {
        self.link = None;
        self.transport = None;
        self.dispatch = None;
    }
}

/// What the sockets of one batch share.
pub(crate) struct Round<'a> {
    /// Bytes of one read.
    pub(crate) scratch: &'a mut [u8],
    /// The core's own.
    pub(crate) buffer: &'a mut Vec<u8>,
    /// The loop's time.
    pub(crate) now: f64,
    /// No task is running: those that wait can be stepped at once.
    pub(crate) may_step: bool,
    /// How many times to look again where nothing is ready.
    pub(crate) patience: u32,
}

/// Who can be stepped now, everything that is no answer, and how many answers found nobody.
type Sorted<'py> = (Vec<Sleeper<'py>>, Option<Bound<'py, PyList>>, u64);

/// Gives answers to the futures that wait for them, and keeps everything else for the link.
fn sorted(py: Python<'_>, received: Vec<Received>) -> PyResult<Sorted<'_>> {
    let mut sleepers = Vec::with_capacity(received.len());
    let mut values = Vec::new();
    let mut missed = 0;
    for item in received {
        match item {
            Received::Answer(waiter, response) if is_future(py, &waiter)? => {
                let response: Bound<'_, Response> = Bound::new(py, response)?;
                match settle(waiter.into_bound(py), &response)? {
                    Settled::Sleeper(sleeper) => sleepers.push(sleeper),
                    Settled::Scheduled => {}
                    Settled::Missed => missed += 1,
                }
            }
            other => values.push(object(py, other)?),
        }
    }
    let values = if values.is_empty() { None } else { Some(PyList::new(py, values)?) };
    Ok((sleepers, values, missed))
}

/// Whether an answer is set as a future's result; any other waiter is the link's to see to.
fn is_future(py: Python<'_>, waiter: &Py<PyAny>) -> PyResult<bool> {
    waiter.bind(py).is_instance(FUTURE.import(py, "asyncio", "Future")?)
}

/// The OSError subclass that Python has for it.
fn os_error(py: Python<'_>, error: &std::io::Error) -> Option<Py<PyAny>> {
    let number = error.raw_os_error().unwrap_or_default();
    let text = py.import("os").and_then(|os| os.call_method1("strerror", (number,))).ok()?;
    py.get_type::<PyOSError>().call1((number, text)).ok().map(Bound::unbind)
}

static FUTURE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Bytes of answers at which a batch of them is written before it is finished, so that the peer has something to do
/// meanwhile; and bytes of requests, which what one batch of answers sets free then fills once.
const ANSWERS_AT: usize = 8 * 1024;
const REQUESTS_AT: usize = 16 * 1024;
/// The same as messages, for small ones: 64 in flight in CBOR would else travel as one batch, and each end wait while
/// the other one works.
const ANSWERS_TOGETHER: u32 = 36;
const REQUESTS_TOGETHER: u32 = 44;
