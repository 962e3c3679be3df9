//! A connection that is open: its socket with both its sides, and what happens when it is ready.

use std::mem;
use std::net::TcpStream;

use rustix::io;

use crate::fault::Fault;
use crate::frame::Role;
use crate::input::{Input, Item, LONG};
use crate::output::Output;
use crate::poll::{Poll, Ready};

/// One end of a connection.
pub(crate) struct Link {
    pub(crate) socket: TcpStream,
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// Bytes that go out together.
    batch: usize,
    /// Its number in the poll.
    token: usize,
    watches_room: bool,
}

/// What all connections of a process share: an idle one has no buffers.
pub(crate) struct Buffers {
    /// Where the kernel puts what came in.
    pub(crate) room: Vec<u8>,
    /// Where what goes out is collected.
    spare: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { room: vec![0; ROOM], spare: Vec::new() }
    }
}

impl Link {
    /// Takes over a socket that the poll knows by `token`.
    pub(crate) fn new(socket: TcpStream, role: Role, token: usize) -> Self {
        let batch = match role {
            Role::Client => 2 * ANSWERS,
            Role::Server => ANSWERS,
        };
        Self { socket, input: Input::new(role), output: Output::default(), batch, token, watches_room: false }
    }

    /// Sends and receives what is ready; `each` is given what came in, and where to append what it answers.
    #[inline]
    pub(crate) fn turn(
        &mut self,
        ready: Ready,
        poll: &Poll,
        buffers: &mut Buffers,
        mut each: impl FnMut(Item<'_>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Self { socket, input, output, batch, .. } = self;
        if ready.writable {
            output.unblock();
        }
        output.borrow(&mut buffers.spare);
        let worked = if ready.readable {
            input.receive(&*socket, &mut buffers.room, &mut |item| {
                each(item, &mut output.bytes)?;
                output.send_batch(&*socket, *batch)
            })
        } else {
            Ok(())
        };
        // What was answered before a fault goes out all the same.
        let sent = self.finish(poll, buffers);
        worked.and(sent)
    }

    /// Sends without having received; `append` is called until it has no more.
    pub(crate) fn begin(
        &mut self,
        poll: &Poll,
        buffers: &mut Buffers,
        mut append: impl FnMut(&mut Vec<u8>) -> bool,
    ) -> Result<(), Fault> {
        self.output.borrow(&mut buffers.spare);
        while append(&mut self.output.bytes) {
            self.output.send_batch(&self.socket, self.batch)?;
        }
        self.finish(poll, buffers)
    }

    fn finish(&mut self, poll: &Poll, buffers: &mut Buffers) -> Result<(), Fault> {
        self.output.send(&self.socket)?;
        self.output.give_back(&mut buffers.spare);
        if self.output.is_blocked() != self.watches_room {
            self.watch_room(poll)?;
        }
        Ok(())
    }

    #[cold]
    fn watch_room(&mut self, poll: &Poll) -> io::Result<()> {
        self.watches_room = !self.watches_room;
        poll.watch_room(&self.socket, self.token, self.watches_room)
    }
}

/// A batch of answers, in bytes. Smaller ones cost system calls, larger ones let the peer wait. The client's batches
/// are larger, because requests are: what one batch of answers sets free goes out as one.
const ANSWERS: usize = 8 * 1024;
/// Received at once, at most.
const ROOM: usize = 256 * 1024;
const _: () = assert!(ROOM > 2 * LONG, "a short frame's beginning and more must fit");

impl Output {
    /// Takes the shared buffer, unless something waits in one of its own.
    fn borrow(&mut self, spare: &mut Vec<u8>) {
        if self.is_empty() {
            mem::swap(&mut self.bytes, spare);
        }
    }

    /// Gives it back, unless something waits in it.
    fn give_back(&mut self, spare: &mut Vec<u8>) {
        if self.is_empty() {
            let bytes = mem::take(&mut self.bytes);
            if bytes.capacity() > spare.capacity() {
                *spare = bytes;
            }
        }
    }
}
