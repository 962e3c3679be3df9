//! One epoll for all sockets of an event loop. It is a descriptor itself: the loop watches that one, and asks here
//! who is ready when it becomes readable.
//!
//! Level-triggered: what is left unread or unsent is reported again, so that a batch that is broken off loses nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::socket::Socket;

/// See the module.
#[derive(Debug)]
pub struct Poller(OwnedFd);

/// Who an event is for. A number that is used again gets another generation, so that an event for the one who had it
/// before, further back in the same batch, is known as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Where its owner is kept.
    pub index: u32,
    /// The how-manyth owner of that place.
    pub generation: u32,
}

impl Token {
    const fn data(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    #[allow(clippy::cast_possible_truncation)] // each half by itself
    const fn from_data(data: u64) -> Self {
        Self { index: data as u32, generation: (data >> 32) as u32 }
    }
}

/// What to be told of. With neither, a socket is left alone: even of its end nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Bytes, or the end of them, can be read.
    pub read: bool,
    /// Bytes are taken.
    pub write: bool,
}

impl Interest {
    const fn is_none(self) -> bool {
        !self.read && !self.write
    }

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

/// A socket that is ready. One that failed, or was hung up on, is both: reading or writing says what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Whose it is.
    pub token: Token,
    /// Reading will not block.
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
}

impl Poller {
    /// An epoll without sockets.
    ///
    /// # Errors
    ///
    /// The process has no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Says from now on what `socket` is ready for, instead of what was asked for `before`.
    ///
    /// # Errors
    ///
    /// The kernel has no memory for it, or the user no more watches.
    pub fn watch(
        &self,
        socket: &Socket,
        token: Token,
        before: Interest,
        interest: Interest,
    ) -> io::Result<()> {
        let data = EventData::new_u64(token.data());
        match (before.is_none(), interest.is_none()) {
            (true, true) => Ok(()),
            (true, false) => Ok(epoll::add(&self.0, socket, data, interest.flags())?),
            (false, false) => Ok(epoll::modify(&self.0, socket, data, interest.flags())?),
            (false, true) => Ok(epoll::delete(&self.0, socket)?),
        }
    }

    /// Collects a batch of those that are ready now, without waiting; `into` is emptied first.
    ///
    /// # Errors
    ///
    /// None that a caller could do anything about.
    pub fn wait(&self, into: &mut Vec<Ready>) -> io::Result<()> {
        into.clear();
        let mut buffer = [const { MaybeUninit::<Event>::uninit() }; BATCH];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let events = match epoll::wait(&self.0, &mut buffer, Some(&now)) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        into.extend(events.iter().map(|event| {
            let flags = event.flags;
            let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            Ready {
                token: Token::from_data(event.data.u64()),
                readable: failed || flags.contains(EventFlags::IN),
                writable: failed || flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sockets of one batch at most: small enough that the first ones' answers leave while the last ones still wait.
pub const BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const READ: Interest = Interest { read: true, write: false };
    const WRITE: Interest = Interest { read: false, write: true };
    const NOTHING: Interest = Interest { read: false, write: false };
    const TOKEN: Token = Token { index: 7, generation: 3 };

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket::duplicate(ours.as_raw_fd()).unwrap(), theirs)
    }

    fn ready(poller: &Poller) -> Vec<Ready> {
        let mut ready = vec![Ready { token: TOKEN, readable: false, writable: false }];
        poller.wait(&mut ready).unwrap();
        ready
    }

    #[test]
    fn tells_what_was_asked_until_it_is_done() {
        let (socket, mut peer) = pair();
        let poller = Poller::new().unwrap();
        poller.watch(&socket, TOKEN, NOTHING, READ).unwrap();
        assert!(ready(&poller).is_empty());
        peer.write_all(b"x").unwrap();
        let readable = [Ready { token: TOKEN, readable: true, writable: false }];
        assert_eq!(ready(&poller), readable);
        assert_eq!(ready(&poller), readable);
        socket.receive(&mut [0; 1]).unwrap();
        assert!(ready(&poller).is_empty());
        poller.watch(&socket, TOKEN, READ, WRITE).unwrap();
        assert_eq!(ready(&poller), [Ready { token: TOKEN, readable: false, writable: true }]);
    }

    #[test]
    fn of_one_who_wants_nothing_nothing_is_said() {
        let (socket, peer) = pair();
        let poller = Poller::new().unwrap();
        poller.watch(&socket, TOKEN, NOTHING, NOTHING).unwrap();
        poller.watch(&socket, TOKEN, NOTHING, READ).unwrap();
        drop(peer);
        assert_eq!(ready(&poller), [Ready { token: TOKEN, readable: true, writable: true }]);
        poller.watch(&socket, TOKEN, READ, NOTHING).unwrap();
        assert!(ready(&poller).is_empty());
    }

    #[test]
    fn a_closed_socket_is_forgotten() {
        let (socket, mut peer) = pair();
        let poller = Poller::new().unwrap();
        poller.watch(&socket, TOKEN, NOTHING, READ).unwrap();
        peer.write_all(b"x").unwrap();
        drop(socket);
        assert!(ready(&poller).is_empty());
    }
}
