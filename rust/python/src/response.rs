//! `sage_ws.Response`: what a handler returns and a caller gets.

use std::borrow::Cow;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBoolMethods, PyBytes, PyDict, PyString, PyTuple, PyType};

use crate::errors::{answered, frozen};
use crate::fields::{Argument, reduced, shown_bytes, shown_text, type_name};

/// An answer, as a handler builds it and a caller gets it.
///
/// Args:
///     success: whether the handler did what was asked.
///     message_id: the request's id; the server fills it in where empty.
///     task_id: the request's task; the server fills it in where empty.
///     data: the content; bytes-like is copied.
///     error: what went wrong; with one, the answer never counts as a success.
///
/// Raises:
///     TypeError: for a value of another type.
///     ValueError: for a string with a lone surrogate, which UTF-8 cannot carry.
#[pyclass(frozen, module = "sage_ws")]
pub(crate) struct Response {
    #[pyo3(get)]
    pub(crate) success: bool,
    #[pyo3(get)]
    pub(crate) message_id: Py<PyString>,
    #[pyo3(get)]
    pub(crate) task_id: Py<PyString>,
    #[pyo3(get)]
    pub(crate) data: Py<PyBytes>,
    #[pyo3(get)]
    pub(crate) error: Py<PyString>,
}

impl Response {
    /// As the core takes it.
    pub(crate) fn view<'a>(&'a self, py: Python<'a>) -> PyResult<sage_ws_core::Response<'a, &'a [u8]>> {
        Ok(sage_ws_core::Response {
            success: self.success,
            message_id: Cow::Borrowed(self.message_id.to_str(py)?),
            task_id: Cow::Borrowed(self.task_id.to_str(py)?),
            data: Some(self.data.as_bytes(py)),
            error: Cow::Borrowed(self.error.to_str(py)?),
            more: false,
        })
    }

    /// All fields in the constructor's order.
    fn fields<'py>(&self, py: Python<'py>) -> [Bound<'py, PyAny>; 5] {
        [
            PyBool::new(py, self.success).to_owned().into_any(),
            self.message_id.bind(py).clone().into_any(),
            self.task_id.bind(py).clone().into_any(),
            self.data.bind(py).clone().into_any(),
            self.error.bind(py).clone().into_any(),
        ]
    }
}

#[pymethods]
impl Response {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    const MATCH_ARGS: (&str, &str, &str, &str, &str) = NAMES;

    #[new]
    #[pyo3(
        signature = (
            success = Argument(None), message_id = Argument(None), task_id = Argument(None),
            data = Argument(None), error = Argument(None)
        ),
        text_signature = "(success=True, message_id='', task_id='', data=b'', error='')"
    )]
    fn new<'py>(
        py: Python<'py>,
        success: Argument<'py>,
        message_id: Argument<'py>,
        task_id: Argument<'py>,
        data: Argument<'py>,
        error: Argument<'py>,
    ) -> PyResult<Self> {
        let success = match success.0 {
            None => true,
            Some(value) => value.cast_exact::<PyBool>().map(PyBoolMethods::is_true).or_else(|_| {
                let found = type_name(&value)?;
                Err(PyTypeError::new_err(format!("success must be bool, not {found}")))
            })?,
        };
        Ok(Self {
            success,
            message_id: message_id.text(py, "message_id")?,
            task_id: task_id.text(py, "task_id")?,
            data: data.bytes(py, "data")?,
            error: error.text(py, "error")?,
        })
    }

    /// An answer that says no, with the text that the caller will read.
    #[classmethod]
    #[pyo3(signature = (error, *, data = Argument(None)), text_signature = "($cls, error, *, data=b'')")]
    fn failure<'py>(class: &Bound<'py, PyType>, error: Argument<'py>, data: Argument<'py>) -> PyResult<Self> {
        let absent = || Argument(None);
        let failed = PyBool::new(class.py(), false).to_owned().into_any();
        Self::new(class.py(), Argument(Some(failed)), absent(), absent(), data, error)
    }

    /// Itself, for chaining.
    ///
    /// Raises:
    ///     AnsweredError: when `success` is false.
    fn raise_for_error(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        if slf.get().success { Ok(slf) } else { Err(answered(&slf)) }
    }

    /// A copy with other values in some fields.
    #[pyo3(signature = (**changes))]
    fn __replace__<'py>(
        &self,
        py: Python<'py>,
        changes: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keywords = PyDict::new(py);
        for (name, value) in <[&str; 5]>::from(NAMES).into_iter().zip(self.fields(py)) {
            keywords.set_item(name, value)?;
        }
        if let Some(changes) = changes {
            keywords.update(changes.as_mapping())?;
        }
        py.get_type::<Self>().call((), Some(&keywords))
    }

    fn __eq__(&self, other: &Self, py: Python<'_>) -> PyResult<bool> {
        let (left, right) = (self.view(py)?, other.view(py)?);
        Ok(left.success == right.success
            && left.message_id == right.message_id
            && left.task_id == right.task_id
            && left.data == right.data
            && left.error == right.error)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyTuple::new(py, self.fields(py))?.hash()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        reduced(py.get_type::<Self>(), PyTuple::new(py, self.fields(py))?)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Response(success={}, message_id={}, task_id={}, data={}, error={})",
            if self.success { "True" } else { "False" },
            shown_text(self.message_id.bind(py))?,
            shown_text(self.task_id.bind(py))?,
            shown_bytes(self.data.as_bytes(py)),
            shown_text(self.error.bind(py))?,
        ))
    }

    fn __setattr__(&self, name: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(frozen(name.py(), &format!("cannot assign to field {}", name.repr()?)))
    }

    fn __delattr__(&self, name: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(frozen(name.py(), &format!("cannot delete field {}", name.repr()?)))
    }
}

/// In the constructor's order.
const NAMES: (&str, &str, &str, &str, &str) = ("success", "message_id", "task_id", "data", "error");
