//! The JSON form of messages and responses as plain functions: what the HTTP transport needs, and the vectors bind.
//! Tuples are in the wire's order.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMapping, PyString};
use sage_ws_core::{DecodeError, Request, Response, utf8, wire};

use crate::delivery::Delivery;
use crate::errors::decode_error;
use crate::fields::{Argument, metadata_dict, octets};

type Message<'py> = (
    Bound<'py, PyString>,
    Bound<'py, PyString>,
    Bound<'py, PyString>,
    Bound<'py, PyBytes>,
    Bound<'py, PyString>,
    Bound<'py, PyBytes>,
    Bound<'py, PyDict>,
    Bound<'py, PyString>,
);

type Answer<'py> =
    (bool, Bound<'py, PyString>, Bound<'py, PyString>, Bound<'py, PyBytes>, Bound<'py, PyString>);

/// A message's JSON to its fields, in the wire's order; what is absent is empty.
///
/// Raises:
///     DecodeError: for anything but one JSON object with the right types; `field` names the key.
#[pyfunction]
pub(crate) fn decode_message<'py>(py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Message<'py>> {
    let data = octets(data)?;
    let mut request = Request::default();
    text(data.as_bytes())
        .and_then(|text| wire::decode_request(text, &mut Delivery::new(py), &mut request))
        .map_err(|error| raised(py, error))?;
    Ok((
        PyString::new(py, &request.id),
        PyString::new(py, &request.context_id),
        PyString::new(py, &request.task_id),
        bytes(py, request.payload),
        PyString::new(py, &request.did),
        bytes(py, request.signature),
        metadata_dict(py, &request.metadata)?,
        PyString::new(py, &request.role),
    ))
}

/// A response's JSON to its fields, in the wire's order; what is absent is empty or false.
///
/// Raises:
///     DecodeError: for anything but one JSON object with the right types; `field` names the key.
#[pyfunction]
pub(crate) fn decode_response<'py>(py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Answer<'py>> {
    let data = octets(data)?;
    let mut response = Response::default();
    text(data.as_bytes())
        .and_then(|text| wire::decode_response(text, &mut Delivery::new(py), &mut response))
        .map_err(|error| raised(py, error))?;
    Ok((
        response.success,
        PyString::new(py, &response.message_id),
        PyString::new(py, &response.task_id),
        bytes(py, response.data),
        PyString::new(py, &response.error),
    ))
}

/// A message's JSON as Go writes it, final newline included.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // the wire's table
pub(crate) fn encode_message<'py>(
    py: Python<'py>,
    id: &str,
    context_id: &str,
    task_id: &str,
    payload: &[u8],
    did: &str,
    signature: &[u8],
    metadata: &Bound<'py, PyMapping>,
    role: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let request = Request {
        id: Cow::Borrowed(id),
        context_id: Cow::Borrowed(context_id),
        task_id: Cow::Borrowed(task_id),
        payload: Some(payload),
        did: Cow::Borrowed(did),
        signature: Some(signature),
        metadata: Argument(Some(metadata.clone().into_any())).metadata()?,
        role: Cow::Borrowed(role),
        ..Request::default()
    };
    let mut json = Vec::with_capacity(request.size_hint());
    wire::encode_request(&request, &mut json);
    Ok(PyBytes::new(py, &json))
}

/// A response's JSON as Go writes it, final newline included.
#[pyfunction]
pub(crate) fn encode_response<'py>(
    py: Python<'py>,
    success: bool,
    message_id: &str,
    task_id: &str,
    data: &[u8],
    error: &str,
) -> Bound<'py, PyBytes> {
    let response = Response {
        success,
        message_id: Cow::Borrowed(message_id),
        task_id: Cow::Borrowed(task_id),
        data: Some(data),
        error: Cow::Borrowed(error),
        more: false,
    };
    let mut json = Vec::with_capacity(response.size_hint());
    wire::encode_response(&response, &mut json);
    PyBytes::new(py, &json)
}

fn text(data: &[u8]) -> Result<&str, DecodeError> {
    utf8::whole(data).ok_or_else(|| DecodeError::NotUtf8(utf8::first_bad(data)))
}

fn bytes(py: Python<'_>, bytes: Option<Py<PyBytes>>) -> Bound<'_, PyBytes> {
    bytes.map_or_else(|| PyBytes::new(py, b""), |bytes| bytes.into_bound(py))
}

fn raised(py: Python<'_>, error: DecodeError) -> PyErr {
    decode_error(py, error).map_or_else(|error| error, PyErr::from_value)
}
