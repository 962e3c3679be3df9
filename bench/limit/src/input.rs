//! From a socket's bytes to whole messages. What comes in is worked on where the kernel put it: in a buffer that
//! all connections share. Only the rest of a frame that is not whole stays with its connection.

use std::io::IoSliceMut;
use std::mem;
use std::os::fd::AsFd;

use rustix::io::{Errno, readv};
use rustix::net::{RecvFlags, recv};

use crate::fault::Fault;
use crate::frame::{self, Header, MESSAGE_LIMIT, Role};

/// What a connection hands on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A whole message, in one frame or many.
    Message(&'a str),
    /// To be answered by a pong of the same bytes.
    Ping(&'a [u8]),
}

/// One connection's incoming side.
#[derive(Debug)]
pub(crate) struct Input {
    role: Role,
    /// A frame's beginning is in the first `filled` bytes. The rest is room, initialised once.
    frame: Vec<u8>,
    filled: usize,
    /// Of the frame that begins there; 0 while its header is not whole.
    total: usize,
    /// A message's fragments so far, if `fragmented`.
    message: Vec<u8>,
    fragmented: bool,
}

impl Input {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, frame: Vec::new(), filled: 0, total: 0, message: Vec::new(), fragmented: false }
    }

    /// Receives once and hands on what is whole; `room` must hold `LONG` bytes and more. Nothing there is no error.
    pub(crate) fn receive(
        &mut self,
        socket: impl AsFd,
        room: &mut [u8],
        each: &mut impl FnMut(Item<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.total > LONG {
            return self.receive_long(socket, room, each);
        }
        let kept = mem::take(&mut self.filled);
        room[..kept].copy_from_slice(&self.frame[..kept]);
        let got = match recv(socket, &mut room[kept..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(Fault::Ended),
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        self.work(&mut room[..kept + got], each)
    }

    /// Goes on with a long frame in its own room: its bytes are copied once, by the kernel.
    fn receive_long(
        &mut self,
        socket: impl AsFd,
        room: &mut [u8],
        each: &mut impl FnMut(Item<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let missing = self.total - self.filled;
        let own = &mut self.frame[self.filled..self.total];
        let got = match readv(socket, &mut [IoSliceMut::new(own), IoSliceMut::new(room)]) {
            Ok(0) => return Err(Fault::Ended),
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        if got < missing {
            self.filled += got;
            return Ok(());
        }
        let mut frame = mem::take(&mut self.frame);
        let done = self.whole(&mut frame[..self.total], each);
        self.frame = frame;
        self.filled = 0;
        self.total = 0;
        done?;
        self.work(&mut room[..got - missing], each)
    }

    /// Hands on what is whole in `bytes` and keeps the rest.
    pub(crate) fn work(
        &mut self,
        bytes: &mut [u8],
        each: &mut impl FnMut(Item<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let taken = self.whole(bytes, each)?;
        let rest = &bytes[taken..];
        if !rest.is_empty() {
            let need = rest.len().max(self.total);
            if self.frame.len() < need {
                self.frame.resize(need, 0);
            }
            self.frame[..rest.len()].copy_from_slice(rest);
        }
        self.filled = rest.len();
        Ok(())
    }

    /// Hands on the whole frames; gives how many bytes they were, and sets the `total` of the one after.
    fn whole(
        &mut self,
        bytes: &mut [u8],
        each: &mut impl FnMut(Item<'_>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let mut at = 0;
        self.total = 0;
        while let Some(header) = frame::decode(&bytes[at..], self.role)? {
            let end = at + header.size + header.length;
            if end > bytes.len() {
                self.total = end - at;
                break;
            }
            let payload = &mut bytes[at + header.size..end];
            if let Some(key) = header.key {
                frame::mask(payload, key);
            }
            self.one(header, payload, each)?;
            at = end;
        }
        Ok(at)
    }

    fn one(
        &mut self,
        header: Header,
        payload: &[u8],
        each: &mut impl FnMut(Item<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match header.opcode {
            frame::TEXT | frame::BINARY if self.fragmented => {
                Err(Fault::Broken(1002, "a message begins inside another"))
            }
            frame::TEXT | frame::BINARY if header.fin => each(Item::Message(text(payload)?)),
            frame::TEXT | frame::BINARY => {
                self.message.clear();
                self.message.extend_from_slice(payload);
                self.fragmented = true;
                Ok(())
            }
            frame::CONTINUATION if !self.fragmented => {
                Err(Fault::Broken(1002, "a continuation of no message"))
            }
            frame::CONTINUATION => {
                if self.message.len() + payload.len() > MESSAGE_LIMIT {
                    return Err(Fault::Broken(1009, "a message over the limit"));
                }
                self.message.extend_from_slice(payload);
                if header.fin {
                    self.fragmented = false;
                    each(Item::Message(text(&self.message)?))?;
                }
                Ok(())
            }
            frame::PING => each(Item::Ping(payload)),
            frame::CLOSE => {
                Err(Fault::Closed(payload.first_chunk().map_or(1005, |&code| u16::from_be_bytes(code))))
            }
            _ => Ok(()),
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Fault::Broken(1007, "a message that is not UTF-8"))
}

/// A frame longer than this is collected in its connection's own room.
pub(crate) const LONG: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    const KEY: [u8; 4] = [7, 77, 177, 1];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, first & 0x0f, Some(KEY), payload.len(), |to| to.extend_from_slice(payload));
        bytes[0] = first;
        bytes
    }

    /// Short, medium and long; whole, in fragments with a ping between them, and BINARY.
    fn traffic() -> (Vec<u8>, Vec<String>) {
        let long = "é".repeat(LONG);
        let bytes = [
            frame(0x81, b"short"),
            frame(0x81, &[b'm'; 300]),
            frame(0x01, b"cut in"),
            frame(0x00, b""),
            frame(0x89, b"ping"),
            frame(0x80, b" three"),
            frame(0x81, long.as_bytes()),
            frame(0x8a, b"a pong"),
            frame(0x82, b"binary"),
        ]
        .concat();
        let items = ["short", &"m".repeat(300), "ping: ping", "cut in three", &long, "binary"];
        (bytes, items.map(str::to_owned).to_vec())
    }

    fn said(item: &Item<'_>) -> String {
        match item {
            Item::Message(text) => (*text).to_owned(),
            Item::Ping(bytes) => format!("ping: {}", String::from_utf8_lossy(bytes)),
        }
    }

    fn received(parts: &[&[u8]]) -> Result<Vec<String>, Fault> {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (mut input, mut room, mut items) = (Input::new(Role::Server), vec![0; 4 * LONG], Vec::new());
        for part in parts {
            theirs.write_all(part).unwrap();
            input.receive(&ours, &mut room, &mut |item| {
                items.push(said(&item));
                Ok(())
            })?;
        }
        Ok(items)
    }

    #[test]
    fn cut_at_any_byte_the_same_comes_out() {
        let (bytes, items) = traffic();
        // All cuts near a header, and some in the long payload.
        for cut in (0..bytes.len()).filter(|cut| *cut < 400 || cut % 997 == 0 || bytes.len() - cut < 50) {
            let (before, after) = bytes.split_at(cut);
            let parts = if before.is_empty() { vec![after] } else { vec![before, after] };
            assert_eq!(received(&parts).unwrap(), items, "cut at {cut}");
        }
    }

    #[test]
    fn in_pieces_of_any_size_the_same_comes_out() {
        let (bytes, items) = traffic();
        for size in [1, 2, 3, 5, 7, 64, 1000, 40_000] {
            assert_eq!(received(&bytes.chunks(size).collect::<Vec<_>>()).unwrap(), items, "by {size}");
        }
    }

    #[test]
    fn nothing_there_is_no_end() {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut input = Input::new(Role::Server);
        let mut nothing = |_: Item<'_>| panic!("nothing was sent");
        assert_eq!(input.receive(&ours, &mut [0; 64], &mut nothing), Ok(()));
        drop(theirs);
        assert_eq!(input.receive(&ours, &mut [0; 64], &mut nothing), Err(Fault::Ended));
    }

    #[test]
    fn what_ends_a_connection() {
        assert_eq!(received(&[&frame(0x88, &[3, 232])]), Err(Fault::Closed(1000)));
        assert_eq!(received(&[&frame(0x88, b"")]), Err(Fault::Closed(1005)));
        let broken = |bytes: &[u8]| match received(&[bytes]) {
            Err(Fault::Broken(code, _)) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(broken(&frame(0x81, b"\xff")), 1007);
        assert_eq!(broken(&frame(0x80, b"of nothing")), 1002);
        assert_eq!(broken(&[frame(0x01, b"one"), frame(0x81, b"another")].concat()), 1002);
    }
}
