//! Sockets of the direct link: bytes from and to a descriptor, and one epoll that says which of them is ready.
//!
//! ```text
//!   Poller::wait ─▶ Ready { token, readable, writable } ─▶ Socket::receive ─▶ the core
//!                                                          Socket::send    ◀─ the core
//! ```
//!
//! Nothing here blocks, and nothing knows a protocol, Python or an event loop. Linux alone has an epoll: elsewhere
//! this crate is empty, and every connection stays on its loop's own transport.
//!
//! # Layout
//!
//! - `socket`: one descriptor, owned.
//! - `poller`: the epoll, and the tokens by which a stale event is told from one for the descriptor's next owner.
//!
//! `make sanitize` runs the tests here under `AddressSanitizer`.

#[cfg(target_os = "linux")]
mod poller;
#[cfg(target_os = "linux")]
mod socket;

#[cfg(target_os = "linux")]
pub use poller::{BATCH, Interest, Poller, Ready, Token};
#[cfg(target_os = "linux")]
pub use socket::Socket;
