//! Errors and events are Python's classes, borrowed here by name, and the core's enums are turned into them: the only
//! place that knows both. Texts are the core's (`sage-ws-core`, error.rs).

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};
use sage_ws_core::error::Field;
use sage_ws_core::{DecodeError, SendError};

/// A class of `sage_ws`, looked up at its first use: this module is imported before that package is whole.
pub(crate) struct Class {
    module: &'static str,
    name: &'static str,
    found: PyOnceLock<Py<PyType>>,
}

impl Class {
    const fn new(module: &'static str, name: &'static str) -> Self {
        Self { module, name, found: PyOnceLock::new() }
    }

    pub(crate) fn get<'py>(&'py self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyType>> {
        self.found.import(py, self.module, self.name)
    }
}

pub(crate) static CANCEL: Class = Class::new("sage_ws._core.events", "Cancel");
pub(crate) static CLOSING: Class = Class::new("sage_ws._core.events", "Closing");
pub(crate) static CREDIT: Class = Class::new("sage_ws._core.events", "Credit");
pub(crate) static GO_AWAY: Class = Class::new("sage_ws._core.events", "GoAway");
pub(crate) static PART: Class = Class::new("sage_ws._core.events", "Part");
pub(crate) static PONG: Class = Class::new("sage_ws._core.events", "Pong");
pub(crate) static UNDECODABLE: Class = Class::new("sage_ws._core.events", "Undecodable");

static ANSWERED: Class = Class::new("sage_ws.errors", "AnsweredError");
static CLOSED: Class = Class::new("sage_ws.errors", "ClosedError");
static DECODE: Class = Class::new("sage_ws.errors", "DecodeError");
static DUPLICATE_ID: Class = Class::new("sage_ws.errors", "DuplicateIdError");
static FROZEN: Class = Class::new("dataclasses", "FrozenInstanceError");
static MESSAGE_TOO_BIG: Class = Class::new("sage_ws.errors", "MessageTooBigError");

/// `DecodeError(text, field=…)`.
pub(crate) fn decode_error(py: Python<'_>, error: DecodeError) -> PyResult<Bound<'_, PyAny>> {
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "field"), error.field().map(Field::name))?;
    DECODE.get(py)?.call((error.to_string(),), Some(&keywords))
}

/// What `send_…` raises, about the message with this id if it is one in particular.
pub(crate) fn send_error(
    py: Python<'_>,
    error: SendError,
    message_id: Option<&Bound<'_, PyString>>,
) -> PyErr {
    let class = match error {
        SendError::Closing => &CLOSED,
        SendError::DuplicateId => &DUPLICATE_ID,
        SendError::MessageTooBig(..) | SendError::ResponseTooBig(..) => &MESSAGE_TOO_BIG,
        SendError::PingTooLong
        | SendError::CloseCode(_)
        | SendError::ReasonTooLong
        | SendError::NotExtended => {
            return PyValueError::new_err(error.to_string());
        }
    };
    let raise = || {
        let text = match (error, message_id) {
            (SendError::DuplicateId, Some(id)) => {
                let shown = py.import("sage_ws.errors")?.call_method1("peer_text", (id,))?;
                format!("a message with id {shown} is in flight")
            }
            _ => error.to_string(),
        };
        let keywords = PyDict::new(py);
        keywords.set_item("message_id", message_id)?;
        class.get(py)?.call((text,), Some(&keywords))
    };
    raise().map_or_else(|error| error, PyErr::from_value)
}

/// `AnsweredError(response)`.
pub(crate) fn answered(response: &Bound<'_, PyAny>) -> PyErr {
    raised(&ANSWERED, response)
}

/// `FrozenInstanceError(text)`, whose module is imported only here: it costs milliseconds.
pub(crate) fn frozen(py: Python<'_>, text: &str) -> PyErr {
    raised(&FROZEN, &PyString::new(py, text))
}

fn raised(class: &Class, argument: &Bound<'_, PyAny>) -> PyErr {
    let raise = || class.get(argument.py())?.call1((argument,));
    raise().map_or_else(|error| error, PyErr::from_value)
}
