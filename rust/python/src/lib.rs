//! `sage_ws._core._rust`, the extension module: the only place of PyO3, and no algorithms.
//!
//! Python crosses into Rust once per socket read ([`Connection::receive_data`]), once per message sent and once per
//! flush ([`Connection::data_to_send`]); never per frame, field or string.
//!
//! While a connection's core is mutably borrowed nothing runs that could come back to it: `str` and `bytes` are made
//! (they hold no references, so that no collection can start), but lists, tuples, values, errors and events only when
//! the borrow is over. What a caller hands in is dropped after it too.
//!
//! The GIL is asked for (`gil_used`): on a free-threaded interpreter importing this module switches it on.
//!
//! [`Connection::receive_data`]: connection::Connection
//! [`Connection::data_to_send`]: connection::Connection

// What PyO3 calls has PyO3's shape: receivers that are not looked at, arguments by value. And what stands above it
// is a docstring, which names things as Python does.
#![allow(clippy::unused_self, clippy::needless_pass_by_value, clippy::doc_markdown)]

use pyo3::prelude::*;

/// The native core of sage_ws.
#[pymodule(gil_used = true)]
mod _rust {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::codec::{decode_message, decode_response, encode_message, encode_response};
    #[pymodule_export]
    use super::connection::Connection;
    #[pymodule_export]
    use super::dispatch::Dispatch;
    #[pymodule_export]
    use super::message::SecureMessage;
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use super::poller::Poller;
    #[pymodule_export]
    use super::response::Response;
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use super::socket::Socket;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::random::forget_after_fork(module.py())
    }
}

mod codec;
mod connection;
mod delivery;
mod dispatch;
mod errors;
mod fields;
mod message;
#[cfg(target_os = "linux")]
mod poller;
mod random;
mod response;
#[cfg(target_os = "linux")]
mod socket;
mod spare;
mod stepping;
#[cfg(target_os = "linux")]
mod wake;
