//! Bytes as fast as they go over connections of one link, with no edge and no clients: what a link alone carries.

mod flow;

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use megaphone_proto::control::{CloseReason, Control, Open};
use megaphone_proto::frame::{ConnectionId, put_frame};
use megaphone_proto::{Event, Link, LinkError};
use mio::{Events, Poll, Token};

use flow::Flow;

use super::Args;
use super::dial::{Up, dial};
use super::outgoing::Outgoing;
use super::peer::address;
use super::stream::Stream;
use crate::bulk::{Direction, PERIOD, Report, Shares, TURN, pattern};
use crate::fleet::Errors;
use crate::generator::Begun;

/// Bytes that are written at a time.
const CHUNK: usize = 256 * 1024;

/// Bytes that are read at a time.
const READ_SIZE: usize = 256 * 1024;

/// The longest wait for something to happen.
const WAIT: Duration = Duration::from_millis(50);

/// How often what came is acknowledged at least.
const TICK: Duration = Duration::from_secs(1);

struct Drive<'a> {
    args: &'a Args,
    up: bool,
    poll: Poll,
    events: Events,
    stream: Stream,
    protocol: Link,
    outgoing: Outgoing,
    flows: BTreeMap<ConnectionId, Flow>,
    /// Those that have credit, in turn.
    ready: VecDeque<ConnectionId>,
    max_content: u32,
    pattern: Vec<u8>,
    buffer: Vec<u8>,
    readable: bool,
    writable: bool,
    tick: Instant,
    errors: Errors,
}

/// Moves bytes, and says how it went. Blocks until it is over. The error is for a person.
pub fn run(args: &Args, direction: Direction) -> Result<Report, String> {
    let mut drive = Drive::dial(args, direction)?;
    drive.load(args.warm_up)?;
    let before = drive.bytes();
    let begun = Begun::now(&args.server_pids)?;
    drive.load(args.time)?;
    let window = begun.end()?;
    let moved: Vec<u64> = drive
        .bytes()
        .into_iter()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect();
    drive.finish()?;
    let bytes: u64 = moved.iter().sum();
    Ok(Report {
        direction,
        connections: args.connections,
        bytes,
        megabytes_per_second: bytes as f64 / 1e6 / window.seconds,
        shares: Shares::of(moved),
        errors: drive.errors,
        window,
    })
}

impl<'a> Drive<'a> {
    fn dial(args: &'a Args, direction: Direction) -> Result<Self, String> {
        let Up {
            mut stream,
            protocol,
            unread,
        } = dial(args)?;
        let poll = Poll::new().map_err(|error| error.to_string())?;
        stream
            .register(poll.registry(), Token(0))
            .map_err(|error| error.to_string())?;
        let mut drive = Self {
            args,
            up: direction == Direction::Up,
            poll,
            events: Events::with_capacity(4),
            outgoing: Outgoing::new(protocol.resume_timeout() > 0),
            flows: BTreeMap::new(),
            ready: VecDeque::new(),
            // As much as a turn of a connection of its own.
            max_content: protocol.max_content_to_send().min(TURN as u32),
            stream,
            protocol,
            pattern: pattern(),
            buffer: vec![0; READ_SIZE],
            readable: true,
            writable: true,
            tick: Instant::now(),
            errors: Errors::new(),
        };
        for number in 0..args.connections {
            drive.open(number);
        }
        drive.take_in(&unread)?;
        Ok(drive)
    }

    fn open(&mut self, number: usize) {
        let id = ConnectionId::new(number as u64 + 1);
        self.outgoing.say(&Control::Open(Open {
            id,
            service: self.args.service.clone(),
            peer: address(number),
            local: address(0),
            tls: None,
        }));
        let word: &[u8] = if self.up { b"u" } else { b"d" };
        put_frame(id, word, self.outgoing.messages());
        if self.up {
            self.ready.push_back(id);
        }
        let flow = Flow::begun(self.protocol.new_conn(), self.up);
        self.flows.insert(id, flow);
    }

    fn bytes(&self) -> Vec<u64> {
        self.flows.values().map(|flow| flow.bytes).collect()
    }

    /// Moves bytes for `time`.
    fn load(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(true)?;
        }
        Ok(())
    }

    /// Ends all. What went up has to be counted by the service, to the byte.
    fn finish(&mut self) -> Result<(), String> {
        let ids: Vec<ConnectionId> = self.flows.keys().copied().collect();
        if self.up {
            ids.iter()
                .for_each(|&id| put_frame(id, &[], self.outgoing.messages()));
            let give_up = Instant::now() + self.args.patience;
            while self.flows.values().any(|flow| !flow.is_counted()) && Instant::now() < give_up {
                self.turn(false)?;
            }
            let lost = self.flows.values().filter(|flow| !flow.is_counted());
            let lost = lost.count() as u64;
            if lost > 0 {
                self.errors.insert("lost".into(), lost);
            }
        }
        self.outgoing.say(&Control::Goaway {
            reason: CloseReason::Shutdown,
            retry_after: None,
            within: None,
        });
        // Its content is of no interest any more, and the node is told by the end of the link at the latest.
        for _ in 0..10 {
            self.turn(false)?;
        }
        Ok(())
    }

    /// Waits until something can be done, and does it; sends content where `content`.
    fn turn(&mut self, content: bool) -> Result<(), String> {
        let more = content && !self.ready.is_empty() || !self.outgoing.is_empty();
        let busy = self.readable || self.writable && more;
        let wait = if busy { Duration::ZERO } else { WAIT };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.to_string()),
            _ => {}
        }
        for event in &self.events {
            self.readable |= event.is_readable();
            self.writable |= event.is_writable();
        }
        if self.tick.elapsed() >= TICK {
            self.tick = Instant::now();
            if let Some(ack) = self.protocol.ack_tick() {
                self.outgoing.say(&ack);
            }
        }
        if self.readable {
            self.read()?;
        }
        if self.writable {
            self.write(content)?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let taken = match self.stream.read(&mut buffer) {
            Ok(0) => Err("the node closed the link".into()),
            Ok(bytes) => self.take_in(&buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(format!("reading from the link failed: {error}")),
        };
        self.buffer = buffer;
        taken
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let text = |error: LinkError| format!("the node broke the protocol: {error}");
        while let Some(event) = self.protocol.next(&mut bytes).map_err(text)? {
            match event {
                Event::Content { id, bytes } => {
                    let Some(flow) = self.flows.get_mut(&id) else {
                        continue;
                    };
                    let right = self.up || flow.is_next(bytes);
                    let grant = flow
                        .take(bytes, self.up)
                        .map_err(|error| error.to_string())?;
                    if let Some(bytes) = grant {
                        self.outgoing.say(&Control::Window { id, bytes });
                    }
                    if !right {
                        *self.errors.entry("damaged".into()).or_default() += 1;
                    }
                }
                Event::Window { id, bytes } => {
                    if let Some(flow) = self.flows.get_mut(&id) {
                        flow.conn
                            .granted(bytes)
                            .map_err(|error| error.to_string())?;
                        if self.up && !std::mem::replace(&mut flow.queued, true) {
                            self.ready.push_back(id);
                        }
                    }
                }
                Event::Ping { word } => self.outgoing.say(&Control::Pong { word }),
                Event::Ack { bytes } => {
                    self.outgoing
                        .acknowledged(bytes)
                        .map_err(|error| error.to_string())?;
                }
                Event::Reset { reason, .. } => {
                    *self.errors.entry(format!("reset: {reason}")).or_default() += 1;
                }
                Event::Goaway { reason, .. } => {
                    return Err(format!("the node says goaway: {reason}"));
                }
                Event::PeerError { code, text } => {
                    return Err(format!(
                        "the node says error {code}: {}",
                        text.escape_debug()
                    ));
                }
                // A service that has counted closes.
                Event::End { .. } | Event::Close { .. } | Event::Pong { .. } | Event::Open(_) => {}
            }
        }
        if let Some(ack) = self.protocol.ack() {
            self.outgoing.say(&ack);
        }
        Ok(())
    }

    fn write(&mut self, content: bool) -> Result<(), String> {
        if !self.outgoing.is_writing() {
            let mut chunk = self.outgoing.take_messages();
            if content {
                self.fill(&mut chunk);
            }
            if chunk.is_empty() {
                return Ok(());
            }
            self.outgoing.begin(chunk.freeze());
        }
        let text = |error| format!("writing to the link failed: {error}");
        self.writable = self.outgoing.write(&mut self.stream).map_err(text)?;
        Ok(())
    }

    /// A frame of each that has credit, in turn.
    fn fill(&mut self, chunk: &mut BytesMut) {
        chunk.reserve(CHUNK + self.max_content as usize);
        while chunk.len() < CHUNK {
            let Some(id) = self.ready.pop_front() else {
                return;
            };
            let Some(flow) = self.flows.get_mut(&id) else {
                continue;
            };
            let bytes = flow.conn.take_credit(self.max_content) as usize;
            if bytes == 0 {
                flow.queued = false;
                continue;
            }
            let from = (flow.bytes % PERIOD) as usize;
            put_frame(id, &self.pattern[from..from + bytes], chunk);
            flow.bytes += bytes as u64;
            self.ready.push_back(id);
        }
    }
}
