//! A plain WebSocket peer on `tungstenite`: JSON lines in are commands, JSON lines out are events (see
//! `../../conftest.py`).
//!
//! One thread reads the commands; the other takes turns between them and the newest connection, whose reads end
//! after [`TURN`] where nothing comes.

use std::{
    error::Error,
    io::{self, BufRead, ErrorKind, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, Receiver, TryRecvError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tungstenite::{
    Message, WebSocket,
    protocol::{
        CloseFrame,
        frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

/// How long a read waits for bytes before the commands have their turn.
const TURN: Duration = Duration::from_millis(2);

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let commands = read_commands();
    let mut peer = Peer::default();
    loop {
        match commands.try_recv() {
            Ok(command) => peer.obey(&command)?,
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) if peer.is_idle() => thread::sleep(TURN),
            Err(TryRecvError::Empty) => {}
        }
        peer.accept()?;
        peer.read()?;
    }
}

fn read_commands() -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let command = serde_json::from_str(&line).expect("a command is one line of JSON");
            if sender.send(command).is_err() {
                return;
            }
        }
    });
    receiver
}

#[derive(Default)]
struct Peer {
    listener: Option<TcpListener>,
    connection: Option<WebSocket<TcpStream>>,
    closed: Option<CloseFrame>,
}

impl Peer {
    fn is_idle(&self) -> bool {
        self.connection.is_none()
    }

    fn obey(&mut self, command: &Value) -> Result<(), Failure> {
        let text = |name: &str| command[name].as_str().unwrap_or_default().to_owned();
        match text("do").as_str() {
            "listen" => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                listener.set_nonblocking(true)?;
                emit("listening", json!({"port": listener.local_addr()?.port()}));
                self.listener = Some(listener);
            }
            "dial" => {
                let url = text("url");
                let address = url.trim_start_matches("ws://").split('/').next().unwrap_or_default();
                let (connection, _) = tungstenite::client(&url, TcpStream::connect(address)?)?;
                self.adopt(connection)?;
            }
            "send" if text("kind") == "binary" => self.send(Message::binary(text("text").into_bytes()))?,
            "send" => self.send(Message::text(text("text")))?,
            "send_parts" => {
                let parts = command["parts"].as_array().ok_or("send_parts needs parts")?;
                for (index, part) in parts.iter().enumerate() {
                    let kind = if index == 0 { Data::Text } else { Data::Continue };
                    let part = part.as_str().ok_or("a part is a string")?.to_owned();
                    let last = index + 1 == parts.len();
                    self.send(Message::Frame(Frame::message(part, OpCode::Data(kind), last)))?;
                    if !last {
                        self.send(Message::Ping("between".into()))?;
                    }
                }
            }
            "ping" => self.send(Message::Ping(text("text").into()))?,
            "close" => {
                let code = u16::try_from(command["code"].as_u64().ok_or("close needs a code")?)?;
                let frame = CloseFrame { code: code.into(), reason: text("reason").into() };
                self.current()?.close(Some(frame))?;
            }
            other => return Err(format!("no such command: {other}").into()),
        }
        Ok(())
    }

    fn current(&mut self) -> Result<&mut WebSocket<TcpStream>, Failure> {
        self.connection.as_mut().ok_or_else(|| "no connection".into())
    }

    fn send(&mut self, message: Message) -> Result<(), Failure> {
        Ok(self.current()?.send(message)?)
    }

    /// Takes the next connection that waits, once the one before has ended.
    fn accept(&mut self) -> Result<(), Failure> {
        let Some(listener) = &self.listener else { return Ok(()) };
        if !self.is_idle() {
            return Ok(());
        }
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                let connection = tungstenite::accept(stream)?;
                self.adopt(connection)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn adopt(&mut self, connection: WebSocket<TcpStream>) -> Result<(), Failure> {
        connection.get_ref().set_read_timeout(Some(TURN))?;
        self.connection = Some(connection);
        self.closed = None;
        emit("opened", json!({}));
        Ok(())
    }

    /// Takes what the connection has, if it has something now.
    fn read(&mut self) -> Result<(), Failure> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        match connection.read() {
            Ok(Message::Text(text)) => emit("message", json!({"kind": "text", "text": text.as_str()})),
            Ok(Message::Binary(bytes)) => {
                emit("message", json!({"kind": "binary", "text": String::from_utf8(bytes.to_vec())?}));
            }
            Ok(Message::Pong(bytes)) => emit("pong", json!({"text": String::from_utf8(bytes.to_vec())?})),
            Ok(Message::Close(frame)) => self.closed = frame,
            Ok(Message::Ping(_) | Message::Frame(_)) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(tungstenite::Error::ConnectionClosed) => {
                self.connection = None;
                let code = self.closed.as_ref().map(|frame| u16::from(frame.code));
                let reason = self.closed.as_ref().map_or("", |frame| frame.reason.as_str());
                emit("closed", json!({"code": code, "reason": reason}));
            }
            Err(error) => {
                self.connection = None;
                emit("error", json!({"text": error.to_string()}));
            }
        }
        Ok(())
    }
}

fn emit(event: &str, mut fields: Value) {
    fields["event"] = event.into();
    let mut out = io::stdout().lock();
    if writeln!(out, "{fields}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1); // nobody listens any more
    }
}
