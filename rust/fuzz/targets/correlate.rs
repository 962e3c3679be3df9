//! Calls and their answers are those of a list of calls, whatever is sent, answered, given up and in which order.
//!
//! The input is a script: a byte for what is done, one for whom, one for a time.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use sage_ws_core::error::{Field, Kind};
use sage_ws_core::frame::Role;
use sage_ws_core::{Connection, DecodeError, Delivery, Event, MakeBytes, Request, SendError};
use sage_ws_fuzz::{Sequence, Vectors};

#[derive(Debug, Clone)]
struct Call {
    id: String,
    task_id: String,
    waiter: usize,
    deadline: f64,
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// Who, and the answer's message id and task id.
    Answer(usize, String, String),
    Bad(usize, DecodeError),
    Undecodable(DecodeError),
}

#[derive(Default)]
struct Events(Vec<Got>);

impl MakeBytes for Events {
    type Bytes = Vec<u8>;
    fn make(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Vec<u8>> {
        Vectors.make(length, fill)
    }
}

impl Delivery for Events {
    type Waiter = usize;
    fn deliver(&mut self, event: Event<'_, usize, Vec<u8>>) {
        self.0.push(match event {
            Event::Answer(waiter, response) => {
                Got::Answer(waiter, response.message_id.to_string(), response.task_id.to_string())
            }
            Event::BadAnswer(waiter, error) => Got::Bad(waiter, error),
            Event::Undecodable(error) => Got::Undecodable(error),
            other => panic!("{other:?}"),
        });
    }
}

/// Both of them.
struct Pair {
    connection: Connection<usize, Sequence>,
    /// In the order in which they were sent.
    calls: Vec<Call>,
    sent: usize,
    late: u64,
    closed: bool,
}

impl Pair {
    fn send(&mut self, id: &str, time: u8) {
        let task_id = if time.is_multiple_of(2) { "" } else { "task" };
        let deadline = if time == u8::MAX { f64::INFINITY } else { f64::from(time) };
        let request = Request::<&[u8]> { id: id.into(), task_id: task_id.into(), ..Request::default() };
        let expected = if self.closed {
            Err(SendError::Closing)
        } else if self.calls.iter().any(|call| call.id == id) {
            Err(SendError::DuplicateId)
        } else {
            self.calls.push(Call { id: id.into(), task_id: task_id.into(), waiter: self.sent, deadline });
            Ok(())
        };
        assert_eq!(self.connection.send_message(&request, self.sent, deadline), expected);
        self.sent += 1;
    }

    fn take(&mut self, id: &str) -> Option<Call> {
        let at = self.calls.iter().position(|call| call.id == id)?;
        Some(self.calls.remove(at))
    }

    fn receive(&mut self, text: &str) -> Vec<Got> {
        let mut events = Events::default();
        let mut frame = vec![0x81, u8::try_from(text.len()).expect("a short answer")];
        frame.extend(text.as_bytes());
        self.connection.receive_data(&frame, &mut Vec::new(), &mut events);
        events.0
    }

    fn answer(&mut self, id: &str) {
        let call = self.take(id);
        // A success that answers no message is a server's keepalive.
        self.late += u64::from(call.is_none() && !id.is_empty());
        let expected: Vec<_> =
            call.into_iter().map(|call| Got::Answer(call.waiter, call.id, call.task_id)).collect();
        assert_eq!(self.receive(&format!(r#"{{"success":true,"message_id":"{id}"}}"#)), expected);
    }

    fn answer_badly(&mut self, id: &str) {
        let error = DecodeError::Type(Field::Success, Kind::Number);
        let expected = self.take(id).map_or(Got::Undecodable(error), |call| Got::Bad(call.waiter, error));
        assert_eq!(self.receive(&format!(r#"{{"success":1,"message_id":"{id}"}}"#)), [expected]);
    }

    fn expire(&mut self, now: f64) {
        let due = |call: &Call| call.deadline <= now;
        let expected: Vec<_> = self.calls.iter().filter(|call| due(call)).map(|call| call.waiter).collect();
        self.calls.retain(|call| !due(call));
        assert_eq!(self.connection.expire(now), expected);
    }

    fn compare(&self) {
        let mut waiters: Vec<_> = self.connection.waiters().copied().collect();
        waiters.sort_unstable();
        assert_eq!(waiters, self.calls.iter().map(|call| call.waiter).collect::<Vec<_>>());
        assert_eq!(self.connection.pending(), self.calls.len());
        assert_eq!(self.connection.counters().late, self.late);
        let earliest = self.calls.iter().map(|call| call.deadline).fold(f64::INFINITY, f64::min);
        assert!(self.connection.earliest() <= earliest);
        assert!(!self.calls.is_empty() || self.connection.earliest().is_infinite());
    }
}

fuzz_target!(|script: &[u8]| {
    let mut pair = Pair {
        connection: Connection::new(Role::Client, None, false, Sequence(1)),
        calls: Vec::new(),
        sent: 0,
        late: 0,
        closed: false,
    };
    for step in script.chunks_exact(3) {
        let [what, who, time] = *step else { continue };
        // Ids of which one begins like another, and the empty one.
        let id: Cow<'_, str> = if who == 0 { "".into() } else { "m".repeat(usize::from(who) % 8 + 1).into() };
        match what % 16 {
            0..=6 => pair.send(&id, time),
            7..=9 => pair.answer(&id),
            10 => pair.answer_badly(&id),
            11 | 12 => {
                let expected = pair.take(&id).map(|call| call.waiter);
                assert_eq!(pair.connection.forget(&id), expected);
            }
            13 => pair.expire(f64::from(time)),
            14 if time == 0 => {
                let all: Vec<_> = pair.calls.drain(..).map(|call| call.waiter).collect();
                assert_eq!(pair.connection.abandon(), all);
            }
            15 if time == 0 => {
                assert_eq!(pair.connection.send_close(None, ""), Ok(()));
                pair.closed = true;
            }
            _ => {
                let buffered = pair.connection.buffered();
                assert_eq!(pair.connection.data_to_send().len(), buffered);
            }
        }
        pair.compare();
    }
});
