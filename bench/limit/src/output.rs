//! What waits to be sent on one connection.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::fault::Fault;

/// One connection's outgoing side.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Messages are appended here.
    pub(crate) bytes: Vec<u8>,
    sent: usize,
    /// The kernel took no more: nothing is sent until `unblock`.
    blocked: bool,
}

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The socket takes bytes again.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends if a batch of so many bytes is collected, though there is more to work through: the peer works meanwhile.
    pub(crate) fn send_batch(&mut self, socket: impl AsFd, batch: usize) -> Result<(), Fault> {
        if self.bytes.len() < batch { Ok(()) } else { self.send(socket) }
    }

    /// Sends what the kernel takes.
    pub(crate) fn send(&mut self, socket: impl AsFd) -> Result<(), Fault> {
        while self.sent < self.bytes.len() && !self.blocked {
            match send(&socket, &self.bytes[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => self.blocked = true,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_kernel_does_not_take_waits_in_order() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (mut output, mut expected, mut got) = (Output::default(), Vec::new(), Vec::new());
        for number in 0_u32..300 {
            output.bytes.extend_from_slice(&number.to_be_bytes().repeat(1000));
            expected.extend_from_slice(&number.to_be_bytes().repeat(1000));
            output.send_batch(&ours, 8192).unwrap();
            if number % 100 == 99 {
                assert!(output.is_blocked());
                read_all(&mut theirs, &mut got);
                output.unblock();
                output.send(&ours).unwrap();
            }
        }
        while !output.is_empty() {
            read_all(&mut theirs, &mut got);
            output.unblock();
            output.send(&ours).unwrap();
        }
        read_all(&mut theirs, &mut got);
        assert_eq!(got, expected);
    }

    fn read_all(from: &mut UnixStream, to: &mut Vec<u8>) {
        let mut part = vec![0; 100_000];
        while let Ok(length) = from.read(&mut part) {
            to.extend_from_slice(&part[..length]);
        }
    }
}
