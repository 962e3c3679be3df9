//! The load generator: rounds of traffic against any SAGE server, every answer checked.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write, stdin};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64_simd::STANDARD;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::frame::{self, Role};
use crate::input::Item;
use crate::link::{Buffers, Link};
use crate::message::{Response, Sent};
use crate::opening;
use crate::poll::Poll;
use crate::random::{Id, Random};

/// Drives the rounds that stdin asks for, one a line, and prints what came of each; before that a tick when the clock
/// starts, and when it stops.
pub(crate) fn drive(spin: bool) -> Result<(), Box<dyn Error>> {
    for line in stdin().lines() {
        let Asked { address, wanted } = serde_json::from_str(&line?)?;
        let round = Traffic::open(&address, &wanted.shape, spin)?.round(&wanted)?;
        println!("{}", serde_json::to_string(&round)?);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Asked {
    address: String,
    wanted: Wanted,
}

#[derive(Deserialize)]
struct Wanted {
    shape: Shape,
    seconds: f64,
    messages: Option<u64>,
}

#[derive(Deserialize)]
struct Shape {
    connections: usize,
    in_flight: usize,
    figure: Figure,
    payload: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Figure {
    P50,
    Rate,
}

#[derive(Serialize, Default)]
struct Round {
    messages: u64,
    seconds: f64,
    p50: Option<f64>,
    p99: Option<f64>,
}

/// Connections of one round, and what is under way on them.
struct Traffic {
    poll: Poll,
    links: Vec<Link>,
    in_flight: usize,
    buffers: Buffers,
    sender: Sender,
    data: Vec<u8>,
}

/// Makes the messages, and knows which are unanswered.
struct Sender {
    random: Random,
    payloads: Payloads,
    signature: [u8; 64],
    waiting: HashMap<Id, Waiting, foldhash::fast::RandomState>,
}

/// Who waits for an answer, and which payload it must bring back.
#[derive(Clone, Copy)]
struct Waiting {
    link: usize,
    payload: usize,
}

/// When to stop.
struct Quota {
    open: bool,
    left: Option<u64>,
    answered: u64,
}

impl Traffic {
    fn open(address: &str, shape: &Shape, spin: bool) -> Result<Self, Box<dyn Error>> {
        let mut random = Random::new()?;
        let mut poll = Poll::new()?;
        poll.spin(spin);
        let mut links = Vec::with_capacity(shape.connections);
        for token in 0..shape.connections {
            let socket = dial(address, &mut random)?;
            poll.add(&socket, token)?;
            links.push(Link::new(socket, Role::Client, token));
        }
        let signature = random.array();
        let payloads = Payloads::new(shape.payload, &mut random);
        let sender = Sender { random, payloads, signature, waiting: HashMap::default() };
        let buffers = Buffers::new();
        Ok(Self { poll, links, in_flight: shape.in_flight, buffers, sender, data: Vec::new() })
    }

    fn round(mut self, wanted: &Wanted) -> Result<Round, Box<dyn Error>> {
        let round = match wanted.shape.figure {
            Figure::Rate => self.together(wanted),
            Figure::P50 => self.one_by_one(wanted),
        }?;
        self.close()?;
        Ok(round)
    }

    /// Every loop keeps one message under way, before the clock starts, while it runs and after it stopped. Both are
    /// just after answers, so that what counts is what came between.
    fn together(&mut self, wanted: &Wanted) -> Result<Round, Box<dyn Error>> {
        let loops = self.links.len() * self.in_flight;
        let length = Duration::from_secs_f64(wanted.seconds);
        let mut quota = Quota::new(wanted.messages);
        let begun = Instant::now();
        self.begin(loops, &mut quota)?;
        if wanted.messages.is_some() {
            while !self.sender.waiting.is_empty() {
                self.turn(&mut quota, |_| {})?;
            }
            let seconds = begun.elapsed().as_secs_f64();
            return Ok(Round { messages: quota.answered, seconds, ..Round::default() });
        }
        let begun = self.go_on(begun + length.mul_f64(WARM_UP), loops as u64, &mut quota)?;
        let first = quota.answered;
        println!("{TICK}");
        let ended = self.go_on(begun + length, first + 1, &mut quota)?;
        let messages = quota.answered - first;
        println!("{TICK}");
        quota.open = false;
        while !self.sender.waiting.is_empty() {
            self.turn(&mut quota, |_| {})?;
        }
        Ok(Round { messages, seconds: (ended - begun).as_secs_f64(), ..Round::default() })
    }

    /// Lets the loops go on until then, and until so many are answered; gives the time.
    fn go_on(&mut self, until: Instant, least: u64, quota: &mut Quota) -> Result<Instant, Box<dyn Error>> {
        loop {
            self.turn(quota, |_| {})?;
            let now = Instant::now();
            if now >= until && quota.answered >= least {
                return Ok(now);
            }
        }
    }

    /// One message at a time, each timed from its making to its checked answer.
    fn one_by_one(&mut self, wanted: &Wanted) -> Result<Round, Box<dyn Error>> {
        let length = Duration::from_secs_f64(wanted.seconds);
        if wanted.messages.is_none() {
            let mut quota = Quota::new(None);
            let until = Instant::now() + length.mul_f64(WARM_UP);
            self.begin(1, &mut quota)?;
            while !self.sender.waiting.is_empty() {
                self.turn(&mut quota, |quota| quota.open = Instant::now() < until)?;
            }
            println!("{TICK}");
        }
        let (mut quota, mut took) = (Quota::new(wanted.messages), Vec::new());
        let begun = Instant::now();
        let mut before = begun;
        self.begin(1, &mut quota)?;
        while !self.sender.waiting.is_empty() {
            self.turn(&mut quota, |quota| {
                let after = Instant::now();
                took.push((after - before).as_secs_f64());
                before = after;
                quota.open = after - begun < length;
            })?;
        }
        if wanted.messages.is_none() {
            println!("{TICK}");
        }
        took.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| took.get(took.len() * percent / 100).copied();
        Ok(Round {
            messages: quota.answered,
            seconds: (before - begun).as_secs_f64(),
            p50: at(50),
            p99: at(99),
        })
    }

    /// Waits once; checks the answers that came, tells `answered` of each, and sends what follows on it.
    #[inline]
    fn turn(
        &mut self,
        quota: &mut Quota,
        mut answered: impl FnMut(&mut Quota),
    ) -> Result<(), Box<dyn Error>> {
        let count = self.poll.wait(Some(PATIENCE))?;
        if count == 0 {
            return Err(format!("no answer within {} s", PATIENCE.as_secs()).into());
        }
        for index in 0..count {
            let ready = self.poll.ready(index);
            let Self { links, sender, data, poll, buffers, .. } = self;
            links[ready.token].turn(ready, poll, buffers, |item, to| {
                let text = match item {
                    Item::Message(text) => text,
                    Item::Ping(bytes) => {
                        sender.append_pong(bytes, to);
                        return Ok(());
                    }
                };
                let payload = sender.check(ready.token, text, data)?;
                quota.answered += 1;
                answered(quota);
                if quota.take() {
                    sender.append(ready.token, payload + 1, to);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Sends the first message of each loop.
    fn begin(&mut self, loops: usize, quota: &mut Quota) -> Result<(), Fault> {
        let Self { links, sender, poll, buffers, .. } = self;
        let mut numbers = (0..loops).peekable();
        for (token, link) in links.iter_mut().enumerate() {
            let end = (token + 1) * self.in_flight;
            link.begin(poll, buffers, |to| {
                let Some(number) = numbers.next_if(|&number| number < end && quota.take()) else {
                    return false;
                };
                sender.append(token, number, to);
                true
            })?;
        }
        Ok(())
    }

    /// Says goodbye on every connection, then waits for the server to do so.
    fn close(mut self) -> Result<(), Fault> {
        for link in &mut self.links {
            let key = self.sender.random.array();
            link.begin(&self.poll, &mut self.buffers, |to| {
                frame::append(to, frame::CLOSE, Some(key), 2, |to| {
                    to.extend_from_slice(&1000_u16.to_be_bytes());
                });
                false
            })?;
        }
        for mut link in self.links {
            let _ = link.socket.set_nonblocking(false);
            let _ = link.socket.set_read_timeout(Some(Duration::from_secs(1)));
            while matches!(link.socket.read(&mut self.buffers.room), Ok(1..)) {}
        }
        Ok(())
    }
}

impl Sender {
    /// Appends a fresh message.
    #[inline]
    fn append(&mut self, link: usize, payload: usize, to: &mut Vec<u8>) {
        let payload = payload % PAYLOADS;
        let id = self.random.uuid4();
        let key = self.random.array();
        self.waiting.insert(id, Waiting { link, payload });
        let sent = Sent {
            id: &id,
            context_id: "ctx-7f3c9a52",
            task_id: "task-000042",
            payload: self.payloads.at(payload),
            did: "did:sage:ethereum:0x742d35cc6634c0532925a3b844bc454e4438f44e",
            signature: &self.signature,
            metadata: &[("action", "summarise")],
            role: "agent",
        };
        frame::append(to, frame::TEXT, Some(key), sent.about(), |to| sent.append(to));
    }

    #[cold]
    fn append_pong(&mut self, bytes: &[u8], to: &mut Vec<u8>) {
        let key = self.random.array();
        frame::append(to, frame::PONG, Some(key), bytes.len(), |to| to.extend_from_slice(bytes));
    }

    /// Checks an answer; gives the payload that it brought back.
    #[inline]
    fn check(&mut self, link: usize, text: &str, data: &mut Vec<u8>) -> Result<usize, Fault> {
        let response =
            Response::decode(text, data).map_err(|malformed| Fault::Wrong(malformed.0.to_owned()))?;
        let id = <&Id>::try_from(response.message_id.as_bytes()).ok();
        let waiting = id.and_then(|id| self.waiting.remove(id)).filter(|waiting| waiting.link == link);
        if !response.success {
            return Err(Fault::Wrong(format!("the server answered an error: {}", response.error)));
        }
        let Some(Waiting { payload, .. }) = waiting else {
            return Err(Fault::Wrong("the answer belongs to another message".to_owned()));
        };
        if self.payloads.at(payload) != data.as_slice() {
            return Err(Fault::Wrong("the answer's bytes differ".to_owned()));
        }
        Ok(payload)
    }
}

impl Quota {
    fn new(messages: Option<u64>) -> Self {
        Self { open: true, left: messages, answered: 0 }
    }

    /// Whether one more may be sent.
    #[inline]
    fn take(&mut self) -> bool {
        match &mut self.left {
            _ if !self.open => false,
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// Random payloads of one size: many, so that no answer fits them all.
struct Payloads {
    bytes: Vec<u8>,
    size: usize,
}

impl Payloads {
    fn new(size: usize, random: &mut Random) -> Self {
        let mut bytes = vec![0; (PAYLOADS - 1) * size.min(STRIDE) + size];
        random.fill(&mut bytes);
        Self { bytes, size }
    }

    fn at(&self, index: usize) -> &[u8] {
        let begin = index * self.size.min(STRIDE);
        &self.bytes[begin..begin + self.size]
    }
}

/// Opens a connection, the opening handshake included.
fn dial(address: &str, random: &mut Random) -> Result<TcpStream, Box<dyn Error>> {
    let rest = address.strip_prefix("ws://").ok_or("the address is no ws:// URL")?;
    let (authority, path) = rest.split_at(rest.find('/').ok_or("the address has no path")?);
    let mut socket = TcpStream::connect(authority)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let key = STANDARD.encode_to_string(random.array::<16>());
    socket.write_all(opening::request(authority, path, &key).as_bytes())?;
    let mut head = Vec::new();
    let length = loop {
        if let Some(length) = opening::head_length(&head) {
            break length;
        }
        let mut part = [0; 4096];
        let got = socket.read(&mut part)?;
        if got == 0 {
            return Err("the server ended the opening handshake".into());
        }
        head.extend_from_slice(&part[..got]);
    };
    if length < head.len() {
        return Err("the server spoke before it was asked".into());
    }
    opening::check(&head, &key)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Printed when the clock starts, and when it stops.
const TICK: &str = r#"{"tick": true}"#;
/// Part of a round's time that passes, at the shape's own load, before the clock starts.
const WARM_UP: f64 = 0.1;
/// Without an answer for so long, a round is given up.
const PATIENCE: Duration = Duration::from_secs(30);
const PAYLOADS: usize = 61;
/// From the beginning of a payload to the next one's, at most: larger ones overlap, which saves their memory.
const STRIDE: usize = 1 << 20;
