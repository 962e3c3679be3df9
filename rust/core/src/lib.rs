//! The SAGE WebSocket protocol without I/O: socket bytes in, SAGE values out, and back.
//!
//! What is absent on purpose: sockets, clocks, random sources, Python. `now` is an argument, random bytes come
//! through the one seam [`Random`], and who waits for an answer is a type parameter. Obeyed are RFC 6455 (frames,
//! masking, closing), RFC 7692 (compression), RFC 3629 (UTF-8), RFC 8259 (JSON) and RFC 4648 (base64), the last two as Go reads them.
//!
//! # Layout, in the order in which bytes travel
//!
//! - [`frame`]: a frame's header from and to bytes, with the rules that a header alone can break;
//! - [`mask`]: the payload's masking;
//! - [`utf8`]: text checked piece by piece;
//! - [`deflate`]: messages compressed and inflated, where both ends want that;
//! - [`assemble`]: frames cut out of chunks, fragments joined to messages, sizes bounded;
//! - [`scan`], [`escape`], [`base64`]: JSON's grammar, its strings, and the bytes inside them;
//!   `word` finds where a string stops being plain;
//! - [`wire`] and [`metadata`]: requests and responses from and to JSON;
//! - [`cbor`] and [`extended`]: the same, and what else there is, where both ends are ours;
//! - [`pending`]: who waits for which answer, until when;
//! - [`output`]: ready frames, waiting for the next flush;
//! - [`connection`]: all of the above behind the verbs `receive_data`, `send_…` and `data_to_send`;
//! - [`close`], [`error`], [`random`]: close codes, what can go wrong, ids and masking keys.
//!
//! ```
//! use sage_ws_core::{Connection, Delivery, Event, MakeBytes, Random, Role};
//!
//! struct Print(Vec<String>);
//! impl MakeBytes for Print {
//!     type Bytes = Vec<u8>;
//!     fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
//!         let mut bytes = vec![0; length];
//!         fill(&mut bytes).then_some(bytes)
//!     }
//! }
//! impl Delivery for Print {
//!     type Waiter = ();
//!     fn deliver(&mut self, event: Event<'_, (), Vec<u8>>) {
//!         if let Event::Request(request) = event {
//!             self.0.push(format!("{} from {}", request.id, request.did));
//!         }
//!     }
//! }
//! # struct Zero;
//! # impl Random for Zero { fn fill(&mut self, bytes: &mut [u8]) { bytes.fill(0) } }
//! let mut server = Connection::new(Role::Server, Some(1 << 20), false, Zero);
//! let mut print = Print(Vec::new());
//! let mut buffer = Vec::new();
//! server.receive_data(b"\x81\xab\0\0\0\0{\"id\":\"m-1\",\"did\":\"did", &mut buffer, &mut print);
//! server.receive_data(b":x\",\"payload\":\"aGk=\"}", &mut buffer, &mut print);
//! assert_eq!(print.0, ["m-1 from did:x"]);
//! ```

// A module's main type carries its name: `close::CloseCode` is re-exported below and read without the module.
#![allow(clippy::module_name_repetitions)]

pub mod frame;
pub mod mask;
pub mod utf8;

pub mod assemble;
pub mod deflate;

pub mod base64;
pub mod cbor;
pub mod escape;
pub mod extended;
pub mod metadata;
pub mod scan;
pub mod wire;
mod word;

pub mod output;
pub mod pending;

pub mod connection;

pub mod close;
pub mod error;
pub mod random;

#[cfg(test)]
mod naive;

// The interface: what the binding needs.
pub use close::CloseCode;
pub use connection::{Connection, Counters, Delivery, Event};
pub use error::{DecodeError, SendError, Violation};
pub use extended::Subprotocol;
pub use frame::Role;
pub use metadata::Metadata;
pub use random::{Random, uuid4};
pub use wire::{MakeBytes, Request, Response};
