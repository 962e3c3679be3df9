//! One connected stream socket, owned: closed when it is dropped.

// The one place where a number becomes a descriptor: see `Socket::duplicate`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

/// See the module.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Takes a share in a socket that somebody else owns and may close at any time: the connection goes on.
    ///
    /// # Errors
    ///
    /// The number is no open descriptor, or the process has no more of them.
    pub fn duplicate(number: RawFd) -> io::Result<Self> {
        if number < 0 {
            return Err(Errno::BADF.into());
        }
        // SAFETY: the number is handed to `fcntl` alone, within this call, which says EBADF of one that is not open;
        // nothing is read, written or closed by it, so that whoever owns it keeps it as it is.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        Ok(Self(rustix::io::fcntl_dupfd_cloexec(borrowed, 0)?))
    }

    /// Reads what has come, up to the buffer's size. `None`: nothing has; zero bytes: the peer sends no more.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(Some(length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what the kernel takes now, and says how much that was.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::net::send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells the peer that nothing more will come.
    ///
    /// # Errors
    ///
    /// The connection is lost already.
    pub fn shut_writing(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, Shutdown::Write)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket::duplicate(ours.as_raw_fd()).unwrap(), theirs)
    }

    #[test]
    fn a_duplicate_outlives_the_original() {
        let (socket, mut peer) = pair();
        peer.write_all(b"one").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(socket.receive(&mut buffer).unwrap(), Some(3));
        assert_eq!(socket.receive(&mut buffer).unwrap(), None);
        assert_eq!(socket.send(b"two").unwrap(), 3);
        drop(socket);
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"two");
    }

    #[test]
    fn a_full_socket_takes_a_part_and_then_nothing() {
        let (socket, peer) = pair();
        let bytes = vec![7; 1 << 22];
        let mut sent = 0;
        loop {
            match socket.send(&bytes[sent..]).unwrap() {
                0 => break,
                taken => sent += taken,
            }
        }
        assert!(sent < bytes.len());
        drop(peer);
        assert_eq!(socket.send(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_end_is_told_both_ways() {
        let (socket, mut peer) = pair();
        socket.shut_writing().unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        drop(peer);
        assert_eq!(socket.receive(&mut [0; 1]).unwrap(), Some(0));
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        for number in [-1, 1_000_000] {
            let error = Socket::duplicate(number).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
        }
    }
}
