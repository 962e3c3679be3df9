//! What a chunk completed, between the core and the list that Python gets.
//!
//! While the core is borrowed, [`Delivery`] makes `str` and `bytes` and keeps the rest as Rust; [`list`] makes what can
//! run Python code, or start a collection that does, when the borrow is over.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use sage_ws_core::{CloseCode, DecodeError, Event, MakeBytes, Request};

use crate::errors::{CANCEL, CLOSING, CREDIT, GO_AWAY, PART, PONG, UNDECODABLE, decode_error};
use crate::message::{SecureMessage, Terms};
use crate::response::Response;

/// Who waits for an answer, and the id that they know their message by.
pub(crate) struct Call {
    pub(crate) waiter: Py<PyAny>,
    pub(crate) id: Py<PyString>,
}

/// Events in order, as far as they can be made under the borrow.
pub(crate) struct Delivery<'py> {
    py: Python<'py>,
    received: Vec<Received>,
    /// The strings that one connection's messages mostly have in common, as the message before had them.
    did: Repeated,
    context_id: Repeated,
    task_id: Repeated,
    role: Repeated,
}

/// A string that is made anew only when it differs from the last one.
struct Repeated(Option<Py<PyString>>);

impl Repeated {
    fn text(&mut self, py: Python<'_>, text: &str) -> Py<PyString> {
        match &self.0 {
            Some(last) if last.to_str(py).is_ok_and(|last| last == text) => last.clone_ref(py),
            _ => {
                let fresh = PyString::new(py, text).unbind();
                self.0 = Some(fresh.clone_ref(py));
                fresh
            }
        }
    }
}

pub(crate) enum Received {
    Message(SecureMessage),
    Answer(Py<PyAny>, Response),
    BadAnswer(Py<PyAny>, DecodeError),
    Part(Py<PyAny>, Response),
    Cancel(Py<PyString>),
    Credit(Py<PyString>, u32),
    GoAway(Py<PyString>),
    Undecodable(DecodeError),
    Text(Py<PyString>),
    Binary(Py<PyBytes>),
    Pong(Py<PyBytes>),
    Closing(Option<CloseCode>, String, bool),
}

impl<'py> Delivery<'py> {
    pub(crate) const fn new(py: Python<'py>) -> Self {
        Self {
            py,
            received: Vec::new(),
            did: Repeated(None),
            context_id: Repeated(None),
            task_id: Repeated(None),
            role: Repeated(None),
        }
    }

    fn message(&mut self, request: &mut Request<'_, Py<PyBytes>>) -> SecureMessage {
        let py = self.py;
        SecureMessage::received(
            request.payload.take().unwrap_or_else(|| PyBytes::new(py, b"").unbind()),
            self.did.text(py, &request.did),
            PyString::new(py, &request.id).unbind(),
            request.signature.take().unwrap_or_else(|| PyBytes::new(py, b"").unbind()),
            self.context_id.text(py, &request.context_id),
            self.task_id.text(py, &request.task_id),
            std::mem::take(&mut request.metadata).into_owned(),
            self.role.text(py, &request.role),
            terms(request),
        )
    }

    pub(crate) fn received(self) -> Vec<Received> {
        self.received
    }
}

/// The wire's milliseconds as seconds.
fn terms<B>(request: &Request<'_, B>) -> Option<Box<Terms>> {
    if request.deadline_ms.is_none() && request.credit.is_none() {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // an integer that a double holds
    let remaining = request.deadline_ms.map_or(f64::INFINITY, |milliseconds| milliseconds as f64 / 1000.0);
    Some(Box::new(Terms { remaining, credit: request.credit.unwrap_or_default() }))
}

fn answer(
    py: Python<'_>,
    message_id: Py<PyString>,
    response: &mut sage_ws_core::Response<'_, Py<PyBytes>>,
) -> Response {
    Response {
        success: response.success,
        message_id,
        task_id: PyString::new(py, &response.task_id).unbind(),
        data: response.data.take().unwrap_or_else(|| PyBytes::new(py, b"").unbind()),
        error: PyString::new(py, &response.error).unbind(),
    }
}

impl MakeBytes for Delivery<'_> {
    type Bytes = Py<PyBytes>;

    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Self::Bytes> {
        let mut filled = false;
        let made = PyBytes::new_with(self.py, length, |bytes| {
            filled = fill(bytes);
            Ok(())
        });
        made.ok().filter(|_| filled).map(Bound::unbind)
    }

    // Without the zeros that are written first where somebody else fills.
    fn copy(&mut self, bytes: &[u8]) -> Option<Self::Bytes> {
        Some(PyBytes::new(self.py, bytes).unbind())
    }
}

impl sage_ws_core::Delivery for Delivery<'_> {
    type Waiter = Call;

    fn deliver(&mut self, event: Event<'_, Call, Py<PyBytes>>) {
        let py = self.py;
        let received = match event {
            Event::Request(request) => Received::Message(self.message(request)),
            Event::Answer(call, response) => Received::Answer(call.waiter, answer(py, call.id, response)),
            Event::Part(call, response) => {
                Received::Part(call.waiter.clone_ref(py), answer(py, call.id.clone_ref(py), response))
            }
            Event::Cancel(id) => Received::Cancel(PyString::new(py, id).unbind()),
            Event::Credit(id, count) => Received::Credit(PyString::new(py, id).unbind(), count),
            Event::GoAway(reason) => Received::GoAway(PyString::new(py, reason).unbind()),
            Event::BadAnswer(call, error) => Received::BadAnswer(call.waiter, error),
            Event::Undecodable(error) => Received::Undecodable(error),
            Event::Text(text) => Received::Text(PyString::new(py, text).unbind()),
            Event::Binary(bytes) => Received::Binary(PyBytes::new(py, bytes).unbind()),
            Event::Pong(payload) => Received::Pong(PyBytes::new(py, payload).unbind()),
            Event::Closing { code, reason, by_peer } => Received::Closing(code, reason.to_owned(), by_peer),
        };
        self.received.push(received);
    }
}

/// The list that Python gets.
pub(crate) fn list(py: Python<'_>, received: Vec<Received>) -> PyResult<Bound<'_, PyList>> {
    let mut items = Vec::with_capacity(received.len());
    for item in received {
        items.push(object(py, item)?);
    }
    PyList::new(py, items)
}

pub(crate) fn object(py: Python<'_>, received: Received) -> PyResult<Bound<'_, PyAny>> {
    Ok(match received {
        Received::Message(message) => Bound::new(py, message)?.into_any(),
        Received::Answer(waiter, response) => {
            let response = Bound::new(py, response)?.into_any();
            PyTuple::new(py, [waiter.into_bound(py), response])?.into_any()
        }
        Received::BadAnswer(waiter, error) => {
            PyTuple::new(py, [waiter.into_bound(py), decode_error(py, error)?])?.into_any()
        }
        Received::Part(waiter, response) => PART.get(py)?.call1((waiter, response))?,
        Received::Cancel(id) => CANCEL.get(py)?.call1((id,))?,
        Received::Credit(id, count) => CREDIT.get(py)?.call1((id, count))?,
        Received::GoAway(reason) => GO_AWAY.get(py)?.call1((reason,))?,
        Received::Undecodable(error) => UNDECODABLE.get(py)?.call1((decode_error(py, error)?,))?,
        Received::Text(text) => text.into_bound(py).into_any(),
        Received::Binary(bytes) => bytes.into_bound(py).into_any(),
        Received::Pong(payload) => PONG.get(py)?.call1((payload,))?,
        Received::Closing(code, reason, by_peer) => {
            CLOSING.get(py)?.call1((code.map(CloseCode::get), reason, by_peer))?
        }
    })
}
