//! `Connection`: the core's, with arguments extracted and errors mapped.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use sage_ws_core::deflate::{Direction, Parameters};
use sage_ws_core::extended::deadline_ms;
use sage_ws_core::{Role, Subprotocol};

use crate::delivery::{Call, Delivery, list};
use crate::errors::send_error;
use crate::fields::{octets, type_name};
use crate::message::SecureMessage;
use crate::random::System;
use crate::response::Response;
use crate::spare;

/// An open connection, from behind the opening handshake to the close frame.
///
/// Args:
///     role: which endpoint this is, "client" or "server".
///     max_message_size: bytes of one message on the wire, in and out; `None` for no limit.
///     raw: hand out messages as they are (`str` and `bytes`), without reading them as SAGE.
///     subprotocol: what was negotiated: "sage.1.json" or "sage.1.cbor"; `None` is plain SAGE JSON.
///     deflate: what was negotiated (RFC 7692), `None` without compression: window bits and context takeover
///         of what is sent and of what is received, then threshold, level and memory level.
///
/// Raises:
///     ValueError: for another role or subprotocol, or parameters that zlib does not have.
#[pyclass(module = "sage_ws._core._rust")]
pub(crate) struct Connection {
    /// Requests handed out and not answered yet: the caller counts them up, answers count them down.
    #[pyo3(get, set)]
    pub(crate) running: usize,
    /// Messages queued by the socket since it last wrote.
    pub(crate) unwritten: u32,
    /// Each answer is to be given by the link itself: it has more to do then.
    #[pyo3(get, set)]
    pub(crate) watched: bool,
    pub(crate) core: sage_ws_core::Connection<Call, System>,
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(
        signature = (role, *, max_message_size = Some(16_777_216), raw = false, subprotocol = None, deflate = None),
        text_signature = "(role, *, max_message_size=16777216, raw=False, subprotocol=None, deflate=None)"
    )]
    fn new(
        role: &Bound<'_, PyAny>,
        max_message_size: Option<usize>,
        raw: bool,
        subprotocol: Option<&Bound<'_, PyAny>>,
        deflate: Option<Negotiated>,
    ) -> PyResult<Self> {
        let role = match role.extract::<&str>() {
            Ok("client") => Role::Client,
            Ok("server") => Role::Server,
            _ => {
                let role = role.repr()?;
                return Err(PyValueError::new_err(format!("role must be client or server, not {role}")));
            }
        };
        let subprotocol = subprotocol.map(known_subprotocol).transpose()?;
        let mut core =
            sage_ws_core::Connection::new(role, max_message_size, raw, System).speaking(subprotocol);
        if let Some(negotiated) = deflate {
            let parameters = parameters(negotiated);
            if !parameters.are_sound() {
                return Err(PyValueError::new_err("deflate parameters that zlib does not have"));
            }
            core.set_deflate(parameters);
        }
        Ok(Self { running: 0, unwritten: 0, watched: false, core })
    }

    /// Take what one socket read brought.
    ///
    /// Returns:
    ///     Everything that it completed, in order: requests on a server, `(waiter, Response)` on a client,
    ///     or `(waiter, DecodeError)`, both on either end of an extended connection; in raw mode `str` and
    ///     `bytes`; and `sage_ws._core.events`. After `Closing` there is nothing more.
    fn receive_data<'py>(slf: &Bound<'py, Self>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let data = octets(data)?;
        let mut delivery = Delivery::new(py);
        let mut buffer = spare::take();
        slf.try_borrow_mut()?.core.receive_data(data.as_bytes(), &mut buffer, &mut delivery);
        spare::give(buffer);
        list(py, delivery.received())
    }

    /// Send a request; its answer will come with `waiter`.
    ///
    /// Args:
    ///     message: the request.
    ///     waiter: handed back with the answer, untouched.
    ///     deadline: when `expire` gives up on it; infinity for never.
    ///     remaining: seconds that the peer is told it has; infinity for no limit. Extended connections only.
    ///     credit: in how many parts the answer may come; 0 for one answer. Extended connections only.
    ///
    /// Returns:
    ///     Bytes now in the output.
    ///
    /// Raises:
    ///     ClosedError: after a close frame was sent or received.
    ///     DuplicateIdError: while another message with this id is in flight.
    ///     MessageTooBigError: over the limit.
    ///     ValueError: for a credit below 0 or over 4294967295.
    #[pyo3(
        signature = (message, waiter, deadline, remaining = f64::INFINITY, credit = 0),
        text_signature = "($self, message, waiter, deadline, remaining=..., credit=0)"
    )]
    fn send_message(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, SecureMessage>,
        waiter: Py<PyAny>,
        deadline: f64,
        remaining: f64,
        credit: i64,
    ) -> PyResult<usize> {
        let py = slf.py();
        let message = message.get();
        let mut request = message.request(py)?;
        let call = Call { waiter, id: message.id.clone_ref(py) };
        let mut connection = slf.try_borrow_mut()?;
        if connection.core.extended() {
            request.deadline_ms = deadline_ms(remaining);
            request.credit = Some(counted(credit)?).filter(|&credit| credit > 0);
        }
        connection.lend_buffer();
        let sent = connection.core.send_message(&request, call, deadline);
        let buffered = connection.core.buffered();
        drop(connection);
        sent.map(|()| buffered).map_err(|error| send_error(py, error, Some(message.id.bind(py))))
    }

    /// Answer a request; after closing, write nothing.
    ///
    /// Args:
    ///     message: the request.
    ///     reply: the answer; bytes are the data of a success, `None` is a success without data.
    ///     more: it is a part, and further ones follow.
    ///
    /// Returns:
    ///     Bytes now in the output.
    ///
    /// Raises:
    ///     TypeError: for anything else as a reply.
    ///     MessageTooBigError: over the limit.
    ///     ValueError: for a part, on a connection that is not extended.
    #[pyo3(signature = (message, reply, more = false))]
    fn send_response(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, SecureMessage>,
        reply: &Bound<'_, PyAny>,
        more: bool,
    ) -> PyResult<usize> {
        let py = slf.py();
        let Some(mut response) = response(reply)? else {
            let found = type_name(reply)?;
            let text = format!("a handler must return a Response, bytes or None, not {found}");
            return Err(PyTypeError::new_err(text));
        };
        response.more = more;
        let message = message.get();
        let (id, task_id) = (message.id.to_str(py)?, message.task_id.to_str(py)?);
        let mut connection = slf.try_borrow_mut()?;
        connection.lend_buffer();
        let sent = connection.core.send_response(id, task_id, response);
        let buffered = connection.core.buffered();
        drop(connection);
        sent.map(|()| buffered).map_err(|error| send_error(py, error, Some(message.id.bind(py))))
    }

    /// Tell the peer that nobody waits for this answer any more; after closing or in plain, write nothing.
    ///
    /// Returns:
    ///     Bytes now in the output.
    fn send_cancel(&mut self, message_id: &str) -> usize {
        self.lend_buffer();
        self.core.send_cancel(message_id);
        self.core.buffered()
    }

    /// Let the peer send more parts of this answer; after closing or in plain, write nothing.
    ///
    /// Args:
    ///     message_id: the request's.
    ///     count: how many parts more.
    ///
    /// Returns:
    ///     Bytes now in the output.
    ///
    /// Raises:
    ///     ValueError: for a count below 0 or over 4294967295.
    fn send_credit(&mut self, message_id: &str, count: i64) -> PyResult<usize> {
        let count = counted(count)?;
        self.lend_buffer();
        self.core.send_credit(message_id, count);
        Ok(self.core.buffered())
    }

    /// Ask the peer to send its next requests elsewhere; after closing or in plain, write nothing.
    ///
    /// Returns:
    ///     Bytes now in the output.
    #[pyo3(signature = (reason = ""), text_signature = "($self, reason='')")]
    fn send_goaway(&mut self, reason: &str) -> usize {
        self.lend_buffer();
        self.core.send_goaway(reason);
        self.core.buffered()
    }

    /// Send what a Go peer takes for traffic and answers or ignores (wire.md, "Who is still there").
    ///
    /// An extended connection needs none, and writes nothing.
    ///
    /// Returns:
    ///     Bytes now in the output.
    fn send_keepalive(&mut self) -> usize {
        self.core.send_keepalive();
        self.core.buffered()
    }

    /// Send a message as it is: TEXT for `str`, BINARY for `bytes`; after closing, write nothing.
    ///
    /// Returns:
    ///     Bytes now in the output.
    ///
    /// Raises:
    ///     MessageTooBigError: over the limit.
    fn send_raw(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = slf.py();
        let (sent, buffered) = if let Ok(text) = data.cast::<PyString>() {
            let text = text.to_str()?;
            let mut connection = slf.try_borrow_mut()?;
            (connection.core.send_text(text), connection.core.buffered())
        } else {
            let bytes = octets(data)?;
            let mut connection = slf.try_borrow_mut()?;
            (connection.core.send_binary(bytes.as_bytes()), connection.core.buffered())
        };
        sent.map(|()| buffered).map_err(|error| send_error(py, error, None))
    }

    /// Send a ping frame; after closing, write nothing.
    ///
    /// Returns:
    ///     Bytes now in the output.
    ///
    /// Raises:
    ///     ValueError: for a payload that does not fit a control frame.
    #[pyo3(signature = (payload = None), text_signature = "($self, payload=b'')")]
    fn send_ping(slf: &Bound<'_, Self>, payload: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let payload = payload.map(octets).transpose()?;
        let mut connection = slf.try_borrow_mut()?;
        let sent = connection.core.send_ping(payload.as_ref().map_or(&[], |payload| payload.as_bytes()));
        let buffered = connection.core.buffered();
        sent.map(|()| buffered).map_err(|error| send_error(slf.py(), error, None))
    }

    /// Send a close frame, once; later calls write nothing.
    ///
    /// Returns:
    ///     Bytes now in the output.
    ///
    /// Raises:
    ///     ValueError: for a code that may not be sent, or a reason over 123 bytes.
    #[pyo3(signature = (code = Some(1000), reason = ""), text_signature = "($self, code=1000, reason='')")]
    fn send_close(&mut self, py: Python<'_>, code: Option<i64>, reason: &str) -> PyResult<usize> {
        let sent = self.core.send_close(code, reason);
        sent.map(|()| self.core.buffered()).map_err(|error| send_error(py, error, None))
    }

    /// Tell whether the socket takes bytes; while it does not, pongs are counted.
    fn set_blocked(&mut self, blocked: bool) {
        self.core.set_blocked(blocked);
    }

    /// Everything that is to be written, which is then forgotten here.
    fn data_to_send<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let data = self.core.data_to_send();
        let bytes = PyBytes::new(py, &data);
        spare::give(data);
        bytes
    }

    /// Bytes that `data_to_send` would return.
    #[getter]
    fn buffered(&self) -> usize {
        self.core.buffered()
    }

    /// Bytes that came in so far.
    #[getter]
    fn bytes_in(&self) -> u64 {
        self.core.counters().bytes_in
    }

    /// Bytes handed out, or written, so far.
    #[getter]
    fn bytes_out(&self) -> u64 {
        self.core.counters().bytes_out
    }

    /// Nobody waits any more; returns whether somebody did. Its answer will count as late.
    fn forget(slf: &Bound<'_, Self>, message_id: &str) -> PyResult<bool> {
        let call = slf.try_borrow_mut()?.core.forget(message_id);
        Ok(call.is_some())
    }

    /// Remove the messages whose deadline is at or before `now`: waiters and ids, in sending order.
    fn expire<'py>(slf: &Bound<'py, Self>, now: f64) -> PyResult<Bound<'py, PyList>> {
        let calls = slf.try_borrow_mut()?.core.expire(now);
        pairs(slf.py(), calls)
    }

    /// Remove all messages in flight: waiters and ids, in sending order.
    fn abandon<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        let calls = slf.try_borrow_mut()?.core.abandon();
        pairs(slf.py(), calls)
    }

    /// No pending deadline is before it; infinity when nothing is pending.
    #[getter]
    fn earliest(&self) -> f64 {
        self.core.earliest()
    }

    /// Messages in flight.
    #[getter]
    fn pending(&self) -> usize {
        self.core.pending()
    }

    /// Whether a close frame was sent or received, or the connection failed.
    #[getter]
    fn closing(&self) -> bool {
        self.core.closing()
    }

    /// Whether a subprotocol of ours was negotiated.
    #[getter]
    fn extended(&self) -> bool {
        self.core.extended()
    }

    /// Whether a decodable SAGE message has been received.
    #[getter]
    fn spoken(&self) -> bool {
        self.core.spoken()
    }

    /// An answer that was handed out last found nobody: its call had been given up a moment before.
    fn miss(&mut self) {
        self.core.miss(1);
    }

    /// What has happened so far: messages sent, received, late, invalid, dropped, not all understood.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.core.counters();
        let dict = PyDict::new(py);
        dict.set_item("sent", counters.sent)?;
        dict.set_item("received", counters.received)?;
        dict.set_item("late", counters.late)?;
        dict.set_item("invalid", counters.invalid)?;
        dict.set_item("dropped", counters.dropped)?;
        dict.set_item("unknown", counters.unknown)?;
        Ok(dict)
    }

    /// What was sent and received against the role: a server's requests, a client's answers to them.
    fn counters_back<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.core.counters();
        let dict = PyDict::new(py);
        dict.set_item("sent", counters.back_sent)?;
        dict.set_item("received", counters.back_received)?;
        Ok(dict)
    }

    #[allow(clippy::needless_pass_by_value)] // PyO3's signature
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.core.waiters().try_for_each(|call| visit.call(&call.waiter))
    }

    fn __clear__(&mut self) {
        drop(self.core.abandon());
    }
}

impl Connection {
    pub(crate) fn lend_buffer(&mut self) {
        if self.core.buffered() == 0 {
            self.core.lend(spare::take());
        }
    }
}

fn known_subprotocol(name: &Bound<'_, PyAny>) -> PyResult<Subprotocol> {
    let known = name.extract::<&str>().ok().and_then(Subprotocol::new);
    known.map_or_else(
        || {
            let name = name.repr()?;
            let text = format!("subprotocol must be sage.1.json, sage.1.cbor or None, not {name}");
            Err(PyValueError::new_err(text))
        },
        Ok,
    )
}

/// Parts that may come are counted in 32 bits.
fn counted(count: i64) -> PyResult<u32> {
    let refused = || PyValueError::new_err(format!("credit must be from 0 to {}, not {count}", u32::MAX));
    u32::try_from(count).map_err(|_| refused())
}

/// As the constructor has them.
type Negotiated = (u8, bool, u8, bool, usize, u8, u8);

fn parameters(negotiated: Negotiated) -> Parameters {
    let (send_bits, send_takeover, receive_bits, receive_takeover, threshold, level, memory_level) =
        negotiated;
    Parameters {
        send: Direction { window_bits: send_bits, takeover: send_takeover },
        receive: Direction { window_bits: receive_bits, takeover: receive_takeover },
        threshold,
        level,
        memory_level,
    }
}

/// A handler's reply as the core takes it; `None` for what is no reply.
pub(crate) fn response<'a>(
    reply: &'a Bound<'_, PyAny>,
) -> PyResult<Option<sage_ws_core::Response<'a, &'a [u8]>>> {
    let success = sage_ws_core::Response { success: true, ..sage_ws_core::Response::default() };
    Ok(if let Ok(bytes) = reply.cast::<PyBytes>() {
        Some(sage_ws_core::Response { data: Some(bytes.as_bytes()), ..success })
    } else if let Ok(response) = reply.cast_exact::<Response>() {
        Some(response.get().view(reply.py())?)
    } else if reply.is_none() {
        Some(success)
    } else {
        None
    })
}

fn pairs(py: Python<'_>, calls: Vec<Call>) -> PyResult<Bound<'_, PyList>> {
    let mut items = Vec::with_capacity(calls.len());
    for Call { waiter, id } in calls {
        items.push(PyTuple::new(py, [waiter.into_bound(py), id.into_bound(py).into_any()])?);
    }
    PyList::new(py, items)
}
