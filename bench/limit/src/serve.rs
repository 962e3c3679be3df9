//! The server: every message is answered with its own payload.

use std::error::Error;
use std::io::stdin;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use rustix::io::{Errno, read};
use rustix::net::{RecvFlags, recv};

use crate::fault::Fault;
use crate::frame::{self, Role};
use crate::input::Item;
use crate::link::{Buffers, Link};
use crate::message::{Request, answer_about, append_answer, append_refusal};
use crate::opening;
use crate::poll::{Poll, Ready};

/// Serves on a free port, which is printed, until stdin ends.
pub(crate) fn serve(spin: bool) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    rustix::net::listen(&listener, BACKLOG)?;
    let mut server = Server {
        poll: Poll::new()?,
        connections: Vec::new(),
        free: Vec::new(),
        buffers: Buffers::new(),
        echo: Echo::default(),
        spin,
    };
    server.poll.add(&listener, LISTENER)?;
    server.poll.add(stdin(), STDIN).map_err(|errno| format!("stdin must be a pipe: {errno}"))?;
    let ready = serde_json::json!({
        "address": format!("ws://{}/ws", listener.local_addr()?),
        "loop": "epoll",
        "versions": {env!("CARGO_PKG_NAME"): env!("CARGO_PKG_VERSION")},
    });
    println!("{ready}");
    server.run(&listener)
}

struct Server {
    poll: Poll,
    /// By token.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffers: Buffers,
    echo: Echo,
    /// Spin while a connection is open: other peers' servers share the core between rounds.
    spin: bool,
}

struct Connection {
    link: Link,
    /// The client's head so far, while the opening handshake lasts.
    head: Option<Vec<u8>>,
}

impl Server {
    fn run(&mut self, listener: &TcpListener) -> Result<(), Box<dyn Error>> {
        loop {
            self.poll.spin(self.spin && self.free.len() < self.connections.len());
            for index in 0..self.poll.wait(None)? {
                let ready = self.poll.ready(index);
                match ready.token {
                    LISTENER => self.accept(listener)?,
                    STDIN => {
                        if read(stdin(), &mut [0; 4096])? == 0 {
                            return Ok(());
                        }
                    }
                    _ => self.turn(ready),
                }
            }
        }
    }

    fn accept(&mut self, listener: &TcpListener) -> Result<(), Box<dyn Error>> {
        for _ in 0..ACCEPTS {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error.into()),
            };
            self.admit(socket)?;
        }
        Ok(())
    }

    fn admit(&mut self, socket: TcpStream) -> Result<(), Box<dyn Error>> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let token = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.poll.add(&socket, token)?;
        let link = Link::new(socket, Role::Server, token);
        self.connections[token] = Some(Connection { link, head: Some(Vec::new()) });
        Ok(())
    }

    fn turn(&mut self, ready: Ready) {
        let Some(connection) = &mut self.connections[ready.token] else { return };
        let echo = &mut self.echo;
        let turned = if connection.head.is_none() {
            connection.link.turn(ready, &self.poll, &mut self.buffers, |item, to| {
                echo.answer(&item, to);
                Ok(())
            })
        } else {
            connection.open(&self.poll, &mut self.buffers, echo)
        };
        if let Err(fault) = turned {
            connection.say_goodbye(&fault);
            self.connections[ready.token] = None;
            self.free.push(ready.token);
        }
    }
}

impl Connection {
    /// Goes on with the opening handshake; what came after the head are frames.
    #[cold]
    fn open(&mut self, poll: &Poll, buffers: &mut Buffers, echo: &mut Echo) -> Result<(), Fault> {
        let head = self.head.get_or_insert_default();
        let got = match recv(&self.link.socket, &mut buffers.room[..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(Fault::Ended),
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        head.extend_from_slice(&buffers.room[..got]);
        let Some(length) = opening::head_length(head) else {
            return if head.len() > HEAD_LIMIT { Err(Fault::Ended) } else { Ok(()) };
        };
        let mut after = head.split_off(length);
        let answered = opening::answer(head);
        let Link { socket, input, output, .. } = &mut self.link;
        match answered {
            Ok(answer) => output.bytes.extend_from_slice(answer.as_bytes()),
            Err(status) => {
                let refusal = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                output.bytes.extend_from_slice(refusal.as_bytes());
                output.send(&*socket)?;
                return Err(Fault::Ended);
            }
        }
        self.head = None;
        input.work(&mut after, &mut |item| {
            echo.answer(&item, &mut output.bytes);
            Ok(())
        })?;
        self.link.begin(poll, buffers, |_| false)
    }

    /// Sends the close frame that a fault deserves; whether it arrives is the peer's affair.
    #[cold]
    fn say_goodbye(&mut self, fault: &Fault) {
        let output = &mut self.link.output;
        let code = match *fault {
            Fault::Closed(1005) => &[][..],
            Fault::Closed(code) | Fault::Broken(code, _) => &code.to_be_bytes(),
            _ => return,
        };
        frame::append(&mut output.bytes, frame::CLOSE, None, code.len(), |to| to.extend_from_slice(code));
        let _ = output.send(&self.link.socket);
    }
}

/// The handler, with the buffers that a message is decoded into.
#[derive(Default)]
struct Echo {
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Echo {
    #[inline]
    fn answer(&mut self, item: &Item<'_>, to: &mut Vec<u8>) {
        let text = match *item {
            Item::Message(text) => text,
            Item::Ping(bytes) => {
                frame::append(to, frame::PONG, None, bytes.len(), |to| to.extend_from_slice(bytes));
                return;
            }
        };
        let request = match Request::decode(text, &mut self.payload, &mut self.signature) {
            Ok(request) => request,
            Err(malformed) => {
                refuse(to, "", "", malformed.0);
                return;
            }
        };
        let (id, task_id) = (&*request.id, &*request.task_id);
        if id.is_empty() {
            refuse(to, "", "", "message ID is required");
        } else if request.did.is_empty() {
            refuse(to, id, task_id, "DID is required");
        } else if self.payload.is_empty() {
            refuse(to, id, task_id, "payload is required");
        } else {
            let about = answer_about(id, task_id, &self.payload);
            frame::append(to, frame::TEXT, None, about, |to| append_answer(to, id, task_id, &self.payload));
        }
    }
}

#[cold]
fn refuse(to: &mut Vec<u8>, id: &str, task_id: &str, error: &str) {
    frame::append(to, frame::TEXT, None, 256, |to| append_refusal(to, id, task_id, error));
}

const LISTENER: usize = usize::MAX;
const STDIN: usize = usize::MAX - 1;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Connections accepted before the others have their turn.
const ACCEPTS: usize = 64;
const HEAD_LIMIT: usize = 16 * 1024;
