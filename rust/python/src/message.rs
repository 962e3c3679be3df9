//! `sage_ws.SecureMessage`: what a user sends and a handler gets.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyMappingProxy, PyString, PyTuple};
use sage_ws_core::{Metadata, Request, uuid4};

use crate::errors::frozen;
use crate::fields::{Argument, metadata_dict, reduced, shown_bytes, shown_text};
use crate::random::System;

/// A request, as its sender builds it and a handler gets it.
///
/// Args:
///     payload: the content; bytes-like is copied.
///     did: the sender's decentralized identifier.
///     id: the correlation key; empty makes a fresh UUID.
///     signature: over whatever sender and receiver agreed on; not checked here.
///     context_id: of the conversation.
///     task_id: of the task.
///     metadata: copied, and read-only afterwards.
///     role: "user" or "agent" by convention.
///
/// Raises:
///     TypeError: for a value of another type.
///     ValueError: for a string with a lone surrogate, which UTF-8 cannot carry.
#[pyclass(frozen, module = "sage_ws")]
pub(crate) struct SecureMessage {
    #[pyo3(get)]
    pub(crate) payload: Py<PyBytes>,
    #[pyo3(get)]
    pub(crate) did: Py<PyString>,
    #[pyo3(get)]
    pub(crate) id: Py<PyString>,
    #[pyo3(get)]
    pub(crate) signature: Py<PyBytes>,
    #[pyo3(get)]
    pub(crate) context_id: Py<PyString>,
    #[pyo3(get)]
    pub(crate) task_id: Py<PyString>,
    #[pyo3(get)]
    pub(crate) role: Py<PyString>,
    entries: Metadata<'static>,
    metadata: PyOnceLock<Py<PyMappingProxy>>,
    terms: Option<Box<Terms>>,
}

/// What an extended peer told beside the message: seconds that are left, and parts that the answer may come in.
pub(crate) struct Terms {
    pub(crate) remaining: f64,
    pub(crate) credit: u32,
}

impl SecureMessage {
    /// Whether its sender told how long it waits, or how many parts it takes.
    pub(crate) const fn has_terms(&self) -> bool {
        self.terms.is_some()
    }

    /// From the wire, where all has its type.
    #[allow(clippy::too_many_arguments)] // the constructor's order
    pub(crate) const fn received(
        payload: Py<PyBytes>,
        did: Py<PyString>,
        id: Py<PyString>,
        signature: Py<PyBytes>,
        context_id: Py<PyString>,
        task_id: Py<PyString>,
        entries: Metadata<'static>,
        role: Py<PyString>,
        terms: Option<Box<Terms>>,
    ) -> Self {
        let metadata = PyOnceLock::new();
        Self { payload, did, id, signature, context_id, task_id, role, entries, metadata, terms }
    }

    /// As the core takes it.
    pub(crate) fn request<'a>(&'a self, py: Python<'a>) -> PyResult<Request<'a, &'a [u8]>> {
        Ok(Request {
            id: Cow::Borrowed(self.id.to_str(py)?),
            context_id: Cow::Borrowed(self.context_id.to_str(py)?),
            task_id: Cow::Borrowed(self.task_id.to_str(py)?),
            payload: Some(self.payload.as_bytes(py)),
            did: Cow::Borrowed(self.did.to_str(py)?),
            signature: Some(self.signature.as_bytes(py)),
            metadata: self.entries.view(),
            role: Cow::Borrowed(self.role.to_str(py)?),
            ..Request::default()
        })
    }

    /// All fields in the constructor's order, metadata as a dict of its own.
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<[Bound<'py, PyAny>; 8]> {
        Ok([
            self.payload.bind(py).clone().into_any(),
            self.did.bind(py).clone().into_any(),
            self.id.bind(py).clone().into_any(),
            self.signature.bind(py).clone().into_any(),
            self.context_id.bind(py).clone().into_any(),
            self.task_id.bind(py).clone().into_any(),
            metadata_dict(py, &self.entries)?.into_any(),
            self.role.bind(py).clone().into_any(),
        ])
    }
}

#[pymethods]
impl SecureMessage {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    const MATCH_ARGS: (&str, &str, &str, &str, &str, &str, &str, &str) = NAMES;

    #[new]
    #[pyo3(
        signature = (
            payload, did, id = Argument(None), signature = Argument(None), context_id = Argument(None),
            task_id = Argument(None), metadata = Argument(None), role = Argument(None)
        ),
        text_signature = "(payload, did, id='', signature=b'', context_id='', task_id='', metadata=..., role='')"
    )]
    #[allow(clippy::too_many_arguments)] // the public face, keywords all
    fn new<'py>(
        py: Python<'py>,
        payload: Argument<'py>,
        did: Argument<'py>,
        id: Argument<'py>,
        signature: Argument<'py>,
        context_id: Argument<'py>,
        task_id: Argument<'py>,
        metadata: Argument<'py>,
        role: Argument<'py>,
    ) -> PyResult<Self> {
        let payload = payload.bytes(py, "payload")?;
        let did = did.text(py, "did")?;
        let id = id.text(py, "id")?;
        let signature = signature.bytes(py, "signature")?;
        let context_id = context_id.text(py, "context_id")?;
        let task_id = task_id.text(py, "task_id")?;
        let entries = metadata.metadata()?;
        let role = role.text(py, "role")?;
        let id = if id.to_str(py)?.is_empty() {
            PyString::new(py, uuid4(&mut System).as_str()).unbind()
        } else {
            id
        };
        let metadata = PyOnceLock::new();
        Ok(Self { payload, did, id, signature, context_id, task_id, role, entries, metadata, terms: None })
    }

    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        let proxy = self.metadata.get_or_try_init(py, || {
            let dict = metadata_dict(py, &self.entries)?;
            Ok::<_, PyErr>(PyMappingProxy::new(py, dict.as_mapping()).unbind())
        })?;
        Ok(proxy.bind(py).clone())
    }

    /// Seconds that are left and parts that may come, where an extended peer told either.
    #[getter]
    fn _terms(&self) -> Option<(f64, u32)> {
        self.terms.as_ref().map(|terms| (terms.remaining, terms.credit))
    }

    /// A copy with other values in some fields; `id=""` gives it a fresh id.
    #[pyo3(signature = (**changes))]
    fn replace<'py>(
        &self,
        py: Python<'py>,
        changes: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keywords = PyDict::new(py);
        for (name, value) in <[&str; 8]>::from(NAMES).into_iter().zip(self.fields(py)?) {
            keywords.set_item(name, value)?;
        }
        if let Some(changes) = changes {
            keywords.update(changes.as_mapping())?;
        }
        py.get_type::<Self>().call((), Some(&keywords))
    }

    /// A copy with other values in some fields; `id=""` gives it a fresh id.
    #[pyo3(signature = (**changes))]
    fn __replace__<'py>(
        &self,
        py: Python<'py>,
        changes: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.replace(py, changes)
    }

    fn __eq__(&self, other: &Self, py: Python<'_>) -> PyResult<bool> {
        let (left, right) = (self.request(py)?, other.request(py)?);
        Ok(left.id == right.id
            && left.context_id == right.context_id
            && left.task_id == right.task_id
            && left.payload == right.payload
            && left.did == right.did
            && left.signature == right.signature
            && left.metadata == right.metadata
            && left.role == right.role)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        let [payload, did, id, signature, context_id, task_id, _, role] = self.fields(py)?;
        PyTuple::new(py, [payload, did, id, signature, context_id, task_id, role])?.hash()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        reduced(py.get_type::<Self>(), PyTuple::new(py, self.fields(py)?)?)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = |text: &Py<PyString>| shown_text(text.bind(py));
        let entries = self.metadata(py)?.len()?;
        Ok(format!(
            "SecureMessage(id={}, did={}, payload={}, signature={}, context_id={}, task_id={}, \
             metadata=<{entries} {}>, role={})",
            text(&self.id)?,
            text(&self.did)?,
            shown_bytes(self.payload.as_bytes(py)),
            shown_bytes(self.signature.as_bytes(py)),
            text(&self.context_id)?,
            text(&self.task_id)?,
            if entries == 1 { "entry" } else { "entries" },
            text(&self.role)?,
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
const NAMES: (&str, &str, &str, &str, &str, &str, &str, &str) =
    ("payload", "did", "id", "signature", "context_id", "task_id", "metadata", "role");
