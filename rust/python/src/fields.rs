//! What a caller may give for a field, checked and brought to the type that is kept, and how a field is shown.

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyMapping, PyMemoryView, PyString, PyTuple};
use sage_ws_core::Metadata;

/// An argument that was given, whatever it is; or was not.
pub(crate) struct Argument<'py>(pub(crate) Option<Bound<'py, PyAny>>);

impl<'py> FromPyObject<'_, 'py> for Argument<'py> {
    type Error = std::convert::Infallible;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self(Some(value.to_owned())))
    }
}

impl<'py> Argument<'py> {
    /// Bytes, a bytearray or memoryview copied; empty if it was not given.
    pub(crate) fn bytes(self, py: Python<'py>, name: &str) -> PyResult<Py<PyBytes>> {
        let Some(value) = self.0 else { return Ok(PyBytes::new(py, b"").unbind()) };
        match value.cast_into_exact::<PyBytes>() {
            Ok(bytes) => Ok(bytes.unbind()),
            Err(error) => copied_bytes(&error.into_inner(), name),
        }
    }

    /// A string that UTF-8 can carry; empty if it was not given.
    pub(crate) fn text(self, py: Python<'py>, name: &str) -> PyResult<Py<PyString>> {
        let Some(value) = self.0 else { return Ok(PyString::new(py, "").unbind()) };
        let Ok(text) = value.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!("{name} must be str, not {}", type_name(&value)?)));
        };
        match text.to_str() {
            // A subclass's instance is not kept: it could hold references, and change its mind about itself.
            Ok(text) if !value.is_exact_instance_of::<PyString>() => Ok(PyString::new(py, text).unbind()),
            Ok(_) => Ok(text.clone().unbind()),
            Err(error) => Err(lone_surrogate(py, error, name)),
        }
    }

    /// Any mapping of strings to strings; empty if it was not given.
    pub(crate) fn metadata(self) -> PyResult<Metadata<'static>> {
        let Some(value) = self.0 else { return Ok(Metadata::default()) };
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            return entries(dict.iter().map(Ok));
        }
        let Ok(mapping) = value.cast::<PyMapping>() else {
            return Err(PyTypeError::new_err(format!(
                "metadata must be a mapping, not {}",
                type_name(&value)?
            )));
        };
        entries(mapping.items()?.iter().map(|item| item.extract()))
    }
}

fn entries<'py>(
    items: impl Iterator<Item = PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)>>,
) -> PyResult<Metadata<'static>> {
    let mut entries = Vec::new();
    for item in items {
        let (key, value) = item?;
        let (Ok(key), Ok(value)) = (key.cast_into::<PyString>(), value.cast_into::<PyString>()) else {
            return Err(PyTypeError::new_err("metadata must map str to str"));
        };
        entries.push((key, value));
    }
    let texts = entries.iter().map(|(key, value)| Ok((key.to_str()?, value.to_str()?)));
    match texts.collect::<PyResult<Vec<_>>>() {
        Ok(pairs) => Ok(Metadata::from_pairs(pairs)),
        Err(_) => Err(PyValueError::new_err("metadata holds a lone surrogate")),
    }
}

/// The entries as a dict, each key with its last value.
pub(crate) fn metadata_dict<'py>(py: Python<'py>, metadata: &Metadata<'_>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let mut outcome = Ok(());
    metadata.for_each(|key, value| {
        if outcome.is_ok() {
            outcome = dict.set_item(key, value);
        }
    });
    outcome.map(|()| dict)
}

#[cold]
fn copied_bytes(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Py<PyBytes>> {
    let bytes_like = value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyMemoryView>();
    if bytes_like {
        return octets(value).map(Bound::unbind);
    }
    Err(PyTypeError::new_err(format!("{name} must be bytes, not {}", type_name(value)?)))
}

#[cold]
fn lone_surrogate(py: Python<'_>, error: PyErr, name: &str) -> PyErr {
    if !error.is_instance_of::<PyUnicodeEncodeError>(py) {
        return error;
    }
    match error.value(py).getattr("start") {
        Ok(start) => PyValueError::new_err(format!("{name} holds a lone surrogate at character {start}")),
        Err(error) => error,
    }
}

/// The bytes of anything that has a buffer; `bytes` itself is not copied.
///
/// # Errors
///
/// What `memoryview` raises for anything else.
pub(crate) fn octets<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return Ok(bytes.clone());
    }
    let view = PyMemoryView::from(value)?;
    Ok(value.py().get_type::<PyBytes>().call1((view,))?.cast_into()?)
}

pub(crate) fn type_name<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    value.get_type().name()
}

/// A string as a repr shows it: cut where it is long.
pub(crate) fn shown_text(text: &Bound<'_, PyString>) -> PyResult<String> {
    let cut = text.get_item(pyo3::types::PySlice::new(text.py(), 0, REPR_LIMIT, 1))?;
    let ellipsis = if text.len()? > REPR_LIMIT.unsigned_abs() { "…" } else { "" };
    Ok(format!("{}{ellipsis}", cut.repr()?))
}

/// Bytes as a repr shows them: it elides them.
pub(crate) fn shown_bytes(bytes: &[u8]) -> String {
    format!("<{} byte{}>", bytes.len(), if bytes.len() == 1 { "" } else { "s" })
}

/// `(type, fields)` for pickle and copy.
pub(crate) fn reduced<'py>(
    class: Bound<'py, pyo3::types::PyType>,
    fields: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(class.py(), [class.into_any(), fields.into_any()])
}

const REPR_LIMIT: isize = 200;
