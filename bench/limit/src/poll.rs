//! epoll, asleep or spinning.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io;

/// The sockets of a process, each known by a number.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
    spins: bool,
}

/// That a socket can be read or has ended, and whether it takes bytes again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(BATCH),
            spins: false,
        })
    }

    /// From now on `wait` comes back at once, or sleeps again.
    pub(crate) fn spin(&mut self, spins: bool) {
        self.spins = spins;
    }

    pub(crate) fn add(&self, socket: impl AsFd, token: usize) -> io::Result<()> {
        epoll::add(&self.epoll, socket, EventData::new_u64(token as u64), EventFlags::IN)
    }

    /// Watches for room to write too, or no longer.
    pub(crate) fn watch_room(&self, socket: impl AsFd, token: usize, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(&self.epoll, socket, EventData::new_u64(token as u64), flags)
    }

    /// How many are ready; none only after `limit`, if there is one.
    #[inline]
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> io::Result<usize> {
        let until = limit.map(|limit| Instant::now() + limit);
        loop {
            let asleep = if self.spins { Some(Duration::ZERO) } else { limit };
            let asleep = asleep.and_then(|asleep| Timespec::try_from(asleep).ok());
            self.events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), asleep.as_ref()) {
                Ok(0) | Err(io::Errno::INTR) if until.is_none_or(|until| Instant::now() < until) => {}
                Ok(count) => return Ok(count),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// One of those that `wait` counted.
    pub(crate) fn ready(&self, index: usize) -> Ready {
        let Event { flags, data } = self.events[index];
        Ready {
            #[allow(clippy::cast_possible_truncation)] // it was a usize
            token: data.u64() as usize,
            readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
            writable: flags.intersects(EventFlags::OUT),
        }
    }
}

/// Sockets that one system call reports.
const BATCH: usize = 256;
