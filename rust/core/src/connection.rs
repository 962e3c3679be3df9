//! One endpoint of an open WebSocket connection that carries SAGE: bytes in, events out; values in, frames out.
//!
//! ```text
//!   chunk ─ receive_data ─▶ assemble ─▶ wire ─▶ pending ─▶ Delivery
//!   value ─ send_… ───────▶ wire ─▶ output ─ data_to_send ─▶ bytes
//! ```
//!
//! After a close frame nothing but pongs is written (RFC 6455 §5.5.1); after the `Closing` event nothing more is read.
//!
//! Over 500 lines: reading is one loop over one state; what only writes stands in `send` and `extended`.

mod extended;
mod send;

use std::borrow::Cow;

use crate::assemble::{Assembler, Whole};
use crate::close::CloseCode;
use crate::deflate::{Deflater, Inflater, Parameters};
use crate::error::{DecodeError, Violation};
use crate::extended::Subprotocol;
use crate::frame::{Opcode, Role};
use crate::output::Output;
use crate::pending::Pending;
use crate::random::Random;
use crate::utf8;
use crate::wire::{self, MakeBytes, Request, Response};

/// What a chunk completed.
#[derive(Debug)]
pub enum Event<'a, W, B> {
    /// A request to dispatch.
    Request(&'a mut Request<'a, B>),
    /// The answer to the message of this waiter.
    Answer(W, &'a mut Response<'a, B>),
    /// A part of the answer to the message of this waiter, which goes on waiting.
    Part(&'a W, &'a mut Response<'a, B>),
    /// The peer does not wait any more for the answer to the message with this id.
    Cancel(&'a str),
    /// The peer takes so many further parts of the answer to the message with this id.
    Credit(&'a str, u32),
    /// The peer will not take further messages on this connection for long, for this reason.
    GoAway(&'a str),
    /// The answer to the message of this waiter, but it cannot be decoded.
    BadAnswer(W, DecodeError),
    /// A message that cannot be decoded and belongs to no call.
    Undecodable(DecodeError),
    /// A text message, in raw mode.
    Text(&'a str),
    /// A binary message, in raw mode.
    Binary(&'a [u8]),
    /// A pong's payload.
    Pong(&'a [u8]),
    /// The last event: the peer's close frame, or ours for a rule that it broke.
    Closing {
        /// `None`: the peer's close frame has none.
        code: Option<CloseCode>,
        /// The peer's reason, or ours.
        reason: &'a str,
        /// Whether the peer sent a close frame.
        by_peer: bool,
    },
}

/// Who takes the events. It must not call the connection: events come while a chunk is worked through.
pub trait Delivery: MakeBytes {
    /// Who waits for an answer; the core never looks inside.
    type Waiter;

    /// Takes one event; what it borrows ends with the call.
    fn deliver(&mut self, event: Event<'_, Self::Waiter, Self::Bytes>);
}

/// What was counted since the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// What this role sends: a client's messages, a server's responses, each counted by its last part.
    pub sent: u64,
    /// What this role gets: a client's answers, as far as somebody waited; a server's requests.
    pub received: u64,
    /// The same of the other direction, where a server asks and a client answers.
    pub back_sent: u64,
    /// As `received`, of the other direction.
    pub back_received: u64,
    /// Answers that nobody awaited, or not any more.
    pub late: u64,
    /// Messages that could not be decoded, or lacked what they must have.
    pub invalid: u64,
    /// Requests that came after a close frame was sent, and responses that would have followed it.
    pub dropped: u64,
    /// Messages of an unknown kind, or with unknown fields, on extended connections.
    pub unknown: u64,
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Bytes that were handed out, or written from where they are.
    pub bytes_out: u64,
}

/// See the module.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // independent facts: each has its own event
pub struct Connection<W, R> {
    role: Role,
    raw: bool,
    /// `None`: plain SAGE JSON.
    subprotocol: Option<Subprotocol>,
    limit: Option<usize>,
    random: R,
    assembler: Assembler,
    output: Output,
    /// Where compression was negotiated.
    deflater: Option<Box<Deflater>>,
    pending: Pending<W>,
    counters: Counters,
    /// A close frame was queued: nothing may follow it.
    closed: bool,
    /// `Closing` was delivered: nothing more is read.
    ended: bool,
    spoken: bool,
    blocked: bool,
    blocked_pongs: u32,
    undecodable: u32,
    /// The DID of the last message, for keepalives, and their ids, whose answers nobody awaits.
    did: Box<str>,
    keepalives: Vec<Box<str>>,
}

// ── build ──────────────────────────────────────────────────────────────────────────────────────────────────────

impl<W, R: Random> Connection<W, R> {
    /// An open connection. `limit` bounds a message's bytes on the wire, in and out; with `raw`, messages are
    /// handed on unparsed.
    pub fn new(role: Role, limit: Option<usize>, raw: bool, random: R) -> Self {
        Self {
            role,
            raw,
            subprotocol: None,
            limit,
            random,
            assembler: Assembler::new(role, limit),
            output: Output::new(role),
            deflater: None,
            pending: Pending::default(),
            counters: Counters::default(),
            closed: false,
            ended: false,
            spoken: false,
            blocked: false,
            blocked_pongs: 0,
            undecodable: 0,
            did: Box::default(),
            keepalives: Vec::new(),
        }
    }

    /// The same, with messages as this subprotocol has them.
    #[must_use]
    pub fn speaking(self, subprotocol: Option<Subprotocol>) -> Self {
        Self { subprotocol, ..self }
    }

    /// permessage-deflate was negotiated, with [sound](Parameters::are_sound) parameters: to be told before anything
    /// is sent or received. The limit is of messages as they are before and behind compression.
    pub fn set_deflate(&mut self, parameters: Parameters) {
        self.assembler.set_inflater(Inflater::new(parameters.receive));
        self.deflater = Some(Box::new(Deflater::new(parameters)));
    }
}

// ── receive ────────────────────────────────────────────────────────────────────────────────────────────────────

impl<W, R: Random> Connection<W, R> {
    /// Takes one socket read and delivers, in order, everything that it completed. `buffer` is scratch: what was in
    /// it is gone, and with large messages it may be another one afterwards.
    pub fn receive_data<D: Delivery<Waiter = W>>(&mut self, data: &[u8], buffer: &mut Vec<u8>, to: &mut D) {
        self.counters.bytes_in += data.len() as u64;
        let mut rest = data;
        while !self.ended {
            let received = match self.assembler.advance(&mut rest, buffer) {
                Ok(None) => return,
                Ok(Some(Whole { opcode, payload })) => self.receive(opcode, payload.unwrap_or(buffer), to),
                Err(violation) => Err(violation),
            };
            if let Err(violation) = received {
                self.fail(violation, to);
            }
        }
    }

    fn receive<D: Delivery<Waiter = W>>(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        to: &mut D,
    ) -> Result<(), Violation> {
        match opcode {
            Opcode::Ping => self.pong(payload),
            Opcode::Pong => {
                to.deliver(Event::Pong(payload));
                Ok(())
            }
            Opcode::Close => self.receive_close(payload, to),
            Opcode::Text => match utf8::whole(payload) {
                Some(text) => self.receive_message(Ok(text), to),
                None => Err(Violation::TextNotUtf8),
            },
            Opcode::Binary | Opcode::Continuation => self.receive_message(Err(payload), to),
        }
    }

    /// A text message's text, or a binary one's bytes.
    fn receive_message<D: Delivery<Waiter = W>>(
        &mut self,
        message: Result<&str, &[u8]>,
        to: &mut D,
    ) -> Result<(), Violation> {
        if self.closed && self.role == Role::Server && self.subprotocol.is_none() {
            self.counters.dropped += 1;
            return Ok(());
        }
        if self.raw {
            to.deliver(message.map_or_else(Event::Binary, Event::Text));
            return Ok(());
        }
        if let Some(subprotocol) = self.subprotocol {
            return self.receive_extended(subprotocol, message, to);
        }
        let text = message
            .or_else(|bytes| utf8::whole(bytes).ok_or_else(|| DecodeError::NotUtf8(utf8::first_bad(bytes))));
        match self.role {
            Role::Server => self.receive_request(text, to),
            Role::Client => {
                self.receive_response(text, to);
                Ok(())
            }
        }
    }

    fn receive_request<D: Delivery<Waiter = W>>(
        &mut self,
        text: Result<&str, DecodeError>,
        to: &mut D,
    ) -> Result<(), Violation> {
        let mut request = Request::default();
        let decoded = text.and_then(|text| wire::decode_request(text, to, &mut request));
        if let Err(error) = decoded {
            return self.refuse_undecodable(error, to);
        }
        self.spoken = true;
        self.undecodable = 0;
        self.deliver_request(&mut request, to);
        Ok(())
    }

    /// Answers what cannot be decoded.
    #[cold]
    fn refuse_undecodable<D: Delivery<Waiter = W>>(
        &mut self,
        error: DecodeError,
        to: &mut D,
    ) -> Result<(), Violation> {
        self.refuse("", "", &error.to_string());
        self.undecodable += 1;
        to.deliver(Event::Undecodable(error));
        if self.undecodable < 3 { Ok(()) } else { Err(Violation::ThreeUndecodable) }
    }

    /// Hands a request on that has what it must have, and answers any other.
    #[inline]
    fn deliver_request<'a, D: Delivery<Waiter = W>>(
        &mut self,
        request: &'a mut Request<'a, D::Bytes>,
        to: &mut D,
    ) where
        W: 'a,
    {
        let (id, task_id) = (&request.id, &request.task_id);
        if id.is_empty() {
            self.refuse("", "", "message ID is required");
        } else if request.did.is_empty() {
            self.refuse(id, task_id, "DID is required");
        } else if request.payload.is_none() {
            self.refuse(id, task_id, "payload is required");
        } else {
            self.count_received(Role::Server, 1);
            to.deliver(Event::Request(request));
        }
    }

    /// Answers a request that is not dispatched.
    #[cold]
    fn refuse(&mut self, message_id: &str, task_id: &str, error: &str) {
        self.counters.invalid += 1;
        let response = Response::<&[u8]> {
            success: false,
            message_id: Cow::Borrowed(message_id),
            task_id: Cow::Borrowed(task_id),
            error: Cow::Borrowed(error),
            ..Response::default()
        };
        self.write_response(&response);
    }

    fn receive_response<D: Delivery<Waiter = W>>(&mut self, text: Result<&str, DecodeError>, to: &mut D) {
        let mut response = Response::default();
        let decoded = text.and_then(|text| wire::decode_response(text, to, &mut response));
        if let Err(error) = decoded {
            self.counters.invalid += 1;
            // Of JSON that is not sound nothing is believed, its message id neither.
            let call = if error.is_sound_json() { self.pending.remove(&response.message_id) } else { None };
            to.deliver(match call {
                Some((waiter, _)) => Event::BadAnswer(waiter, error),
                None => Event::Undecodable(error),
            });
            return;
        }
        self.spoken = true;
        let Some((waiter, key)) = self.pending.remove(&response.message_id) else {
            // A server's keepalive is a success that answers no message.
            let keepalive = response.message_id.is_empty() && response.success;
            if !keepalive && !self.forget_keepalive(&response.message_id) {
                self.counters.late += 1;
            }
            return;
        };
        self.counters.received += 1;
        response.success &= response.error.is_empty();
        if response.task_id.is_empty() {
            response.task_id = Cow::Owned(key.task_id().to_owned());
        }
        to.deliver(Event::Answer(waiter, &mut response));
    }

    fn forget_keepalive(&mut self, message_id: &str) -> bool {
        let found = self.keepalives.iter().position(|id| **id == *message_id);
        found.map(|index| self.keepalives.remove(index)).is_some()
    }

    fn pong(&mut self, payload: &[u8]) -> Result<(), Violation> {
        if self.blocked {
            self.blocked_pongs += 1;
            if self.blocked_pongs > BLOCKED_PONGS {
                return Err(Violation::TooManyPings);
            }
        }
        // Our own close frame does not excuse us from this, the peer's would (§5.5.2).
        self.output.frame(Opcode::Pong, payload, &mut self.random);
        Ok(())
    }

    /// RFC 6455 §5.5.1: a code and a reason, or neither; the code is echoed once.
    fn receive_close<D: Delivery<Waiter = W>>(
        &mut self,
        payload: &[u8],
        to: &mut D,
    ) -> Result<(), Violation> {
        let (code, reason) = match *payload {
            [] => (None, ""),
            [_] => return Err(Violation::CloseOneByte),
            [high, low, ref reason @ ..] => {
                let number = u16::from_be_bytes([high, low]);
                let code = CloseCode::new(number).ok_or(Violation::CloseCode(number))?;
                (Some(code), utf8::whole(reason).ok_or(Violation::ReasonNotUtf8)?)
            }
        };
        self.write_close(code, "");
        self.end();
        to.deliver(Event::Closing { code, reason, by_peer: true });
        Ok(())
    }

    /// Fails the connection (§7.1.7).
    #[cold]
    fn fail<D: Delivery<Waiter = W>>(&mut self, violation: Violation, to: &mut D) {
        let reason = violation.to_string();
        self.write_close(Some(violation.code()), &reason);
        self.end();
        to.deliver(Event::Closing { code: Some(violation.code()), reason: &reason, by_peer: false });
    }

    fn end(&mut self) {
        self.ended = true;
        self.assembler.release();
    }
}

// ── fetch output ───────────────────────────────────────────────────────────────────────────────────────────────

impl<W, R> Connection<W, R> {
    /// Gives an empty buffer for the output, which [`Self::data_to_send`] will hand out; used if none is in use.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        self.output.lend(buffer);
    }

    /// All that is to be sent.
    pub fn data_to_send(&mut self) -> Vec<u8> {
        let data = self.output.take();
        self.counters.bytes_out += data.len() as u64;
        data
    }

    /// All that is to be sent, to be written from where it is; then [`Self::written`] says how much was.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.waiting()
    }

    /// The first `length` bytes of [`Self::output`] were written. Gives the buffer back that has become empty.
    pub fn written(&mut self, length: usize) -> Option<Vec<u8>> {
        self.counters.bytes_out += length as u64;
        self.output.written(length)
    }

    /// How many bytes that is.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.output.len()
    }
}

// ── who waits ──────────────────────────────────────────────────────────────────────────────────────────────────

impl<W, R> Connection<W, R> {
    /// Gives up a call. Its answer, should it come, is late.
    pub fn forget(&mut self, message_id: &str) -> Option<W> {
        self.pending.remove(message_id).map(|(waiter, _)| waiter)
    }

    /// Takes out the waiters whose time is up, in sending order.
    pub fn expire(&mut self, now: f64) -> Vec<W> {
        self.pending.expire(now)
    }

    /// Takes out all waiters, in sending order.
    pub fn abandon(&mut self) -> Vec<W> {
        self.pending.abandon()
    }

    /// A lower bound of all deadlines.
    #[must_use]
    pub const fn earliest(&self) -> f64 {
        self.pending.earliest()
    }

    /// How many calls there are.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Who waits, in no order.
    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        self.pending.waiters()
    }
}

// ── state ──────────────────────────────────────────────────────────────────────────────────────────────────────

impl<W, R> Connection<W, R> {
    /// Whether a close frame was sent or received, or the connection failed.
    #[must_use]
    pub const fn closing(&self) -> bool {
        self.closed
    }

    /// Whether a subprotocol of ours was negotiated.
    #[must_use]
    pub const fn extended(&self) -> bool {
        self.subprotocol.is_some()
    }

    /// Whether a SAGE message came that could be decoded.
    #[must_use]
    pub const fn spoken(&self) -> bool {
        self.spoken
    }

    /// The answers that were delivered last found nobody: their calls had been given up a moment before.
    pub const fn miss(&mut self, answers: u64) {
        match self.role {
            Role::Client => self.counters.received -= answers,
            Role::Server => self.counters.back_received -= answers,
        }
        self.counters.late += answers;
    }

    /// Something came that in plain SAGE the role `of` gets.
    const fn count_received(&mut self, of: Role, count: u64) {
        match (of, self.role) {
            (Role::Client, Role::Client) | (Role::Server, Role::Server) => self.counters.received += count,
            _ => self.counters.back_received += count,
        }
    }

    /// Something was encoded that in plain SAGE the role `of` sends.
    const fn count_sent(&mut self, of: Role) {
        match (of, self.role) {
            (Role::Client, Role::Client) | (Role::Server, Role::Server) => self.counters.sent += 1,
            _ => self.counters.back_sent += 1,
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }
}

/// Pongs that may be queued while our bytes are stuck.
const BLOCKED_PONGS: u32 = 64;
