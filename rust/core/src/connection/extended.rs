//! What an extended connection receives and sends beside requests and their answers.

use std::borrow::Cow;

use super::{Connection, Delivery, Event};
use crate::error::Violation;
use crate::extended::{self, Message, MessageKind, Subprotocol};
use crate::frame::Role;
use crate::random::Random;
use crate::wire::Response;

impl<W, R: Random> Connection<W, R> {
    /// A text message's text, or a binary one's bytes.
    pub(super) fn receive_extended<D: Delivery<Waiter = W>>(
        &mut self,
        subprotocol: Subprotocol,
        given: Result<&str, &[u8]>,
        to: &mut D,
    ) -> Result<(), Violation> {
        let mut message = Message::default();
        let decoded = extended::decode(subprotocol, given, to, &mut message);
        if let Err(error) = decoded {
            // Of what is not sound nothing is believed, its message id neither.
            let is_answer = error.is_sound_json() && message.kind == Some(MessageKind::Response);
            let call = if is_answer { self.pending.remove(&message.response.message_id) } else { None };
            if let Some((waiter, _)) = call {
                self.counters.invalid += 1;
                to.deliver(Event::BadAnswer(waiter, error));
            } else if self.role == Role::Client {
                self.counters.invalid += 1;
                to.deliver(Event::Undecodable(error));
            } else if !self.closed {
                return self.refuse_undecodable(error, to);
            }
            return Ok(());
        }
        self.spoken = true;
        self.undecodable = 0;
        let kind = message.kind.unwrap_or(MessageKind::Unknown);
        self.counters.unknown += u64::from(message.has_unknown || kind == MessageKind::Unknown);
        let Message { request, response, reason, .. } = &mut message;
        match kind {
            MessageKind::Response => {
                let task_id = std::mem::take(&mut request.task_id);
                self.receive_part(Response { task_id, ..std::mem::take(response) }, to);
            }
            // Nothing can be answered any more.
            MessageKind::Request if self.closed => self.counters.dropped += 1,
            _ if self.closed => {}
            MessageKind::Request => self.deliver_request(request, to),
            MessageKind::Cancel => to.deliver(Event::Cancel(&request.id)),
            MessageKind::Credit => to.deliver(Event::Credit(&request.id, request.credit.unwrap_or_default())),
            MessageKind::GoAway => to.deliver(Event::GoAway(reason)),
            MessageKind::Unknown => {}
        }
        Ok(())
    }

    /// A response: the last one, or a part before it.
    fn receive_part<D: Delivery<Waiter = W>>(&mut self, response: Response<'_, D::Bytes>, to: &mut D) {
        // Its lifetime may be that of the event now.
        let mut response = response;
        response.success &= response.error.is_empty();
        if response.more {
            let Some((waiter, key)) = self.pending.find(&response.message_id) else {
                self.counters.late += 1;
                return;
            };
            if response.task_id.is_empty() {
                response.task_id = Cow::Owned(key.task_id().to_owned());
            }
            to.deliver(Event::Part(waiter, &mut response));
        } else {
            let Some((waiter, key)) = self.pending.remove(&response.message_id) else {
                self.counters.late += 1;
                return;
            };
            self.count_received(Role::Client, 1);
            if response.task_id.is_empty() {
                response.task_id = Cow::Owned(key.task_id().to_owned());
            }
            to.deliver(Event::Answer(waiter, &mut response));
        }
    }

    /// Tells the peer that nobody waits any more for the answer to the message with this id. Writes nothing when the
    /// connection is closing, or is not extended, as the two below.
    pub fn send_cancel(&mut self, message_id: &str) {
        self.send_note(MessageKind::Cancel, message_id, None, "");
    }

    /// Lets the peer send so many further parts of the answer to the message with this id.
    pub fn send_credit(&mut self, message_id: &str, count: u32) {
        self.send_note(MessageKind::Credit, message_id, Some(count), "");
    }

    /// Asks the peer to send its next messages elsewhere.
    pub fn send_goaway(&mut self, reason: &str) {
        self.send_note(MessageKind::GoAway, "", None, reason);
    }

    fn send_note(&mut self, kind: MessageKind, id: &str, credit: Option<u32>, reason: &str) {
        let Some(subprotocol) = self.subprotocol.filter(|_| !self.closed) else { return };
        let frame = self.output.begin(id.len() + reason.len() + NOTE_FRAME);
        extended::encode_note(subprotocol, kind, id, credit, reason, self.output.payload());
        // Over the limit it is let be: nobody waits for it who could be told.
        let _ = self.finish(&frame);
    }
}

/// What stands around the texts of such a message, about.
const NOTE_FRAME: usize = 32;
