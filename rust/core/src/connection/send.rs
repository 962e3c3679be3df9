//! What a connection sends: values encoded straight into the output, each frame whole or not there at all.

use std::borrow::Cow;

use super::Connection;
use crate::close::CloseCode;
use crate::error::SendError;
use crate::extended::{self, Subprotocol};
use crate::frame::{CONTROL_LIMIT, Opcode, Role};
use crate::output::Unfinished;
use crate::random::{Random, uuid4};
use crate::wire::{self, Request, Response};

impl<W, R: Random> Connection<W, R> {
    /// Queues a request; `waiter` comes back with its answer, or from [`Self::expire`] or [`Self::abandon`].
    ///
    /// # Errors
    ///
    /// The connection is closing, the id is in flight, or the message is over the limit: nothing was queued.
    pub fn send_message<B: AsRef<[u8]>>(
        &mut self,
        request: &Request<'_, B>,
        waiter: W,
        deadline: f64,
    ) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closing);
        }
        if self.pending.contains(&request.id) {
            return Err(SendError::DuplicateId);
        }
        self.write_request(request)?;
        self.pending.insert(&request.id, &request.task_id, waiter, deadline);
        self.count_sent(Role::Client);
        if *self.did != *request.did {
            self.did = (&*request.did).into();
        }
        Ok(())
    }

    /// Queues the answer to the request with these ids, which are filled in where it leaves them empty. Writes
    /// nothing when the connection is closing.
    ///
    /// # Errors
    ///
    /// The response is over the limit, or it is a part and the connection is not extended: nothing was queued.
    pub fn send_response<'a, B: AsRef<[u8]>>(
        &mut self,
        message_id: &'a str,
        task_id: &'a str,
        mut response: Response<'a, B>,
    ) -> Result<(), SendError> {
        if response.more && self.subprotocol.is_none() {
            return Err(SendError::NotExtended);
        }
        if self.closed {
            self.counters.dropped += 1;
            return Ok(());
        }
        if response.message_id.is_empty() {
            response.message_id = Cow::Borrowed(message_id);
        }
        if response.task_id.is_empty() {
            response.task_id = Cow::Borrowed(task_id);
        }
        response.success &= response.error.is_empty();
        if let Some(limit) = self.limit {
            let lower = response.data.as_ref().map_or(0, |data| data.as_ref().len());
            if lower > limit {
                return Err(SendError::ResponseTooBig(self.response_size(&response), limit));
            }
        }
        let frame = self.encode_response(&response);
        self.finish(&frame).map_err(|(size, limit)| SendError::ResponseTooBig(size, limit))?;
        if !response.more {
            self.count_sent(Role::Server);
        }
        Ok(())
    }

    /// Queues a sign of life that a stock SAGE peer counts as one (wire.md): towards a server a request that it
    /// refuses, with the DID of the last message, and nothing before the first; towards a client an answer to
    /// nothing. Writes nothing when the connection is closing, or is extended: no such peer is there.
    pub fn send_keepalive(&mut self) {
        if self.closed || self.subprotocol.is_some() {
            return;
        }
        match self.role {
            Role::Server => {
                self.write_response(&Response::<&[u8]> { success: true, ..Response::default() });
            }
            Role::Client if self.did.is_empty() => {}
            Role::Client => {
                if self.keepalives.len() == KEEPALIVES {
                    self.keepalives.remove(0);
                }
                let id = uuid4(&mut self.random);
                self.keepalives.push(id.as_str().into());
                let did = std::mem::take(&mut self.did);
                let request = Request::<&[u8]> {
                    id: Cow::Borrowed(id.as_str()),
                    did: Cow::Borrowed(&did),
                    ..Request::default()
                };
                // Over the limit it would be of no use either: the peer's limit is its own affair, ours is not met.
                let _ = self.write_request(&request);
                self.did = did;
            }
        }
    }

    /// Queues a text message as it is, or nothing when the connection is closing.
    ///
    /// # Errors
    ///
    /// It is over the limit: nothing was queued.
    pub fn send_text(&mut self, text: &str) -> Result<(), SendError> {
        self.send_raw(Opcode::Text, text.as_bytes())
    }

    /// Queues a binary message as it is, or nothing when the connection is closing.
    ///
    /// # Errors
    ///
    /// It is over the limit: nothing was queued.
    pub fn send_binary(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.send_raw(Opcode::Binary, bytes)
    }

    fn send_raw(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), SendError> {
        match self.limit {
            Some(limit) if payload.len() > limit => Err(SendError::MessageTooBig(payload.len(), limit)),
            _ => {
                if !self.closed {
                    let frame = self.output.begin(payload.len());
                    self.output.payload().extend_from_slice(payload);
                    self.complete(&frame, opcode);
                }
                Ok(())
            }
        }
    }

    /// Queues a ping, or nothing when the connection is closing.
    ///
    /// # Errors
    ///
    /// The payload is over 125 bytes.
    pub fn send_ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > usize::from(CONTROL_LIMIT) {
            return Err(SendError::PingTooLong);
        }
        self.write(Opcode::Ping, payload);
        Ok(())
    }

    /// Queues our close frame, the last frame of all; once: later calls write nothing. Without a code there is no
    /// reason either (§5.5.1).
    ///
    /// # Errors
    ///
    /// The code may not stand in a close frame, or the reason does not fit.
    pub fn send_close(&mut self, code: Option<i64>, reason: &str) -> Result<(), SendError> {
        let parsed = match code {
            None => None,
            Some(number) => {
                let code = u16::try_from(number).ok().and_then(CloseCode::new);
                Some(code.ok_or(SendError::CloseCode(number))?)
            }
        };
        if parsed.is_some() && reason.len() > usize::from(CONTROL_LIMIT) - 2 {
            return Err(SendError::ReasonTooLong);
        }
        self.write_close(parsed, reason);
        Ok(())
    }

    /// Says whether our bytes are stuck: pongs queued meanwhile are counted and bounded.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
        if !blocked {
            self.blocked_pongs = 0;
        }
    }
}

impl<W, R: Random> Connection<W, R> {
    fn write_request<B: AsRef<[u8]>>(&mut self, request: &Request<'_, B>) -> Result<(), SendError> {
        let too_big = |(size, limit)| SendError::MessageTooBig(size, limit);
        if let Some(limit) = self.limit {
            let octets = |bytes: &Option<B>| bytes.as_ref().map_or(0, |bytes| bytes.as_ref().len());
            if octets(&request.payload) + octets(&request.signature) > limit {
                return Err(too_big((self.request_size(request), limit)));
            }
        }
        let frame = match self.subprotocol {
            None => {
                let frame = self.output.begin(request.size_hint());
                wire::encode_request(request, self.output.payload());
                frame
            }
            Some(subprotocol) => {
                let frame = self.output.begin(extended::request_hint(subprotocol, request));
                extended::encode_request(subprotocol, request, self.output.payload());
                frame
            }
        };
        self.finish(&frame).map_err(too_big)
    }

    /// For answers of a few hundred bytes, which the limit does not concern.
    pub(super) fn write_response(&mut self, response: &Response<'_, &[u8]>) {
        if self.closed {
            return;
        }
        let frame = self.encode_response(response);
        self.complete(&frame, self.opcode());
    }

    fn encode_response<B: AsRef<[u8]>>(&mut self, response: &Response<'_, B>) -> Unfinished {
        match self.subprotocol {
            None => {
                let frame = self.output.begin(response.size_hint());
                wire::encode_response(response, self.output.payload());
                frame
            }
            Some(subprotocol) => {
                let frame = self.output.begin(extended::response_hint(subprotocol, response));
                extended::encode_response(subprotocol, response, self.output.payload());
                frame
            }
        }
    }

    #[cold]
    fn request_size<B: AsRef<[u8]>>(&self, request: &Request<'_, B>) -> usize {
        self.subprotocol.map_or_else(|| request.encoded_size(), |one| extended::request_size(one, request))
    }

    #[cold]
    fn response_size<B: AsRef<[u8]>>(&self, response: &Response<'_, B>) -> usize {
        self.subprotocol.map_or_else(|| response.encoded_size(), |one| extended::response_size(one, response))
    }

    /// What messages are sent as.
    const fn opcode(&self) -> Opcode {
        match self.subprotocol {
            Some(Subprotocol::Cbor) => Opcode::Binary,
            _ => Opcode::Text,
        }
    }

    /// Finishes a message, or takes it back where it is over the limit: its size, and the limit.
    pub(super) fn finish(&mut self, frame: &Unfinished) -> Result<(), (usize, usize)> {
        let size = self.output.length(frame);
        match self.limit {
            Some(limit) if size > limit => {
                self.output.cancel(frame);
                Err((size, limit))
            }
            _ => {
                self.complete(frame, self.opcode());
                Ok(())
            }
        }
    }

    /// Finishes a message, compressed where that was negotiated and is worth it.
    fn complete(&mut self, frame: &Unfinished, opcode: Opcode) {
        match &mut self.deflater {
            Some(deflater) if deflater.wants(self.output.length(frame)) => {
                self.output.finish_deflated(frame, opcode, deflater, &mut self.random);
            }
            _ => self.output.finish(frame, opcode, &mut self.random),
        }
    }

    pub(super) fn write(&mut self, opcode: Opcode, payload: &[u8]) {
        if !self.closed {
            self.output.frame(opcode, payload, &mut self.random);
        }
    }

    pub(super) fn write_close(&mut self, code: Option<CloseCode>, reason: &str) {
        let mut payload = Vec::new();
        if let Some(code) = code {
            payload.extend_from_slice(&code.get().to_be_bytes());
            payload.extend_from_slice(reason.as_bytes());
        }
        self.write(Opcode::Close, &payload);
        self.closed = true;
        self.deflater = None;
    }
}

/// Keepalives whose answers are awaited: at one in 20 s, the pings have ended the connection long before.
const KEEPALIVES: usize = 16;
